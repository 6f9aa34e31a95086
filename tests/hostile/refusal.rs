//! The refusals that the contract prescribes for messages of clients.

use sidewire_protocol::wire::ErrorResponse;

/// An ErrorResponse that is expected.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) codes: &'static [&'static str],
    /// True if the request's id is repeated; `None` if either is allowed.
    pub(crate) names_request: Option<bool>,
    pub(crate) field: Option<String>,
}

impl Refusal {
    /// Returns the error for an envelope that cannot be decoded.
    pub(crate) fn undecodable() -> Self {
        Self {
            codes: &["VALIDATION_ERROR"],
            names_request: Some(false),
            field: None,
        }
    }

    /// Returns the error for an invalid envelope whose id can be read, in any field.
    pub(crate) fn invalid_somewhere() -> Self {
        Self {
            codes: &["VALIDATION_ERROR"],
            names_request: Some(true),
            field: None,
        }
    }

    /// Returns the error for an invalid value in this field.
    pub(crate) fn invalid(field: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            ..Self::invalid_somewhere()
        }
    }

    pub(crate) fn unauthorized() -> Self {
        Self {
            codes: &["AUTHORIZATION_FAILED"],
            ..Self::invalid_somewhere()
        }
    }

    /// Returns true if this is the expected error, for the request with this id.
    pub(crate) fn is(&self, error: &ErrorResponse, message_id: &str) -> bool {
        let named = error.request_message_id.as_str();
        self.codes.contains(&error.error_code.as_str())
            && !error.error_message.is_empty()
            && self
                .names_request
                .is_none_or(|names| names != named.is_empty())
            && (named.is_empty() || named == message_id)
            && (self.field.is_none() || self.field == error.field_name)
    }
}
