//! The client that stays: it keeps a set of topics subscribed, sends heartbeats,
//! notices a dead connection, comes back, and knows when coming back is no use.
//! It does not resume: what was published while it was away is not asked for.

use std::{collections::VecDeque, fmt, future::Future, io, mem, pin::Pin, time::Duration};

use indexmap::IndexSet;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use super::{
    address::Address,
    connection::{Connection, Event, Received, SendError, connect_tcp},
    envelope::Control,
    handshake::{self, OpenError},
    options::ClientOptions,
    reconnect::{Backoff, ClientError, DisconnectReason, NORMAL, reason_to_come_back},
};
use crate::protocol::wire;

/// The most topics and bytes of topics that go into one Subscribe: the relay
/// takes 1,000 topics and frames of 64 KiB.
const SUBSCRIBE_TOPICS_MAX: usize = 1_000;
const SUBSCRIBE_BYTES_MAX: usize = 48 * 1024;

/// A stream that is being opened.
pub type Connecting<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

/// Makes the streams that a [`Client`] speaks over.
pub trait Connector {
    /// Such a stream.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens one; the client sees to the deadline.
    fn connect(&self, address: Address) -> Connecting<Self::Stream>;
}

/// Connects over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    type Stream = TcpStream;

    fn connect(&self, address: Address) -> Connecting<TcpStream> {
        Box::pin(async move { connect_tcp(&address).await })
    }
}

/// A client that comes back.
pub struct Client<C: Connector = TcpConnector> {
    options: ClientOptions,
    connector: C,
    topics: IndexSet<String>,
    backoff: Backoff,
    state: State<C::Stream>,
}

enum State<S> {
    Waiting(Instant),
    Opening(Opening<S>),
    Live(Box<Live<S>>),
    Stopped,
}

type Opening<S> = Pin<Box<dyn Future<Output = Result<Connection<S>, OpenError>> + Send>>;

/// What happened to a [`Client`].
#[derive(Debug)]
pub enum ClientEvent {
    /// The relay accepted the connection; the topics are being subscribed.
    Connected,
    /// The relay confirmed topics.
    Subscribed(wire::SubscriptionConfirmed),
    /// The relay confirmed the end of topics.
    Unsubscribed(wire::UnsubscribeConfirmed),
    /// An event came.
    Event(Event),
    /// The relay refused a Subscribe, none of whose topics stands now, or says why
    /// it is about to close.
    Refused(wire::ErrorResponse),
    /// There is no connection.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
        /// When the next attempt begins.
        retry_in: Duration,
    },
}

impl Client {
    /// A client over TCP, which connects when [`Client::next`] is first called.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self::with_connector(options, TcpConnector)
    }
}

impl<C: Connector> Client<C> {
    /// A client over streams of another kind.
    #[must_use]
    pub fn with_connector(options: ClientOptions, connector: C) -> Self {
        Self {
            backoff: Backoff::new(options.backoff_first, options.backoff_max),
            options,
            connector,
            topics: IndexSet::new(),
            state: State::Waiting(Instant::now()),
        }
    }

    /// Adds topics, on this connection and each later one.
    pub fn subscribe<T: Into<String>>(&mut self, topics: impl IntoIterator<Item = T>) {
        let topics: Vec<String> = topics.into_iter().map(Into::into).collect();
        self.topics.extend(topics.iter().cloned());
        if let State::Live(live) = &mut self.state {
            live.unsent.extend(subscribes(&topics));
        }
    }

    /// Takes topics away, on this connection and each later one.
    pub fn unsubscribe<T: Into<String>>(&mut self, topics: impl IntoIterator<Item = T>) {
        let topics: Vec<String> = topics.into_iter().map(Into::into).collect();
        self.topics.retain(|topic| !topics.contains(topic));
        if let State::Live(live) = &mut self.state {
            live.unsent.extend(unsubscribes(&topics));
        }
    }

    /// The next thing that happens. Connects and comes back as it must; to be
    /// called all the time, since nothing else does. Cancel-safe.
    ///
    /// # Errors
    ///
    /// When the client has stopped for good.
    pub async fn next(&mut self) -> Result<ClientEvent, ClientError> {
        loop {
            match &mut self.state {
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    self.state = State::Opening(self.opening());
                }
                State::Opening(opening) => {
                    return match opening.await {
                        Ok(connection) => Ok(self.opened(connection)),
                        Err(error) => self.disconnected(error.into()),
                    };
                }
                State::Live(live) => match live.next(&self.options).await {
                    Ok(received) => {
                        if let Some(event) = self.received(received) {
                            return Ok(event);
                        }
                    }
                    Err(reason) => return self.disconnected(reason),
                },
                State::Stopped => return Err(ClientError::Stopped),
            }
        }
    }

    /// Says goodbye, where there is somebody to say it to.
    pub async fn close(mut self) {
        if let State::Live(live) = mem::replace(&mut self.state, State::Stopped) {
            live.connection.close(NORMAL).await;
        }
    }

    fn opening(&self) -> Opening<C::Stream> {
        let options = self.options.clone();
        let address =
            handshake::request(&options).and_then(|request| Ok(Address::of(request.uri(), "ws")?));
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
        let topics: Vec<String> = self.topics.iter().cloned().collect();
        self.state = State::Live(Box::new(Live {
            connection,
            unsent: subscribes(&topics).collect(),
            next_ping: Instant::now() + self.options.heartbeat,
        }));
        ClientEvent::Connected
    }

    fn received(&mut self, received: Received) -> Option<ClientEvent> {
        match received {
            Received::Event(event) => Some(ClientEvent::Event(event)),
            Received::SubscriptionConfirmed(confirmed) => {
                self.backoff.reset();
                Some(ClientEvent::Subscribed(confirmed))
            }
            Received::UnsubscribeConfirmed(confirmed) => Some(ClientEvent::Unsubscribed(confirmed)),
            Received::Error(error) => Some(ClientEvent::Refused(error)),
            Received::Pong(_) => None,
        }
    }

    fn disconnected(&mut self, reason: DisconnectReason) -> Result<ClientEvent, ClientError> {
        self.state = State::Stopped;
        let reason = reason_to_come_back(reason)?;
        let retry_in = self.backoff.after(&reason, &self.options.random);
        self.state = State::Waiting(Instant::now() + retry_in);
        Ok(ClientEvent::Disconnected { reason, retry_in })
    }
}

impl<C: Connector> fmt::Debug for Client<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// A connection that was accepted, with its heartbeat.
struct Live<S> {
    connection: Connection<S>,
    unsent: VecDeque<Control>,
    next_ping: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Live<S> {
    async fn next(&mut self, options: &ClientOptions) -> Result<Received, DisconnectReason> {
        loop {
            self.queue_what_is_due(options)?;
            let dead_at = self.connection.last_frame() + options.dead_after;
            tokio::select! {
                biased;
                received = self.connection.receive() => return Ok(received?),
                () = sleep_until(self.next_ping.min(dead_at)) => {}
            }
            if self.connection.last_frame() + options.dead_after <= Instant::now() {
                return Err(DisconnectReason::Dead(options.dead_after));
            }
        }
    }

    fn queue_what_is_due(&mut self, options: &ClientOptions) -> Result<(), SendError> {
        while let Some(control) = self.unsent.pop_front() {
            self.connection.queue(control)?;
        }
        let now = Instant::now();
        if self.next_ping <= now {
            let timestamp = options.clock.unix_seconds();
            self.connection
                .queue(Control::Ping(wire::Ping { timestamp }))?;
            self.next_ping = now + options.heartbeat;
        }
        Ok(())
    }
}

/// At least one, also without topics: its confirmation says that all is well.
fn subscribes(topics: &[String]) -> impl Iterator<Item = Control> {
    let mut frames = frames(topics);
    if frames.is_empty() {
        frames.push(Vec::new());
    }
    frames.into_iter().map(|topics| {
        Control::Subscribe(wire::Subscribe {
            topics,
            resume_from: None,
        })
    })
}

fn unsubscribes(topics: &[String]) -> impl Iterator<Item = Control> {
    frames(topics)
        .into_iter()
        .map(|topics| Control::Unsubscribe(wire::Unsubscribe { topics }))
}

/// The topics in portions that the relay takes in one frame.
fn frames(topics: &[String]) -> Vec<Vec<String>> {
    let mut frames: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for topic in topics {
        // Tag and length go with it.
        bytes += topic.len() + 4;
        match frames.last_mut() {
            Some(frame) if frame.len() < SUBSCRIBE_TOPICS_MAX && bytes <= SUBSCRIBE_BYTES_MAX => {
                frame.push(topic.clone());
            }
            _ => {
                bytes = topic.len() + 4;
                frames.push(vec![topic.clone()]);
            }
        }
    }
    frames
}

#[cfg(test)]
#[path = "steady_tests.rs"]
mod tests;
