//! Renews the token of an open connection before it expires: decides when to get a new one and
//! when to try again. Does no I/O: the caller passes in the time, the tokens and the answers.

use std::{error::Error, future::pending, mem, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;
use sidewire_protocol::{ErrorCode, random::RandomSource, wire};
use tokio::time::Instant;

use super::{
    ControlMessage,
    options::{Credential, FetchingToken, NoNewerToken, TokenSource},
    reconnect::{Backoff, RETRY_AFTER_MAX, with_jitter},
};

/// The part of a token's remaining time that is left when it is renewed, as a divisor.
const LEAD_DIVISOR: u32 = 5;

/// The longest time before the expiry at which a token is renewed.
const LEAD_MAX: Duration = Duration::from_secs(300);

/// The shortest time between two renewals, so that tokens that are nearly expired when they are
/// issued do not become a flood of requests.
const INTERVAL_MIN: Duration = Duration::from_secs(5);

/// The longest remaining time that is believed, in seconds.
const REMAINING_MAX: u64 = 365 * 24 * 3600;

/// The delays after failed renewals.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Why a token was not renewed on an open connection, which lives on until the old one expires.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The token source returned an error.
    #[error("cannot get a new token: {0}")]
    NoToken(Box<dyn Error + Send + Sync>),
    /// The relay refused the new token.
    #[error("the relay refused the new token: {}: {}", .0.error_code, .0.error_message)]
    Refused(wire::ErrorResponse),
}

/// A renewal that failed.
#[derive(Debug)]
pub(super) struct FailedRenewal {
    pub(super) reason: RenewalError,
    /// The time until the next attempt; `None` if there is none on this connection.
    pub(super) retry_in: Option<Duration>,
}

/// The renewal of the token of one connection.
pub(super) struct TokenRenewal {
    /// The token in use.
    token: Option<Credential>,
    /// When it expires, in Unix seconds by the relay's clock; `None` if that is not known or never.
    expires_at: Option<i64>,
    step: RenewalStep,
    /// A new token that the relay did not take for a reason that is not in the token.
    unused: Option<Credential>,
    backoff: Backoff,
}

/// The next step of a renewal.
enum RenewalStep {
    /// To learn the relay's time, by which tokens expire. The clock of this machine may differ.
    LearnTime,
    /// To ask for a new token, or send the unused one, at this time.
    WaitUntil(Instant),
    /// To get the new token.
    Fetch(FetchingToken),
    /// To send the new token.
    Send(Credential),
    /// To receive the answer to the Authenticate with this message id.
    AwaitAnswer(String, Credential),
    /// None: the token is not renewed on this connection.
    Nothing,
}

impl TokenRenewal {
    /// Creates the renewal of a connection that was opened with this token.
    pub(super) fn new(token: Option<&Credential>, has_source: bool) -> Self {
        let expires_at = token.filter(|_| has_source).and_then(expiry_of);
        Self {
            token: token.cloned(),
            expires_at,
            step: match expires_at {
                Some(_) => RenewalStep::LearnTime,
                None => RenewalStep::Nothing,
            },
            unused: None,
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX),
        }
    }

    /// Records the relay's time, in Unix seconds.
    pub(super) fn on_relay_time(&mut self, time: i64, now: Instant, random: &RandomSource) {
        if let (RenewalStep::LearnTime, Some(expires_at)) = (&self.step, self.expires_at) {
            self.step = RenewalStep::WaitUntil(now + delay_until_due(expires_at, time, random));
        }
    }

    /// Returns the time at which the next renewal begins.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        match &self.step {
            RenewalStep::WaitUntil(until) => Some(*until),
            _ => None,
        }
    }

    /// Begins a renewal if it is time: asks for a new token, unless there is one.
    pub(super) fn begin_if_due(&mut self, source: &dyn TokenSource, now: Instant) {
        if self.wake_at().is_some_and(|until| until <= now) {
            self.step = match self.unused.take() {
                Some(token) => RenewalStep::Send(token),
                None => RenewalStep::Fetch(source.fetch_token()),
            };
        }
    }

    /// Waits for the token that was asked for; forever if none was. Cancel-safe.
    pub(super) async fn fetched(&mut self) -> Result<Credential, Box<dyn Error + Send + Sync>> {
        match &mut self.step {
            RenewalStep::Fetch(fetching) => fetching.await,
            _ => pending().await,
        }
    }

    /// Records the token that was asked for. Returns the failure if the token source has failed.
    pub(super) fn on_fetched(
        &mut self,
        fetched: Result<Credential, Box<dyn Error + Send + Sync>>,
        now: Instant,
        random: &RandomSource,
    ) -> Option<FailedRenewal> {
        match fetched {
            Ok(token) if self.outlives_current(&token) => {
                self.step = RenewalStep::Send(token);
                None
            }
            Err(error) if !error.is::<NoNewerToken>() => {
                let retry_in = Some(self.retry_later(Duration::ZERO, now, random));
                let reason = RenewalError::NoToken(error);
                Some(FailedRenewal { reason, retry_in })
            }
            // The source keeps its token until it is older.
            Ok(_) | Err(_) => {
                self.retry_later(Duration::ZERO, now, random);
                None
            }
        }
    }

    /// Returns the Authenticate to send, if there is one. The caller must then call
    /// [`Self::on_sent`].
    pub(super) fn request(&self) -> Option<ControlMessage> {
        let RenewalStep::Send(token) = &self.step else {
            return None;
        };
        Some(ControlMessage::Authenticate(wire::Authenticate {
            token: token.reveal().to_owned(),
        }))
    }

    /// Records that the Authenticate was sent with this message id.
    pub(super) fn on_sent(&mut self, message_id: String) {
        self.step = match mem::replace(&mut self.step, RenewalStep::Nothing) {
            RenewalStep::Send(token) => RenewalStep::AwaitAnswer(message_id, token),
            other => other,
        };
    }

    /// Records that the relay, at this time in Unix seconds, took the new token. Returns the
    /// token, unless the answer is to something else.
    pub(super) fn on_authenticated(
        &mut self,
        answer: &wire::Authenticated,
        time: i64,
        now: Instant,
        random: &RandomSource,
    ) -> Option<Credential> {
        let token = self.take_answered(&answer.request_message_id)?;
        self.token = Some(token.clone());
        self.backoff.reset();
        self.expires_at = (answer.expires_at != 0).then_some(answer.expires_at);
        self.step = match self.expires_at {
            Some(expires_at) => {
                let delay = delay_until_due(expires_at, time, random).max(INTERVAL_MIN);
                RenewalStep::WaitUntil(now + delay)
            }
            None => RenewalStep::Nothing,
        };
        Some(token)
    }

    /// Records a refusal. Returns the failure if it was the Authenticate that was refused.
    pub(super) fn on_refused(
        &mut self,
        error: &wire::ErrorResponse,
        now: Instant,
        random: &RandomSource,
    ) -> Option<FailedRenewal> {
        let token = self.take_answered(&error.request_message_id)?;
        let is_in_the_token = [
            ErrorCode::AuthenticationFailed,
            ErrorCode::AuthorizationFailed,
        ]
        .iter()
        .any(|code| error.error_code == code.as_str());
        self.unused = Some(token).filter(|_| !is_in_the_token);
        // The schema has no Authenticate, or the relay takes no tokens.
        let is_unknown = error.error_code == ErrorCode::ValidationError.as_str();
        let retry_in = (!is_unknown).then(|| {
            let wanted = error.retry_after_ms.map(Duration::from_millis);
            self.retry_later(wanted.unwrap_or_default(), now, random)
        });
        let reason = RenewalError::Refused(error.clone());
        Some(FailedRenewal { reason, retry_in })
    }

    /// Returns the new token that the relay has neither taken nor found to be wrong.
    pub(super) fn into_unused(self) -> Option<Credential> {
        match self.step {
            RenewalStep::Send(token) | RenewalStep::AwaitAnswer(_, token) => Some(token),
            _ => self.unused,
        }
    }

    /// Returns true if the token is another one than that in use, and expires later.
    fn outlives_current(&self, token: &Credential) -> bool {
        let is_later = match (expiry_of(token), self.expires_at) {
            (Some(new), Some(current)) => new > current,
            _ => true,
        };
        is_later && self.token.as_ref() != Some(token)
    }

    /// Schedules the next attempt after at least this delay, and returns the delay.
    fn retry_later(&mut self, at_least: Duration, now: Instant, random: &RandomSource) -> Duration {
        let delay = at_least.min(RETRY_AFTER_MAX) + self.backoff.next_delay(random);
        self.step = RenewalStep::WaitUntil(now + delay);
        delay
    }

    /// Returns the token if the answer is to its Authenticate, which is over then.
    fn take_answered(&mut self, request: &str) -> Option<Credential> {
        match &mut self.step {
            RenewalStep::AwaitAnswer(message_id, token) if message_id.as_str() == request => {
                let token = token.clone();
                self.step = RenewalStep::Nothing;
                Some(token)
            }
            _ => None,
        }
    }
}

/// Returns the time until a token is to be renewed. Clients whose tokens expire together renew
/// them at different times.
fn delay_until_due(expires_at: i64, time: i64, random: &RandomSource) -> Duration {
    // The relay's time may be almost a second later, because it is given in whole seconds.
    let seconds = expires_at.saturating_sub(time).saturating_sub(1);
    let seconds = u64::try_from(seconds).unwrap_or_default();
    let remaining = Duration::from_secs(seconds.min(REMAINING_MAX));
    let lead = (remaining / LEAD_DIVISOR).min(LEAD_MAX);
    remaining.saturating_sub(with_jitter(lead, random))
}

/// Returns when a token expires, in Unix seconds; `None` if it never does or is not a JSON Web
/// Token. Only the relay verifies the token.
fn expiry_of(token: &Credential) -> Option<i64> {
    let claims = token.reveal().split('.').nth(1)?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let exp = claims.get("exp")?;
    exp.as_i64().or_else(|| {
        let seconds = Duration::try_from_secs_f64(exp.as_f64()?).ok()?.as_secs();
        i64::try_from(seconds).ok()
    })
}

#[cfg(test)]
mod tests;
