//! The messages that a connection receives, and the errors that end it. Knows nothing
//! about sockets.

use std::io;

use bytes::Bytes;
use prost::Message as _;
use sidewire_protocol::wire;
use tokio_tungstenite::tungstenite::{Error, error::ProtocolError};

use super::{ControlMessage, Envelope};

/// The close code that stands for a Close frame without one (RFC 6455, section 7.1.5).
pub(super) const NO_STATUS: u16 = 1005;

/// A message from the relay.
#[derive(Debug, Clone, PartialEq)]
pub enum RelayMessage {
    /// An event.
    Event(ReceivedEvent),
    /// The answer to a Subscribe, or, without a `request_message_id`, the subscriptions that the
    /// token contains.
    SubscriptionConfirmed(wire::SubscriptionConfirmed),
    /// The answer to an Unsubscribe.
    UnsubscribeConfirmed(wire::UnsubscribeConfirmed),
    /// The answer to a Ping.
    Pong(wire::Pong),
    /// The answer to an Authenticate.
    Authenticated(wire::Authenticated),
    /// A request was refused, or the relay is about to close the connection.
    Error(wire::ErrorResponse),
}

/// An event, with the relay's fields decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedEvent {
    /// The bytes of the whole envelope.
    pub envelope: Bytes,
    /// The message id, chosen by the sender or, if it chose none, by the relay.
    pub message_id: String,
    /// Unix seconds.
    pub timestamp: i64,
    /// The event's position in its tenant's log; `None` for an event sent by a client.
    pub position: Option<wire::Position>,
}

/// Why nothing more can be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The relay closed the connection.
    #[error("the relay closed the connection with {code} {reason:?}")]
    Closed {
        /// The close code; 1005 if the frame had none.
        code: u16,
        /// The close reason.
        reason: String,
    },
    /// The connection ended without a Close frame.
    #[error("the connection was lost: {0}")]
    Lost(io::Error),
    /// The relay sent something that the protocol does not allow.
    #[error("the relay violated the protocol: {0}")]
    Protocol(String),
}

/// Why a message could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection has ended; the next receive returns the reason.
    #[error("the connection has ended: {0}")]
    Ended(io::Error),
    /// The relay does not read, and more than 16 MiB are waiting to be written.
    #[error("the relay does not read: more than 16 MiB are waiting to be written")]
    Full,
}

/// Returns the message in an envelope and, if the relay made it, the time at which it was sent, in
/// Unix seconds.
pub(super) fn decode_message(bytes: Bytes) -> Result<(RelayMessage, Option<i64>), ReceiveError> {
    let envelope = Envelope::decode(bytes.clone())
        .map_err(|error| ReceiveError::Protocol(format!("undecodable envelope: {error}")))?;
    let relay_time = envelope.control.is_some().then_some(envelope.timestamp);
    Ok((message_in(envelope, bytes)?, relay_time))
}

fn message_in(envelope: Envelope, bytes: Bytes) -> Result<RelayMessage, ReceiveError> {
    match envelope.control {
        None => Ok(RelayMessage::Event(ReceivedEvent {
            envelope: bytes,
            message_id: envelope.message_id,
            timestamp: envelope.timestamp,
            position: envelope.position,
        })),
        Some(ControlMessage::SubscriptionConfirmed(it)) => {
            Ok(RelayMessage::SubscriptionConfirmed(it))
        }
        Some(ControlMessage::UnsubscribeConfirmed(it)) => {
            Ok(RelayMessage::UnsubscribeConfirmed(it))
        }
        Some(ControlMessage::Pong(pong)) => Ok(RelayMessage::Pong(pong)),
        Some(ControlMessage::Authenticated(it)) => Ok(RelayMessage::Authenticated(it)),
        Some(ControlMessage::Error(error)) => Ok(RelayMessage::Error(error)),
        Some(
            ControlMessage::Subscribe(_)
            | ControlMessage::Unsubscribe(_)
            | ControlMessage::Ping(_)
            | ControlMessage::Authenticate(_),
        ) => Err(ReceiveError::Protocol(
            "it sent a message that only clients send".to_owned(),
        )),
    }
}

impl From<Error> for ReceiveError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => Self::Lost(error),
            Error::ConnectionClosed | Error::AlreadyClosed => {
                Self::Lost(io::ErrorKind::UnexpectedEof.into())
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Self::Lost(io::ErrorKind::UnexpectedEof.into())
            }
            error => Self::Protocol(error.to_string()),
        }
    }
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        match error {
            Error::WriteBufferFull(_) => Self::Full,
            Error::Io(error) => Self::Ended(error),
            error => Self::Ended(io::Error::other(error)),
        }
    }
}
