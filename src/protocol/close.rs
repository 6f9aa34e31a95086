//! The codes with which a connection is closed.

use std::time::Duration;

use super::Encoding;

/// Why the relay closes a connection that did nothing wrong on the wire.
/// (Errors of the WebSocket protocol itself have the codes of RFC 6455, 7.4.1.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The relay is shutting down; the client should come back after the delay.
    Drain {
        /// Chosen for each connection, so that clients do not come back at once.
        retry_after: Duration,
    },
    /// A text frame came on a connection that speaks protobuf, or a binary one on one that
    /// speaks JSON.
    WrongFrameType {
        /// What the connection speaks.
        spoken: Encoding,
    },
    /// The token has expired.
    TokenExpired,
    /// The outbox stood at a limit when something was to be put into it.
    TooSlow,
    /// What a connection that catches up was to get next has left the log.
    Overtaken,
    /// The process held more memory than it may, and what this connection held was the
    /// next to be freed.
    NoMemory,
    /// A backend has asked for it.
    Disconnected,
    /// Nothing came from the client for too long, not even the answer to a ping.
    Idle,
    /// A message of the client's did not come to its end in time.
    Unfinished,
    /// The client kept sending what was refused.
    Refused,
    /// A fault of the relay: an event that is for the connection cannot be written as it
    /// speaks.
    InternalError,
    /// A reload took the key away that the token was signed with.
    KeyRemoved,
}

impl Ending {
    /// The code of the Close frame.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Drain { .. } => 1001,
            Self::WrongFrameType { .. } => 1003,
            Self::InternalError => 1011,
            Self::TokenExpired | Self::KeyRemoved => 4001,
            Self::Disconnected => 4002,
            Self::TooSlow | Self::Overtaken | Self::NoMemory => 4003,
            Self::Idle | Self::Unfinished => 4004,
            Self::Refused => 4005,
        }
    }

    /// The reason of the Close frame.
    #[must_use]
    pub fn reason(self) -> String {
        match self {
            Self::Drain { retry_after } => {
                format!("retry_after_ms={}", retry_after.as_millis())
            }
            Self::WrongFrameType { spoken } => match spoken {
                Encoding::Protobuf => "this connection speaks binary frames".to_owned(),
                Encoding::Json => "this connection speaks text frames".to_owned(),
            },
            Self::InternalError => "a fault of the relay".to_owned(),
            Self::TokenExpired => "token expired".to_owned(),
            Self::TooSlow => "too slow: the outbox was full".to_owned(),
            Self::Overtaken => "too slow: events left the replay window first".to_owned(),
            Self::NoMemory => "too slow: the relay needed the memory".to_owned(),
            Self::Disconnected => "disconnected by the backend".to_owned(),
            Self::Idle => "no frame within the idle timeout".to_owned(),
            Self::Unfinished => "a message did not come to its end in time".to_owned(),
            Self::Refused => "too many messages were refused".to_owned(),
            Self::KeyRemoved => "the key of the token is no longer good".to_owned(),
        }
    }

    /// Whether what waits in the outbox is still written before the Close frame.
    #[must_use]
    pub fn writes_what_is_queued(self) -> bool {
        matches!(self, Self::Drain { .. } | Self::Refused)
    }
}
