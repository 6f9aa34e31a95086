//! The identity of a client and the topics that it may subscribe to. Does not know how the
//! client was authenticated.

use std::{collections::HashSet, time::Duration};

use sidewire_protocol::{TenantName, Topic, UserName};

use super::KeyFingerprint;
use crate::planted::fault;

/// The identity of a client: its tenant and user, its grant, and its expiry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The tenant whose events the client receives.
    pub tenant: TenantName,
    /// The user within that tenant.
    pub user: UserName,
    /// The topics that the client may subscribe to.
    pub grant: Grant,
    /// The topics that the token subscribes the client to when it connects, without duplicates,
    /// all granted; `None` if it says nothing about that.
    pub subscriptions: Option<Vec<Topic>>,
    /// Time since the Unix epoch at which the connection must be closed: the token's `exp` plus
    /// the leeway, at most [`EXPIRY_AHEAD_MAX`] ahead.
    ///
    /// [`EXPIRY_AHEAD_MAX`]: super::EXPIRY_AHEAD_MAX
    pub expires_at: Option<Duration>,
    /// Time since the Unix epoch at which the token says that it expires, without the leeway.
    pub token_expires_at: Option<Duration>,
    /// The key that verified the client's token; `None` without a token.
    pub key: Option<KeyFingerprint>,
}

/// The topics that a client may subscribe to in its tenant. Topics of implicit kinds cannot be
/// subscribed to, whatever the grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Every topic.
    Everything,
    /// Some topics. Boxed, since most connections have no list.
    Listed(Box<GrantedTopics>),
}

/// The topics of a grant. An empty list grants nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedTopics {
    /// Topics that are granted individually.
    topics: HashSet<Topic>,
    /// Kinds with all their topics granted: `kind:*`.
    kinds: HashSet<Box<str>>,
}

impl Grant {
    /// Creates a grant from a list, in which `kind:*` means all topics of the kind.
    #[must_use]
    pub fn from_topics(entries: impl IntoIterator<Item = Topic>) -> Self {
        let (wildcards, topics): (HashSet<Topic>, HashSet<Topic>) =
            entries.into_iter().partition(Topic::is_wildcard);
        Self::Listed(Box::new(GrantedTopics {
            topics,
            kinds: wildcards.iter().map(|topic| topic.kind().into()).collect(),
        }))
    }

    /// Returns true if the topic is granted. A wildcard `kind:*` needs a grant of exactly that, or
    /// of everything.
    #[must_use]
    pub fn allows(&self, topic: &Topic) -> bool {
        match self {
            Self::Everything => true,
            Self::Listed(listed) => {
                listed.topics.contains(topic) || listed.kinds.contains(topic.kind())
            }
        }
    }

    /// Returns the reason why a client with this grant may not subscribe to the topic, or `None`
    /// if it may.
    #[must_use]
    pub fn refusal_reason(&self, topic: &Topic) -> Option<&'static str> {
        let is_taken = fault!(TakesUserWildcard) && topic.is_wildcard() && !topic.is_everyone();
        if topic.is_implicit() && !is_taken {
            Some("is of a kind that nobody can subscribe to")
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
        let grant = Grant::from_topics(["project:1", "project:a:b", "sprint:*"].map(topic));
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
    fn a_wildcard_needs_a_grant_of_exactly_it_or_of_everything_and_implicit_kinds_have_none() {
        let everything = Grant::from_topics(["user:*", "tenant:*", "project:*"].map(topic));
        let exact = Grant::from_topics(["project:1", "user:ann"].map(topic));
        for (wildcard, is_granted) in [("project:*", true), ("user:*", false), ("tenant:*", false)]
        {
            let wildcard = topic(wildcard);
            for grant in [&everything, &Grant::Everything] {
                assert_eq!(grant.refusal_reason(&wildcard).is_none(), is_granted);
            }
            assert!(exact.refusal_reason(&wildcard).is_some(), "{wildcard}");
        }
        assert!(everything.refusal_reason(&topic("sprint:*")).is_some());
    }

    #[test]
    fn an_empty_list_grants_nothing_and_a_missing_list_grants_everything() {
        assert!(!Grant::from_topics([]).allows(&topic("project:1")));
        assert!(Grant::Everything.allows(&topic("project:1")));
    }
}
