//! The only module that reads the time of day, which tokens and timestamps need. Deadlines within
//! the process use tokio's time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// A clock for the time of day.
#[derive(Debug, Clone)]
pub struct Clock(ClockSource);

#[derive(Debug, Clone)]
enum ClockSource {
    System,
    /// A time of day, the instant of tokio's time from which it advances, and the seconds by
    /// which the clock was set forward since.
    Simulated(Duration, Instant, Arc<AtomicU64>),
}

impl Clock {
    /// Returns the machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(ClockSource::System)
    }

    /// Returns a clock that shows `since_unix_epoch` now and then advances with tokio's time, also
    /// where that is paused or advanced by hand.
    #[must_use]
    pub fn simulated(since_unix_epoch: Duration) -> Self {
        let now = Instant::now();
        Self(ClockSource::Simulated(
            since_unix_epoch,
            now,
            Arc::default(),
        ))
    }

    /// Sets a simulated clock and its clones forward by `seconds`, without changing tokio's time,
    /// as if the machine's clock had been set or the machine suspended.
    #[cfg(any(test, feature = "testing"))]
    pub fn set_forward(&self, seconds: u64) {
        if let ClockSource::Simulated(_, _, forward) = &self.0 {
            forward.fetch_add(seconds, Ordering::Relaxed);
        }
    }

    /// Returns the time since the Unix epoch; 0 if the machine's clock is before it.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn since_unix_epoch(&self) -> Duration {
        match &self.0 {
            ClockSource::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            ClockSource::Simulated(start, begun, forward) => {
                let forward = Duration::from_secs(forward.load(Ordering::Relaxed));
                start
                    .saturating_add(begun.elapsed())
                    .saturating_add(forward)
            }
        }
    }

    /// Returns the time in Unix seconds.
    #[must_use]
    pub fn unix_seconds(&self) -> i64 {
        i64::try_from(self.since_unix_epoch().as_secs()).unwrap_or(i64::MAX)
    }
}
