//! The codes by which clients and backends distinguish errors.

use std::fmt;

use crate::named_values;

named_values! {
    /// The error code of an ErrorResponse or a problem document.
    #[derive(Hash)]
    pub enum ErrorCode {
        /// The token or key is missing, invalid or expired.
        AuthenticationFailed = "AUTHENTICATION_FAILED",
        /// The caller is authenticated and may not do this.
        AuthorizationFailed = "AUTHORIZATION_FAILED",
        /// The request or message is malformed.
        ValidationError = "VALIDATION_ERROR",
        /// The named object does not exist here.
        NotFound = "NOT_FOUND",
        /// The request conflicts with the current state.
        Conflict = "CONFLICT",
        /// A limit is exceeded; a later attempt may succeed.
        RateLimitExceeded = "RATE_LIMIT_EXCEEDED",
        /// An internal error of the relay.
        InternalError = "INTERNAL_ERROR",
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
