//! The codes and reasons with which a connection is closed.

use std::time::Duration;

use crate::{EnvelopeEncoding, ErrorCode, named_values};

/// What stands in the reason of a Close frame before the time in milliseconds after which the client
/// should come back.
pub const RETRY_AFTER_PREFIX: &str = "retry_after_ms=";

/// Reason for which the relay closes a connection that obeys the WebSocket protocol. (Violations
/// of that protocol have the codes of RFC 6455, 7.4.1.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The relay is shutting down; the client should come back after the delay.
    Drain {
        /// The delay in milliseconds. Chosen for each connection, so that clients do not all come
        /// back at once.
        retry_after_ms: u32,
    },
    /// The client sent a text frame on a protobuf connection, or a binary frame on a JSON
    /// connection.
    WrongFrameType {
        /// The encoding of the connection.
        spoken: EnvelopeEncoding,
    },
    /// The token has expired.
    TokenExpired,
    /// The outbox was at a limit when a frame was to be added.
    TooSlow,
    /// The connection was catching up, and its next event has left the log.
    Overtaken,
    /// The process exceeded its memory limit and the memory of this connection was next to be
    /// freed, or there was no memory for a message of its client.
    NoMemory,
    /// The connection was owed more presence messages than it may be.
    PresenceOwed,
    /// A backend requested it.
    Disconnected,
    /// A backend asks the client to reconnect with a new token.
    NewTokenRequested,
    /// The client lost a topic that its replay covers, and a replay is complete or refused.
    RightsReduced,
    /// Nothing came from the client for too long, not even the answer to a ping.
    Idle,
    /// A message of the client was not completed in time.
    Unfinished,
    /// The client kept sending messages that were refused.
    Refused,
    /// An internal error: an event or a reply cannot be written in the connection's encoding.
    InternalError,
    /// A reload removed the key that signed the token.
    KeyRemoved,
}

named_values! {
    impl CloseReason {
        Drain = "drain",
        WrongFrameType = "wrong_frame_type",
        TokenExpired = "token_expired",
        TooSlow = "too_slow",
        Overtaken = "overtaken",
        NoMemory = "no_memory",
        PresenceOwed = "presence_owed",
        Disconnected = "disconnected",
        NewTokenRequested = "new_token_requested",
        RightsReduced = "rights_reduced",
        Idle = "idle",
        Unfinished = "unfinished",
        Refused = "refused",
        InternalError = "internal_error",
        KeyRemoved = "key_removed",
    }
}

impl CloseReason {
    /// The relay is shutting down; the client should come back after the delay.
    #[must_use]
    pub fn drain(retry_after: Duration) -> Self {
        let millis = retry_after.as_millis();
        Self::Drain {
            retry_after_ms: u32::try_from(millis).unwrap_or(u32::MAX),
        }
    }

    /// The code of the Close frame.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Drain { .. } => 1001,
            Self::WrongFrameType { .. } => 1003,
            Self::InternalError => 1011,
            Self::TokenExpired | Self::KeyRemoved => 4001,
            Self::Disconnected => 4002,
            Self::TooSlow | Self::Overtaken | Self::NoMemory | Self::PresenceOwed => 4003,
            Self::Idle | Self::Unfinished => 4004,
            Self::Refused => 4005,
            Self::NewTokenRequested | Self::RightsReduced => 4006,
        }
    }

    /// The reason of the Close frame.
    #[must_use]
    pub fn close_frame_text(self) -> String {
        match self {
            Self::Drain { retry_after_ms } => format!("{RETRY_AFTER_PREFIX}{retry_after_ms}"),
            Self::WrongFrameType { spoken } => match spoken {
                EnvelopeEncoding::Protobuf => "this connection speaks binary frames".to_owned(),
                EnvelopeEncoding::Json => "this connection speaks text frames".to_owned(),
            },
            Self::InternalError => "internal error".to_owned(),
            Self::TokenExpired => "token expired".to_owned(),
            Self::TooSlow => "too slow: the outbox was full".to_owned(),
            Self::Overtaken => "too slow: events left the replay window first".to_owned(),
            Self::NoMemory => "too slow: the relay needed the memory".to_owned(),
            Self::PresenceOwed => "too slow: too much presence was owed".to_owned(),
            Self::Disconnected => "disconnected by the backend".to_owned(),
            Self::NewTokenRequested => "the backend asks for a new token".to_owned(),
            Self::RightsReduced => "rights changed during a replay".to_owned(),
            Self::Idle => "no frame within the idle timeout".to_owned(),
            Self::Unfinished => "a message was not completed in time".to_owned(),
            Self::Refused => "too many messages were refused".to_owned(),
            Self::KeyRemoved => "the key that signed the token was removed".to_owned(),
        }
    }

    /// Returns true if queued frames are still written before the Close frame.
    #[must_use]
    pub fn drains_outbox(self) -> bool {
        matches!(self, Self::Drain { .. } | Self::Refused)
    }
}

/// The closing of a handshake that is refused after the upgrade, where a browser's script can see
/// it. No client was admitted, so this is not a [`CloseReason`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeRefusal {
    /// The code of the Close frame.
    pub code: u16,
    /// The reason of the Close frame.
    pub reason: String,
}

impl HandshakeRefusal {
    /// Returns the closing for a refusal that has this status over HTTP. Returns `None` for
    /// statuses that exist only over HTTP.
    #[must_use]
    pub fn new(status: u16, error: ErrorCode, retry_after_ms: Option<u32>) -> Option<Self> {
        let code = match status {
            401 => 4401,
            403 => 4403,
            429 => 4429,
            503 => 4503,
            _ => return None,
        };
        let mut reason = error.as_str().to_owned();
        if let Some(millis) = retry_after_ms {
            reason.push_str(&format!(" {RETRY_AFTER_PREFIX}{millis}"));
        }
        Some(Self { code, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_handshake_is_closed_with_the_code_of_its_status_and_the_error_code() {
        for (status, error, retry_after_ms, code, reason) in [
            (
                401,
                ErrorCode::AuthenticationFailed,
                None,
                4401,
                "AUTHENTICATION_FAILED",
            ),
            (
                403,
                ErrorCode::AuthorizationFailed,
                None,
                4403,
                "AUTHORIZATION_FAILED",
            ),
            (
                429,
                ErrorCode::RateLimitExceeded,
                Some(1500),
                4429,
                "RATE_LIMIT_EXCEEDED retry_after_ms=1500",
            ),
            (
                503,
                ErrorCode::InternalError,
                Some(u32::MAX),
                4503,
                "INTERNAL_ERROR retry_after_ms=4294967295",
            ),
        ] {
            let expected = HandshakeRefusal {
                code,
                reason: reason.to_owned(),
            };
            let refusal = HandshakeRefusal::new(status, error, retry_after_ms);
            assert_eq!(refusal, Some(expected));
        }
        for status in [200, 400, 404, 405, 426, 431, 500] {
            let refusal = HandshakeRefusal::new(status, ErrorCode::ValidationError, None);
            assert_eq!(refusal, None, "{status}");
        }
    }
}
