//! A WebSocket connection to the relay, from handshake to close: it sends control
//! messages and receives events and answers. It does not reconnect.

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
use sidewire_protocol::{clock::Clock, random::RandomSource, wire};
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
    ControlMessage, Envelope,
    address::{RelayAddress, UrlSchemes},
    handshake::{self, OpenError},
    options::{ClientOptions, Credential},
    received::{NO_STATUS, ReceiveError, RelayMessage, SendError, decode_message},
    stream::RelayStream,
};

/// The largest message and frame that the client accepts, in bytes: more than the
/// relay's largest event.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Kept small, since tungstenite allocates it up front and zeroes it before each read.
const READ_BUFFER_BYTES: usize = 8 * 1024;
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
const WRITE_BUFFER_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// The time that [`RelayConnection::close`] waits for the relay's Close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A WebSocket connection that the relay accepted.
pub struct RelayConnection<S = RelayStream> {
    socket: WebSocketStream<S>,
    random: Arc<RandomSource>,
    clock: Clock,
    last_frame: Instant,
    relay_time: Option<i64>,
    closed: Option<(u16, String)>,
}

impl RelayConnection<RelayStream> {
    /// Connects over TCP, with TLS if the URL asks for it, within the options'
    /// `handshake_timeout`.
    ///
    /// # Errors
    ///
    /// When the relay cannot be reached, refuses, or does not answer in time, or when the
    /// answer is not that of a relay.
    pub async fn open(options: &ClientOptions) -> Result<Self, OpenError> {
        let address = RelayAddress::from_uri(
            handshake::build_request(options)?.uri(),
            UrlSchemes::WEBSOCKET,
        )?;
        let opening = async {
            let stream = RelayStream::connect(&address, options.tls.clone()).await;
            let stream = stream.map_err(|source| OpenError::Unreachable { address, source })?;
            Self::open_over(stream, options).await
        };
        timeout(options.handshake_timeout, opening)
            .await
            .map_err(|_| OpenError::TimedOut)?
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RelayConnection<S> {
    /// Opens the WebSocket over an existing stream to the relay. It applies no timeout.
    ///
    /// # Errors
    ///
    /// When the relay refuses, or the answer is not that of a relay.
    pub async fn open_over(stream: S, options: &ClientOptions) -> Result<Self, OpenError> {
        let request = handshake::build_request(options)?;
        let socket = handshake::upgrade_stream(stream, request, websocket_config()).await?;
        Ok(Self {
            socket,
            random: Arc::clone(&options.random),
            clock: options.clock.clone(),
            last_frame: Instant::now(),
            relay_time: None,
            closed: None,
        })
    }

    /// Subscribes to topics (`kind:id`) and returns the message id, which the answer
    /// repeats as `request_message_id`.
    ///
    /// # Errors
    ///
    /// When the connection has ended, or the write buffer is full.
    pub async fn subscribe<T: Into<String>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<String, SendError> {
        self.subscribe_from(topics, None).await
    }

    /// Subscribes to topics and asks for a replay of the events after `resume_from`.
    /// The first Subscribe of a connection with a position resumes the implicit topics
    /// too. Returns the message id.
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
        self.send_control(ControlMessage::Subscribe(wire::Subscribe {
            topics,
            resume_from,
        }))
        .await
    }

    /// Unsubscribes from topics and returns the message id.
    ///
    /// # Errors
    ///
    /// As for [`Self::subscribe`].
    pub async fn unsubscribe<T: Into<String>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<String, SendError> {
        let topics = topics.into_iter().map(Into::into).collect();
        self.send_control(ControlMessage::Unsubscribe(wire::Unsubscribe { topics }))
            .await
    }

    /// Replaces the token of the connection and returns the message id.
    ///
    /// # Errors
    ///
    /// As for [`Self::subscribe`].
    pub async fn authenticate(&mut self, token: &Credential) -> Result<String, SendError> {
        let token = token.reveal().to_owned();
        self.send_control(ControlMessage::Authenticate(wire::Authenticate { token }))
            .await
    }

    /// Sends a Ping with the current time, which the Pong echoes, and returns the message id.
    ///
    /// # Errors
    ///
    /// As for [`Self::subscribe`].
    pub async fn send_ping(&mut self) -> Result<String, SendError> {
        let timestamp = self.clock.unix_seconds();
        self.send_control(ControlMessage::Ping(wire::Ping { timestamp }))
            .await
    }

    /// Sends a control message and returns its new message id. If the future is dropped
    /// early, the next receive or send writes the message.
    ///
    /// # Errors
    ///
    /// As for [`Self::subscribe`].
    pub async fn send_control(&mut self, control: ControlMessage) -> Result<String, SendError> {
        let message_id = self.queue_control(control)?;
        self.socket.flush().await?;
        Ok(message_id)
    }

    /// Sends a binary frame with arbitrary bytes.
    ///
    /// # Errors
    ///
    /// As for [`Self::subscribe`].
    pub async fn send_raw(&mut self, bytes: impl Into<Bytes>) -> Result<(), SendError> {
        self.socket
            .start_send_unpin(Message::Binary(bytes.into()))?;
        Ok(self.socket.flush().await?)
    }

    /// Sends a text frame, which this subprotocol does not allow.
    ///
    /// # Errors
    ///
    /// As for [`Self::subscribe`].
    pub async fn send_text(&mut self, text: &str) -> Result<(), SendError> {
        self.socket.start_send_unpin(Message::text(text))?;
        Ok(self.socket.flush().await?)
    }

    /// Waits for the next message from the relay. Cancel-safe: messages that arrive
    /// between calls are returned by the next call.
    ///
    /// # Errors
    ///
    /// When the connection has ended, or the relay violates the protocol.
    pub async fn receive(&mut self) -> Result<RelayMessage, ReceiveError> {
        let (message, relay_time) = decode_message(self.receive_raw().await?)?;
        self.relay_time = relay_time.or(self.relay_time);
        Ok(message)
    }

    /// Waits for the next envelope, an event or a control message, and returns its bytes.
    /// Cancel-safe.
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
        // The relay may be gone already, so a failure to send the Close in reply is ignored.
        let _answered = self.socket.flush().await;
        let (code, reason) = self.closed.clone().unwrap_or((NO_STATUS, String::new()));
        Err(ReceiveError::Closed { code, reason })
    }

    /// Closes the connection with this code, waits at most a second for the relay's Close,
    /// and returns its code. Messages that arrive before it are discarded.
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

    /// The time at which the last frame of any kind arrived, control frames included.
    pub fn last_frame(&self) -> Instant {
        self.last_frame
    }

    /// Returns the time at which the relay sent its last control message, in Unix seconds.
    pub(super) fn relay_time(&self) -> Option<i64> {
        self.relay_time
    }

    /// Queues a control message, which the next receive or flush writes, and returns its
    /// message id.
    pub(super) fn queue_control(&mut self, control: ControlMessage) -> Result<String, SendError> {
        let message_id = self.random.uuid_v7(&self.clock).to_string();
        let envelope = Envelope {
            message_id: message_id.clone(),
            timestamp: self.clock.unix_seconds(),
            position: None,
            control: Some(control),
        };
        self.queue_envelope(envelope.encode_to_vec().into())?;
        Ok(message_id)
    }

    /// Queues an envelope, which the next receive or flush writes.
    pub(super) fn queue_envelope(&mut self, envelope: Bytes) -> Result<(), SendError> {
        // tungstenite buffers the whole frame up to its limit, whether the socket is ready or not.
        self.socket.start_send_unpin(Message::Binary(envelope))?;
        Ok(())
    }

    async fn next_message(&mut self) -> Result<Message, ReceiveError> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// Writes queued frames, then reads, so that a receive also completes a send that was
    /// cancelled.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, ReceiveError>> {
        // If writing fails, reading returns the remaining messages and then the error.
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

/// Sets all five limits: tungstenite's defaults allow 64 MiB and an unbounded write buffer.
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

impl<S> fmt::Debug for RelayConnection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
