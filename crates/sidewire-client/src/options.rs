//! The options of a client: the relay's URL, credentials and timeouts.

use std::{error::Error, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use rustls::ClientConfig;

use sidewire_protocol::{clock::Clock, random::RandomSource};

/// The options of a [`RelayConnection`](super::RelayConnection) or a [`RelayClient`](super::RelayClient).
#[derive(Clone)]
pub struct ClientOptions {
    /// `ws://host:port/ws`, or `wss://host:port/ws` for TLS.
    pub url: String,
    /// The TLS configuration with the trusted certificates; required for `wss://`.
    pub tls: Option<Arc<ClientConfig>>,
    /// The token; `None` in desktop mode.
    pub token: Option<Credential>,
    /// The source of new tokens. A [`RelayClient`](super::RelayClient) uses it to renew its token
    /// before it expires, and when the relay no longer accepts it. Without one the client stops
    /// when its token expires.
    pub fresh_token: Option<Arc<dyn TokenSource>>,
    /// The user of this client in desktop mode, sent as `?user_id=`.
    pub user_id: Option<String>,
    /// The interval at which the protocol's Ping is sent.
    pub heartbeat: Duration,
    /// The time without a frame after which the connection is treated as dead.
    pub dead_after: Duration,
    /// The timeout for connecting and the handshake together.
    pub handshake_timeout: Duration,
    /// The delay before the first attempt to reconnect; it doubles with each further one.
    pub backoff_first: Duration,
    /// The longest delay between attempts, unless the relay asks for more or closed with 4005.
    pub backoff_max: Duration,
    /// The source of message ids and jitter.
    pub random: Arc<RandomSource>,
    /// The source of timestamps.
    pub clock: Clock,
}

impl ClientOptions {
    /// Creates options with the protocol's default times and no token: a Ping every 30 s,
    /// dead after 60 s, 10 s for the handshake, reconnect after 1, 2, 4 … 30 s.
    #[must_use]
    pub fn new(url: impl Into<String>, random: Arc<RandomSource>) -> Self {
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

    /// Sets the token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Credential::new(token));
        self
    }

    /// Sets the TLS configuration, with which the relay's certificate is verified.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the source of new tokens.
    #[must_use]
    pub fn with_fresh_token(mut self, source: impl TokenSource + 'static) -> Self {
        self.fresh_token = Some(Arc::new(source));
        self
    }
}

/// A future that fetches a token. On an error the client tries again after its backoff.
pub type FetchingToken =
    Pin<Box<dyn Future<Output = Result<Credential, Box<dyn Error + Send + Sync>>> + Send>>;

/// The error of a token source that has no other token than the one that it returned last. A
/// client whose token the relay no longer accepts then stops at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no newer token")]
pub struct NoNewerToken;

/// A source of tokens, such as a closure that returns a [`FetchingToken`].
pub trait TokenSource: Send + Sync {
    /// Fetches a token. The client waits for it without a timeout. While its connection is open,
    /// it goes on meanwhile.
    fn fetch_token(&self) -> FetchingToken;
}

impl<F: Fn() -> FetchingToken + Send + Sync> TokenSource for F {
    fn fetch_token(&self) -> FetchingToken {
        self()
    }
}

/// A token or an ingest key. Its `Debug` output is masked, so that it cannot be logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(String);

impl Credential {
    /// Wraps the text of a credential.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text, for use in the `Authorization` header.
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
    fn a_credential_is_not_shown_in_debug_output() {
        assert_eq!(
            format!("{:?}", Some(Credential::new("canary"))),
            "Some(Credential(…))"
        );
    }
}
