//! The one place that asks what time it is. Deadlines within the process are
//! tokio's business; this is for the time of day, which tokens and timestamps
//! need.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// Tells the time of day.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    /// Time of day at an instant of tokio's time, which goes on from there, and the seconds
    /// by which it was set forward since.
    Simulated(Duration, Instant, Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `since_unix_epoch` now and then goes on with tokio's
    /// time, so that it stands still and leaps where that is paused and advanced.
    #[must_use]
    pub fn simulated(since_unix_epoch: Duration) -> Self {
        let now = Instant::now();
        Self(Source::Simulated(since_unix_epoch, now, Arc::default()))
    }

    /// Sets a simulated clock, and those that were cloned from it, forward by so many
    /// seconds, as a machine's clock moves that is set or was suspended: tokio's time stays
    /// where it is.
    #[cfg(test)]
    pub(crate) fn set_forward(&self, seconds: u64) {
        if let Source::Simulated(_, _, forward) = &self.0 {
            forward.fetch_add(seconds, Ordering::Relaxed);
        }
    }

    /// The time since the Unix epoch; 0 where the machine's clock stands before it.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn since_unix_epoch(&self) -> Duration {
        match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            Source::Simulated(start, begun, forward) => {
                let forward = Duration::from_secs(forward.load(Ordering::Relaxed));
                start
                    .saturating_add(begun.elapsed())
                    .saturating_add(forward)
            }
        }
    }

    /// Unix seconds.
    #[must_use]
    pub fn unix_seconds(&self) -> i64 {
        i64::try_from(self.since_unix_epoch().as_secs()).unwrap_or(i64::MAX)
    }
}
