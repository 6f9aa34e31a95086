//! Who a client is and what it may subscribe to. Does not know how that was
//! found out.

use std::{collections::HashSet, time::Duration};

use super::KeyFingerprint;
use crate::protocol::{TenantName, Topic, UserName};

/// Who a client is, what it may do, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The tenant whose events it gets.
    pub tenant: TenantName,
    /// Who it is in that tenant.
    pub user: UserName,
    /// What it may subscribe to.
    pub grant: Grant,
    /// When the connection has to be closed, as time since the Unix epoch: the
    /// token's `exp` plus the leeway, at most [`EXPIRY_AHEAD_MAX`] ahead.
    ///
    /// [`EXPIRY_AHEAD_MAX`]: super::EXPIRY_AHEAD_MAX
    pub expires_at: Option<Duration>,
    /// The key that has verified its token; `None` where there is no token.
    pub key: Option<KeyFingerprint>,
}

/// What a client may subscribe to in its tenant. A topic's kind can forbid it
/// all the same: the implicit kinds are nobody's to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Every topic.
    Everything,
    /// Some topics. Boxed, since most connections hold no list.
    Listed(Box<Listed>),
}

/// The topics of a grant; none at all grants nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Topics, one by one.
    topics: HashSet<Topic>,
    /// Kinds of which every topic is granted: `kind:*`.
    kinds: HashSet<Box<str>>,
}

impl Grant {
    /// The grant that a list is, in which `kind:*` means the whole kind.
    #[must_use]
    pub fn listed(entries: impl IntoIterator<Item = Topic>) -> Self {
        let (wildcards, topics): (HashSet<Topic>, HashSet<Topic>) =
            entries.into_iter().partition(Topic::is_wildcard);
        Self::Listed(Box::new(Listed {
            topics,
            kinds: wildcards.iter().map(|topic| topic.kind().into()).collect(),
        }))
    }

    /// Whether it holds the topic; a wildcard `kind:*` only with the whole kind.
    #[must_use]
    pub fn allows(&self, topic: &Topic) -> bool {
        match self {
            Self::Everything => true,
            Self::Listed(listed) => {
                listed.topics.contains(topic) || listed.kinds.contains(topic.kind())
            }
        }
    }

    /// Why a client with this grant may not subscribe to the topic; `None` where it may.
    #[must_use]
    pub fn refusal(&self, topic: &Topic) -> Option<&'static str> {
        if topic.is_implicit() {
            Some("is of a kind that nobody can subscribe to")
        } else if topic.is_wildcard() {
            Some("is a wildcard, which this relay does not offer")
        } else if !self.allows(topic) {
            Some("is not granted by the token")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Topic {
        Topic::parse(text).unwrap()
    }

    #[test]
    fn a_listed_grant_allows_its_topics_and_kinds_and_nothing_else() {
        let grant = Grant::listed(["project:1", "project:a:b", "sprint:*"].map(topic));
        for allowed in [
            "project:1",
            "project:a:b",
            "sprint:1",
            "sprint:x:y",
            "sprint:*",
        ] {
            assert!(grant.allows(&topic(allowed)), "{allowed}");
        }
        for refused in [
            "project:2",
            "project:a",
            "project:11",
            "project:*",
            "sprints:1",
            "item:1",
        ] {
            assert!(!grant.allows(&topic(refused)), "{refused}");
        }
    }

    #[test]
    fn an_empty_list_grants_nothing_and_no_list_everything() {
        assert!(!Grant::listed([]).allows(&topic("project:1")));
        assert!(Grant::Everything.allows(&topic("project:1")));
    }
}
