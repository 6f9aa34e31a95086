//! The codes with which a connection is closed.

use std::time::Duration;

/// Why the relay closes a connection that did nothing wrong on the wire.
/// (Errors of the WebSocket protocol itself have the codes of RFC 6455, 7.4.1.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The relay is shutting down; the client should come back after the delay.
    Drain {
        /// Chosen for each connection, so that clients do not come back at once.
        retry_after: Duration,
    },
    /// A text frame came on a connection that speaks protobuf.
    WrongFrameType,
    /// The token has expired.
    TokenExpired,
    /// The outbox stood at a limit when something was to be put into it.
    TooSlow,
    /// What a connection that catches up was to get next has left the log.
    Overtaken,
    /// All outboxes together held too much, and this one the oldest of it.
    NoMemory,
}

impl Ending {
    /// The code of the Close frame.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Drain { .. } => 1001,
            Self::WrongFrameType => 1003,
            Self::TokenExpired => 4001,
            Self::TooSlow | Self::Overtaken | Self::NoMemory => 4003,
        }
    }

    /// The reason of the Close frame.
    #[must_use]
    pub fn reason(self) -> String {
        match self {
            Self::Drain { retry_after } => {
                format!("retry_after_ms={}", retry_after.as_millis())
            }
            Self::WrongFrameType => "this connection speaks binary frames".to_owned(),
            Self::TokenExpired => "token expired".to_owned(),
            Self::TooSlow => "too slow: the outbox was full".to_owned(),
            Self::Overtaken => "too slow: events left the replay window first".to_owned(),
            Self::NoMemory => "too slow: the relay needed the memory".to_owned(),
        }
    }

    /// Whether what waits in the outbox is still written before the Close frame.
    #[must_use]
    pub fn writes_what_is_queued(self) -> bool {
        matches!(self, Self::Drain { .. })
    }
}
