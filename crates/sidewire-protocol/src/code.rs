//! The codes by which clients and backends distinguish errors.

use std::fmt;

/// The error code of an ErrorResponse or a problem document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The token or key is missing, invalid or expired.
    AuthenticationFailed,
    /// The caller is authenticated and may not do this.
    AuthorizationFailed,
    /// The request or message is malformed.
    ValidationError,
    /// The named object does not exist here.
    NotFound,
    /// The request conflicts with the current state.
    Conflict,
    /// A limit is exceeded; a later attempt may succeed.
    RateLimitExceeded,
    /// An internal error of the relay.
    InternalError,
}

impl ErrorCode {
    /// The code as it appears on the wire.
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
