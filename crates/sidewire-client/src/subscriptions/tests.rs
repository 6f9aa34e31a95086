//! A client's subscriptions against a model of a relay, over random schedules: no event
//! is lost without a reported gap, and none is returned twice.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashSet},
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;
use crate::{
    RelayMessage,
    relay_model::{
        IMPLICIT, ModelConnection, ModelRelay, SubscribeVerdict, topic_name, topic_number,
    },
};

const TOPICS: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Publish(BTreeSet<usize>),
    Evict,
    Restart,
    Subscribe(BTreeSet<usize>),
    Unsubscribe(usize),
    Revoke(usize),
    Connect,
    Cut,
    Ask,
    Ping,
    Take,
    Answer(SubscribeVerdict),
    Deliver(usize),
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let about = || prop::collection::btree_set(0..=TOPICS, 1..3);
    let topics = || prop::collection::btree_set(1..=TOPICS, 1..3);
    let step = prop_oneof![
        12 => about().prop_map(Step::Publish),
        4 => topics().prop_map(Step::Subscribe),
        2 => (1..=TOPICS).prop_map(Step::Unsubscribe),
        2 => (1..=TOPICS).prop_map(Step::Revoke),
        6 => Just(Step::Connect),
        4 => Just(Step::Cut),
        8 => Just(Step::Ask),
        4 => Just(Step::Ping),
        8 => Just(Step::Take),
        8 => Just(Step::Answer(SubscribeVerdict::Take)),
        2 => Just(Step::Answer(SubscribeVerdict::Refuse)),
        1 => Just(Step::Answer(SubscribeVerdict::Defer)),
        8 => (1_usize..8).prop_map(Step::Deliver),
        1 => Just(Step::Wait),
    ];
    // Restarts are rare, so that most runs resume many times in one epoch.
    let step = prop_oneof![200 => step, 1 => Just(Step::Restart), 2 => Just(Step::Evict)];
    prop::collection::vec(step, 1..300)
}

/// Number of occurrences of each case that the test must cover.
#[derive(Debug, Default)]
struct Counts {
    replayed: Cell<u64>,
    cut_in_replay: Cell<u64>,
    dropped: Cell<u64>,
    gaps: Cell<u64>,
    given_up: Cell<u64>,
    refused: Cell<u64>,
    deferred: Cell<u64>,
    stands: Cell<u64>,
    revoked: Cell<u64>,
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// The position from which a topic's events are due, by its latest subscription.
#[derive(Debug, Clone, Default)]
struct Owed {
    subscription: u64,
    since: Option<wire::Position>,
}

struct World<'a> {
    relay: ModelRelay,
    link: Option<ModelConnection>,
    client: ClientSubscriptions,
    now: Instant,
    names: u64,
    /// For each Subscribe, its topics and the number of each topic's subscription.
    asked: BTreeMap<String, BTreeMap<usize, u64>>,
    owed: BTreeMap<usize, Owed>,
    given: HashSet<(String, u64)>,
    replay_left: u64,
    counts: &'a Counts,
}

impl<'a> World<'a> {
    fn new(counts: &'a Counts, had_offsets_max: usize) -> Self {
        let mut client = ClientSubscriptions::default();
        client.positions.had_offsets_max = had_offsets_max;
        Self {
            relay: ModelRelay::default(),
            link: None,
            client,
            now: Instant::now(),
            names: 0,
            asked: BTreeMap::new(),
            owed: BTreeMap::from([(IMPLICIT, Owed::default())]),
            given: HashSet::new(),
            replay_left: 0,
            counts,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish(topics) => self.relay.publish(topics),
            Step::Evict => self.relay.evict(),
            Step::Restart => {
                self.cut();
                self.relay.restart();
            }
            Step::Subscribe(topics) => self.subscribe(&topics),
            Step::Unsubscribe(number) => {
                self.owed.remove(&number);
                self.client.unsubscribe(&[topic_name(number)]);
            }
            Step::Revoke(number) => drop(self.link.as_mut().map(|link| link.revoke(number))),
            Step::Connect => self.connect(),
            Step::Cut => self.cut(),
            Step::Ask => while self.ask() {},
            Step::Ping => drop(self.link.as_mut().map(|link| link.answer_ping(&self.relay))),
            Step::Take => drop(self.link.as_mut().map(|link| link.take_event(&self.relay))),
            Step::Answer(verdict) => {
                let link = self.link.as_mut();
                link.map(|link| link.answer_next(&self.relay, verdict));
            }
            Step::Deliver(frames) => drop((0..frames).all(|_| self.deliver())),
            Step::Wait => self.now += Duration::from_secs(1),
        }
    }

    fn subscribe(&mut self, topics: &BTreeSet<usize>) {
        for number in topics {
            self.names += 1;
            let subscription = self.names;
            self.owed.entry(*number).or_insert(Owed {
                subscription,
                since: None,
            });
        }
        self.client
            .subscribe(topics.iter().map(|it| topic_name(*it)).collect());
    }

    fn connect(&mut self) {
        if self.link.is_none() {
            self.link = Some(ModelConnection::open(&self.relay));
            self.client.on_connected();
        }
    }

    fn cut(&mut self) {
        if self.link.take().is_some() {
            self.client.on_disconnected();
            self.asked.clear();
            if self.replay_left > 0 {
                count(&self.counts.cut_in_replay);
            }
            self.replay_left = 0;
        }
    }

    fn ask(&mut self) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        let Some((request, control)) = self.client.next_request(self.now) else {
            return false;
        };
        self.names += 1;
        let message_id = self.names.to_string();
        if let ControlMessage::Subscribe(subscribe) = &control {
            let topics = subscribe.topics.iter().map(|topic| topic_number(topic));
            let asked = topics.map(|topic| (topic, self.owed[&topic].subscription));
            self.asked.insert(message_id.clone(), asked.collect());
        }
        self.client.on_sent(message_id.clone(), request);
        link.receive_request(&self.relay, message_id, control);
        true
    }

    fn deliver(&mut self) -> bool {
        let frame = self.link.as_mut().and_then(|link| link.frames.pop_front());
        match frame {
            Some(RelayMessage::Event(event)) => self.event(&event),
            Some(RelayMessage::SubscriptionConfirmed(it)) => self.confirmed(&it),
            Some(RelayMessage::UnsubscribeConfirmed(it)) if it.request_message_id.is_empty() => {
                self.revoked(&it.topics);
            }
            Some(RelayMessage::UnsubscribeConfirmed(it)) => self.client.on_unsubscribed(&it),
            Some(RelayMessage::Pong(pong)) => {
                if pong.position.is_some() {
                    count(&self.counts.stands);
                }
                self.client.on_pong(&pong);
            }
            Some(RelayMessage::Error(error)) => {
                let counts = self.counts;
                let is_passing = error.retry_after_ms.is_some();
                count(if is_passing {
                    &counts.deferred
                } else {
                    &counts.refused
                });
                self.client.on_refused(&error, self.now);
            }
            Some(RelayMessage::Authenticated(_)) => unreachable!("no Authenticate is sent"),
            None => return false,
        }
        true
    }

    fn event(&mut self, event: &ReceivedEvent) {
        self.replay_left = self.replay_left.saturating_sub(1);
        let position = event.position.clone().unwrap();
        if self.client.accept_event(event) {
            let is_new = self.given.insert((position.epoch, position.offset));
            assert!(is_new, "{} is given twice", position.offset);
        } else {
            count(&self.counts.dropped);
        }
        while let Some(gap) = self.client.next_gap() {
            count(&self.counts.given_up);
            self.gap(&gap);
        }
    }

    fn confirmed(&mut self, confirmed: &wire::SubscriptionConfirmed) {
        self.replay_left = confirmed.replayed;
        if confirmed.replayed > 0 {
            count(&self.counts.replayed);
        }
        self.client.on_confirmed(confirmed);
        while let Some(gap) = self.client.next_gap() {
            count(&self.counts.gaps);
            assert!(!confirmed.recovered);
            self.gap(&gap);
        }
        let mut topics = self.asked[&confirmed.request_message_id].clone();
        topics.insert(IMPLICIT, 0);
        for (topic, subscription) in topics {
            if let Some(owed) = self.owed.get_mut(&topic)
                && owed.subscription == subscription
            {
                owed.since
                    .get_or_insert(confirmed.position.clone().unwrap());
            }
        }
    }

    fn revoked(&mut self, topics: &[String]) {
        count(&self.counts.revoked);
        self.client.on_revoked(topics);
        for topic in topics {
            // It stays if it was subscribed again and the relay has not answered that yet.
            if !self.client.topics.contains(topic) {
                self.owed.remove(&topic_number(topic));
            }
        }
    }

    fn gap(&mut self, gap: &EventGap) {
        let topics = gap.topics.iter().map(|topic| topic_number(topic));
        let implicit = gap.implicit.then_some(IMPLICIT);
        let topics: Vec<_> = topics.chain(implicit).collect();
        assert!(!topics.is_empty(), "a gap of nothing");
        for topic in topics {
            let owed = self.owed.get_mut(&topic).unwrap();
            let since = owed.since.take().unwrap();
            assert_eq!(since.epoch, gap.since.epoch);
            if gap.since.epoch == self.relay.epoch.to_string() {
                self.has_all(topic, since.offset, gap.since.offset);
            }
        }
    }

    fn has_all(&self, topic: usize, above: u64, up_to: u64) {
        for offset in self.relay.offsets_of(topic, above, up_to) {
            let event = (self.relay.epoch.to_string(), offset);
            assert!(self.given.contains(&event), "{offset} of {topic} is lost");
        }
    }

    /// Ends with an undisturbed connection, after which every due event must have arrived.
    fn finish(&mut self) {
        self.cut();
        self.connect();
        while self.ask() || self.work() || self.deliver() {}
        for (topic, owed) in &self.owed {
            let since = owed.since.clone().expect("every topic was confirmed");
            assert_eq!(since.epoch, self.relay.epoch.to_string());
            self.has_all(*topic, since.offset, self.relay.head());
        }
        assert_eq!(self.client.positions.remembered_offsets(), 0);
    }

    fn work(&mut self) -> bool {
        let link = self.link.as_mut().unwrap();
        link.take_event(&self.relay) || link.answer_next(&self.relay, SubscribeVerdict::Take)
    }
}

#[test]
fn no_event_is_lost_silently_or_returned_twice() {
    let counts = Counts::default();
    let config = Config {
        cases: 10_000,
        failure_persistence: None,
        ..Config::default()
    };
    let schedules = (steps(), prop_oneof![Just(1), Just(1000)]);
    let run = TestRunner::new(config).run(&schedules, |(steps, had_offsets_max)| {
        let mut world = World::new(&counts, had_offsets_max);
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
        Ok(())
    });
    if let Err(failure) = run {
        panic!("{failure}");
    }
    let Counts {
        replayed,
        cut_in_replay,
        dropped,
        gaps,
        given_up,
        refused,
        deferred,
        stands,
        revoked,
    } = &counts;
    let all = [
        replayed,
        cut_in_replay,
        dropped,
        gaps,
        given_up,
        refused,
        deferred,
        stands,
        revoked,
    ];
    assert!(all.iter().all(|it| it.get() >= 10), "{counts:?}");
}

/// A schedule that the test above once found.
#[test]
fn topics_that_are_unsubscribed_before_the_answer_have_no_gap() {
    let answered = [
        Step::Ask,
        Step::Answer(SubscribeVerdict::Take),
        Step::Deliver(1),
    ];
    let refused = [
        Step::Ask,
        Step::Answer(SubscribeVerdict::Refuse),
        Step::Deliver(1),
    ];
    let again = [Step::Restart, Step::Connect];
    let unsubscribed = [
        Step::Ask,
        Step::Unsubscribe(4),
        Step::Answer(SubscribeVerdict::Take),
        Step::Deliver(1),
    ];
    let steps = [
        &[Step::Subscribe(BTreeSet::from([4])), Step::Connect][..],
        &answered,
        &[Step::Publish(BTreeSet::from([IMPLICIT]))],
        &again,
        &refused,
        &answered,
        &again,
        &answered,
        &unsubscribed,
    ];
    let counts = Counts::default();
    let mut world = World::new(&counts, 1);
    let steps = steps.concat().into_iter();
    steps.for_each(|step| world.step(step));
    world.finish();
}
