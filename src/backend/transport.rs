//! What carries a question to the backend. Tests replace it, in order to answer late, wrongly or
//! never.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::{StatusCode, header::HeaderValue};

use crate::{auth::Secret, config::BackendUrl, http::FetchError};

/// Maximum size of an answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Where and how a backend is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTarget {
    /// The URL to which questions are posted.
    pub url: BackendUrl,
    /// The value of the header `Authorization`, if there is one. Its `Debug` output is masked.
    pub authorization: Option<HeaderValue>,
}

/// The key of a backend cannot be sent in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a key of 1 or more visible ASCII characters")]
pub struct BackendKeyError;

impl BackendTarget {
    /// Creates a target. The key is sent as Bearer token.
    ///
    /// # Errors
    ///
    /// Fails if the key cannot be sent in a header.
    pub fn new(url: BackendUrl, key: Option<&Secret>) -> Result<Self, BackendKeyError> {
        let authorization = key.map(bearer_header).transpose()?;
        Ok(Self { url, authorization })
    }
}

fn bearer_header(key: &Secret) -> Result<HeaderValue, BackendKeyError> {
    let key = key.as_bytes();
    if key.is_empty() || !key.iter().all(u8::is_ascii_graphic) {
        return Err(BackendKeyError);
    }
    let value = [b"Bearer ".as_slice(), key].concat();
    let mut value = HeaderValue::from_maybe_shared(value).map_err(|_| BackendKeyError)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Carries questions to a backend.
pub trait BackendTransport: fmt::Debug + Send + Sync {
    /// Posts the JSON of a question, and returns the body of the answer. The caller sets a
    /// timeout, and drops the future when it is over.
    fn post(
        &self,
        target: &Arc<BackendTarget>,
        question: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>>;
}

/// A reason for which a backend's answer could not be had.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TransportError(#[from] pub FetchError);

impl TransportError {
    /// Returns true if the backend may be down. Any other answer shows that it is up, however
    /// wrong that is.
    pub(super) fn is_outage(&self) -> bool {
        match &self.0 {
            FetchError::Status(status) => matches!(
                *status,
                StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
            FetchError::TooBig(_) => false,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_as_bearer_token_and_never_printed() {
        let url = BackendUrl::parse("http://127.0.0.1/ask").unwrap();
        let key = Secret::new("hunter2");
        let target = BackendTarget::new(url.clone(), Some(&key)).unwrap();
        let sent = target.authorization.as_ref().unwrap();
        assert_eq!(sent.as_bytes(), b"Bearer hunter2");
        assert!(!format!("{target:?}").contains("hunter2"));
        for bad in ["", "hunter 2", "hunter2\nX: y", "hünter"] {
            let refused = BackendTarget::new(url.clone(), Some(&Secret::new(bad)));
            assert_eq!(refused, Err(BackendKeyError), "{bad}");
        }
    }
}
