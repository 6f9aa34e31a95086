//! Whether to come back and when: the delays between attempts, and what a relay
//! that closes or refuses says about it. Pure: it is asked and opens nothing.

use std::time::Duration;

use super::{
    handshake::OpenError,
    problem::Problem,
    received::{ReceiveError, SendError},
};
use crate::random::Random;

/// The longest delay that a relay can impose on a client.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

pub(super) const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const TOKEN_EXPIRED: u16 = 4001;
const DISCONNECTED_BY_BACKEND: u16 = 4002;
const KEPT_BEING_REFUSED: u16 = 4005;
/// What the relay says to a client that does not speak its protocol: protocol
/// error, wrong kind of frame, bad UTF-8, message too big.
const CLIENT_AT_FAULT: [u16; 4] = [1002, 1003, 1007, 1009];

const RETRY_AFTER_MS: &str = "retry_after_ms=";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DisconnectReason {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It ended.
    #[error(transparent)]
    Ended(#[from] ReceiveError),
    /// The relay stopped reading.
    #[error(transparent)]
    Send(#[from] SendError),
    /// No frame came for too long.
    #[error("the connection is dead: no frame for {0:?}")]
    Dead(Duration),
    /// The token source had none to give.
    #[error("there is no fresh token: {0}")]
    NoToken(Box<dyn std::error::Error + Send + Sync>),
}

impl DisconnectReason {
    /// Whether it was the token.
    pub(super) fn is_about_the_token(&self) -> bool {
        match self {
            Self::Open(OpenError::Unauthorized(_)) => true,
            Self::Ended(ReceiveError::Closed { code, .. }) => *code == TOKEN_EXPIRED,
            _ => false,
        }
    }
}

/// Why a [`Client`](super::Client) stopped for good.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The relay does not accept the token.
    #[error("the relay does not accept the token ({0}): get a fresh token and connect with that")]
    Unauthorized(String),
    /// The connection will not be opened next time either.
    #[error("{0}; trying again would not help")]
    Refused(OpenError),
    /// A backend disconnected this client, which is not to come back by itself.
    #[error("a backend disconnected this client ({reason:?})")]
    Disconnected {
        /// The text of the Close frame.
        reason: String,
    },
    /// The relay closed because of what this client sent.
    #[error("the relay closed with {code} ({reason:?}): this client does not speak its protocol")]
    Fault {
        /// The close code.
        code: u16,
        /// The text beside it.
        reason: String,
    },
    /// It had stopped before.
    #[error("the client has stopped")]
    Stopped,
}

/// Delays that double from a first one to a last one, with jitter, so that
/// clients that were lost together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// Delays from `first` on that double up to `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            attempts: 0,
        }
    }

    /// The next delay: between half of its place in the sequence and the whole.
    pub fn next(&mut self, random: &Random) -> Duration {
        let factor = 2_u32.saturating_pow(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        jittered(self.first.saturating_mul(factor).min(self.max), random)
    }

    /// Begins anew, after a connection that worked.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The delay after this end of a connection: as the relay asks, or the next.
    pub(super) fn after(&mut self, reason: &DisconnectReason, random: &Random) -> Duration {
        match reason {
            DisconnectReason::Ended(ReceiveError::Closed { code, reason }) => match *code {
                // The relay has spread these delays itself.
                NORMAL | GOING_AWAY => retry_after(reason).unwrap_or_else(|| self.next(random)),
                KEPT_BEING_REFUSED => jittered(self.max, random),
                _ => self.next(random),
            },
            DisconnectReason::Open(OpenError::Refused(problem)) => {
                let wanted = problem.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
                wanted + self.next(random)
            }
            _ => self.next(random),
        }
    }
}

/// The reason itself where it is worth coming back, else the error to stop with.
pub(super) fn reason_to_come_back(
    reason: DisconnectReason,
) -> Result<DisconnectReason, ClientError> {
    match reason {
        DisconnectReason::Open(error) => match error {
            OpenError::Unauthorized(problem) => Err(ClientError::Unauthorized(problem.to_string())),
            OpenError::Refused(problem) if !may_pass_later(&problem) => {
                Err(ClientError::Refused(OpenError::Refused(problem)))
            }
            OpenError::Address(_) | OpenError::MalformedToken => Err(ClientError::Refused(error)),
            error => Ok(error.into()),
        },
        DisconnectReason::Ended(ReceiveError::Closed { code, reason }) => match code {
            TOKEN_EXPIRED => Err(ClientError::Unauthorized("it has expired".to_owned())),
            DISCONNECTED_BY_BACKEND => Err(ClientError::Disconnected { reason }),
            code if CLIENT_AT_FAULT.contains(&code) => Err(ClientError::Fault { code, reason }),
            code => Ok(ReceiveError::Closed { code, reason }.into()),
        },
        reason => Ok(reason),
    }
}

/// Faults of the relay and of the moment pass; what it calls the client's fault,
/// or a redirect, which is not followed, does not.
fn may_pass_later(problem: &Problem) -> bool {
    const REQUEST_TIMEOUT: u16 = 408;
    const TOO_MANY_REQUESTS: u16 = 429;
    matches!(problem.status, REQUEST_TIMEOUT | TOO_MANY_REQUESTS) || problem.status >= 500
}

fn jittered(delay: Duration, random: &Random) -> Duration {
    let half = delay / 2;
    let half_micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
    half + Duration::from_micros(random.below(half_micros.saturating_add(1)))
}

/// The delay that a close reason asks for, `retry_after_ms=…` anywhere in it.
fn retry_after(reason: &str) -> Option<Duration> {
    let (_, after) = reason.split_once(RETRY_AFTER_MS)?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    let millis = digits.parse().ok()?;
    Some(Duration::from_millis(millis).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(30))
    }

    #[test]
    fn delays_double_up_to_the_longest_and_jitter_by_half() {
        for seed in 0..200 {
            let (random, mut backoff) = (Random::from_seed(seed), backoff());
            for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
                let (delay, whole) = (backoff.next(&random), Duration::from_secs(seconds));
                assert!(
                    delay >= whole / 2 && delay <= whole,
                    "{delay:?} of {whole:?}"
                );
            }
        }
    }

    #[test]
    fn clients_that_were_lost_together_come_back_apart() {
        let delays: std::collections::HashSet<_> = (0..100)
            .map(|seed| backoff().next(&Random::from_seed(seed)))
            .collect();
        assert!(delays.len() > 90, "{}", delays.len());
    }

    #[test]
    fn a_reset_begins_anew() {
        let (random, mut backoff) = (Random::from_seed(1), backoff());
        for _ in 0..100 {
            backoff.next(&random);
        }
        backoff.reset();
        assert!(backoff.next(&random) <= Duration::from_secs(1));
    }

    #[test]
    fn a_close_reason_may_name_a_delay() {
        for (reason, delay) in [
            ("retry_after_ms=1500", Some(Duration::from_millis(1500))),
            (
                "shutting down; retry_after_ms=20, bye",
                Some(Duration::from_millis(20)),
            ),
            ("retry_after_ms=0", Some(Duration::ZERO)),
            ("retry_after_ms=18446744073709551615", Some(RETRY_AFTER_MAX)),
            ("retry_after_ms=18446744073709551616", None),
            ("retry_after_ms=", None),
            ("retry_after_ms=-1", None),
            ("shutting down", None),
            ("", None),
        ] {
            assert_eq!(retry_after(reason), delay, "{reason:?}");
        }
    }
}
