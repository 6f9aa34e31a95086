//! Buckets that fill at a steady rate (GCRA, by `governor`), one for each name.

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

/// Memory is given back when less than this part is left of what there was.
const SHRUNK_BELOW: usize = 4;

/// A bucket holds `burst`, and is full again `period` after it was emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many at once.
    pub burst: NonZeroU32,
    /// The time in which as many come again.
    pub period: Duration,
}

impl Rate {
    /// The time in which one comes again.
    pub(super) fn interval(self) -> Duration {
        (self.period / self.burst.get()).max(Duration::from_nanos(1))
    }

    fn quota(self) -> Option<Quota> {
        Quota::with_period(self.interval()).map(|quota| quota.allow_burst(self.burst))
    }
}

/// Rounded up, and never 0, which would mean at once.
pub(super) fn whole_millis(wait: Duration) -> Duration {
    let millis = wait.as_nanos().div_ceil(1_000_000).max(1);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// What names a bucket: never a text that is joined of several.
pub(super) trait BucketKey: Hash + Eq + Clone {}

impl<K: Hash + Eq + Clone> BucketKey for K {}

/// tokio's time, so that it can be paused.
#[derive(Debug, Clone, Copy)]
struct Uptime {
    begun: Instant,
}

impl Clock for Uptime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// The buckets of one rate. Only those that are not full take up memory.
#[derive(Debug)]
pub(super) struct Bucket<K: BucketKey> {
    rate: Rate,
    clock: Uptime,
    limiter: RateLimiter<K, HashMapStateStore<K>, Uptime, NoOpMiddleware<Duration>>,
    /// How many there have been since memory was given back.
    most: AtomicUsize,
}

impl<K: BucketKey> Bucket<K> {
    /// All are full. `None`: there is no rate.
    pub(super) fn new(rate: Option<Rate>) -> Option<Self> {
        let rate = rate?;
        let clock = Uptime {
            begun: Instant::now(),
        };
        Some(Self {
            rate,
            clock,
            limiter: RateLimiter::hashmap_with_clock(rate.quota()?, clock),
            most: AtomicUsize::new(0),
        })
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one out of the bucket of that name.
    ///
    /// # Errors
    ///
    /// How long it takes until there is one.
    pub(super) fn take(&self, key: &K) -> Result<(), Duration> {
        self.limiter
            .check_key(key)
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Takes what a batch costs beyond the one that was [taken](Self::take) for it
    /// already: both together are a whole bucket at the most, so that a batch can pass
    /// some day.
    ///
    /// # Errors
    ///
    /// How long it takes until the batch can be had that is tried again, from its first
    /// on.
    pub(super) fn take_rest(&self, key: &K, batch: u32) -> Result<(), Duration> {
        let cost = batch.min(self.rate.burst.get());
        let Some(rest) = NonZeroU32::new(cost.saturating_sub(1)) else {
            return Ok(());
        };
        match self.limiter.check_key_n(key, rest) {
            Ok(Err(not_until)) => {
                Err(not_until.wait_time_from(self.clock.now()) + self.rate.interval())
            }
            // It is less than a bucket holds.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Forgets those that are full again. Memory is given back when there are few of what
    /// there were, since for that all are moved while nobody can take.
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

    /// Whether all are full, as far as was looked.
    pub(super) fn is_full(&self) -> bool {
        self.limiter.is_empty()
    }
}
