//! A simple model of the relay's side of order and resume: the log is a list of topic
//! sets, and a connection has a mark (an offset) for each of its topics.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sidewire_protocol::wire;

use super::{ControlMessage, ReceivedEvent, RelayMessage};

/// Topics are numbers; this one stands for the implicit topics.
pub(super) const IMPLICIT: usize = 0;

pub(super) fn topic_name(number: usize) -> String {
    format!("kind:{number}")
}

pub(super) fn topic_number(topic: &str) -> usize {
    topic.strip_prefix("kind:").unwrap().parse().unwrap()
}

/// One tenant's log.
#[derive(Debug, Default)]
pub(super) struct ModelRelay {
    pub(super) epoch: u64,
    /// The topics of each event; the first event has offset 1.
    log: Vec<BTreeSet<usize>>,
    /// The last offset that was evicted from the window.
    evicted: u64,
}

impl ModelRelay {
    pub(super) fn head(&self) -> u64 {
        self.log.len() as u64
    }

    pub(super) fn publish(&mut self, topics: BTreeSet<usize>) {
        self.log.push(topics);
    }

    pub(super) fn evict(&mut self) {
        self.evicted = self.head().min(self.evicted + 3);
    }

    pub(super) fn restart(&mut self) {
        let epoch = self.epoch + 1;
        *self = Self {
            epoch,
            ..Self::default()
        };
    }

    pub(super) fn position_at(&self, offset: u64) -> wire::Position {
        wire::Position {
            epoch: self.epoch.to_string(),
            offset,
        }
    }

    /// The offsets above `above` and up to `up_to` that relate to a topic.
    pub(super) fn offsets_of(&self, topic: usize, above: u64, up_to: u64) -> Vec<u64> {
        let is_about = |offset: &u64| self.topics_of(*offset).contains(&topic);
        (above + 1..=up_to).filter(is_about).collect()
    }

    fn topics_of(&self, offset: u64) -> &BTreeSet<usize> {
        &self.log[usize::try_from(offset).unwrap() - 1]
    }

    fn event_at(&self, offset: u64) -> RelayMessage {
        RelayMessage::Event(ReceivedEvent {
            envelope: Default::default(),
            message_id: String::new(),
            timestamp: 0,
            position: Some(self.position_at(offset)),
        })
    }
}

/// The relay's answer to a Subscribe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum SubscribeVerdict {
    Take,
    Refuse,
    Defer,
}

/// A connection. `taken` is the last offset that its shard took from the inbox.
#[derive(Debug)]
pub(super) struct ModelConnection {
    taken: u64,
    marks: BTreeMap<usize, u64>,
    has_resumed: bool,
    /// Requests waiting for an answer, with the head at their arrival.
    asked: VecDeque<(u64, String, ControlMessage)>,
    /// Frames on their way to the client.
    pub(super) frames: VecDeque<RelayMessage>,
}

impl ModelConnection {
    pub(super) fn open(relay: &ModelRelay) -> Self {
        Self {
            taken: relay.head(),
            marks: BTreeMap::from([(IMPLICIT, relay.head())]),
            has_resumed: false,
            asked: VecDeque::new(),
            frames: VecDeque::new(),
        }
    }

    pub(super) fn receive_request(
        &mut self,
        relay: &ModelRelay,
        message_id: String,
        control: ControlMessage,
    ) {
        self.asked.push_back((relay.head(), message_id, control));
    }

    /// Answers a Ping at once, with the connection's position unless a request is under way.
    pub(super) fn answer_ping(&mut self, relay: &ModelRelay) {
        self.frames.push_back(RelayMessage::Pong(wire::Pong {
            position: self.asked.is_empty().then(|| relay.position_at(self.taken)),
            ..wire::Pong::default()
        }));
    }

    /// Takes the next event from the inbox. Returns false if there is none.
    pub(super) fn take_event(&mut self, relay: &ModelRelay) -> bool {
        if self.taken == relay.head() {
            return false;
        }
        self.taken += 1;
        let topics = relay.topics_of(self.taken);
        if topics.iter().any(|topic| self.marks.contains_key(topic)) {
            self.frames.push_back(relay.event_at(self.taken));
        }
        true
    }

    /// Answers the next request, if it is due. Returns false if it is not.
    pub(super) fn answer_next(&mut self, relay: &ModelRelay, verdict: SubscribeVerdict) -> bool {
        let is_due = |asked: &mut (u64, String, ControlMessage)| asked.0 <= self.taken;
        let Some((_, message_id, control)) = self.asked.pop_front_if(is_due) else {
            return false;
        };
        match (control, verdict) {
            (ControlMessage::Subscribe(it), SubscribeVerdict::Refuse) if !it.topics.is_empty() => {
                self.send_refusal(message_id, "AUTHORIZATION_FAILED", None);
            }
            (_, SubscribeVerdict::Defer) => {
                self.send_refusal(message_id, "RATE_LIMIT_EXCEEDED", Some(1000));
            }
            (ControlMessage::Subscribe(it), _) => self.subscribe(relay, message_id, it),
            (ControlMessage::Unsubscribe(it), _) => self.unsubscribe(message_id, it),
            (other, _) => panic!("{other:?}"),
        }
        true
    }

    /// Ends a subscription, as a backend can, and tells the client if there was one.
    pub(super) fn revoke(&mut self, number: usize) {
        if self.marks.remove(&number).is_some() {
            let confirmed = wire::UnsubscribeConfirmed {
                topics: vec![topic_name(number)],
                ..Default::default()
            };
            self.frames
                .push_back(RelayMessage::UnsubscribeConfirmed(confirmed));
        }
    }

    fn subscribe(
        &mut self,
        relay: &ModelRelay,
        request_message_id: String,
        asked: wire::Subscribe,
    ) {
        let mut topics: BTreeSet<usize> = asked.topics.iter().map(|it| topic_number(it)).collect();
        let resume_from = asked.resume_from.as_ref();
        if resume_from.is_some() && !self.has_resumed {
            self.has_resumed = true;
            topics.insert(IMPLICIT);
        }
        let from = resume_from.and_then(|position| self.resumable_from(relay, position));
        let replayed = from.map_or(Vec::new(), |from| self.replay_offsets(relay, &topics, from));
        for topic in topics {
            let mark = self.marks.entry(topic).or_insert(self.taken);
            *mark = from.map_or(*mark, |from| from.min(*mark));
        }
        let confirmed = wire::SubscriptionConfirmed {
            topics: asked.topics,
            position: Some(relay.position_at(self.taken)),
            recovered: from.is_some(),
            request_message_id,
            replayed: replayed.len() as u64,
        };
        self.frames
            .push_back(RelayMessage::SubscriptionConfirmed(confirmed));
        let events = replayed.into_iter().map(|offset| relay.event_at(offset));
        self.frames.extend(events);
    }

    fn resumable_from(&self, relay: &ModelRelay, position: &wire::Position) -> Option<u64> {
        let is_there = position.epoch == relay.epoch.to_string()
            && position.offset <= self.taken
            && position.offset >= relay.evicted;
        is_there.then_some(position.offset)
    }

    /// The events after `from`, except those already delivered by an existing subscription.
    fn replay_offsets(&self, relay: &ModelRelay, topics: &BTreeSet<usize>, from: u64) -> Vec<u64> {
        let was_brought = |topic: &usize, offset| {
            let mark = self.marks.get(topic);
            mark.is_some_and(|mark| *mark < offset)
        };
        let is_owed = |offset: &u64| {
            let about = relay.topics_of(*offset);
            !about.is_disjoint(topics) && !about.iter().any(|topic| was_brought(topic, *offset))
        };
        (from + 1..=self.taken).filter(is_owed).collect()
    }

    fn unsubscribe(&mut self, request_message_id: String, asked: wire::Unsubscribe) {
        for topic in &asked.topics {
            self.marks.remove(&topic_number(topic));
        }
        let confirmed = wire::UnsubscribeConfirmed {
            topics: asked.topics,
            request_message_id,
        };
        self.frames
            .push_back(RelayMessage::UnsubscribeConfirmed(confirmed));
    }

    fn send_refusal(
        &mut self,
        request_message_id: String,
        code: &str,
        retry_after_ms: Option<u64>,
    ) {
        self.frames
            .push_back(RelayMessage::Error(wire::ErrorResponse {
                error_code: code.to_owned(),
                request_message_id,
                retry_after_ms,
                ..Default::default()
            }));
    }
}
