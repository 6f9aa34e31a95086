//! The record of a simulation as seen from outside of the relay, in one total order: calls and
//! answers of backends, frames sent and received by clients.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    events::{Serial, SimulatedEvent},
    messages::EventPlace,
    record::{ConnectionEnd, ConnectionRecord, FrameContent, FrameRecord},
    topics::TopicBits,
};

/// A point in the total order of the record.
pub(super) type Moment = u64;

/// A point in the order and its simulated time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timestamp {
    pub(super) moment: Moment,
    pub(super) time: Duration,
}

/// A call of a backend.
#[derive(Debug)]
pub(super) struct PostRecord {
    pub(super) tenant: usize,
    pub(super) events: Vec<Serial>,
    /// `?if_last=`
    pub(super) condition: Option<PostCondition>,
    pub(super) sent: Timestamp,
    /// `None` if it was lost or has not arrived yet.
    pub(super) answer: Option<PostAnswer>,
}

/// The last event of a topic as a backend knows it. Offset 0 means none in this epoch, `None`
/// none at all.
#[derive(Debug, Clone, Copy)]
pub(super) struct PostCondition {
    /// The topic's index.
    pub(super) topic: usize,
    pub(super) last: Option<EventPlace>,
}

#[derive(Debug)]
pub(super) struct PostAnswer {
    pub(super) when: Timestamp,
    pub(super) status: u16,
    /// The error code of a refusal.
    pub(super) code: String,
    pub(super) results: Vec<PostResult>,
}

/// The result of one event in an answer.
#[derive(Debug)]
pub(super) struct PostResult {
    pub(super) message_id: String,
    pub(super) place: EventPlace,
    pub(super) topics: TopicBits,
    pub(super) matched: Option<u64>,
    pub(super) is_duplicate: bool,
}

/// A call of a backend that takes rights from a user.
#[derive(Debug)]
pub(super) struct RightsCall {
    pub(super) tenant: usize,
    pub(super) user: usize,
    pub(super) what: RightsChange,
    pub(super) sent: Timestamp,
    /// When it was answered, and the number in the answer. `None` if the answer was lost or has not
    /// arrived yet, or if a shard did not respond.
    pub(super) answer: Option<(Timestamp, u64)>,
}

impl RightsCall {
    /// Returns true if it was answered before this moment.
    pub(super) fn is_done_before(&self, moment: Moment) -> bool {
        self.answer.is_some_and(|(done, _)| done.moment < moment)
    }
}

/// A question of the relay whether a user may subscribe to topics.
#[derive(Debug)]
pub(super) struct QuestionRecord {
    pub(super) tenant: usize,
    pub(super) user: usize,
    pub(super) topics: TopicBits,
    /// When the backend got it and judged it.
    pub(super) asked: Timestamp,
    /// `None` if the backend did not answer in time.
    pub(super) answer: Option<QuestionAnswer>,
}

impl QuestionRecord {
    /// Returns true if this call takes one of the topics from the user, and was sent after the
    /// backend had judged the question.
    pub(super) fn precedes(&self, call: &RightsCall, topics: TopicBits) -> bool {
        (call.tenant, call.user) == (self.tenant, self.user)
            && matches!(call.what, RightsChange::EndSubscriptions(ended) if ended.meets(topics))
            && self.asked.moment < call.sent.moment
    }
}

#[derive(Debug)]
pub(super) struct QuestionAnswer {
    pub(super) when: Timestamp,
    /// Those of the topics that are allowed. `None` if it is no judgement.
    pub(super) allowed: Option<TopicBits>,
    /// Time for which the allowed topics may be remembered.
    pub(super) ttl: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RightsChange {
    /// Ends these subscriptions.
    EndSubscriptions(TopicBits),
    /// Closes all connections. `reconnect`: true if the clients are to come back.
    Disconnect { reconnect: bool },
}

/// A client's belief, by the contract's rule, that it has received all events of these topics
/// after `from`, up to `to`.
#[derive(Debug, Clone)]
pub(super) struct CompletenessClaim {
    pub(super) client: usize,
    pub(super) tenant: usize,
    pub(super) topics: TopicBits,
    pub(super) from: EventPlace,
    pub(super) to: EventPlace,
    pub(super) when: Timestamp,
}

/// A response to a client without a WebSocket.
#[derive(Debug)]
pub(super) struct ResponseRecord {
    pub(super) client: usize,
    pub(super) tenant: usize,
    /// Its topics, the implicit ones included.
    pub(super) topics: TopicBits,
    pub(super) asked: Timestamp,
    pub(super) events: Vec<ReceivedEvent>,
    /// When the client had all of it, or left.
    pub(super) end: Option<Timestamp>,
}

/// An event that such a client has received.
#[derive(Debug)]
pub(super) struct ReceivedEvent {
    pub(super) serial: Serial,
    pub(super) place: EventPlace,
    pub(super) when: Timestamp,
}

/// The record of a simulation.
pub(super) struct History {
    begun: Instant,
    last: Cell<Moment>,
    pub(super) events: RefCell<Vec<SimulatedEvent>>,
    pub(super) posts: RefCell<Vec<PostRecord>>,
    pub(super) rights: RefCell<Vec<RightsCall>>,
    pub(super) questions: RefCell<Vec<QuestionRecord>>,
    pub(super) connections: RefCell<Vec<ConnectionRecord>>,
    pub(super) responses: RefCell<Vec<ResponseRecord>>,
    pub(super) claims: RefCell<Vec<CompletenessClaim>>,
    pub(super) counts: RefCell<BTreeMap<&'static str, u64>>,
    /// The times at which the schema was reloaded.
    pub(super) reloads: RefCell<Vec<Moment>>,
    trace: RefCell<DefaultHasher>,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            last: Cell::new(0),
            events: RefCell::default(),
            posts: RefCell::default(),
            rights: RefCell::default(),
            questions: RefCell::default(),
            connections: RefCell::default(),
            responses: RefCell::default(),
            claims: RefCell::default(),
            counts: RefCell::default(),
            reloads: RefCell::default(),
            // Always uses the same keys, so that equal runs give equal hashes.
            trace: RefCell::new(DefaultHasher::new()),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.last.set(self.last.get() + 1);
        Timestamp {
            moment: self.last.get(),
            time: self.begun.elapsed(),
        }
    }

    /// Records a reload of the schema.
    pub(super) fn record_reload(&self) {
        let moment = self.now().moment;
        self.reloads.borrow_mut().push(moment);
    }

    /// Returns the number of reloads of the schema before `moment`.
    pub(super) fn revision_at(&self, moment: Moment) -> usize {
        let reloads = self.reloads.borrow();
        reloads.iter().filter(|it| **it < moment).count()
    }

    /// Counts a client that connects as its tenant's first on the shard while a call for the
    /// tenant is running.
    pub(super) fn notice_first_connection(&self, tenant: usize, shard: usize) {
        let is_there =
            |it: &ConnectionRecord| it.tenant == tenant && it.shard == shard && it.end.is_none();
        let is_first = !self.connections.borrow().iter().any(is_there);
        if is_first && self.is_posting(tenant) {
            self.count("first connection while published to");
        }
    }

    /// Returns true if a recent call for the tenant is not answered yet.
    pub(super) fn is_posting(&self, tenant: usize) -> bool {
        let is_under_way = |post: &PostRecord| post.tenant == tenant && post.answer.is_none();
        self.posts.borrow().iter().rev().take(30).any(is_under_way)
    }

    pub(super) fn connection(&self, number: usize) -> RefMut<'_, ConnectionRecord> {
        RefMut::map(self.connections.borrow_mut(), |all| &mut all[number])
    }

    /// Adds to the trace, which must be equal in two runs of one seed.
    pub(super) fn trace(&self, what: &impl Hash) {
        let mut trace = self.trace.borrow_mut();
        self.begun.elapsed().hash(&mut *trace);
        what.hash(&mut *trace);
    }

    /// Returns the hash of the trace.
    pub(super) fn trace_hash(&self) -> u64 {
        self.trace.borrow().finish()
    }

    /// Counts an occurrence, for tests that require it.
    pub(super) fn count(&self, what: &'static str) {
        *self.counts.borrow_mut().entry(what).or_default() += 1;
    }

    pub(super) fn record_frame(&self, connection: usize, what: FrameContent) {
        self.trace(&(connection, &what));
        let when = self.now();
        let heard = FrameRecord { when, what };
        self.connection(connection).heard.push(heard);
    }

    pub(super) fn record_end(&self, connection: usize, end: ConnectionEnd) {
        self.trace(&(connection, end));
        let when = self.now();
        self.connection(connection).end = Some((when, end));
    }
}
