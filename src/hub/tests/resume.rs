//! Resuming connections, against a naive model of what they should receive.

use super::*;
use crate::{log::ReplayGap, scheduler::QUANTUM};

/// The topics that a client may subscribe to.
const TOPICS: [&str; 4] = ["a:1", "a:2", "b:1", "a:*"];

/// The topics of events: the exact ones of these, and the implicit ones.
const EVENT_TOPICS: [&str; 5] = ["a:1", "a:2", "b:1", "user:ann", "tenant:*"];

#[derive(Debug, Clone)]
enum Step {
    Publish(Vec<usize>),
    /// `back`: number of events before the head at which it resumes.
    Subscribe {
        client: usize,
        topics: Vec<usize>,
        back: Option<u64>,
    },
    Unsubscribe {
        client: usize,
        topics: Vec<usize>,
    },
    /// A backend ends subscriptions. `is_busy`: true if the tenant's quantum is used up.
    Revoke {
        client: usize,
        topics: Vec<usize>,
        is_busy: bool,
    },
    /// Runs one step of the client's catch-up.
    Advance(usize),
    /// The client reads everything queued.
    Read(usize),
}

/// Indexes of topics to subscribe to.
fn topics() -> impl Strategy<Value = Vec<usize>> + Clone {
    prop::collection::vec(0..TOPICS.len(), 0..3)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..2_usize;
    let topics = topics();
    let step = prop_oneof![
        8 => prop::collection::vec(0..5_usize, 1..3).prop_map(Step::Publish),
        4 => (client.clone(), topics.clone(), prop::option::of(0..14_u64))
            .prop_map(|(client, topics, back)| Step::Subscribe { client, topics, back }),
        1 => (client.clone(), topics.clone())
            .prop_map(|(client, topics)| Step::Unsubscribe { client, topics }),
        2 => (client.clone(), topics, any::<bool>())
            .prop_map(|(client, topics, is_busy)| Step::Revoke { client, topics, is_busy }),
        4 => client.clone().prop_map(Step::Advance),
        3 => client.prop_map(Step::Read),
    ];
    prop::collection::vec(step, 1..120)
}

/// A client, and a naive model of what it should have received.
struct Resuming {
    client: HubClient,
    /// For each subscribed topic, the events that it has delivered.
    brought: BTreeMap<&'static str, BTreeSet<u64>>,
    implicit_resumed: bool,
    /// The topics of its token that are resumed with the implicit ones.
    claimed: BTreeSet<&'static str>,
    behind: Option<Behind>,
    expected: Vec<u64>,
    received: Vec<u64>,
    is_closed: bool,
}

/// A resume in progress.
struct Behind {
    from: u64,
    /// The topics that are resumed.
    asked: BTreeSet<&'static str>,
    replay: Vec<u64>,
    confirmed: bool,
    /// Events published since, of any of its topics.
    later: Vec<u64>,
}

impl Resuming {
    /// Connects a client whose token subscribes to the topics with these indexes.
    fn new(fixture: &HubFixture, encoding: EnvelopeEncoding, claim: &[usize]) -> Self {
        let limits = OutboxLimits {
            frames: 6,
            bytes: 1 << 20,
        };
        let client = fixture.connect_speaking(encoding, 0, "acme", "ann", limits);
        let claimed: BTreeSet<_> = claim.iter().map(|topic| TOPICS[*topic]).collect();
        let topics = claimed.iter().map(|text| Topic::parse(text).unwrap());
        client.hub().subscribe_claimed(topics.collect()).unwrap();
        let subscribed = ["user:ann", "tenant:*"].iter().chain(&claimed);
        Self {
            client,
            brought: subscribed.map(|topic| (*topic, BTreeSet::new())).collect(),
            implicit_resumed: false,
            claimed,
            behind: None,
            expected: Vec::new(),
            received: Vec::new(),
            is_closed: false,
        }
    }

    fn read(&mut self) {
        let read = self.client.received().into_iter().map(|(_, offset)| offset);
        self.received.extend(read);
    }

    fn published(&mut self, offset: u64, topics: &[&'static str]) {
        let mut relates = false;
        for (subscribed, brought) in &mut self.brought {
            if topics.iter().any(|topic| covers(subscribed, topic)) {
                brought.insert(offset);
                relates = true;
            }
        }
        if !relates || self.is_closed {
            return;
        }
        match &mut self.behind {
            Some(behind) => behind.later.push(offset),
            None => self.expected.push(offset),
        }
    }

    fn subscribe(&mut self, topics: &[&'static str], from: Option<Position>, log: &Model) {
        let names: Vec<_> = topics.iter().map(|t| Topic::parse(t).unwrap()).collect();
        self.client.hub().member.deliver_all();
        let subscribed = self.client.hub().subscribe(&names, 10, from.map(Ok));
        let mut asked: BTreeSet<_> = topics.iter().copied().collect();
        if from.is_some() && !std::mem::replace(&mut self.implicit_resumed, true) {
            asked.extend(["user:ann", "tenant:*"]);
            asked.append(&mut self.claimed);
        }
        match (subscribed.unwrap(), from) {
            (Some(answer), from) => {
                assert_eq!(answer.position.offset, log.head());
                match (answer.resumed, from) {
                    (None, None) => {}
                    (Some(Err(gap)), Some(from)) => {
                        assert_eq!((gap, from.offset < log.tail), (ReplayGap::Evicted, true));
                    }
                    (Some(Ok(0)), Some(from)) => assert_eq!(from.offset, log.head()),
                    other => panic!("{other:?}"),
                }
            }
            (None, Some(from)) => {
                assert!(from.offset >= log.tail);
                let position = self.client.hub().member.position();
                assert_eq!(position.offset, log.head());
                let relating = log.after(from.offset, &asked);
                let had: BTreeSet<_> = self.brought.values().flatten().copied().collect();
                let replay = relating.iter().map(|(offset, _)| *offset);
                self.behind = Some(Behind {
                    from: from.offset,
                    asked,
                    replay: replay.filter(|offset| !had.contains(offset)).collect(),
                    confirmed: false,
                    later: Vec::new(),
                });
            }
            (None, None) => panic!("there is nothing to catch up with"),
        }
        for topic in topics {
            self.brought.entry(topic).or_default();
        }
    }

    /// Ends the subscriptions to these topics. Events that the client has yet to catch up with are
    /// those of its other topics.
    fn revoke(&mut self, topics: &[&'static str], is_busy: bool, log: &Model) {
        // What is queued already still goes out.
        self.read();
        let is_revoked = |topic: &str| topics.contains(&topic);
        let mut lost: Vec<_> = self.brought.keys().copied().collect();
        lost.retain(|topic| is_revoked(topic));
        let revoked = self.client.hub().revoke(|topic| is_revoked(topic.as_str()));
        self.brought.retain(|topic, _| !is_revoked(topic));
        self.claimed.retain(|topic| !is_revoked(topic));
        let Ok(revoked) = revoked else {
            let behind = self.behind.take().expect("there is a replay");
            assert!(lost.iter().any(|topic| behind.asked.contains(topic)));
            self.is_closed = true;
            return;
        };
        let mut revoked: Vec<_> = revoked.iter().map(Topic::as_str).collect();
        revoked.sort_unstable();
        assert_eq!(revoked, lost);
        if is_busy {
            self.client.hub().charge(QUANTUM);
        }
        self.client.hub().clear_lost();
        if let Some(behind) = &mut self.behind {
            let kept: BTreeSet<_> = self.brought.keys().copied().collect();
            let kept = log.after(0, &kept);
            let kept: BTreeSet<_> = kept.iter().map(|(offset, _)| *offset).collect();
            let received = &self.received;
            behind
                .later
                .retain(|offset| kept.contains(offset) || received.contains(offset));
        } else if !self.client.hub().is_live() {
            self.behind = Some(Behind {
                from: log.head(),
                asked: BTreeSet::new(),
                replay: Vec::new(),
                confirmed: true,
                later: Vec::new(),
            });
        }
    }

    /// Runs one step, unless the resume is over. Nothing is replayed after a refusal.
    fn advance(&mut self, log: &Model) {
        let Some(mut behind) = self.behind.take() else {
            return;
        };
        let progress = self.client.hub().run_step(&mut all());
        match progress {
            SubscribeProgress::More => {}
            SubscribeProgress::Answer(answer) => {
                let result = answer.unwrap().resumed.unwrap();
                assert!(!behind.confirmed);
                behind.confirmed = true;
                if from_is_whole(&behind, log) {
                    assert_eq!(result, Ok(behind.replay.len() as u64));
                    self.expected.extend(&behind.replay);
                    self.note_brought(&behind, log);
                } else {
                    assert_eq!(result, Err(ReplayGap::Evicted));
                }
            }
            SubscribeProgress::Live => {
                assert!(behind.confirmed);
                self.expected.extend(&behind.later);
                return;
            }
            SubscribeProgress::Overtaken => {
                assert!(behind.confirmed && log.tail > behind.from);
                self.expected.extend(&behind.later);
                self.is_closed = true;
                return;
            }
            SubscribeProgress::NoJson(no_json) => panic!("{no_json}"),
        }
        self.behind = Some(behind);
    }

    /// Records for each of the resumed topics the events since: the client has those that were
    /// replayed, and those that another of its subscriptions had brought.
    fn note_brought(&mut self, behind: &Behind, log: &Model) {
        for (topic, brought) in &mut self.brought {
            if behind.asked.contains(topic) {
                let relating = log.after(behind.from, &[*topic].into());
                brought.extend(relating.into_iter().map(|(offset, _)| offset));
            }
        }
    }
}

/// Returns true if a subscription brings the events of a topic.
fn covers(subscribed: &str, topic: &str) -> bool {
    let (kind, _) = topic.split_once(':').unwrap();
    subscribed == topic || subscribed.strip_suffix(":*") == Some(kind)
}

fn from_is_whole(behind: &Behind, log: &Model) -> bool {
    behind.from >= log.tail
}

/// All published events, and the offset after which the log still has them.
#[derive(Default)]
struct Model {
    events: Vec<Vec<&'static str>>,
    tail: u64,
}

impl Model {
    fn head(&self) -> u64 {
        self.events.len() as u64
    }

    fn after(
        &self,
        offset: u64,
        topics: &BTreeSet<&'static str>,
    ) -> Vec<(u64, &Vec<&'static str>)> {
        (1..)
            .zip(&self.events)
            .filter(|(at, event)| {
                let is_asked = |topic: &&str| topics.iter().any(|asked| covers(asked, topic));
                *at > offset && event.iter().any(is_asked)
            })
            .collect()
    }
}

const WINDOW_EVENTS: usize = 10;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn resuming_connections_receive_what_a_naive_model_predicts(
        claims in [topics(), topics()],
        steps in steps(),
    ) {
        play(&claims, steps);
    }
}

#[test]
fn a_topic_that_was_resumed_has_the_events_that_another_one_had_brought() {
    let steps = [
        Step::Publish(vec![0, 2]),
        Step::Subscribe {
            client: 1,
            topics: vec![2],
            back: Some(1),
        },
        Step::Advance(1),
        Step::Advance(1),
        Step::Revoke {
            client: 1,
            topics: vec![3],
            is_busy: false,
        },
        Step::Subscribe {
            client: 1,
            topics: vec![0],
            back: Some(1),
        },
        Step::Publish(vec![0]),
    ];
    play(&[vec![], vec![3]], steps);
}

/// Runs the steps with two clients whose tokens subscribe to these topics.
fn play(claims: &[Vec<usize>; 2], steps: impl IntoIterator<Item = Step>) {
    simulate(async {
        let window = LogWindow {
            events: WINDOW_EVENTS,
            ..WIDE.window
        };
        let fixture = HubFixture::new(1, RegistryLimits { window, ..WIDE });
        let encodings = EnvelopeEncoding::ALL.iter().zip(claims);
        let clients = encodings.map(|(encoding, claim)| Resuming::new(&fixture, *encoding, claim));
        let Ok(mut clients) = <[Resuming; 2]>::try_from(clients.collect::<Vec<_>>()) else {
            panic!("there are two encodings");
        };
        let mut log = Model::default();
        let epoch = clients[0].client.subscribe(&[]).epoch;
        for step in steps {
            take(step, &fixture, &mut clients, &mut log, epoch).await;
        }
        for resuming in &mut clients {
            finish(resuming, &log);
        }
        let tally = fixture.shards[0].tally();
        drop(clients);
        // Events neither written nor dropped here are dropped with the outboxes, which this test
        // does not count.
        assert!(fixture.shards[0].is_empty());
        assert_eq!(tally.subscriptions.get(), 0);
    });
}

async fn take(
    step: Step,
    fixture: &HubFixture,
    clients: &mut [Resuming; 2],
    log: &mut Model,
    epoch: Epoch,
) {
    match step {
        Step::Publish(topics) => {
            let mut names: Vec<_> = topics.iter().map(|topic| EVENT_TOPICS[*topic]).collect();
            names.sort_unstable();
            names.dedup();
            for resuming in &mut *clients {
                // No outbox may overflow: only events from the log may fill one.
                resuming.read();
            }
            fixture.publish("acme", vec![draft("m", &names)]).await;
            log.events.push(names.clone());
            log.tail = log.head().saturating_sub(WINDOW_EVENTS as u64);
            for resuming in clients {
                resuming.published(log.head(), &names);
            }
        }
        Step::Subscribe {
            client,
            topics,
            back,
        } => {
            let resuming = &mut clients[client];
            if resuming.behind.is_none() && !resuming.is_closed {
                let names: Vec<_> = topics.iter().map(|topic| TOPICS[*topic]).collect();
                let from = back.map(|back| Position {
                    epoch,
                    offset: log.head().saturating_sub(back),
                });
                resuming.subscribe(&names, from, log);
            }
        }
        Step::Unsubscribe { client, topics } => {
            let resuming = &mut clients[client];
            if resuming.behind.is_none() {
                let names: Vec<_> = topics.iter().map(|topic| TOPICS[*topic]).collect();
                resuming.client.unsubscribe(&names);
                resuming.brought.retain(|topic, _| !names.contains(topic));
                resuming.claimed.retain(|topic| !names.contains(topic));
            }
        }
        Step::Revoke {
            client,
            topics,
            is_busy,
        } => {
            let resuming = &mut clients[client];
            if !resuming.is_closed {
                let names: Vec<_> = topics.iter().map(|topic| TOPICS[*topic]).collect();
                resuming.revoke(&names, is_busy, log);
            }
        }
        Step::Advance(client) => clients[client].advance(log),
        Step::Read(client) => clients[client].read(),
    }
}

/// Lets the client catch up completely.
fn finish(resuming: &mut Resuming, log: &Model) {
    while resuming.behind.is_some() {
        resuming.read();
        resuming.advance(log);
    }
    resuming.read();
    if resuming.is_closed {
        assert!(resuming.expected.starts_with(&resuming.received));
    } else {
        assert_eq!(resuming.received, resuming.expected);
    }
}
