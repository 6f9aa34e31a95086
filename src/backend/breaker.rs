//! A circuit breaker, as a pure state machine: a backend that is down is asked now and then, not
//! by everybody.

use std::time::Duration;

use tokio::time::Instant;

/// Number of failures in a row after which the breaker opens.
pub(super) const FAILURES_MAX: u32 = 5;

/// Time for which nobody asks after the breaker has opened. It doubles with each failed probe.
pub(super) const OPEN_MIN: Duration = Duration::from_secs(1);

/// Maximum time between probes.
pub(super) const OPEN_MAX: Duration = Duration::from_secs(30);

/// A breaker. It is closed while the backend answers; it opens after [`FAILURES_MAX`] failures in
/// a row, and refuses questions for a time; then it admits one question as a probe, whose result
/// closes it or opens it for a longer time.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: BreakerState,
}

#[derive(Debug)]
enum BreakerState {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
        /// How long it is open this time.
        period: Duration,
    },
    HalfOpen {
        period: Duration,
    },
}

impl Default for BreakerState {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// A question that the breaker has admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// One of any number.
    Ordinary,
    /// The only one, whose result decides.
    Probe,
}

/// A change of state that operators should know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerChange {
    /// The breaker has opened, for this time.
    Opened(Duration),
    /// The backend answers again.
    Closed,
}

impl Breaker {
    /// Admits a question, or returns the time after which to try again.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Admission, Duration> {
        match self.state {
            BreakerState::Closed { .. } => Ok(Admission::Ordinary),
            BreakerState::Open { until, period } if until <= now => {
                self.state = BreakerState::HalfOpen { period };
                Ok(Admission::Probe)
            }
            BreakerState::Open { until, .. } => Err(until.saturating_duration_since(now)),
            BreakerState::HalfOpen { .. } => Err(OPEN_MIN),
        }
    }

    /// Returns the time after which to try again, if a question would be refused now.
    pub(super) fn refusal(&self, now: Instant) -> Option<Duration> {
        match self.state {
            BreakerState::Open { until, .. } if until > now => {
                Some(until.saturating_duration_since(now))
            }
            BreakerState::HalfOpen { .. } => Some(OPEN_MIN),
            _ => None,
        }
    }

    /// Records that the backend has answered.
    pub(super) fn succeed(&mut self) -> Option<BreakerChange> {
        let was_closed = matches!(self.state, BreakerState::Closed { .. });
        self.state = BreakerState::default();
        (!was_closed).then_some(BreakerChange::Closed)
    }

    /// Records that the backend has not answered.
    pub(super) fn fail(&mut self, admission: Admission, now: Instant) -> Option<BreakerChange> {
        let period = match (&mut self.state, admission) {
            (BreakerState::Closed { failures }, _) => {
                *failures += 1;
                if *failures < FAILURES_MAX {
                    return None;
                }
                OPEN_MIN
            }
            (BreakerState::HalfOpen { period }, Admission::Probe) => (*period * 2).min(OPEN_MAX),
            // It was asked before the breaker opened, and says nothing new.
            _ => return None,
        };
        self.state = BreakerState::Open {
            until: now + period,
            period,
        };
        Some(BreakerChange::Opened(period))
    }

    /// Returns true unless it is closed.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, BreakerState::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(at: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for failure in 1..=FAILURES_MAX {
            let change = breaker.fail(Admission::Ordinary, at);
            assert_eq!(change.is_some(), failure == FAILURES_MAX);
        }
        breaker
    }

    #[test]
    fn it_opens_only_after_failures_in_a_row() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            for _ in 1..FAILURES_MAX {
                assert_eq!(breaker.fail(Admission::Ordinary, now), None);
            }
            assert_eq!(breaker.succeed(), None);
        }
        assert_eq!(breaker.admit(now), Ok(Admission::Ordinary));
        assert!(!breaker.is_open());
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now), Err(OPEN_MIN));
        let later = now + OPEN_MIN / 4;
        assert_eq!(breaker.admit(later), Err(OPEN_MIN / 4 * 3));
        assert_eq!(breaker.refusal(later), Some(OPEN_MIN / 4 * 3));
        let due = now + OPEN_MIN;
        assert_eq!(breaker.refusal(due), None);
        assert_eq!(breaker.admit(due), Ok(Admission::Probe));
        assert_eq!(breaker.admit(due), Err(OPEN_MIN));
        assert_eq!(breaker.refusal(due), Some(OPEN_MIN));
        assert_eq!(breaker.succeed(), Some(BreakerChange::Closed));
        assert_eq!(breaker.admit(due), Ok(Admission::Ordinary));
    }

    #[test]
    fn each_failed_probe_doubles_the_time_up_to_a_maximum() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut period = OPEN_MIN;
        for _ in 0..8 {
            now += period;
            assert_eq!(breaker.admit(now), Ok(Admission::Probe));
            period = (period * 2).min(OPEN_MAX);
            let change = breaker.fail(Admission::Probe, now);
            assert_eq!(change, Some(BreakerChange::Opened(period)));
            assert_eq!(breaker.admit(now), Err(period));
        }
        assert_eq!(period, OPEN_MAX);
    }

    #[test]
    fn late_failures_neither_reopen_it_nor_decide_for_the_probe() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.fail(Admission::Ordinary, now), None);
        let due = now + OPEN_MIN;
        assert_eq!(breaker.admit(due), Ok(Admission::Probe));
        assert_eq!(breaker.fail(Admission::Ordinary, due), None);
        assert_eq!(breaker.admit(due), Err(OPEN_MIN));
        // A late answer shows that the backend is up.
        assert_eq!(breaker.succeed(), Some(BreakerChange::Closed));
    }
}
