//! The topics that a connection is subscribed to, or that a Subscribe names, each with a value.

use std::collections::hash_map;

use sidewire_protocol::{Topic, topic::TopicMap};

use super::wildcards::{WildcardMap, WildcardTopics, covers_its_kind};

/// Memory that a subscription takes in addition to the topic's name, in bytes: its entries in the
/// index and in the connection. Measured with 10,000 topics of 10 bytes on each of 600
/// connections, which took 171 bytes a topic, and with 1,000 of 60 bytes on each of 4,000, which
/// took 262.
const SUBSCRIPTION_BYTES: usize = 200;

/// Returns the memory charged for a subscription to the topic, in bytes.
pub(super) fn subscription_bytes(topic: &Topic) -> usize {
    SUBSCRIPTION_BYTES + topic.as_str().len()
}

/// Values by subscribed topic. A wildcard is one of the topics, and covers those of its kind.
#[derive(Debug)]
pub(super) struct SubscriptionMap<V> {
    exact: TopicMap<V>,
    wildcards: WildcardMap<V>,
}

impl<V> SubscriptionMap<V> {
    /// Returns the number of subscribed topics.
    pub(super) fn len(&self) -> usize {
        self.exact.len() + self.wildcards.len()
    }

    /// Returns the value of a subscribed topic.
    pub(super) fn get_mut(&mut self, topic: &Topic) -> Option<&mut V> {
        if covers_its_kind(topic) {
            self.wildcards.get_mut(topic.kind())
        } else {
            self.exact.get_mut(topic)
        }
    }

    /// Returns true if the topic itself is subscribed, and not only covered by a wildcard.
    pub(super) fn contains(&self, topic: &Topic) -> bool {
        if covers_its_kind(topic) {
            self.wildcards.get(topic.kind()).is_some()
        } else {
            self.exact.contains_key(topic)
        }
    }

    /// Adds a topic, or replaces its value.
    pub(super) fn insert(&mut self, topic: Topic, value: V)
    where
        V: Default,
    {
        if covers_its_kind(&topic) {
            *self.wildcards.get_or_default(&topic) = value;
        } else {
            self.exact.insert(topic, value);
        }
    }

    /// Removes a topic, and returns its value.
    pub(super) fn remove(&mut self, topic: &Topic) -> Option<V> {
        if covers_its_kind(topic) {
            self.wildcards.remove(topic.kind())
        } else {
            self.exact.remove(topic)
        }
    }

    /// Removes the topics for which `is_taken` is true, and returns them with their values.
    pub(super) fn take_if(&mut self, mut is_taken: impl FnMut(&Topic) -> bool) -> Vec<(Topic, V)> {
        let exact = self.exact.extract_if(|topic, _| is_taken(topic));
        let mut taken: Vec<_> = exact.collect();
        let wildcards = self.wildcards.topics().filter(|topic| is_taken(topic));
        let wildcards: Vec<Topic> = wildcards.cloned().collect();
        for wildcard in wildcards {
            if let Some(value) = self.wildcards.remove(wildcard.kind()) {
                taken.push((wildcard, value));
            }
        }
        taken
    }

    /// Returns the values of the subscriptions that bring events of this topic: of the topic and
    /// of the wildcard of its kind.
    pub(super) fn covering(&self, topic: &Topic) -> impl Iterator<Item = &V> {
        let wildcard = if self.wildcards.is_empty() {
            None
        } else {
            self.wildcards.get(topic.kind())
        };
        self.exact.get(topic).into_iter().chain(wildcard)
    }

    /// Returns true if a subscription brings events of this topic.
    pub(super) fn covers(&self, topic: &Topic) -> bool {
        self.covering(topic).next().is_some()
    }

    /// Returns the values of all subscribed topics.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.exact.values_mut().chain(self.wildcards.values_mut())
    }

    /// Returns the subscribed topics.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.exact.keys().chain(self.wildcards.topics())
    }

    /// Returns the subscribed topics, and drops their values.
    pub(super) fn into_topics(self) -> SubscribedTopics<V> {
        SubscribedTopics {
            exact: self.exact.into_iter(),
            wildcards: self.wildcards.into_topics(),
        }
    }
}

impl<V> Default for SubscriptionMap<V> {
    fn default() -> Self {
        Self {
            exact: TopicMap::default(),
            wildcards: WildcardMap::default(),
        }
    }
}

impl FromIterator<Topic> for SubscriptionMap<()> {
    fn from_iter<I: IntoIterator<Item = Topic>>(topics: I) -> Self {
        let mut map = Self::default();
        for topic in topics {
            map.insert(topic, ());
        }
        map
    }
}

/// The topics of a map that was given up.
#[derive(Debug)]
pub(super) struct SubscribedTopics<V> {
    exact: hash_map::IntoIter<Topic, V>,
    wildcards: WildcardTopics<V>,
}

impl<V> Iterator for SubscribedTopics<V> {
    type Item = Topic;

    fn next(&mut self) -> Option<Topic> {
        let exact = self.exact.next().map(|(topic, _)| topic);
        exact.or_else(|| self.wildcards.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.exact.len() + self.wildcards.len();
        (len, Some(len))
    }
}

impl<V> ExactSizeIterator for SubscribedTopics<V> {}
