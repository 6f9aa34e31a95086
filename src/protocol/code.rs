//! The codes by which clients and backends tell one fault from another.

use std::fmt;

/// What an ErrorResponse or a problem document says was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The token or key is missing, invalid or expired.
    AuthenticationFailed,
    /// The caller is known and may not do this.
    AuthorizationFailed,
    /// What was sent is malformed.
    ValidationError,
    /// The thing named does not exist here.
    NotFound,
    /// It contradicts what is there.
    Conflict,
    /// Too much, too often, or no room: later it may pass.
    RateLimitExceeded,
    /// A fault of the relay.
    InternalError,
}

impl ErrorCode {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthenticationFailed => "AUTHENTICATION_FAILED",
            Self::AuthorizationFailed => "AUTHORIZATION_FAILED",
            Self::ValidationError => "VALIDATION_ERROR",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::RateLimitExceeded => "RATE_LIMIT_EXCEEDED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
