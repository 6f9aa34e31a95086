//! Decides if a client would receive an event, and through which of its topics.

use std::fmt;

use serde::Serialize;
use sidewire_protocol::{Topic, UserName, topic::USER_KIND};

use crate::auth::Grant;

/// A client that might receive the event.
#[derive(Debug)]
pub struct DescribedClient {
    /// The topics of its one Subscribe.
    pub subscribe: Vec<Topic>,
    /// What its token grants.
    pub grant: Grant,
    /// Its user, if that matters.
    pub user: Option<UserName>,
}

/// The verdict on one client and one event, with the reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ClientReception {
    user: Option<String>,
    receives: bool,
    /// The topics through which the event is delivered.
    by: Vec<String>,
    /// True if the Subscribe is accepted, which is all or nothing.
    subscribed: bool,
    /// The topics of the Subscribe that the token does not grant, and why.
    refused: Vec<RefusedTopic>,
    /// The client's relation to each topic of the event.
    topics: Vec<TopicRelation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RefusedTopic {
    topic: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct TopicRelation {
    topic: String,
    relation: RelationKind,
}

/// A client's relation to a topic of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum RelationKind {
    /// The client is subscribed to the topic.
    Subscribed,
    /// The client is subscribed to the wildcard of the topic's kind.
    SubscribedByWildcard,
    /// The topic's events are delivered without a subscription.
    Implicit,
    /// The client requested the topic or its wildcard, but its Subscribe was refused.
    SubscribeRefused,
    /// The client did not request the topic.
    NotSubscribed,
    /// The client did not request the topic, and its token does not grant it.
    NotGranted,
    /// The topic is that of another user.
    OtherUser,
}

impl DescribedClient {
    /// Decides if the client receives an event with these topics.
    pub(super) fn evaluate_reception(&self, topics: &[Topic]) -> ClientReception {
        let refused = self.subscribe.iter().filter_map(|topic| {
            Some(RefusedTopic {
                reason: self.grant.refusal_reason(topic)?,
                topic: topic.to_string(),
            })
        });
        let refused: Vec<_> = refused.collect();
        let relation = |topic: &Topic| TopicRelation {
            topic: topic.to_string(),
            relation: self.relation_to(topic, refused.is_empty()),
        };
        let topics: Vec<_> = topics.iter().map(relation).collect();
        let by = topics.iter().filter(|it| it.relation.brings_event());
        let by: Vec<_> = by.map(|it| it.topic.clone()).collect();
        ClientReception {
            user: self.user.as_ref().map(ToString::to_string),
            receives: !by.is_empty(),
            by,
            subscribed: refused.is_empty(),
            refused,
            topics,
        }
    }

    fn relation_to(&self, topic: &Topic, is_subscribe_taken: bool) -> RelationKind {
        let own = self.user.as_ref().map(Topic::of_user);
        let is_requested = self.subscribe.contains(topic);
        let has_wildcard = self
            .subscribe
            .iter()
            .any(|requested| requested.is_wildcard() && requested.kind() == topic.kind());
        if topic.is_everyone() || own.as_ref() == Some(topic) {
            RelationKind::Implicit
        } else if topic.kind() == USER_KIND {
            RelationKind::OtherUser
        } else if is_requested || has_wildcard {
            match (is_subscribe_taken, is_requested) {
                (false, _) => RelationKind::SubscribeRefused,
                (true, true) => RelationKind::Subscribed,
                (true, false) => RelationKind::SubscribedByWildcard,
            }
        } else if self.grant.allows(topic) {
            RelationKind::NotSubscribed
        } else {
            RelationKind::NotGranted
        }
    }
}

impl RelationKind {
    fn brings_event(self) -> bool {
        matches!(
            self,
            Self::Subscribed | Self::SubscribedByWildcard | Self::Implicit
        )
    }

    fn as_text(self) -> &'static str {
        match self {
            Self::Subscribed => "is subscribed",
            Self::SubscribedByWildcard => "is subscribed by the wildcard of its kind",
            Self::Implicit => "is delivered without a subscription",
            Self::SubscribeRefused => "is requested, but the Subscribe is refused",
            Self::NotSubscribed => "is not subscribed",
            Self::NotGranted => "is not subscribed, and not granted by the token",
            Self::OtherUser => "is for another user",
        }
    }
}

impl ClientReception {
    pub(super) fn receives(&self) -> bool {
        self.receives
    }
}

impl fmt::Display for ClientReception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client")?;
        if let Some(user) = &self.user {
            write!(f, " of user {user}")?;
        }
        match self.receives {
            true => writeln!(f, ": receives it by {}", self.by.join(", "))?,
            false => writeln!(f, ": does not receive it")?,
        }
        for RefusedTopic { topic, reason } in &self.refused {
            writeln!(f, "  {topic} {reason}, so the whole Subscribe is refused")?;
        }
        for TopicRelation { topic, relation } in &self.topics {
            writeln!(f, "  {topic} {}", relation.as_text())?;
        }
        Ok(())
    }
}
