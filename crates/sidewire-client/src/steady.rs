//! The reconnecting client: it keeps a set of topics subscribed, sends heartbeats, renews its
//! token, detects a dead connection, reconnects, resumes, and stops when reconnecting cannot
//! help.

use std::{fmt, future::Future, io, mem, pin::Pin, sync::Arc};

use bytes::Bytes;
use rustls::ClientConfig;
use sidewire_protocol::wire;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};

use super::{
    address::{RelayAddress, UrlSchemes},
    client_event::ClientEvent,
    connection::RelayConnection,
    handshake::{self, OpenError},
    live::{LiveConnection, LiveEvent},
    options::{ClientOptions, Credential, FetchingToken, NoNewerToken},
    presence::KeptPresence,
    received::{RelayMessage, SendError},
    reconnect::{Backoff, ClientError, DisconnectReason, NORMAL, check_may_reconnect},
    stream::RelayStream,
    subscriptions::ClientSubscriptions,
};

/// Number of consecutive token refusals after which the client stops asking for a new one.
const TOKEN_REFUSALS_MAX: u32 = 3;

/// A future that opens a stream.
pub type ConnectFuture<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

/// Opens the streams of a [`RelayClient`].
pub trait Connector {
    /// The type of stream.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens a stream. The client applies the timeout.
    fn connect(&self, address: RelayAddress) -> ConnectFuture<Self::Stream>;
}

/// Connects over TCP, with TLS if the URL asks for it.
#[derive(Debug, Clone, Default)]
pub struct TcpConnector {
    tls: Option<Arc<ClientConfig>>,
}

impl Connector for TcpConnector {
    type Stream = RelayStream;

    fn connect(&self, address: RelayAddress) -> ConnectFuture<RelayStream> {
        let tls = self.tls.clone();
        Box::pin(async move { RelayStream::connect(&address, tls).await })
    }
}

/// A client that reconnects.
pub struct RelayClient<C: Connector = TcpConnector> {
    options: ClientOptions,
    connector: C,
    subscriptions: ClientSubscriptions,
    presence: KeptPresence,
    backoff: Backoff,
    is_token_stale: bool,
    /// Why the relay did not accept the token that is stale.
    token_fault: Option<String>,
    token_refusals: u32,
    /// True if the token was fetched and the relay has sent nothing since.
    is_token_untried: bool,
    /// Topics that the relay has revoked and the caller has not heard of.
    revoked: Vec<String>,
    state: ClientState<C::Stream>,
}

enum ClientState<S> {
    Waiting(Instant),
    FetchingToken(FetchingToken),
    Opening(OpenFuture<S>),
    Live(Box<LiveConnection<S>>),
    Stopped,
}

type OpenFuture<S> = Pin<Box<dyn Future<Output = Result<RelayConnection<S>, OpenError>> + Send>>;

impl RelayClient {
    /// Creates a client over TCP, which connects when [`RelayClient::next_event`] is first called.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        let tls = options.tls.clone();
        Self::with_connector(options, TcpConnector { tls })
    }
}

impl<C: Connector> RelayClient<C> {
    /// Creates a client over the streams of a connector.
    #[must_use]
    pub fn with_connector(options: ClientOptions, connector: C) -> Self {
        Self {
            backoff: Backoff::new(options.backoff_first, options.backoff_max),
            is_token_stale: options.token.is_none() && options.fresh_token.is_some(),
            options,
            connector,
            subscriptions: ClientSubscriptions::default(),
            presence: KeptPresence::default(),
            token_fault: None,
            token_refusals: 0,
            is_token_untried: false,
            revoked: Vec::new(),
            state: ClientState::Waiting(Instant::now()),
        }
    }

    /// Resumes from this position. Call it before the first [`RelayClient::next_event`]. Topics that
    /// are subscribed later start at the time of their subscription.
    pub fn start_from(&mut self, position: wire::Position) {
        self.subscriptions.start_from(position);
    }

    /// Subscribes to topics, on this connection and each later one. Topics that are already
    /// subscribed are not sent again.
    pub fn subscribe<T: Into<String>>(&mut self, topics: impl IntoIterator<Item = T>) {
        let topics = topics.into_iter().map(Into::into).collect();
        self.subscriptions.subscribe(topics);
    }

    /// Unsubscribes from topics, on this connection and each later one, and forgets their
    /// positions.
    pub fn unsubscribe<T: Into<String>>(&mut self, topics: impl IntoIterator<Item = T>) {
        let topics: Vec<String> = topics.into_iter().map(Into::into).collect();
        self.subscriptions.unsubscribe(&topics);
    }

    /// Sends an event to the other clients of its topics: an envelope with a payload that clients
    /// may send. The client must be subscribed to at least one of these topics. The event is
    /// written while [`RelayClient::next_event`] is polled. It is sent at most once: not again on
    /// another connection, and not at all without one. A refusal is returned as
    /// [`ClientEvent::Refused`] and names the envelope's message id.
    ///
    /// # Errors
    ///
    /// When there is no connection, or its write buffer is full.
    pub fn send_event(&mut self, envelope: impl Into<Bytes>) -> Result<(), SendError> {
        match &mut self.state {
            ClientState::Live(live) => live.connection.queue_envelope(envelope.into()),
            _ => Err(SendError::Ended(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Sets the presence of the user: an envelope with a presence payload, and the field number of
    /// that payload. It is sent once all topics are subscribed, on this connection and each later
    /// one, until another envelope with the same payload replaces it. The relay shows it on those
    /// of its topics to which the client is subscribed at that time, so call it again after
    /// subscribing to more of them.
    pub fn set_presence(&mut self, payload: u32, envelope: impl Into<Bytes>) {
        self.presence.set(payload, envelope.into());
    }

    /// Withdraws the presence with this payload. `absent` is an envelope in which the payload has
    /// the value that means absent.
    pub fn withdraw_presence(&mut self, payload: u32, absent: impl Into<Bytes>) {
        self.presence.withdraw(payload, absent.into());
    }

    /// Waits for the next event. Connects, reconnects and sends heartbeats only while it
    /// is being polled, so call it in a loop. Cancel-safe.
    ///
    /// # Errors
    ///
    /// When the client has stopped for good.
    pub async fn next_event(&mut self) -> Result<ClientEvent, ClientError> {
        loop {
            if let Some(gap) = self.subscriptions.next_gap() {
                return Ok(gap.into());
            }
            if !self.revoked.is_empty() {
                let topics = mem::take(&mut self.revoked);
                return Ok(ClientEvent::Revoked { topics });
            }
            match &mut self.state {
                ClientState::Waiting(until) => {
                    sleep_until(*until).await;
                    self.state = self.start_attempt();
                }
                ClientState::FetchingToken(fetching) => match fetching.await {
                    Ok(token) => {
                        self.options.token = Some(token);
                        self.is_token_stale = false;
                        self.is_token_untried = true;
                        self.state = self.start_attempt();
                    }
                    Err(error) if error.is::<NoNewerToken>() => {
                        self.state = ClientState::Stopped;
                        if let Some(fault) = self.token_fault.take() {
                            return Err(ClientError::Unauthorized(fault));
                        }
                        // Nobody has refused the token yet.
                        self.is_token_stale = false;
                        self.state = self.start_attempt();
                    }
                    Err(error) => return self.on_disconnected(DisconnectReason::NoToken(error)),
                },
                ClientState::Opening(opening) => {
                    return match opening.await {
                        Ok(connection) => Ok(self.on_opened(connection)),
                        Err(error) => self.on_disconnected(error.into()),
                    };
                }
                ClientState::Live(live) => {
                    match live
                        .next_event(&self.options, &mut self.subscriptions, &mut self.presence)
                        .await
                    {
                        Ok(event) => {
                            if let Some(event) = self.on_live_event(event) {
                                return Ok(event);
                            }
                        }
                        Err(reason) => return self.on_disconnected(reason),
                    }
                }
                ClientState::Stopped => return Err(ClientError::Stopped),
            }
        }
    }

    /// Closes the connection, if there is one.
    pub async fn close(mut self) {
        if let ClientState::Live(live) = mem::replace(&mut self.state, ClientState::Stopped) {
            live.connection.close(NORMAL).await;
        }
    }

    fn start_attempt(&self) -> ClientState<C::Stream> {
        match &self.options.fresh_token {
            Some(source) if self.is_token_stale => ClientState::FetchingToken(source.fetch_token()),
            _ => ClientState::Opening(self.open_connection()),
        }
    }

    fn open_connection(&self) -> OpenFuture<C::Stream> {
        let options = self.options.clone();
        let address = handshake::build_request(&options).and_then(|request| {
            Ok(RelayAddress::from_uri(
                request.uri(),
                UrlSchemes::WEBSOCKET,
            )?)
        });
        let address = match address {
            Ok(address) => address,
            Err(error) => return Box::pin(async { Err(error) }),
        };
        let connecting = self.connector.connect(address.clone());
        Box::pin(async move {
            let opening = async {
                let stream = connecting.await;
                let stream = stream.map_err(|source| OpenError::Unreachable { address, source })?;
                RelayConnection::open_over(stream, &options).await
            };
            timeout(options.handshake_timeout, opening)
                .await
                .map_err(|_| OpenError::TimedOut)?
        })
    }

    fn on_opened(&mut self, connection: RelayConnection<C::Stream>) -> ClientEvent {
        self.token_refusals = 0;
        self.token_fault = None;
        self.subscriptions.on_connected();
        self.presence.on_connected();
        let live = LiveConnection::new(connection, &self.options);
        self.state = ClientState::Live(Box::new(live));
        ClientEvent::Connected
    }

    fn on_live_event(&mut self, event: LiveEvent) -> Option<ClientEvent> {
        match event {
            LiveEvent::Message(received) => self.on_received(received),
            LiveEvent::Renewed(token, answer) => {
                self.options.token = token.or(self.options.token.take());
                self.on_revoked(answer.revoked_topics);
                let expires_at = (answer.expires_at != 0).then_some(answer.expires_at);
                Some(ClientEvent::Renewed { expires_at })
            }
            LiveEvent::RenewalFailed(failed) => Some(ClientEvent::RenewalFailed {
                reason: failed.reason,
                retry_in: failed.retry_in,
            }),
        }
    }

    fn on_revoked(&mut self, topics: Vec<String>) {
        self.subscriptions.on_revoked(&topics);
        self.revoked.extend(topics);
    }

    fn on_received(&mut self, received: RelayMessage) -> Option<ClientEvent> {
        self.is_token_untried = false;
        match received {
            RelayMessage::Event(event) => {
                let is_new = self.subscriptions.accept_event(&event);
                is_new.then_some(ClientEvent::Event(event))
            }
            // The token subscribes to these topics. They are resumed with the implicit topics.
            RelayMessage::SubscriptionConfirmed(confirmed)
                if confirmed.request_message_id.is_empty() =>
            {
                None
            }
            RelayMessage::SubscriptionConfirmed(confirmed) => {
                self.backoff.reset();
                self.subscriptions.on_confirmed(&confirmed);
                Some(ClientEvent::Subscribed(confirmed))
            }
            // A backend has revoked these subscriptions.
            RelayMessage::UnsubscribeConfirmed(confirmed)
                if confirmed.request_message_id.is_empty() =>
            {
                self.on_revoked(confirmed.topics);
                None
            }
            RelayMessage::UnsubscribeConfirmed(confirmed) => {
                self.subscriptions.on_unsubscribed(&confirmed);
                Some(ClientEvent::Unsubscribed(confirmed))
            }
            RelayMessage::Error(error) => {
                self.subscriptions.on_refused(&error, Instant::now());
                Some(ClientEvent::Refused(error))
            }
            RelayMessage::Pong(pong) => {
                self.subscriptions.on_pong(&pong);
                None
            }
            RelayMessage::Authenticated(_) => None,
        }
    }

    fn on_disconnected(&mut self, reason: DisconnectReason) -> Result<ClientEvent, ClientError> {
        let state = mem::replace(&mut self.state, ClientState::Stopped);
        self.subscriptions.on_disconnected();
        let unused = match state {
            ClientState::Live(live) => live.renewal.into_unused(),
            _ => None,
        };
        let reason = if self.replace_token(&reason, unused)? {
            reason
        } else {
            check_may_reconnect(reason)?
        };
        let retry_in = self.backoff.delay_after(&reason, &self.options.random);
        self.state = ClientState::Waiting(Instant::now() + retry_in);
        Ok(ClientEvent::Disconnected { reason, retry_in })
    }

    /// Prepares the token of the next connection. `unused` is a new one that the relay
    /// did not take on the last connection. Returns true if the next connection has another token than the last one.
    ///
    /// # Errors
    ///
    /// When the relay does not accept new tokens.
    fn replace_token(
        &mut self,
        reason: &DisconnectReason,
        unused: Option<Credential>,
    ) -> Result<bool, ClientError> {
        if let Some(token) = unused {
            self.options.token = Some(token);
            if reason.is_token_expiry() {
                return Ok(true);
            }
        }
        if let Some(fault) = reason.token_fault() {
            self.token_fault = Some(fault);
        }
        if self.is_token_untried && reason.is_late_token_refusal() {
            let fault = self.token_fault.take().unwrap_or_default();
            return Err(ClientError::LoginRequired(fault));
        }
        if reason.is_token_refusal() {
            self.token_refusals += 1;
        }
        let may_fetch = self.options.fresh_token.is_some()
            && self.token_refusals < TOKEN_REFUSALS_MAX
            && reason.asks_for_a_token();
        self.is_token_stale |= may_fetch;
        Ok(may_fetch)
    }
}

impl<C: Connector> fmt::Debug for RelayClient<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod client_event_tests;

#[cfg(test)]
mod renewal_tests;

#[cfg(test)]
mod resume_tests;

#[cfg(test)]
mod token_tests;
