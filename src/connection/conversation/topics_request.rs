//! The contents of a Subscribe or Unsubscribe: the topics that it names, and the part that its
//! answer repeats.

use std::{collections::HashSet, hash::Hash, time::Duration};

use sidewire_protocol::{
    ErrorCode, Position, Topic,
    position::EpochError,
    reply::{ListedIds, MessageRefusal, Reply},
    schema::{IdLists, InspectedEnvelope, InspectedPayload},
    wire,
};

use super::{Conversation, NO_MEMORY_RETRY_AFTER, payload_refusal};

/// The contents of a Subscribe or Unsubscribe.
#[derive(Debug, PartialEq)]
pub struct TopicsRequest {
    /// The topics that it names, without duplicates.
    pub topics: Vec<Topic>,
    /// The position to resume from, if it is a Subscribe that has one. An error means that no
    /// relay can have issued it.
    pub resume_from: Option<Result<Position, EpochError>>,
    /// The part of the request that its answer repeats.
    pub answer: TopicsAnswer,
}

/// The part of a Subscribe or Unsubscribe that its answer repeats.
#[derive(Debug, PartialEq)]
pub struct TopicsAnswer {
    pub(super) message_id: String,
    pub(super) lists: Vec<ListedIds>,
    pub(super) texts: Vec<String>,
}

impl TopicsRequest {
    /// Creates a Subscribe to these topics, of which these are the texts.
    #[must_use]
    pub(in crate::connection) fn from_list(
        topics: Vec<Topic>,
        texts: Vec<String>,
        resume_from: Option<Result<Position, EpochError>>,
    ) -> Self {
        Self {
            topics: deduplicate(topics),
            resume_from,
            answer: TopicsAnswer {
                message_id: String::new(),
                lists: Vec::new(),
                texts: deduplicate(texts),
            },
        }
    }
}

impl Conversation<'_> {
    /// Collects the topics that the schema's lists and the relay's own list name.
    pub(super) fn topics_request(
        &self,
        lists: &IdLists,
        envelope: &InspectedEnvelope<'_>,
        payload: &InspectedPayload<'_>,
    ) -> Result<TopicsRequest, MessageRefusal> {
        let max = self.limits.topics_per_subscribe;
        let named = lists
            .named_topics(payload.bytes, max)
            .map_err(|_| payload_refusal(payload))?;
        let count = named.count;
        if count > max {
            let message = format!(
                "{} names {count} topics; the maximum is {max}",
                payload.name
            );
            return Err(MessageRefusal::invalid(payload.name, message));
        }

        let mut topics = Vec::with_capacity(count);
        for (list, ids) in &named.ids {
            for (index, id) in ids.iter().enumerate() {
                let topic = listed_topic(&list.kind, id).map_err(|reason| {
                    let path = format!("{}.{}[{index}]", payload.name, list.name);
                    MessageRefusal::invalid(&path, format!("{path} {reason}"))
                })?;
                topics.push(topic);
            }
        }
        for (index, text) in named.topics.iter().enumerate() {
            let topic = Topic::parse(text).map_err(|error| {
                let path = format!("{}.topics[{index}]", payload.name);
                MessageRefusal::invalid(&path, format!("{path} {error}"))
            })?;
            topics.push(topic);
        }
        let lists = named.ids.into_iter().map(|(list, ids)| ListedIds {
            number: list.number,
            ids: deduplicate(ids),
        });
        Ok(TopicsRequest {
            topics: deduplicate(topics),
            resume_from: None,
            answer: TopicsAnswer {
                message_id: envelope.message_id.unwrap_or_default().to_owned(),
                lists: lists.collect(),
                texts: deduplicate(named.topics),
            },
        })
    }
}

impl TopicsAnswer {
    /// Returns the confirmation of a Subscribe that took effect at this position. `replayed` is
    /// the number of events that will be replayed; `None` unless the client resumes without a
    /// gap.
    #[must_use]
    pub fn subscribe_confirmation(self, position: Position, replayed: Option<u64>) -> Reply {
        Reply::SubscriptionConfirmed {
            lists: self.lists,
            fields: wire::SubscriptionConfirmed {
                topics: self.texts,
                position: Some(position.into()),
                recovered: replayed.is_some(),
                request_message_id: self.message_id,
                replayed: replayed.unwrap_or(0),
            },
        }
    }

    /// Returns the confirmation of an Unsubscribe.
    #[must_use]
    pub fn unsubscribe_confirmation(self) -> Reply {
        Reply::UnsubscribeConfirmed {
            lists: self.lists,
            fields: wire::UnsubscribeConfirmed {
                topics: self.texts,
                request_message_id: self.message_id,
            },
        }
    }

    /// Returns the refusal of a Subscribe to this topic, which the backend does not allow.
    #[must_use]
    pub fn denied_reply(&self, topic: &Topic) -> Reply {
        let message = format!("{topic} is not allowed by the backend");
        let refusal = MessageRefusal::new(ErrorCode::AuthorizationFailed, message);
        Reply::Error(refusal.for_message(&self.message_id))
    }

    /// Returns the refusal of a Subscribe on which the backend did not decide.
    #[must_use]
    pub fn unanswered_reply(&self, retry_after: Duration) -> Reply {
        let message = "the relay could not find out whether this is allowed";
        Reply::Error(MessageRefusal {
            retry_after: Some(retry_after),
            ..MessageRefusal::new(ErrorCode::InternalError, message).for_message(&self.message_id)
        })
    }

    /// Returns the refusal of a Subscribe that would take the connection over `topics_max`
    /// topics.
    #[must_use]
    pub fn too_many_topics_reply(&self, topics_max: usize) -> Reply {
        let message = format!("a connection may have at most {topics_max} topics");
        Reply::Error(MessageRefusal::invalid("subscribe", message).for_message(&self.message_id))
    }

    /// Returns the refusal when the relay has no memory for more subscriptions.
    #[must_use]
    pub fn no_memory_reply(&self) -> Reply {
        let message = "the relay has no memory for more subscriptions (limits.memory_max)";
        Reply::Error(MessageRefusal {
            retry_after: Some(NO_MEMORY_RETRY_AFTER),
            ..MessageRefusal::new(ErrorCode::RateLimitExceeded, message)
                .for_message(&self.message_id)
        })
    }
}

/// Returns the topic for an id in one of the schema's lists, where `*` is not an id.
fn listed_topic(kind: &str, id: &str) -> Result<Topic, String> {
    let topic = Topic::new(kind, id).map_err(|error| error.to_string())?;
    if topic.is_wildcard() {
        return Err("is `*`, which is not an id".to_owned());
    }
    Ok(topic)
}

/// Removes duplicates and keeps the order of first appearance.
fn deduplicate<T, U>(items: Vec<T>) -> Vec<U>
where
    T: Eq + Hash + Clone + Into<U>,
{
    let mut seen = HashSet::with_capacity(items.len());
    items
        .into_iter()
        .filter(|item| seen.insert(item.clone()))
        .map(Into::into)
        .collect()
}
