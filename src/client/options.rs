//! What a client is told: where the relay is, who it is itself, and its times.

use std::{fmt, sync::Arc, time::Duration};

use crate::{clock::Clock, random::Random};

/// Everything that a [`Connection`](super::Connection) or a
/// [`Client`](super::Client) needs to know.
#[derive(Clone)]
pub struct ClientOptions {
    /// `ws://host:port/ws`.
    pub url: String,
    /// The token; none in desktop mode.
    pub token: Option<Credential>,
    /// Desktop mode: who this client is, sent as `?user_id=`.
    pub user_id: Option<String>,
    /// How often the protocol's Ping is sent.
    pub heartbeat: Duration,
    /// After how long without a frame the connection is taken for dead.
    pub dead_after: Duration,
    /// How long connecting and the handshake may take together.
    pub handshake_timeout: Duration,
    /// The delay before the first attempt to come back; each further one doubles
    /// it.
    pub backoff_first: Duration,
    /// What the doubling ends at.
    pub backoff_max: Duration,
    /// Where message ids and jitter come from.
    pub random: Arc<Random>,
    /// Where timestamps come from.
    pub clock: Clock,
}

impl ClientOptions {
    /// The protocol's times, without a token: a Ping every 30 s, dead after 60 s,
    /// 10 s for the handshake, back after 1, 2, 4 … 30 s.
    #[must_use]
    pub fn new(url: impl Into<String>, random: Arc<Random>) -> Self {
        Self {
            url: url.into(),
            token: None,
            user_id: None,
            heartbeat: Duration::from_secs(30),
            dead_after: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(30),
            random,
            clock: Clock::system(),
        }
    }

    /// The same with a token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Credential::new(token));
        self
    }
}

/// A token or an ingest key, which no log can show.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(String);

impl Credential {
    /// The credential that the text is.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one header that it belongs into.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_not_shown() {
        assert_eq!(
            format!("{:?}", Some(Credential::new("canary"))),
            "Some(Credential(…))"
        );
    }
}
