//! What a client is told: where the relay is, who it is itself, and its times.

use std::{error::Error, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use rustls::ClientConfig;

use crate::{clock::Clock, random::Random};

/// Everything that a [`Connection`](super::Connection) or a
/// [`Client`](super::Client) needs to know.
#[derive(Clone)]
pub struct ClientOptions {
    /// `ws://host:port/ws`, or `wss://host:port/ws` for TLS.
    pub url: String,
    /// What the relay's certificate is checked against; there is no TLS without.
    pub tls: Option<Arc<ClientConfig>>,
    /// The token; none in desktop mode.
    pub token: Option<Credential>,
    /// Where a [`Client`](super::Client) gets another token when the relay does not
    /// accept this one any more; without it the client stops then.
    pub fresh_token: Option<Arc<dyn TokenSource>>,
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
            tls: None,
            token: None,
            fresh_token: None,
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

    /// The same with something to check the relay's certificate against.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The same with a place to get tokens from.
    #[must_use]
    pub fn with_fresh_token(mut self, source: impl TokenSource + 'static) -> Self {
        self.fresh_token = Some(Arc::new(source));
        self
    }
}

/// A token that is being fetched, or why there is none now: the client asks again
/// after a while.
pub type FetchingToken =
    Pin<Box<dyn Future<Output = Result<Credential, Box<dyn Error + Send + Sync>>> + Send>>;

/// Where tokens come from; a closure that returns a [`FetchingToken`] is one.
pub trait TokenSource: Send + Sync {
    /// Fetches one. The client waits for it as long as it takes.
    fn fetch(&self) -> FetchingToken;
}

impl<F: Fn() -> FetchingToken + Send + Sync> TokenSource for F {
    fn fetch(&self) -> FetchingToken {
        self()
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
