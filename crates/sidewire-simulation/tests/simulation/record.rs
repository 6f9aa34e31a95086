//! The record of one connection: what its client sent and received, and how it ended.

use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use super::{
    client_messages::{WirePresence, WireTyping},
    events::Serial,
    history::{Moment, Timestamp},
    messages::{EventPlace, WireTopics},
    tokens::{ClientToken, PresentedToken},
    topics::TopicBits,
};

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
    /// The token with which it connected.
    pub(super) token: ClientToken,
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

    /// Returns the topics that its first token subscribes to.
    pub(super) fn claim(&self) -> TopicBits {
        self.token.claim.unwrap_or_default()
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
        before.fold(self.claim(), |held, request| match &request.what {
            RequestKind::Subscribe(asked) if confirmed.contains(&request.id.as_str()) => {
                held | asked.all()
            }
            RequestKind::Unsubscribe(asked) => held.less(asked.all()),
            _ => held,
        })
    }

    /// Returns the topics that newer tokens and backends have taken from it at any time.
    pub(super) fn lost_topics(&self) -> TopicBits {
        let lost = self
            .heard
            .iter()
            .filter_map(|heard| heard.what.lost_topics());
        lost.fold(TopicBits::NONE, |all, lost| all | lost)
    }

    /// Returns true if the relay may have taken something that names these topics, which the client
    /// sent at the one moment and others heard of at the other: a token that it had grants them.
    pub(super) fn may_be_granted(&self, topics: TopicBits, sent: Moment, until: Moment) -> bool {
        let mut may = self.token.grant.refuses(topics).is_empty();
        for request in self.sent.iter().filter(|it| it.sent.moment < until) {
            let RequestKind::Authenticate(PresentedToken {
                token,
                defect: None,
            }) = &request.what
            else {
                continue;
            };
            let covers = token.grant.refuses(topics).is_empty();
            match self.token_taken_at(&request.id) {
                Some(taken) if taken < sent => may = covers,
                _ => may |= covers,
            }
        }
        may
    }

    fn token_taken_at(&self, id: &str) -> Option<Moment> {
        let is_it = |what: &FrameContent| matches!(what, FrameContent::Authenticated { request, .. } if request == id);
        let answer = self.heard.iter().find(|heard| is_it(&heard.what));
        answer.map(|heard| heard.when.moment)
    }

    /// Returns all topics that it may have had at any time.
    pub(super) fn possible_topics(&self) -> TopicBits {
        let asked = self.sent.iter().filter_map(|request| match &request.what {
            RequestKind::Subscribe(topics) if topics.may_be_asked_for() => Some(topics.all()),
            _ => None,
        });
        let implicit = TopicBits::implicit(self.user) | self.claim();
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
    Authenticate(PresentedToken),
}

impl RequestKind {
    /// Returns true if it is answered at once, even while other requests wait for a replay.
    pub(super) fn is_answered_at_once(&self) -> bool {
        matches!(self, Self::Ping(_) | Self::Event | Self::Authenticate(_))
            || self.is_client_event()
    }

    /// Returns true if others may receive something because of it.
    pub(super) fn changes_views(&self) -> bool {
        self.is_client_event() || matches!(self, Self::Unsubscribe(_) | Self::Authenticate(_))
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
    /// Subscriptions that a backend has ended.
    Revoked(TopicBits),
    Authenticated {
        request: String,
        expires_at: i64,
        revoked: TopicBits,
    },
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

impl FrameContent {
    /// Returns the subscriptions that a newer token or a backend has ended.
    pub(super) fn lost_topics(&self) -> Option<TopicBits> {
        match self {
            Self::Authenticated { revoked, .. } => Some(*revoked),
            Self::Revoked(topics) => Some(*topics),
            _ => None,
        }
    }
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
