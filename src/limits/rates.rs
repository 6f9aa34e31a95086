//! Token buckets that fill at a steady rate (GCRA, by `governor`), one per key.

use std::{
    hash::Hash,
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, state::keyed::HashMapStateStore,
};
use tokio::time::Instant;

/// Memory is freed when less than 1/`SHRUNK_BELOW` of the peak number of buckets is left.
const SHRUNK_BELOW: usize = 4;

/// A rate limit: a bucket holds `burst` units and refills within `period`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Number of units that can be taken at once.
    pub burst: NonZeroU32,
    /// Time in which an empty bucket becomes full.
    pub period: Duration,
}

impl RateLimit {
    /// Returns the time in which one unit is refilled.
    pub(super) fn interval(self) -> Duration {
        (self.period / self.burst.get()).max(Duration::from_nanos(1))
    }

    fn quota(self) -> Option<Quota> {
        Quota::with_period(self.interval()).map(|quota| quota.allow_burst(self.burst))
    }
}

/// Rounds up to whole milliseconds, at least 1: 0 would mean "retry immediately".
pub(super) fn ceil_to_millis(wait: Duration) -> Duration {
    let millis = wait.as_nanos().div_ceil(1_000_000).max(1);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// The key of a bucket. Use typed keys, never strings joined from several names.
pub(super) trait BucketKey: Hash + Eq + Clone {}

impl<K: Hash + Eq + Clone> BucketKey for K {}

/// tokio's clock for `governor`, so that tests can pause it.
#[derive(Debug, Clone, Copy)]
struct UptimeClock {
    begun: Instant,
}

impl Clock for UptimeClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// The buckets of one rate, by key. Full buckets take no memory.
#[derive(Debug)]
pub(super) struct KeyedBuckets<K: BucketKey> {
    rate: RateLimit,
    clock: UptimeClock,
    limiter: RateLimiter<K, HashMapStateStore<K>, UptimeClock, NoOpMiddleware<Duration>>,
    /// Peak number of buckets since memory was last freed.
    most: AtomicUsize,
}

impl<K: BucketKey> KeyedBuckets<K> {
    /// Creates full buckets; `None` without a rate.
    pub(super) fn new(rate: Option<RateLimit>) -> Option<Self> {
        let rate = rate?;
        let clock = UptimeClock {
            begun: Instant::now(),
        };
        Some(Self {
            rate,
            clock,
            limiter: RateLimiter::hashmap_with_clock(rate.quota()?, clock),
            most: AtomicUsize::new(0),
        })
    }

    pub(super) fn rate(&self) -> RateLimit {
        self.rate
    }

    /// Takes one unit from the bucket of `key`.
    ///
    /// # Errors
    ///
    /// Returns the time until one unit is available.
    pub(super) fn charge_one(&self, key: &K) -> Result<(), Duration> {
        self.limiter
            .check_key(key)
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Takes the cost of a batch beyond the one unit [taken](Self::charge_one) for it already. The
    /// whole batch costs a full bucket at most, so that every batch can pass eventually.
    ///
    /// # Errors
    ///
    /// Returns the time to wait before retrying the whole batch.
    pub(super) fn charge_rest(&self, key: &K, batch: u32) -> Result<(), Duration> {
        let cost = batch.min(self.rate.burst.get());
        let Some(rest) = NonZeroU32::new(cost.saturating_sub(1)) else {
            return Ok(());
        };
        match self.limiter.check_key_n(key, rest) {
            Ok(Err(not_until)) => {
                Err(not_until.wait_time_from(self.clock.now()) + self.rate.interval())
            }
            // `Err` cannot occur: the cost is less than the bucket's capacity.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Forgets buckets that are full again. Memory is freed only when few buckets are left,
    /// since freeing it moves all of them and blocks callers meanwhile.
    pub(super) fn sweep(&self) {
        let before = self.limiter.len();
        self.limiter.retain_recent();
        let left = self.limiter.len();
        let most = self.most.load(Ordering::Relaxed).max(before);
        if most / SHRUNK_BELOW > left {
            self.limiter.shrink_to_fit();
            self.most.store(left, Ordering::Relaxed);
        } else {
            self.most.store(most, Ordering::Relaxed);
        }
    }

    /// Returns true if all buckets are known to be full. A refilled bucket counts as full only
    /// after a sweep.
    pub(super) fn is_full(&self) -> bool {
        self.limiter.is_empty()
    }
}
