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
    client_messages::{WirePresence, WireTyping},
    events::{Serial, SimulatedEvent},
    messages::{EventPlace, WireTopics},
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

/// An admitted connection of a client.
#[derive(Debug)]
pub(super) struct ConnectionRecord {
    pub(super) client: usize,
    pub(super) tenant: usize,
    pub(super) user: usize,
    pub(super) speaks_json: bool,
    pub(super) shard: usize,
    /// When the handshake was sent, and when its answer was received.
    pub(super) asked: Timestamp,
    pub(super) opened: Timestamp,
    /// When its token expires.
    pub(super) token_end: Duration,
    /// The topics that its token subscribes to, if it says so.
    pub(super) claim: Option<TopicBits>,
    pub(super) sent: Vec<SentRequest>,
    pub(super) heard: Vec<FrameRecord>,
    /// The times at which it sent anything.
    pub(super) signs: Vec<Duration>,
    /// True if the network has held up data.
    pub(super) is_held: bool,
    /// True if the network has broken the connection.
    pub(super) is_cut: bool,
    pub(super) end: Option<(Timestamp, ConnectionEnd)>,
}

impl ConnectionRecord {
    /// Returns the longest time without anything sent on it, up to `until`.
    pub(super) fn longest_silence(&self, until: Duration) -> Duration {
        let mut last = self.asked.time;
        let mut longest = Duration::ZERO;
        for sign in self.signs.iter().filter(|it| **it <= until).chain([&until]) {
            longest = longest.max(sign.saturating_sub(last));
            last = *sign;
        }
        longest
    }

    /// Returns the topics to which it was certainly subscribed when the relay took the request
    /// with this index: their Subscribe was confirmed before the request was sent, and no
    /// Unsubscribe was sent in between.
    pub(super) fn subscribed_when_sent(&self, index: usize) -> TopicBits {
        let sent = self.sent[index].sent.moment;
        let heard = self.heard.iter().filter(|it| it.when.moment < sent);
        let confirmed = heard.filter_map(|it| match &it.what {
            FrameContent::Subscribed(said) => Some(said.0.request.as_str()),
            _ => None,
        });
        let confirmed: Vec<_> = confirmed.collect();
        let before = self.sent[..index].iter();
        let claim = self.claim.unwrap_or_default();
        before.fold(claim, |held, request| match &request.what {
            RequestKind::Subscribe(asked) if confirmed.contains(&request.id.as_str()) => {
                held | asked.all()
            }
            RequestKind::Unsubscribe(asked) => held.less(asked.all()),
            _ => held,
        })
    }

    /// Returns all topics that it may have had at any time.
    pub(super) fn possible_topics(&self) -> TopicBits {
        let asked = self.sent.iter().filter_map(|request| match &request.what {
            RequestKind::Subscribe(topics) if topics.may_be_asked_for() => Some(topics.all()),
            _ => None,
        });
        let implicit = TopicBits::implicit(self.user) | self.claim.unwrap_or_default();
        asked.fold(implicit, |all, topics| all | topics)
    }
}

/// A request of a client.
#[derive(Debug, Clone)]
pub(super) struct SentRequest {
    pub(super) id: String,
    /// Taken before its first byte was sent.
    pub(super) sent: Timestamp,
    pub(super) what: RequestKind,
}

#[derive(Debug, Clone)]
pub(super) enum RequestKind {
    /// The field `position` is `resume_from`.
    Subscribe(WireTopics),
    Unsubscribe(WireTopics),
    Ping(i64),
    /// An event, which a client may not send.
    Event,
    Typing(WireTyping),
    Presence(WirePresence),
}

impl RequestKind {
    /// Returns true if it is answered at once, even while other requests wait for a replay.
    pub(super) fn is_answered_at_once(&self) -> bool {
        matches!(self, Self::Ping(_) | Self::Event) || self.is_client_event()
    }

    /// Returns true if others may receive something because of it.
    pub(super) fn changes_views(&self) -> bool {
        self.is_client_event() || matches!(self, Self::Unsubscribe(_))
    }

    /// Returns the number of topics that it subscribes to or unsubscribes from.
    pub(super) fn topic_count(&self) -> usize {
        match self {
            Self::Subscribe(asked) if !asked.may_be_asked_for() => 0,
            Self::Subscribe(asked) | Self::Unsubscribe(asked) => asked.all().indices().count(),
            _ => 0,
        }
    }

    /// Returns true if it is an event to other clients, which is not answered if it is taken.
    pub(super) fn is_client_event(&self) -> bool {
        matches!(self, Self::Typing(_) | Self::Presence(_))
    }
}

#[derive(Debug)]
pub(super) struct FrameRecord {
    pub(super) when: Timestamp,
    pub(super) what: FrameContent,
}

/// The scarce resource named by a RATE_LIMIT_EXCEEDED answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ScarceResource {
    /// A rate limit is exceeded.
    Rate,
    /// Too many requests wait for a replay.
    Waiting,
    /// There is no memory for more subscriptions or presence.
    Memory,
    /// A bound of presence is reached.
    Presence,
}

/// The content of a frame from the relay.
#[derive(Debug, Hash)]
pub(super) enum FrameContent {
    Event {
        serial: Serial,
        tenant: usize,
        place: EventPlace,
        /// For JSON, the first and the last revision of the schemas under which the posted event
        /// is rendered like this.
        shown_by: Option<(usize, usize)>,
    },
    /// What the token subscribes to.
    Claimed(Confirmation),
    Typing {
        id: String,
        typing: WireTyping,
    },
    Presence {
        id: String,
        presence: WirePresence,
    },
    Subscribed(Confirmation),
    Unsubscribed(Confirmation),
    Pong {
        timestamp: i64,
        /// The position of the connection.
        place: Option<EventPlace>,
    },
    Refused {
        code: String,
        request: String,
        /// The scarce resource, if that is the reason.
        scarce: Option<ScarceResource>,
    },
    Close {
        code: u16,
        reason: String,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Confirmation(pub(super) WireTopics);

impl Hash for Confirmation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        prost::Message::encode_to_vec(&self.0).hash(state);
    }
}

/// The way in which a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ConnectionEnd {
    /// The client started the closing handshake after it had received everything.
    Done,
    /// The client aborted the connection or disappeared.
    Left,
    /// The relay sent a Close frame.
    Closed,
    /// The stream ended.
    Ended { is_torn: bool },
    /// The stream was reset.
    Reset { is_torn: bool },
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

/// The record of a simulation.
pub(super) struct History {
    begun: Instant,
    last: Cell<Moment>,
    pub(super) events: RefCell<Vec<SimulatedEvent>>,
    pub(super) posts: RefCell<Vec<PostRecord>>,
    pub(super) connections: RefCell<Vec<ConnectionRecord>>,
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
            connections: RefCell::default(),
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
