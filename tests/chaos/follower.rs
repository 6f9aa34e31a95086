//! One client in the chaos test, with a record of the events it was due and those it received.

use std::{sync::Arc, time::Duration};

use sidewire_client::{ClientEvent, ReceivedEvent, RelayClient};
use sidewire_protocol::{
    random::RandomSource,
    wire::{Position, SubscriptionConfirmed},
};
use tokio::{sync::watch, time::timeout};

use crate::ledger::{EVERYBODY, Ledger, Topics, each, name, named, number_in, user_topic};

/// If nothing new arrives for this long, something was lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Of this many disconnections, one on average is a long absence.
const ABSENCES: u64 = 20;

/// State of a client that follows some topics.
pub(crate) struct Follower {
    ledger: Arc<Ledger>,
    random: RandomSource,
    user: u32,
    /// Number of events in the relay's window.
    window: u64,
    projects: Topics,
    /// Every topic that was followed at any time.
    ever: Topics,
    owed: Owed,
    /// Number of the event at each offset; 0 where none was received.
    given: Vec<u32>,
    /// Last offset since the last confirmation.
    last: u64,
    confirmed_at: u64,
    pub(crate) tally: Tally,
}

/// The events that a client must receive.
struct Owed {
    /// For each topic, the offset after which its events are due.
    since: [Option<u64>; Topics::BITS as usize],
    gaps: Vec<Gap>,
    /// All events up to this offset were received.
    complete: u64,
}

/// A gap that the relay reported to the client.
struct Gap {
    topics: Topics,
    since: u64,
    until: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connections: u64,
    pub(crate) given: u64,
    pub(crate) absences: u64,
    pub(crate) gaps: u64,
    pub(crate) dropped_topics: u64,
}

impl Follower {
    /// Creates a client that follows some topics from a position, after which every event is due.
    pub(crate) fn new(
        ledger: Arc<Ledger>,
        user: u32,
        projects: Topics,
        window: u64,
        random: RandomSource,
    ) -> Self {
        let start = ledger.head();
        let mut since = [None; Topics::BITS as usize];
        for topic in each(projects | implicit(user)) {
            since[topic as usize] = Some(start);
        }
        Self {
            random,
            ledger,
            user,
            window,
            projects,
            ever: projects | implicit(user),
            owed: Owed {
                since,
                gaps: Vec::new(),
                complete: start,
            },
            given: Vec::new(),
            last: 0,
            confirmed_at: 0,
            tally: Tally::default(),
        }
    }

    /// Follows until the last event is acknowledged, then until all due events are received.
    pub(crate) async fn follow(
        mut self,
        mut client: RelayClient,
        mut over: watch::Receiver<bool>,
    ) -> Self {
        client.start_from(Position {
            epoch: self.ledger.epoch().to_owned(),
            offset: self.owed.complete,
        });
        client.subscribe(each(self.projects).map(name));
        loop {
            tokio::select! {
                biased;
                changed = over.changed() => break changed.unwrap(),
                event = timeout(PATIENCE, client.next_event()) => {
                    let event = event.unwrap_or_else(|_| panic!("{} gets nothing", self.name()));
                    self.see(&mut client, event.unwrap()).await;
                }
            }
        }
        let rest = timeout(PATIENCE, self.get_the_rest(&mut client)).await;
        if rest.is_err() {
            panic!("{} waits in vain for {:?}", self.name(), self.missing());
        }
        self.assert_given_what_was_published();
        self
    }

    async fn get_the_rest(&mut self, client: &mut RelayClient) {
        while self.missing().is_some() {
            let event = client.next_event().await.unwrap();
            self.see(client, event).await;
        }
    }

    async fn see(&mut self, client: &mut RelayClient, event: ClientEvent) {
        match event {
            ClientEvent::Connected => {
                self.tally.connections += 1;
                self.last = 0;
            }
            ClientEvent::Subscribed(confirmed) => self.subscribed(&confirmed),
            ClientEvent::Event(event) => self.event(&event),
            ClientEvent::Gap {
                since,
                topics,
                implicit,
            } => self.gap(&since, &topics, implicit),
            ClientEvent::Disconnected { .. } => self.disconnected(client).await,
            other => panic!("{}: {other:?}", self.name()),
        }
    }

    fn subscribed(&mut self, confirmed: &SubscriptionConfirmed) {
        let position = confirmed.position.as_ref().unwrap();
        assert_eq!(position.epoch, self.ledger.epoch());
        self.last = 0;
        self.confirmed_at = position.offset;
        for topic in &confirmed.topics {
            self.owed.since[named(topic) as usize].get_or_insert(position.offset);
        }
    }

    fn event(&mut self, event: &ReceivedEvent) {
        let position = event.position.as_ref().unwrap();
        assert_eq!(position.epoch, self.ledger.epoch());
        let (offset, name) = (position.offset, self.name());
        assert!(offset > self.last, "{name}: {offset} after {}", self.last);
        self.last = offset;
        let place = offset as usize;
        if self.given.len() <= place {
            self.given.resize(place + 1, 0);
        }
        assert_eq!(self.given[place], 0, "{name} is given {offset} twice");
        self.given[place] = number_in(&event.message_id);
        self.tally.given += 1;
    }

    /// Some events are lost, so check that they had left the window.
    fn gap(&mut self, since: &Position, topics: &[String], is_implicit: bool) {
        assert_eq!(since.epoch, self.ledger.epoch());
        let (since, posted) = (since.offset, self.ledger.posted());
        assert!(
            posted > since + self.window,
            "{}: nothing after {since} was evicted, with {posted} events in all",
            self.name()
        );
        let topics = topics.iter().fold(0, |all, topic| all | 1 << named(topic));
        self.owed.gaps.push(Gap {
            topics: topics | if is_implicit { implicit(self.user) } else { 0 },
            since,
            until: self.confirmed_at,
        });
        self.tally.gaps += 1;
    }

    /// Some clients stay away until they must miss events; some change their topics.
    async fn disconnected(&mut self, client: &mut RelayClient) {
        match self.random.below(ABSENCES) {
            0 => {
                self.tally.absences += 1;
                let back_at = self.ledger.head() + self.window + 1;
                // This times out if nobody publishes any more.
                let _away = timeout(PATIENCE / 4, self.ledger.reaches(back_at)).await;
            }
            1 => {
                let topic = self.random.below(u64::from(EVERYBODY)) as u32;
                self.projects |= 1 << topic;
                self.ever |= 1 << topic;
                client.subscribe([name(topic)]);
            }
            2 if self.projects.count_ones() > 1 => {
                let topic = each(self.projects).next().unwrap();
                self.tally.dropped_topics += 1;
                self.projects &= !(1 << topic);
                self.owed.since[topic as usize] = None;
                client.unsubscribe([name(topic)]);
            }
            _ => {}
        }
    }

    /// Returns the first offset of a missing event, or of one that was not confirmed.
    fn missing(&mut self) -> Option<u64> {
        let head = self.ledger.head();
        let wanted = |topic| self.owed.since[topic as usize].is_none();
        if each(self.projects).any(wanted) {
            return Some(head + 1);
        }
        while self.owed.complete < head {
            let offset = self.owed.complete + 1;
            let is_given = self.given.get(offset as usize).is_some_and(|it| *it != 0);
            if !is_given && self.owed.is_owed(offset, self.ledger.entry(offset).topics) {
                return Some(offset);
            }
            self.owed.complete = offset;
        }
        None
    }

    fn assert_given_what_was_published(&self) {
        for (offset, number) in self.given.iter().enumerate() {
            if *number != 0 {
                let entry = self.ledger.entry(offset as u64);
                assert_eq!(entry.number, *number, "{} at {offset}", self.name());
                assert!(entry.topics & self.ever != 0, "{}: {offset}", self.name());
            }
        }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.ledger.tenant, name(user_topic(self.user)))
    }
}

impl Owed {
    fn is_owed(&self, offset: u64, topics: Topics) -> bool {
        each(topics).any(|topic| {
            let is_excused = |gap: &Gap| {
                gap.topics >> topic & 1 == 1 && offset > gap.since && offset <= gap.until
            };
            self.since[topic as usize].is_some_and(|since| offset > since)
                && !self.gaps.iter().any(is_excused)
        })
    }
}

/// Topics that a user receives without a subscription.
fn implicit(user: u32) -> Topics {
    1 << EVERYBODY | 1 << user_topic(user)
}
