//! The tokens of clients: what each grants, and until when. Clients connect with one, and present
//! newer ones while they are connected.

use std::time::Duration;

use sidewire_protocol::Topic;

use super::{
    topics::{TOPICS, TopicBits},
    world::BEGIN,
};

/// Time for which a token is accepted after it has expired.
pub(super) const LEEWAY: Duration = Duration::from_secs(1);

/// The topics that a token grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopicGrant {
    /// Every topic: the token has no list.
    Everything,
    /// Every kind is listed, also those that cannot be granted.
    EveryKind,
    Listed(TopicBits),
}

impl TopicGrant {
    /// Returns the grant of the tokens with which this user connects.
    pub(super) fn of_user(user: usize) -> Self {
        match user % 2 {
            1 => Self::EveryKind,
            _ => Self::Everything,
        }
    }

    /// Returns those of these topics that it does not cover. A wildcard is covered only by itself.
    pub(super) fn refuses(self, topics: TopicBits) -> TopicBits {
        let Self::Listed(listed) = self else {
            return TopicBits::NONE;
        };
        let refused = topics.indices().map(TopicBits::of);
        let refused = refused.filter(|topic| !topic.with_wildcards().meets(listed));
        refused.fold(TopicBits::NONE, |set, topic| set | topic)
    }

    /// Returns the list of the token, if it has one.
    pub(super) fn list(self) -> Option<Vec<Topic>> {
        match self {
            Self::Everything => None,
            Self::EveryKind => {
                let kinds = TOPICS.iter().map(|name| name.split_once(':').unwrap().0);
                Some(kinds.map(|kind| Topic::new(kind, "*").unwrap()).collect())
            }
            Self::Listed(topics) => Some(parsed(topics)),
        }
    }
}

/// The claims of a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientToken {
    pub(super) tenant: usize,
    pub(super) user: usize,
    /// The time at which it expires, since the Unix epoch.
    pub(super) expires_at: Duration,
    pub(super) grant: TopicGrant,
    /// The topics that it subscribes to at connect, if it says so.
    pub(super) claim: Option<TopicBits>,
}

impl ClientToken {
    /// Returns the time in the simulation from which on the token is not accepted.
    pub(super) fn end(&self) -> Duration {
        (self.expires_at + LEEWAY).saturating_sub(BEGIN)
    }
}

/// The reason for which the relay refuses a token that has not expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenDefect {
    /// It is no token, or has been changed.
    Unsigned,
    /// It is of another user or tenant than that of the connection.
    OfAnother,
}

/// A token that a client presents while it is connected.
#[derive(Debug, Clone, Copy)]
pub(super) struct PresentedToken {
    pub(super) token: ClientToken,
    pub(super) defect: Option<TokenDefect>,
}

impl PresentedToken {
    /// Returns true if the relay may take it that gets it at this time or later.
    pub(super) fn may_be_taken_at(&self, time: Duration) -> bool {
        self.defect.is_none() && time < self.token.end()
    }
}

pub(super) fn parsed(topics: TopicBits) -> Vec<Topic> {
    let names = topics.names();
    names.map(|name| Topic::parse(name).unwrap()).collect()
}
