//! The closed sets of label values.

use sidewire_protocol::{close::CloseReason, named_values};

use crate::log::ReplayGap;

/// The reason for which a connection ended, for the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseLabel {
    /// The client sent a Close frame.
    ByClient,
    /// The stream ended without a Close frame.
    Lost,
    /// The client violated the WebSocket protocol (1002).
    ProtocolError,
    /// A frame or message was too big (1009).
    TooBig,
    /// A text message or close reason was not UTF-8 (1007).
    BadUtf8,
    /// A frame could not be written within the write deadline (1006).
    Reset,
    /// A poll was answered.
    Answered,
    /// The relay closed the connection.
    ByRelay(CloseReason),
}

named_values! {
    impl CloseLabel {
        ByClient = "client",
        Lost = "lost",
        ProtocolError = "protocol_error",
        TooBig = "too_big",
        BadUtf8 = "bad_utf8",
        Reset = "reset",
        Answered = "answered",
        ..ByRelay(CloseReason)
    }
}

impl CloseLabel {
    /// Returns true if the client was too slow (4003), for any of the reasons.
    #[must_use]
    pub fn is_too_slow(self) -> bool {
        use CloseReason::{NoMemory, Overtaken, PresenceOwed, TooSlow};
        matches!(
            self,
            Self::ByRelay(TooSlow | Overtaken | NoMemory | PresenceOwed)
        )
    }
}

named_values! {
    /// The reason for which a backend's call was answered with 409, for the label `reason`.
    pub enum ConflictReason {
        /// A message id was already used for another event.
        MessageId = "message_id",
        /// A precondition did not hold.
        Precondition = "precondition",
    }
}

named_values! {
    /// The result of fetching a key set, for the label `result`.
    pub enum KeySetFetchResult {
        /// Keys were fetched.
        Fetched = "fetched",
        /// The connection, the TLS handshake or the HTTP exchange failed.
        Unreachable = "unreachable",
        /// The fetch took too long.
        TimedOut = "timed_out",
        /// The answer had another status than 200.
        Status = "status",
        /// The answer was too big.
        TooBig = "too_big",
        /// The answer was not a key set with at least one usable key.
        Invalid = "invalid",
    }
}

named_values! {
    /// What a start found at `replay.keep_file`, for the label `result`.
    pub enum WindowFileResult {
        /// The window of the last run, which was used.
        Loaded = "loaded",
        /// No file.
        Missing = "missing",
        /// A file that could not be used.
        Rejected = "rejected",
    }
}

named_values! {
    /// The result of a question to the backend, for the label `result`.
    pub enum BackendResult {
        /// It was answered.
        Answered = "answered",
        /// The connection, the TLS handshake or the HTTP exchange failed.
        Unreachable = "unreachable",
        /// The answer took too long.
        TimedOut = "timed_out",
        /// The answer had another status than 200.
        Status = "status",
        /// The answer was too big.
        TooBig = "too_big",
        /// The answer was not the JSON that was asked for.
        Invalid = "invalid",
        /// Too many questions waited.
        TooMany = "too_many",
        /// The backend did not answer earlier questions, and was not asked.
        NotAsked = "not_asked",
    }
}

named_values! {
    /// The result of the authorization of a Subscribe by the backend, for the label `result`.
    pub enum AuthorizationResult {
        /// Every topic is allowed.
        Allowed = "allowed",
        /// A topic is not allowed.
        Denied = "denied",
        /// There is no answer.
        Failed = "failed",
    }
}

named_values! {
    /// The source of the answer for a topic, for the label `source`.
    pub enum AnswerSource {
        /// An earlier answer that was remembered.
        Cache = "cache",
        /// The backend.
        Backend = "backend",
    }
}

named_values! {
    /// The result of reloading the schema, for the label `result`.
    pub enum SchemaReloadResult {
        /// The new schema is in force.
        Applied = "applied",
        /// The new schema means the same as the one in force.
        Unchanged = "unchanged",
        /// The new schema has an error or is incompatible, and the old one stays in force.
        Refused = "refused",
    }
}

named_values! {
    /// The result of reloading the config, for the label `result`.
    pub(super) enum ConfigReloadResult {
        Applied = "applied",
        Refused = "refused",
    }
}

named_values! {
    /// The reason for which a backend is not authenticated, for the label `reason`.
    pub enum IngestKeyRefusal {
        /// There is no key.
        Missing = "missing",
        /// The header with the key is malformed.
        Malformed = "malformed",
        /// The key is none of the configured ones.
        UnknownKey = "unknown_key",
    }
}

named_values! {
    /// The source of an event, for the label `source`.
    pub(super) enum EventOrigin {
        /// A backend.
        Backend = "backend",
        /// A client.
        Client = "client",
    }
}

/// The result of a resume, for the label `result`.
pub(super) enum ResumeResult {
    Recovered,
    Gap(ReplayGap),
}

named_values! {
    impl ResumeResult { Recovered = "recovered", ..Gap(ReplayGap) }
}
