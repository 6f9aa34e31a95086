//! Decides whether and when to reconnect: the delays between attempts, and what a close
//! code or refusal says about them. Does no I/O.

use std::time::Duration;

use sidewire_protocol::random::RandomSource;

use super::{
    handshake::OpenError,
    problem::HttpRefusal,
    received::{ReceiveError, SendError},
};

/// The longest delay that the client accepts from a relay.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

pub(super) const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const TOKEN_EXPIRED: u16 = 4001;
const DISCONNECTED_BY_BACKEND: u16 = 4002;
const KEPT_BEING_REFUSED: u16 = 4005;
const TOKEN_WANTED: u16 = 4006;
/// The close codes of a handshake that is refused after the upgrade.
const TOKEN_REFUSED: u16 = 4401;
const FORBIDDEN: u16 = 4403;
const TOO_MANY: u16 = 4429;
const UNAVAILABLE: u16 = 4503;
/// The delay after 4005, as the protocol asks for.
const REFUSED_DELAY: Duration = Duration::from_secs(60);
/// The close codes for a client that violates the protocol: protocol error, wrong kind
/// of frame, invalid UTF-8, message too big.
const CLIENT_AT_FAULT: [u16; 4] = [1002, 1003, 1007, 1009];

const RETRY_AFTER_MS: &str = "retry_after_ms=";

/// Why a connection ended or could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DisconnectReason {
    /// The connection could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The connection ended.
    #[error(transparent)]
    Ended(#[from] ReceiveError),
    /// The relay stopped reading.
    #[error(transparent)]
    Send(#[from] SendError),
    /// No frame arrived for this time.
    #[error("the connection is dead: no frame for {0:?}")]
    Dead(Duration),
    /// The token source returned an error.
    #[error("cannot get a new token: {0}")]
    NoToken(Box<dyn std::error::Error + Send + Sync>),
}

impl DisconnectReason {
    /// Returns why the relay did not accept the token, if that is the reason.
    pub(super) fn token_fault(&self) -> Option<String> {
        match self {
            Self::Open(OpenError::Unauthorized(problem)) => Some(problem.to_string()),
            Self::Ended(ReceiveError::Closed { code, reason }) => match *code {
                TOKEN_EXPIRED => Some("it has expired".to_owned()),
                TOKEN_REFUSED => Some(reason.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns true if the relay refused the token at a handshake.
    pub(super) fn is_token_refusal(&self) -> bool {
        matches!(self, Self::Open(OpenError::Unauthorized(_)))
            || self.close_code() == Some(TOKEN_REFUSED)
    }

    /// Returns true if the relay refused the token after it had completed the upgrade.
    pub(super) fn is_late_token_refusal(&self) -> bool {
        self.close_code() == Some(TOKEN_REFUSED)
    }

    /// Returns true if the token has expired.
    pub(super) fn is_token_expiry(&self) -> bool {
        self.close_code() == Some(TOKEN_EXPIRED)
    }

    /// Returns true if the next connection needs a new token, or should have one.
    pub(super) fn asks_for_a_token(&self) -> bool {
        self.token_fault().is_some() || self.close_code() == Some(TOKEN_WANTED)
    }

    fn close_code(&self) -> Option<u16> {
        match self {
            Self::Ended(ReceiveError::Closed { code, .. }) => Some(*code),
            _ => None,
        }
    }
}

/// Why a [`RelayClient`](super::RelayClient) stopped for good.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The relay does not accept the token.
    #[error("the relay does not accept the token ({0}): connect again with a new token")]
    Unauthorized(String),
    /// The relay refused a token that had just been fetched.
    #[error("the relay does not accept a new token either ({0}): log in again")]
    LoginRequired(String),
    /// The relay does not serve clients of this origin, or under this name.
    #[error("the relay refused the origin or the host ({0}); trying again would not help")]
    Forbidden(String),
    /// The relay refused, and would refuse again.
    #[error("{0}; trying again would not help")]
    Refused(OpenError),
    /// A backend disconnected this client, which must not reconnect by itself.
    #[error("a backend disconnected this client ({reason:?})")]
    Disconnected {
        /// The close reason.
        reason: String,
    },
    /// The relay closed the connection because this client violated the protocol.
    #[error("the relay closed with {code} ({reason:?}): this client violated the protocol")]
    Fault {
        /// The close code.
        code: u16,
        /// The close reason.
        reason: String,
    },
    /// The client had already stopped.
    #[error("the client has stopped")]
    Stopped,
}

/// Delays that double up to a maximum, with jitter, so that clients that were
/// disconnected together do not reconnect together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// Creates delays that start at `first` and double up to `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            attempts: 0,
        }
    }

    /// Returns the next delay: a random time between half of the nominal delay and all of it.
    pub fn next_delay(&mut self, random: &RandomSource) -> Duration {
        let factor = 2_u32.saturating_pow(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        with_jitter(self.first.saturating_mul(factor).min(self.max), random)
    }

    /// Starts again at the first delay, after a successful connection.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Returns the delay after a connection ended for this reason: the relay's if it names
    /// one, else the next.
    pub(super) fn delay_after(
        &mut self,
        reason: &DisconnectReason,
        random: &RandomSource,
    ) -> Duration {
        match reason {
            DisconnectReason::Ended(ReceiveError::Closed { code, reason }) => match *code {
                // No jitter: the relay has already spread these delays.
                NORMAL | GOING_AWAY => {
                    retry_after(reason).unwrap_or_else(|| self.next_delay(random))
                }
                KEPT_BEING_REFUSED => REFUSED_DELAY + with_jitter(self.first, random),
                TOO_MANY | UNAVAILABLE => {
                    retry_after(reason).unwrap_or_default() + self.next_delay(random)
                }
                _ => self.next_delay(random),
            },
            DisconnectReason::Open(OpenError::Refused(problem)) => {
                let wanted = problem.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
                wanted + self.next_delay(random)
            }
            _ => self.next_delay(random),
        }
    }
}

/// Returns the reason if reconnecting may help.
///
/// # Errors
///
/// When the client must stop.
pub(super) fn check_may_reconnect(
    reason: DisconnectReason,
) -> Result<DisconnectReason, ClientError> {
    if let Some(fault) = reason.token_fault() {
        return Err(ClientError::Unauthorized(fault));
    }
    match reason {
        DisconnectReason::Open(error) => match error {
            OpenError::Refused(problem) if !may_pass_later(&problem) => {
                Err(ClientError::Refused(OpenError::Refused(problem)))
            }
            OpenError::Address(_) | OpenError::MalformedToken => Err(ClientError::Refused(error)),
            error => Ok(error.into()),
        },
        DisconnectReason::Ended(ReceiveError::Closed { code, reason }) => match code {
            FORBIDDEN => Err(ClientError::Forbidden(reason)),
            DISCONNECTED_BY_BACKEND => Err(ClientError::Disconnected { reason }),
            code if CLIENT_AT_FAULT.contains(&code) => Err(ClientError::Fault { code, reason }),
            code => Ok(ReceiveError::Closed { code, reason }.into()),
        },
        reason => Ok(reason),
    }
}

/// Returns true for refusals that may pass: server errors, timeouts and rate limits.
/// Other client errors do not pass, nor do redirects, which are not followed.
fn may_pass_later(problem: &HttpRefusal) -> bool {
    const REQUEST_TIMEOUT: u16 = 408;
    const TOO_MANY_REQUESTS: u16 = 429;
    matches!(problem.status, REQUEST_TIMEOUT | TOO_MANY_REQUESTS) || problem.status >= 500
}

/// Returns a random time between half of the delay and all of it.
pub(super) fn with_jitter(delay: Duration, random: &RandomSource) -> Duration {
    let half = delay / 2;
    let half_micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
    half + Duration::from_micros(random.below(half_micros.saturating_add(1)))
}

/// Parses the delay in a close reason, `retry_after_ms=…` anywhere in it.
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
    fn delays_double_up_to_the_maximum_with_a_jitter_of_half() {
        for seed in 0..200 {
            let (random, mut backoff) = (RandomSource::from_seed(seed), backoff());
            for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
                let (delay, whole) = (backoff.next_delay(&random), Duration::from_secs(seconds));
                assert!(
                    delay >= whole / 2 && delay <= whole,
                    "{delay:?} of {whole:?}"
                );
            }
        }
    }

    #[test]
    fn clients_disconnected_together_reconnect_at_different_times() {
        let delays: std::collections::HashSet<_> = (0..100)
            .map(|seed| backoff().next_delay(&RandomSource::from_seed(seed)))
            .collect();
        assert!(delays.len() > 90, "{}", delays.len());
    }

    #[test]
    fn a_reset_restarts_with_the_first_delay() {
        let (random, mut backoff) = (RandomSource::from_seed(1), backoff());
        for _ in 0..100 {
            backoff.next_delay(&random);
        }
        backoff.reset();
        assert!(backoff.next_delay(&random) <= Duration::from_secs(1));
    }

    #[test]
    fn a_delay_is_read_from_a_close_reason() {
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
