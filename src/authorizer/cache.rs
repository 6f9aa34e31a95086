//! The answers of the backend that are remembered, bounded by number. Pure: knows no backend, and
//! the time is passed in.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::BuildHasherDefault,
    sync::Arc,
    time::Duration,
};

use sidewire_protocol::topic::CarriedHash;
use tokio::time::Instant;

use super::key::TopicKey;
use crate::memory::{MemoryAccount, MemoryExceeded, MemoryUse};

/// Number of maps that the answers are divided among. Growing one moves all that is in it, while
/// shards wait for the lock.
pub(super) const PARTS: usize = 16;

/// Bytes charged for an answer. It takes 49 bytes in its map and 24 in the order of expiry; both
/// may be half empty.
pub const CACHED_ANSWER_BYTES: usize = 200;

/// The answers, each for one topic of one user. Where there is no room for another one, that
/// which would expire first is forgotten. So refusals, which are kept for a short time, make room
/// for each other before an allowed topic does.
#[derive(Debug)]
pub(super) struct AnswerCache {
    parts: [HashMap<TopicKey, CachedAnswer, BuildHasherDefault<CarriedHash>>; PARTS],
    by_expiry: BTreeSet<(u64, TopicKey)>,
    account: Arc<MemoryAccount>,
    /// The time from which expiry is counted.
    start: Instant,
}

#[derive(Debug, Clone, Copy)]
struct CachedAnswer {
    is_allowed: bool,
    /// Milliseconds since the start of the cache.
    expires_at: u64,
    /// The key that the topics of its kind share.
    kind: TopicKey,
}

impl AnswerCache {
    pub(super) fn new(account: Arc<MemoryAccount>, now: Instant) -> Self {
        Self {
            parts: Default::default(),
            by_expiry: BTreeSet::new(),
            account,
            start: now,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_expiry.len()
    }

    /// Returns true if the topic is allowed, false if it is not, and `None` if that is not known.
    pub(super) fn get(&self, topic: TopicKey, now: Instant) -> Option<bool> {
        let answer = self.find(topic)?;
        (self.milliseconds(now) < answer.expires_at).then_some(answer.is_allowed)
    }

    /// Remembers an answer for a time. Returns the number of answers that were forgotten for it.
    pub(super) fn insert(
        &mut self,
        topic: TopicKey,
        kind: TopicKey,
        is_allowed: bool,
        age: Duration,
        entries_max: usize,
        now: Instant,
    ) -> usize {
        self.remove(topic);
        let evicted = self.shrink_to(entries_max.saturating_sub(1), usize::MAX);
        while let Err(MemoryExceeded) = self.hold() {
            if !self.remove_first() {
                return evicted;
            }
        }
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let answer = CachedAnswer {
            is_allowed,
            expires_at: self.milliseconds(now).saturating_add(age),
            kind,
        };
        if let Some(part) = self.parts.get_mut(topic.part(PARTS)) {
            part.insert(topic, answer);
            self.by_expiry.insert((answer.expires_at, topic));
        }
        evicted
    }

    fn hold(&self) -> Result<(), MemoryExceeded> {
        self.account
            .try_hold(MemoryUse::Authorization, CACHED_ANSWER_BYTES)
    }

    /// Forgets that the topic is allowed.
    pub(super) fn forget_allowed(&mut self, topic: TopicKey) {
        if self.find(topic).is_some_and(|answer| answer.is_allowed) {
            self.remove(topic);
        }
    }

    /// Forgets in one part that topics of these kinds are allowed.
    pub(super) fn forget_kinds(&mut self, part: usize, kinds: &HashSet<TopicKey>) {
        let of_kind = self.parts.get(part).into_iter().flatten();
        let of_kind =
            of_kind.filter(|(_, answer)| answer.is_allowed && kinds.contains(&answer.kind));
        let topics: Vec<_> = of_kind.map(|(topic, _)| *topic).collect();
        for topic in topics {
            self.remove(topic);
        }
    }

    /// Forgets up to `count` answers that have expired. Returns true if there may be more.
    pub(super) fn remove_expired(&mut self, now: Instant, count: usize) -> bool {
        let now = self.milliseconds(now);
        let is_expired = |cache: &Self| {
            let first = cache.by_expiry.first();
            first.is_some_and(|(expires_at, _)| *expires_at <= now)
        };
        for _ in 0..count {
            if !is_expired(self) {
                return false;
            }
            self.remove_first();
        }
        true
    }

    /// Forgets answers until there are at most `entries_max`, but no more than `count`. Returns
    /// their number.
    pub(super) fn shrink_to(&mut self, entries_max: usize, count: usize) -> usize {
        let mut forgotten = 0;
        while self.len() > entries_max && forgotten < count && self.remove_first() {
            forgotten += 1;
        }
        forgotten
    }

    /// Removes the answer that expires first. Returns false if there is none.
    fn remove_first(&mut self) -> bool {
        let Some((_, topic)) = self.by_expiry.pop_first() else {
            return false;
        };
        self.take(topic);
        true
    }

    fn remove(&mut self, topic: TopicKey) {
        if let Some(answer) = self.take(topic) {
            self.by_expiry.remove(&(answer.expires_at, topic));
        }
    }

    /// Removes an answer from its map, and releases its memory.
    fn take(&mut self, topic: TopicKey) -> Option<CachedAnswer> {
        let part = self.parts.get_mut(topic.part(PARTS))?;
        let answer = part.remove(&topic)?;
        if part.is_empty() {
            // It has the size of the most that it ever held.
            *part = HashMap::default();
        }
        self.account
            .release(MemoryUse::Authorization, CACHED_ANSWER_BYTES);
        Some(answer)
    }

    fn find(&self, topic: TopicKey) -> Option<&CachedAnswer> {
        self.parts.get(topic.part(PARTS))?.get(&topic)
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start);
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for AnswerCache {
    fn drop(&mut self) {
        self.account
            .release(MemoryUse::Authorization, CACHED_ANSWER_BYTES * self.len());
    }
}

#[cfg(test)]
mod tests {
    use sidewire_protocol::{Topic, random::RandomSource};

    use super::{
        super::key::{KeySecret, UserKeys},
        *,
    };
    use crate::{limits::tests::user_key, memory::MemoryLimits};

    const AGE: Duration = Duration::from_secs(60);

    struct Fixture {
        cache: AnswerCache,
        account: Arc<MemoryAccount>,
        keys: UserKeys,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let (account, start) = (Arc::<MemoryAccount>::default(), Instant::now());
            let who = user_key("acme", "ann");
            Self {
                cache: AnswerCache::new(Arc::clone(&account), start),
                account,
                keys: KeySecret::new(&RandomSource::from_seed(1)).user_keys(&who),
                start,
            }
        }

        fn insert(&mut self, topic: &str, is_allowed: bool, age: Duration, max: usize) -> usize {
            let topic = Topic::parse(topic).unwrap();
            let (key, kind) = (self.keys.topic(&topic), self.keys.kind(&topic));
            let evicted = self
                .cache
                .insert(key, kind, is_allowed, age, max, self.start);
            self.check();
            evicted
        }

        fn get(&self, topic: &str, after: Duration) -> Option<bool> {
            let topic = self.keys.topic(&Topic::parse(topic).unwrap());
            self.cache.get(topic, self.start + after)
        }

        fn check(&self) {
            let held = self.account.held_bytes(MemoryUse::Authorization);
            assert_eq!(held, (CACHED_ANSWER_BYTES * self.cache.len()) as u64);
            assert_eq!(self.cache.by_expiry.len(), self.cache.len());
        }
    }

    #[test]
    fn an_answer_is_kept_for_its_time() {
        let mut fixture = Fixture::new();
        fixture.insert("project:1", true, AGE, 10);
        fixture.insert("project:2", false, AGE / 2, 10);
        assert_eq!(fixture.get("project:1", AGE / 4), Some(true));
        assert_eq!(fixture.get("project:2", AGE / 4), Some(false));
        assert_eq!(fixture.get("project:2", AGE / 2), None);
        assert_eq!(fixture.get("project:3", Duration::ZERO), None);
        assert!(!fixture.cache.remove_expired(fixture.start + AGE / 2, 10));
        assert_eq!(fixture.cache.len(), 1);
        fixture.insert("project:1", true, AGE * 2, 10);
        assert_eq!(
            fixture.get("project:1", AGE),
            Some(true),
            "the newer counts"
        );
    }

    #[test]
    fn what_expires_first_makes_room() {
        let mut fixture = Fixture::new();
        fixture.insert("project:1", true, AGE, 3);
        for number in 0..10 {
            let evicted = fixture.insert(&format!("denied:{number}"), false, AGE / 10, 3);
            assert_eq!(evicted, usize::from(number >= 2));
        }
        assert_eq!(fixture.get("project:1", Duration::ZERO), Some(true));
        assert_eq!(fixture.cache.len(), 3);
        assert_eq!(fixture.cache.shrink_to(1, usize::MAX), 2);
        assert_eq!(fixture.get("project:1", Duration::ZERO), Some(true));
        fixture.check();
    }

    #[test]
    fn only_allowed_answers_of_the_topic_or_kind_are_forgotten() {
        let mut fixture = Fixture::new();
        for topic in ["project:1", "project:2", "project:*", "sprint:1"] {
            fixture.insert(topic, true, AGE, 10);
        }
        fixture.insert("project:3", false, AGE, 10);
        let known = |fixture: &Fixture| {
            [
                "project:1",
                "project:2",
                "project:*",
                "project:3",
                "sprint:1",
            ]
            .map(|topic| fixture.get(topic, Duration::ZERO).is_some())
        };
        let project = Topic::parse("project:1").unwrap();
        fixture.cache.forget_allowed(fixture.keys.topic(&project));
        assert_eq!(known(&fixture), [false, true, true, true, true]);
        let kinds = HashSet::from([fixture.keys.kind(&project)]);
        for part in 0..PARTS {
            fixture.cache.forget_kinds(part, &kinds);
        }
        assert_eq!(known(&fixture), [false, false, false, true, true]);
        fixture.check();
    }

    #[test]
    fn without_memory_earlier_answers_make_room_or_none_is_kept() {
        let mut fixture = Fixture::new();
        let bytes = CACHED_ANSWER_BYTES as u64;
        fixture.account.set_limits(MemoryLimits {
            max: 4 * bytes,
            window: 0,
        });
        for topic in ["project:1", "project:2", "project:3"] {
            fixture.insert(topic, true, AGE, 10);
        }
        assert_eq!(fixture.cache.len(), 2);
        assert_eq!(fixture.get("project:3", Duration::ZERO), Some(true));
        fixture
            .account
            .set_limits(MemoryLimits { max: 0, window: 0 });
        fixture.insert("project:4", true, AGE, 10);
        assert_eq!(fixture.cache.len(), 0);
        fixture.check();
    }
}
