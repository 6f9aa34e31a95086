//! One WebSocket to the relay, from handshake to close: control messages out,
//! events and answers in. Knows no reconnecting.

use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use super::{
    address::{Address, Schemes},
    envelope::{Control, Envelope},
    handshake::{self, OpenError},
    options::ClientOptions,
    received::{NO_STATUS, ReceiveError, Received, SendError, decode},
    stream::Stream,
};
use crate::{clock::Clock, protocol::wire, random::Random};

/// The biggest message and frame that the client takes: the relay's biggest
/// event and then some.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// tungstenite allocates it ahead and fills it with zeros before each read.
const READ_BUFFER_BYTES: usize = 8 * 1024;
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
const WRITE_BUFFER_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// How long [`Connection::close`] waits for the relay's Close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that was accepted.
pub struct Connection<S = Stream> {
    socket: WebSocketStream<S>,
    random: Arc<Random>,
    clock: Clock,
    last_frame: Instant,
    closed: Option<(u16, String)>,
}

impl Connection<Stream> {
    /// Connects over TCP, and TLS where the URL says so, within the options' time for a handshake.
    ///
    /// # Errors
    ///
    /// When the relay cannot be reached, refuses, does not answer in time, or answers
    /// what none does.
    pub async fn open(options: &ClientOptions) -> Result<Self, OpenError> {
        let address = Address::of(handshake::request(options)?.uri(), Schemes::WEBSOCKET)?;
        let opening = async {
            let stream = Stream::connect(&address, options.tls.clone()).await;
            let stream = stream.map_err(|source| OpenError::Unreachable { address, source })?;
            Self::over(stream, options).await
        };
        timeout(options.handshake_timeout, opening)
            .await
            .map_err(|_| OpenError::TimedOut)?
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Opens the WebSocket over a stream that leads to the relay; without a
    /// deadline of its own.
    ///
    /// # Errors
    ///
    /// When the relay refuses, or what answers is none.
    pub async fn over(stream: S, options: &ClientOptions) -> Result<Self, OpenError> {
        let request = handshake::request(options)?;
        let socket = handshake::upgrade(stream, request, websocket_config()).await?;
        Ok(Self {
            socket,
            random: Arc::clone(&options.random),
            clock: options.clock.clone(),
            last_frame: Instant::now(),
            closed: None,
        })
    }

    /// Asks for the events of some topics, `kind:id` each, and returns the
    /// message id that the answer will name.
    ///
    /// # Errors
    ///
    /// When the connection has ended, or too much waits to be written.
    pub async fn subscribe<T: Into<String>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<String, SendError> {
        self.subscribe_from(topics, None).await
    }

    /// Asks for the events of some topics and, from a position on, for those that
    /// were missed. The first Subscribe of a connection with a position resumes the
    /// implicit topics too. Returns the message id.
    ///
    /// # Errors
    ///
    /// As for [`Self::subscribe`].
    pub async fn subscribe_from<T: Into<String>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
        resume_from: Option<wire::Position>,
    ) -> Result<String, SendError> {
        let topics = topics.into_iter().map(Into::into).collect();
        self.send(Control::Subscribe(wire::Subscribe {
            topics,
            resume_from,
        }))
        .await
    }

    /// Ends the subscription of some topics, and returns the message id.
    ///
    /// # Errors
    ///
    /// As for [`Self::subscribe`].
    pub async fn unsubscribe<T: Into<String>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<String, SendError> {
        let topics = topics.into_iter().map(Into::into).collect();
        self.send(Control::Unsubscribe(wire::Unsubscribe { topics }))
            .await
    }

    /// Asks for a Pong that echoes the clock's time, and returns the message id.
    ///
    /// # Errors
    ///
    /// As for [`Self::subscribe`].
    pub async fn ping(&mut self) -> Result<String, SendError> {
        let timestamp = self.clock.unix_seconds();
        self.send(Control::Ping(wire::Ping { timestamp })).await
    }

    /// Sends a control message with a fresh id, which it returns. Cancelled, the
    /// message goes out with the next receive or send.
    ///
    /// # Errors
    ///
    /// As for [`Self::subscribe`].
    pub async fn send(&mut self, control: Control) -> Result<String, SendError> {
        let message_id = self.queue(control)?;
        self.socket.flush().await?;
        Ok(message_id)
    }

    /// Sends a binary frame that holds what the caller likes.
    ///
    /// # Errors
    ///
    /// As for [`Self::subscribe`].
    pub async fn send_raw(&mut self, bytes: impl Into<Bytes>) -> Result<(), SendError> {
        self.socket
            .start_send_unpin(Message::Binary(bytes.into()))?;
        Ok(self.socket.flush().await?)
    }

    /// Sends a text frame, which this subprotocol does not know.
    ///
    /// # Errors
    ///
    /// As for [`Self::subscribe`].
    pub async fn send_text(&mut self, text: &str) -> Result<(), SendError> {
        self.socket.start_send_unpin(Message::text(text))?;
        Ok(self.socket.flush().await?)
    }

    /// The next thing that the relay sent. Cancel-safe: what comes while nobody
    /// waits is there for the next call.
    ///
    /// # Errors
    ///
    /// When the connection has ended, or the relay breaks the protocol.
    pub async fn receive(&mut self) -> Result<Received, ReceiveError> {
        decode(self.receive_raw().await?)
    }

    /// The next envelope as it came, event or control message. Cancel-safe.
    ///
    /// # Errors
    ///
    /// As for [`Self::receive`].
    pub async fn receive_raw(&mut self) -> Result<Bytes, ReceiveError> {
        while self.closed.is_none() {
            match self.next_message().await? {
                Message::Binary(bytes) => return Ok(bytes),
                Message::Text(_) => {
                    return Err(ReceiveError::Protocol("it sent a text frame".to_owned()));
                }
                Message::Close(frame) => self.closed = Some(code_and_reason(frame)),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        // The answer to a Close may come too late to reach anybody.
        let _answered = self.socket.flush().await;
        let (code, reason) = self.closed.clone().unwrap_or((NO_STATUS, String::new()));
        Err(ReceiveError::Closed { code, reason })
    }

    /// Closes with this code, waits for the relay's Close for a second at most,
    /// and returns its code. What comes before it is dropped.
    pub async fn close(mut self, code: u16) -> Option<u16> {
        let frame = CloseFrame {
            code: code.into(),
            reason: Default::default(),
        };
        let closing = async {
            self.socket.send(Message::Close(Some(frame))).await.ok()?;
            loop {
                if let Message::Close(frame) = self.next_message().await.ok()? {
                    return Some(code_and_reason(frame).0);
                }
            }
        };
        timeout(CLOSE_TIMEOUT, closing).await.ok().flatten()
    }

    /// When the last frame of any kind came, a control frame included.
    pub fn last_frame(&self) -> Instant {
        self.last_frame
    }

    /// Takes a control message for sending; the next receive or flush writes it.
    pub(super) fn queue(&mut self, control: Control) -> Result<String, SendError> {
        let message_id = self.random.uuid_v7(&self.clock).to_string();
        let envelope = Envelope {
            message_id: message_id.clone(),
            timestamp: self.clock.unix_seconds(),
            position: None,
            control: Some(control),
        };
        let frame = Message::Binary(envelope.encode_to_vec().into());
        // tungstenite buffers it whole, ready or not, as far as the bound goes.
        self.socket.start_send_unpin(frame)?;
        Ok(message_id)
    }

    async fn next_message(&mut self) -> Result<Message, ReceiveError> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// Writes what waits, then reads, so that a receive also brings a send to its
    /// end that was cancelled.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, ReceiveError>> {
        // Where writing fails, reading says why, after what was still to be read.
        let _flushed = self.socket.poll_flush_unpin(cx);
        let read = ready!(self.socket.poll_next_unpin(cx));
        Poll::Ready(match read {
            Some(Ok(message)) => {
                self.last_frame = Instant::now();
                Ok(message)
            }
            Some(Err(error)) => Err(error.into()),
            None => Err(Error::ConnectionClosed.into()),
        })
    }
}

/// All five limits; tungstenite's own allow 64 MiB and an endless write buffer.
fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

fn code_and_reason(frame: Option<CloseFrame>) -> (u16, String) {
    frame.map_or((NO_STATUS, String::new()), |frame| {
        (frame.code.into(), frame.reason.as_str().to_owned())
    })
}

impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
