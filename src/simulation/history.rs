//! All that happened in a simulation, as those outside of the relay saw it, in one
//! order: what was posted and answered, what each client sent and heard.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    events::{Event, Serial},
    messages::{Place, Topics},
    topics::TopicSet,
};

/// When something happened: before all that has a higher number.
pub(super) type Moment = u64;

/// When, and at what time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct When {
    pub(super) moment: Moment,
    pub(super) time: Duration,
}

/// A call of a backend.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) tenant: usize,
    pub(super) events: Vec<Serial>,
    /// `?if_last=`
    pub(super) condition: Option<Condition>,
    pub(super) sent: When,
    /// `None` where it was lost, or has not come.
    pub(super) answer: Option<Answer>,
}

/// What a backend believes to be the last event of a topic: nothing in this epoch at
/// offset 0, nothing at all at no place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Condition {
    /// The topic's index.
    pub(super) topic: usize,
    pub(super) last: Option<Place>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) when: When,
    pub(super) status: u16,
    /// Of a refusal.
    pub(super) code: String,
    pub(super) results: Vec<Placed>,
}

/// What an answer says of an event.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) message_id: String,
    pub(super) place: Place,
    pub(super) topics: TopicSet,
    pub(super) matched: Option<u64>,
    pub(super) is_duplicate: bool,
}

/// A connection of a client that was let in.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: usize,
    pub(super) tenant: usize,
    pub(super) user: usize,
    pub(super) speaks_json: bool,
    pub(super) shard: usize,
    /// When the handshake was sent, and when its answer was read.
    pub(super) asked: When,
    pub(super) opened: When,
    /// When its token ends.
    pub(super) token_end: Duration,
    pub(super) sent: Vec<Request>,
    pub(super) heard: Vec<Heard>,
    /// When it has sent anything at all.
    pub(super) signs: Vec<Duration>,
    /// The network has held up what was sent.
    pub(super) is_held: bool,
    /// The network has broken it off.
    pub(super) is_cut: bool,
    pub(super) end: Option<(When, End)>,
}

impl Connection {
    /// For how long nothing was sent on it, at the most, up to then.
    pub(super) fn longest_silence(&self, until: Duration) -> Duration {
        let mut last = self.asked.time;
        let mut longest = Duration::ZERO;
        for sign in self.signs.iter().filter(|it| **it <= until).chain([&until]) {
            longest = longest.max(sign.saturating_sub(last));
            last = *sign;
        }
        longest
    }

    /// All topics that it can ever have had.
    pub(super) fn may_have_had(&self) -> TopicSet {
        let asked = self.sent.iter().filter_map(|request| match &request.what {
            Asked::Subscribe(topics) if topics.may_be_asked_for() => Some(topics.all()),
            _ => None,
        });
        asked.fold(TopicSet::implicit(self.user), |all, topics| all | topics)
    }
}

/// What a client asked for.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) id: String,
    /// Before its first byte was sent.
    pub(super) sent: When,
    pub(super) what: Asked,
}

#[derive(Debug, Clone)]
pub(super) enum Asked {
    /// Field `position` is `resume_from`.
    Subscribe(Topics),
    Unsubscribe(Topics),
    Ping(i64),
    /// An event, which a client may not send.
    Event,
}

impl Asked {
    /// Whether it is answered at once, whatever waits for a replay.
    pub(super) fn is_answered_at_once(&self) -> bool {
        matches!(self, Self::Ping(_) | Self::Event)
    }
}

#[derive(Debug)]
pub(super) struct Heard {
    pub(super) when: When,
    pub(super) what: Said,
}

/// What there is too little of, by an answer of RATE_LIMIT_EXCEEDED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scarce {
    /// More was asked in a time than may be.
    Rate,
    /// More requests wait for a replay than may.
    Waiting,
    /// There is no memory for more subscriptions.
    Memory,
}

/// What a frame from the relay says.
#[derive(Debug, Hash)]
pub(super) enum Said {
    Event {
        serial: Serial,
        tenant: usize,
        place: Place,
        /// What it holds is the event that was posted, shown as JSON by the schema of
        /// one of these revisions, from the first one to the last one.
        shown_by: Option<(usize, usize)>,
    },
    Subscribed(Confirmation),
    Unsubscribed(Confirmation),
    Pong {
        timestamp: i64,
        /// Where the connection stands.
        place: Option<Place>,
    },
    Refused {
        code: String,
        request: String,
        /// What there was too little of, where that is why.
        scarce: Option<Scarce>,
    },
    Close {
        code: u16,
        reason: String,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Confirmation(pub(super) Topics);

impl Hash for Confirmation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        prost::Message::encode_to_vec(&self.0).hash(state);
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum End {
    /// By the closing handshake, which the client began, with all that it had
    /// wanted.
    Done,
    /// The client has broken it off or gone away.
    Left,
    /// By the relay, behind a Close frame.
    Closed,
    /// The stream ended.
    Ended { is_torn: bool },
    /// The stream was reset.
    Reset { is_torn: bool },
}

/// What a client believes by the contract's rule: it has all events of these topics
/// from one place to another.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) client: usize,
    pub(super) tenant: usize,
    pub(super) topics: TopicSet,
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) when: When,
}

/// The record.
pub(super) struct History {
    begun: Instant,
    last: Cell<Moment>,
    pub(super) events: RefCell<Vec<Event>>,
    pub(super) posts: RefCell<Vec<Post>>,
    pub(super) connections: RefCell<Vec<Connection>>,
    pub(super) claims: RefCell<Vec<Claim>>,
    pub(super) counts: RefCell<BTreeMap<&'static str, u64>>,
    /// When the schema was reloaded.
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
            // Its keys are always the same.
            trace: RefCell::new(DefaultHasher::new()),
        }
    }

    pub(super) fn now(&self) -> When {
        self.last.set(self.last.get() + 1);
        When {
            moment: self.last.get(),
            time: self.begun.elapsed(),
        }
    }

    /// Notes that another schema serves from here on.
    pub(super) fn reloaded(&self) {
        let moment = self.now().moment;
        self.reloads.borrow_mut().push(moment);
    }

    /// How often the schema had been reloaded by then.
    pub(super) fn revision_at(&self, moment: Moment) -> usize {
        let reloads = self.reloads.borrow();
        reloads.iter().filter(|it| **it < moment).count()
    }

    /// Notes it when a client comes that may be its tenant's first on the shard while
    /// something is posted to the tenant.
    pub(super) fn notice_first_connection(&self, tenant: usize, shard: usize) {
        let is_there =
            |it: &Connection| it.tenant == tenant && it.shard == shard && it.end.is_none();
        let is_first = !self.connections.borrow().iter().any(is_there);
        if is_first && self.is_posting(tenant) {
            self.count("first connection while published to");
        }
    }

    /// Whether a call for the tenant is not answered.
    pub(super) fn is_posting(&self, tenant: usize) -> bool {
        let is_under_way = |post: &Post| post.tenant == tenant && post.answer.is_none();
        self.posts.borrow().iter().rev().take(30).any(is_under_way)
    }

    pub(super) fn connection(&self, number: usize) -> RefMut<'_, Connection> {
        RefMut::map(self.connections.borrow_mut(), |all| &mut all[number])
    }

    /// Something that two runs of one seed must have in common.
    pub(super) fn trace(&self, what: &impl Hash) {
        let mut trace = self.trace.borrow_mut();
        self.begun.elapsed().hash(&mut *trace);
        what.hash(&mut *trace);
    }

    /// A hash of all that was traced.
    pub(super) fn traced(&self) -> u64 {
        self.trace.borrow().finish()
    }

    /// Counts something of which it is to be known that it happens.
    pub(super) fn count(&self, what: &'static str) {
        *self.counts.borrow_mut().entry(what).or_default() += 1;
    }

    pub(super) fn hear(&self, connection: usize, what: Said) {
        self.trace(&(connection, &what));
        let when = self.now();
        let heard = Heard { when, what };
        self.connection(connection).heard.push(heard);
    }

    pub(super) fn end(&self, connection: usize, end: End) {
        self.trace(&(connection, end));
        let when = self.now();
        self.connection(connection).end = Some((when, end));
    }
}
