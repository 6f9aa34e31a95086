//! The reconnecting client: it keeps a set of topics subscribed, sends heartbeats,
//! detects a dead connection, reconnects, resumes, and stops when reconnecting cannot
//! help.

use std::{fmt, future::Future, io, mem, pin::Pin, sync::Arc, time::Duration};

use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};

use super::{
    address::{Address, Schemes},
    connection::Connection,
    envelope::Control,
    group::Gap,
    handshake::{self, OpenError},
    options::{ClientOptions, FetchingToken},
    received::{Event, Received, SendError},
    reconnect::{Backoff, ClientError, DisconnectReason, NORMAL, reason_to_come_back},
    stream::Stream,
    subscriptions::Subscriptions,
};
use crate::protocol::wire;

/// Number of consecutive token refusals after which the client stops asking for a new one.
const TOKEN_REFUSALS_MAX: u32 = 3;

/// A future that opens a stream.
pub type Connecting<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

/// Opens the streams of a [`Client`].
pub trait Connector {
    /// The type of stream.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens a stream. The client applies the timeout.
    fn connect(&self, address: Address) -> Connecting<Self::Stream>;
}

/// Connects over TCP, with TLS if the URL asks for it.
#[derive(Debug, Clone, Default)]
pub struct TcpConnector {
    tls: Option<Arc<ClientConfig>>,
}

impl Connector for TcpConnector {
    type Stream = Stream;

    fn connect(&self, address: Address) -> Connecting<Stream> {
        let tls = self.tls.clone();
        Box::pin(async move { Stream::connect(&address, tls).await })
    }
}

/// A client that reconnects.
pub struct Client<C: Connector = TcpConnector> {
    options: ClientOptions,
    connector: C,
    subscriptions: Subscriptions,
    backoff: Backoff,
    is_token_stale: bool,
    token_refusals: u32,
    state: State<C::Stream>,
}

enum State<S> {
    Waiting(Instant),
    FetchingToken(FetchingToken),
    Opening(Opening<S>),
    Live(Box<Live<S>>),
    Stopped,
}

type Opening<S> = Pin<Box<dyn Future<Output = Result<Connection<S>, OpenError>> + Send>>;

/// An event in the life of a [`Client`].
#[derive(Debug)]
pub enum ClientEvent {
    /// The relay accepted the connection; the topics are being subscribed.
    Connected,
    /// The relay confirmed a Subscribe.
    Subscribed(wire::SubscriptionConfirmed),
    /// The relay confirmed an Unsubscribe.
    Unsubscribed(wire::UnsubscribeConfirmed),
    /// An event arrived that had not arrived before.
    Event(Event),
    /// The relay no longer has all events after a position: fetch the current state from
    /// the backend. No later event is missing.
    Gap {
        /// Every event up to this position was received. If the next events have another
        /// epoch, the relay has started a new log since.
        since: wire::Position,
        /// The topics with possibly missing events.
        topics: Vec<String>,
        /// True if events for the user and for the whole tenant may be missing too.
        implicit: bool,
    },
    /// The relay refused a Subscribe, so that none of its topics is subscribed, or says
    /// why it is about to close. A request refused with `retry_after_ms` is sent again
    /// after that time, any other on the next connection.
    Refused(wire::ErrorResponse),
    /// The connection ended or could not be opened.
    Disconnected {
        /// The reason.
        reason: DisconnectReason,
        /// The time until the next attempt.
        retry_in: Duration,
    },
}

impl Client {
    /// Creates a client over TCP, which connects when [`Client::next`] is first called.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        let tls = options.tls.clone();
        Self::with_connector(options, TcpConnector { tls })
    }
}

impl<C: Connector> Client<C> {
    /// Creates a client over the streams of a connector.
    #[must_use]
    pub fn with_connector(options: ClientOptions, connector: C) -> Self {
        Self {
            backoff: Backoff::new(options.backoff_first, options.backoff_max),
            is_token_stale: options.token.is_none() && options.fresh_token.is_some(),
            options,
            connector,
            subscriptions: Subscriptions::default(),
            token_refusals: 0,
            state: State::Waiting(Instant::now()),
        }
    }

    /// Resumes from this position. Call it before the first [`Client::next`]. Topics that
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

    /// Waits for the next event. Connects, reconnects and sends heartbeats only while it
    /// is being polled, so call it in a loop. Cancel-safe.
    ///
    /// # Errors
    ///
    /// When the client has stopped for good.
    pub async fn next(&mut self) -> Result<ClientEvent, ClientError> {
        loop {
            if let Some(gap) = self.subscriptions.next_gap() {
                return Ok(gap.into());
            }
            match &mut self.state {
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    self.state = self.beginning();
                }
                State::FetchingToken(fetching) => match fetching.await {
                    Ok(token) => {
                        self.options.token = Some(token);
                        self.is_token_stale = false;
                        self.state = self.beginning();
                    }
                    Err(error) => return self.disconnected(DisconnectReason::NoToken(error)),
                },
                State::Opening(opening) => {
                    return match opening.await {
                        Ok(connection) => Ok(self.opened(connection)),
                        Err(error) => self.disconnected(error.into()),
                    };
                }
                State::Live(live) => {
                    match live.next(&self.options, &mut self.subscriptions).await {
                        Ok(received) => {
                            if let Some(event) = self.received(received) {
                                return Ok(event);
                            }
                        }
                        Err(reason) => return self.disconnected(reason),
                    }
                }
                State::Stopped => return Err(ClientError::Stopped),
            }
        }
    }

    /// Closes the connection, if there is one.
    pub async fn close(mut self) {
        if let State::Live(live) = mem::replace(&mut self.state, State::Stopped) {
            live.connection.close(NORMAL).await;
        }
    }

    fn beginning(&self) -> State<C::Stream> {
        match &self.options.fresh_token {
            Some(source) if self.is_token_stale => State::FetchingToken(source.fetch()),
            _ => State::Opening(self.opening()),
        }
    }

    fn opening(&self) -> Opening<C::Stream> {
        let options = self.options.clone();
        let address = handshake::request(&options)
            .and_then(|request| Ok(Address::of(request.uri(), Schemes::WEBSOCKET)?));
        let address = match address {
            Ok(address) => address,
            Err(error) => return Box::pin(async { Err(error) }),
        };
        let connecting = self.connector.connect(address.clone());
        Box::pin(async move {
            let opening = async {
                let stream = connecting.await;
                let stream = stream.map_err(|source| OpenError::Unreachable { address, source })?;
                Connection::over(stream, &options).await
            };
            timeout(options.handshake_timeout, opening)
                .await
                .map_err(|_| OpenError::TimedOut)?
        })
    }

    fn opened(&mut self, connection: Connection<C::Stream>) -> ClientEvent {
        self.token_refusals = 0;
        self.subscriptions.connected();
        self.state = State::Live(Box::new(Live {
            connection,
            next_ping: Instant::now() + self.options.heartbeat,
        }));
        ClientEvent::Connected
    }

    fn received(&mut self, received: Received) -> Option<ClientEvent> {
        match received {
            Received::Event(event) => {
                let is_new = self.subscriptions.take(&event);
                is_new.then_some(ClientEvent::Event(event))
            }
            Received::SubscriptionConfirmed(confirmed) => {
                self.backoff.reset();
                self.subscriptions.confirmed(&confirmed);
                Some(ClientEvent::Subscribed(confirmed))
            }
            Received::UnsubscribeConfirmed(confirmed) => {
                self.subscriptions.unsubscribed(&confirmed);
                Some(ClientEvent::Unsubscribed(confirmed))
            }
            Received::Error(error) => {
                self.subscriptions.refused(&error, Instant::now());
                Some(ClientEvent::Refused(error))
            }
            Received::Pong(pong) => {
                self.subscriptions.pong(&pong);
                None
            }
        }
    }

    fn disconnected(&mut self, reason: DisconnectReason) -> Result<ClientEvent, ClientError> {
        self.state = State::Stopped;
        self.subscriptions.disconnected();
        let reason = if self.may_get_a_token(&reason) {
            self.is_token_stale = true;
            reason
        } else {
            reason_to_come_back(reason)?
        };
        let retry_in = self.backoff.after(&reason, &self.options.random);
        self.state = State::Waiting(Instant::now() + retry_in);
        Ok(ClientEvent::Disconnected { reason, retry_in })
    }

    fn may_get_a_token(&mut self, reason: &DisconnectReason) -> bool {
        if matches!(reason, DisconnectReason::Open(OpenError::Unauthorized(_))) {
            self.token_refusals += 1;
        }
        self.options.fresh_token.is_some()
            && self.token_refusals < TOKEN_REFUSALS_MAX
            && reason.is_about_the_token()
    }
}

impl From<Gap> for ClientEvent {
    fn from(gap: Gap) -> Self {
        Self::Gap {
            since: gap.since,
            topics: gap.topics,
            implicit: gap.implicit,
        }
    }
}

impl<C: Connector> fmt::Debug for Client<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// An open connection and its heartbeat.
struct Live<S> {
    connection: Connection<S>,
    next_ping: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Live<S> {
    async fn next(
        &mut self,
        options: &ClientOptions,
        subscriptions: &mut Subscriptions,
    ) -> Result<Received, DisconnectReason> {
        loop {
            self.queue_what_is_due(options, subscriptions)?;
            let dead_at = self.connection.last_frame() + options.dead_after;
            let wake_at = self.next_ping.min(dead_at);
            let wake_at = subscriptions
                .wake_at()
                .map_or(wake_at, |it| it.min(wake_at));
            tokio::select! {
                biased;
                received = self.connection.receive() => return Ok(received?),
                () = sleep_until(wake_at) => {}
            }
            if self.connection.last_frame() + options.dead_after <= Instant::now() {
                return Err(DisconnectReason::Dead(options.dead_after));
            }
        }
    }

    fn queue_what_is_due(
        &mut self,
        options: &ClientOptions,
        subscriptions: &mut Subscriptions,
    ) -> Result<(), SendError> {
        let now = Instant::now();
        while let Some((request, control)) = subscriptions.next(now) {
            let message_id = self.connection.queue(control)?;
            subscriptions.sent(message_id, request);
        }
        if self.next_ping <= now {
            let timestamp = options.clock.unix_seconds();
            self.connection
                .queue(Control::Ping(wire::Ping { timestamp }))?;
            self.next_ping = now + options.heartbeat;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "steady_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "resume_tests.rs"]
mod resume_tests;

#[cfg(test)]
#[path = "token_tests.rs"]
mod token_tests;
