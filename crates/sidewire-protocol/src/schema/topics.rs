//! A set of the topics found in an event, in order.

use std::collections::HashSet;

use crate::{Topic, topic::TENANT_KIND};

use super::{annotations::TopicSource, error::WireFault};

/// Maximum number of topics that are compared one by one, which costs less than hashing.
const COMPARED_MAX: usize = 16;

/// Topics without duplicates, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct FoundTopics {
    list: Vec<Topic>,
    /// A copy of the topics as a set, filled once there are more than [`COMPARED_MAX`].
    seen: HashSet<Topic>,
}

impl FoundTopics {
    /// Adds the topic that a value of an annotated field names. An empty value names none.
    pub(super) fn add_value(&mut self, source: &TopicSource, value: &str) -> Result<(), WireFault> {
        match source {
            TopicSource::Kind(kind) => self.add_id(kind, value),
            TopicSource::Whole if value.is_empty() => Ok(()),
            TopicSource::Whole => {
                let topic = Topic::parse(value).map_err(WireFault::Topic)?;
                match topic.is_everyone() {
                    true if self.list.contains(&topic) => Ok(()),
                    true => self.add_new(topic),
                    false if topic.kind() == TENANT_KIND => Err(WireFault::TenantTopic),
                    false => self.add_id(topic.kind(), topic.id()),
                }
            }
        }
    }

    /// Adds `kind:id`. An empty id is ignored.
    fn add_id(&mut self, kind: &str, id: &str) -> Result<(), WireFault> {
        if id.is_empty() || self.is_known(kind, id) {
            return Ok(());
        }
        let topic = Topic::new(kind, id).map_err(WireFault::Topic)?;
        if topic.is_wildcard() {
            return Err(WireFault::Wildcard);
        }
        self.add_new(topic)
    }

    /// Adds a topic that is not among the first [`COMPARED_MAX`].
    fn add_new(&mut self, topic: Topic) -> Result<(), WireFault> {
        if self.list.len() >= COMPARED_MAX {
            if self.seen.is_empty() {
                self.seen.extend(self.list.iter().cloned());
            }
            if !self.seen.insert(topic.clone()) {
                return Ok(());
            }
        }
        self.list.push(topic);
        Ok(())
    }

    /// Returns true if the topic is among the first [`COMPARED_MAX`].
    fn is_known(&self, kind: &str, id: &str) -> bool {
        self.list.iter().take(COMPARED_MAX).any(|topic| {
            let rest = topic.as_str().strip_prefix(kind);
            rest.and_then(|rest| rest.strip_prefix(':')) == Some(id)
        })
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn into_vec(self) -> Vec<Topic> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_is_kept_once_in_the_order_of_first_occurrence() {
        let mut topics = FoundTopics::default();
        let ids: Vec<_> = (0..100).map(|index| format!("{}", index % 40)).collect();
        for id in &ids {
            topics.add_id("a", id).unwrap();
            topics.add_id("a", "").unwrap();
        }
        let found: Vec<_> = topics
            .into_vec()
            .iter()
            .map(|t| t.id().to_owned())
            .collect();
        assert_eq!(found, ids[..40]);
    }

    #[test]
    fn the_same_id_of_another_kind_is_another_topic() {
        let mut topics = FoundTopics::default();
        topics.add_id("a", "1").unwrap();
        topics.add_id("b", "1").unwrap();
        assert_eq!(topics.into_vec().len(), 2);
    }
}
