//! The recent revocations, by which an answer is recognized that may be older than one. Pure.

use std::collections::{HashSet, VecDeque};

use super::key::TopicKey;
use crate::planted::fault;

/// Maximum number of revocations that are remembered. An answer is needed for some seconds; with
/// more revocations in that time, it is discarded as if they were about it.
const RECENT_MAX: usize = 4096;

/// A revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Revocation {
    /// Of one topic of a user.
    Topic(TopicKey),
    /// Of all topics of a kind that a user has.
    Kind(TopicKey),
    /// Of everything.
    Everything,
}

/// A log of revocations.
#[derive(Debug, Default)]
pub(super) struct RevocationLog {
    /// Number of all revocations so far.
    count: u64,
    recent: VecDeque<Revocation>,
}

impl RevocationLog {
    /// Returns the number of revocations so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn record(&mut self, revocation: Revocation) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(revocation);
        self.count += 1;
    }

    /// Returns true if a revocation that came when there were `since` already is about one of the
    /// topics, which are given with their kinds.
    pub(super) fn touches_since(
        &self,
        since: u64,
        mut topics: impl Iterator<Item = (TopicKey, TopicKey)>,
    ) -> bool {
        let newer = self.newer_than(since);
        topics.any(|(topic, kind)| newer.touches(topic, kind))
    }

    /// Returns the revocations that came when there were `since` already.
    pub(super) fn newer_than(&self, since: u64) -> NewerRevocations {
        if fault!(UsesOutdatedAnswers) {
            return NewerRevocations(HashSet::new());
        }
        let newer = usize::try_from(self.count - since).unwrap_or(usize::MAX);
        if newer > self.recent.len() {
            return NewerRevocations(HashSet::from([Revocation::Everything]));
        }
        NewerRevocations(self.recent.iter().rev().take(newer).copied().collect())
    }
}

/// The revocations since some moment.
#[derive(Debug)]
pub(super) struct NewerRevocations(HashSet<Revocation>);

impl NewerRevocations {
    /// Returns true if one of them is about the topic, which is of this kind.
    pub(super) fn touches(&self, topic: TopicKey, kind: TopicKey) -> bool {
        let of_topic = [
            Revocation::Topic(topic),
            Revocation::Kind(kind),
            Revocation::Everything,
        ];
        !self.0.is_empty() && of_topic.iter().any(|it| self.0.contains(it))
    }
}

#[cfg(test)]
mod tests {
    use sidewire_protocol::{Topic, random::RandomSource};

    use super::{super::key::KeySecret, *};
    use crate::limits::tests::user_key;

    fn keys(user: &str, topic: &str) -> (TopicKey, TopicKey) {
        let who = user_key("acme", user);
        let keys = KeySecret::new(&RandomSource::from_seed(1)).user_keys(&who);
        let topic = Topic::parse(topic).unwrap();
        (keys.topic(&topic), keys.kind(&topic))
    }

    #[test]
    fn a_revocation_touches_its_topic_or_kind_of_its_user_from_then_on() {
        let mut log = RevocationLog::default();
        let [ann_1, ann_2, bob_1] = [
            keys("ann", "project:1"),
            keys("ann", "project:2"),
            keys("bob", "project:1"),
        ];
        let touches = |log: &RevocationLog, since| {
            [ann_1, ann_2, bob_1].map(|it| log.touches_since(since, [it].into_iter()))
        };
        log.record(Revocation::Topic(ann_1.0));
        assert_eq!(touches(&log, 0), [true, false, false]);
        assert_eq!(touches(&log, 1), [false; 3]);
        log.record(Revocation::Kind(bob_1.1));
        assert_eq!(touches(&log, 1), [false, false, true]);
        log.record(Revocation::Everything);
        assert_eq!(touches(&log, 2), [true; 3]);
        assert_eq!(touches(&log, 3), [false; 3]);
    }

    #[test]
    fn an_answer_older_than_the_log_is_discarded() {
        let mut log = RevocationLog::default();
        for _ in 0..=RECENT_MAX {
            log.record(Revocation::Topic(keys("ann", "project:1").0));
        }
        let other = keys("ann", "project:2");
        assert!(log.touches_since(0, [other].into_iter()));
        assert!(!log.touches_since(1, [other].into_iter()));
    }
}
