//! Counts the clients that are soon back after a disconnect, and whether they could resume. Which
//! users have left is remembered for a minute, as a hash of 8 bytes, and for a bounded number.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use metrics::Counter;
use tokio::time::Instant;

use super::{
    labels::ResumeResult,
    register::{CounterFamily, SeriesRegistry},
};
use crate::limits::UserKey;

/// A connection that is opened within this time after one of the same user has ended is a
/// reconnect.
const WINDOW: Duration = Duration::from_mins(1);

/// Most users that are remembered: about 6 MiB.
const DEPARTED_MAX: usize = 65_536;

/// The metrics of reconnects.
pub(super) struct ReconnectMetrics {
    reconnects: Counter,
    resumed: CounterFamily<ResumeResult>,
    departed: Mutex<DepartedUsers>,
}

impl ReconnectMetrics {
    pub(super) fn register(register: &SeriesRegistry<'_>) -> Self {
        Self {
            reconnects: register.counter(
                "sidewire_reconnects_total",
                "Connections of clients that were opened within a minute after one of the same user had ended. Of a user with several connections, each that ended counts for one reconnect. Polls do not count.",
                &[],
            ),
            resumed: register.family(
                "sidewire_reconnects_resumed_total",
                "Of the reconnects, those with a Subscribe with a position to resume from, by result of the first: recovered, or the reason why not. The others have not resumed, or not yet.",
                "result",
            ),
            departed: Mutex::new(DepartedUsers::new()),
        }
    }

    /// Records that a connection of the user has ended.
    pub(super) fn record_departure(&self, user: &UserKey) {
        self.lock().add(user, Instant::now());
    }

    /// Counts a connection that was opened, if it is a reconnect. Returns true if it is.
    pub(super) fn count_if_reconnect(&self, user: &UserKey) -> bool {
        let is_reconnect = self.lock().take(user, Instant::now());
        if is_reconnect {
            self.reconnects.increment(1);
        }
        is_reconnect
    }

    /// Counts the first resume of a reconnect.
    pub(super) fn count_resumed(&self, result: &ResumeResult) {
        self.resumed.increment(result);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, DepartedUsers> {
        self.departed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The users of which a connection has ended within the last minute.
struct DepartedUsers {
    hasher: RandomState,
    /// By the hash of the user, in the order of their last departure.
    users: LruCache<u64, Departures>,
}

/// The ended connections of a user that no new one has replaced.
struct Departures {
    count: u32,
    last: Instant,
}

impl DepartedUsers {
    fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            // Without a capacity, which would be allocated at once.
            users: LruCache::unbounded(),
        }
    }

    fn add(&mut self, user: &UserKey, now: Instant) {
        let is_old = |departures: &Departures| now - departures.last > WINDOW;
        while self.users.len() >= DEPARTED_MAX
            || self.users.peek_lru().is_some_and(|(_, it)| is_old(it))
        {
            self.users.pop_lru();
        }
        let first = || Departures {
            count: 0,
            last: now,
        };
        let departures = self
            .users
            .get_or_insert_mut(self.hasher.hash_one(user), first);
        departures.count = departures.count.saturating_add(1);
        departures.last = now;
    }

    /// Returns true if a connection of the user has ended within the last minute, and has not been
    /// taken before.
    fn take(&mut self, user: &UserKey, now: Instant) -> bool {
        let hash = self.hasher.hash_one(user);
        // Its place in the order does not change.
        let Some(departures) = self.users.peek_mut(&hash) else {
            return false;
        };
        let is_recent = now - departures.last <= WINDOW;
        departures.count -= 1;
        if departures.count == 0 || !is_recent {
            self.users.pop(&hash);
        }
        is_recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::tests::user_key;

    #[test]
    fn each_departure_counts_for_one_reconnect_of_the_same_user_within_a_minute() {
        let mut departed = DepartedUsers::new();
        let (ann, now) = (user_key("acme", "ann"), Instant::now());
        assert!(!departed.take(&ann, now), "ann comes for the first time");
        departed.add(&ann, now);
        departed.add(&ann, now);
        assert!(!departed.take(&user_key("globex", "ann"), now));
        assert!(departed.take(&ann, now + WINDOW));
        assert!(departed.take(&ann, now + WINDOW));
        assert!(!departed.take(&ann, now + WINDOW));
        departed.add(&ann, now);
        let later = now + WINDOW + Duration::from_millis(1);
        assert!(!departed.take(&ann, later));
        assert_eq!(departed.users.len(), 0);
    }

    #[test]
    fn the_number_of_remembered_users_is_bounded_in_time_and_in_number() {
        let mut departed = DepartedUsers::new();
        let now = Instant::now();
        let name = |number: usize| user_key("acme", &number.to_string());
        for number in 0..=DEPARTED_MAX {
            departed.add(&name(number), now);
        }
        assert_eq!(departed.users.len(), DEPARTED_MAX);
        assert!(!departed.take(&name(0), now), "the oldest made room");
        assert!(departed.take(&name(1), now));
        departed.add(&name(0), now + 2 * WINDOW);
        assert_eq!(departed.users.len(), 1);
    }
}
