//! The ping rate limit of one connection: a bucket stored as a single time.

use std::time::Duration;

use tokio::time::Instant;

use super::{Limit, LimitExceeded, RateLimit, rates::ceil_to_millis};

/// The heartbeat bucket of one connection.
#[derive(Debug, Default)]
pub struct HeartbeatBucket {
    /// Time at which the bucket is full again; `None` if it is full.
    full_at: Option<Instant>,
}

impl HeartbeatBucket {
    /// Takes one unit at `now`, at the rate in force.
    ///
    /// # Errors
    ///
    /// Fails if the bucket is empty.
    pub fn charge_one(&mut self, rate: RateLimit, now: Instant) -> Result<(), LimitExceeded> {
        let one = rate.interval();
        let all_but_one = one * (rate.burst.get() - 1);
        let full_at = self.full_at.unwrap_or(now);
        // After a rate change, no more than a full bucket can be missing.
        let missing = full_at
            .saturating_duration_since(now)
            .min(all_but_one + one);
        match missing.checked_sub(all_but_one) {
            None | Some(Duration::ZERO) => {
                self.full_at = now.checked_add(missing + one);
                Ok(())
            }
            Some(wait) => Err(LimitExceeded {
                limit: Limit::Heartbeats,
                retry_after: ceil_to_millis(wait),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rate(burst: u32, millis: u64) -> RateLimit {
        RateLimit {
            burst: NonZeroU32::new(burst).unwrap(),
            period: Duration::from_millis(millis),
        }
    }

    #[test]
    fn a_bucket_holds_its_burst_and_returns_the_wait_for_the_next() {
        let (rate, start) = (rate(3, 300), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let mut bucket = HeartbeatBucket::default();
        for _ in 0..3 {
            assert_eq!(bucket.charge_one(rate, at(0)), Ok(()));
        }
        let wait = |bucket: &mut HeartbeatBucket, millis| {
            let exceeded = bucket.charge_one(rate, at(millis)).unwrap_err();
            exceeded.retry_after.as_millis()
        };
        assert_eq!(wait(&mut bucket, 0), 100);
        assert_eq!(wait(&mut bucket, 99), 1);
        assert_eq!(bucket.charge_one(rate, at(100)), Ok(()));
        assert_eq!(wait(&mut bucket, 100), 100);
        for _ in 0..3 {
            assert_eq!(bucket.charge_one(rate, at(400)), Ok(()));
        }
        assert_eq!(wait(&mut bucket, 400), 100);
    }

    #[test]
    fn a_faster_rate_is_not_held_up_by_the_old_one() {
        let now = Instant::now();
        let mut bucket = HeartbeatBucket::default();
        bucket.charge_one(rate(1, 86_400_000), now).unwrap();
        assert!(bucket.charge_one(rate(1, 86_400_000), now).is_err());
        let exceeded = bucket.charge_one(rate(60, 60_000), now).unwrap_err();
        assert_eq!(exceeded.retry_after, Duration::from_secs(1));
    }
}
