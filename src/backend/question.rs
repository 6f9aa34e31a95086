//! A question to a backend, and the reasons for which it may have no answer.

use std::time::Duration;

use bytes::Bytes;
use sidewire_protocol::TenantName;

use super::transport::TransportError;
use crate::{http::FetchError, telemetry::BackendResult};

/// Time after which a question that has no answer may be asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Something to ask a backend. If it is dropped, it will not be answered.
pub trait Question: Send {
    /// Returns the tenant, among which questions are fair.
    fn tenant(&self) -> &TenantName;

    /// Returns true as long as somebody waits for the answer.
    fn is_wanted(&self) -> bool;

    /// Returns the JSON to post.
    fn to_json(&self) -> Vec<u8>;

    /// Passes the answer on to those who wait.
    ///
    /// # Errors
    ///
    /// Fails if the answer cannot be used.
    fn answered(self: Box<Self>, answer: Result<Bytes, AskError>) -> Result<(), InvalidAnswer>;
}

/// An answer cannot be used. Reveals nothing of its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer cannot be used: {0}")]
pub struct InvalidAnswer(pub String);

/// A reason for which a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Too many questions wait, most of them of this tenant.
    #[error("too many questions wait")]
    TooMany,
    /// The question has waited too long for others to be answered.
    #[error("other questions took too long")]
    Waited,
    /// The backend does not answer, and is not asked at the moment.
    #[error("the backend did not answer, and is not asked for now")]
    Open {
        /// Time after which it is asked again.
        retry_after: Duration,
    },
    /// The backend has not answered in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// There is no answer, or not the right one.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// There is no backend to ask.
    #[error("no backend is configured")]
    NotConfigured,
}

impl AskError {
    /// Returns the time after which to ask again.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Open { retry_after } => (*retry_after).max(RETRY_AFTER),
            _ => RETRY_AFTER,
        }
    }

    /// Returns true if the backend may be down.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::TimedOut(_) => true,
            Self::Transport(error) => error.is_outage(),
            _ => false,
        }
    }

    pub(super) fn metric_result(&self) -> BackendResult {
        match self {
            Self::TooMany | Self::Waited => BackendResult::TooMany,
            Self::Open { .. } => BackendResult::NotAsked,
            Self::TimedOut(_) => BackendResult::TimedOut,
            Self::Transport(TransportError(FetchError::Status(_))) => BackendResult::Status,
            Self::Transport(TransportError(FetchError::TooBig(_))) => BackendResult::TooBig,
            Self::Transport(_) | Self::NotConfigured => BackendResult::Unreachable,
        }
    }
}
