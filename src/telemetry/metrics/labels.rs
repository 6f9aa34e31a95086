//! The closed sets of label values.

use sidewire_protocol::close::CloseReason;

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
    /// A text frame arrived on a binary connection, or a binary frame on a text connection (1003).
    WrongFrameType,
    /// The token expired (4001).
    TokenExpired,
    /// The outbox was full (4003).
    TooSlow,
    /// The next event for the connection left the replay window before it was delivered (4003).
    Overtaken,
    /// The relay needed the memory of the connection's outbox (4003).
    NoMemory,
    /// A backend disconnected the user (4002).
    Disconnected,
    /// The client sent nothing for too long (4004).
    Idle,
    /// The client did not complete a message in time (4004).
    Unfinished,
    /// Too many messages of the client were refused (4005).
    Refused,
    /// The key of the token was removed (4001).
    KeyRemoved,
    /// The relay had an internal error (1011).
    InternalError,
    /// The relay is shutting down (1001).
    Drain,
    /// A frame could not be written within the write deadline (1006).
    Reset,
}

impl CloseLabel {
    pub(super) const ALL: [Self; 18] = [
        Self::ByClient,
        Self::Lost,
        Self::ProtocolError,
        Self::TooBig,
        Self::BadUtf8,
        Self::WrongFrameType,
        Self::TokenExpired,
        Self::TooSlow,
        Self::Overtaken,
        Self::NoMemory,
        Self::Disconnected,
        Self::Idle,
        Self::Unfinished,
        Self::Refused,
        Self::KeyRemoved,
        Self::InternalError,
        Self::Drain,
        Self::Reset,
    ];

    /// Returns the reason for a connection that the relay closed.
    #[must_use]
    pub fn from_ending(ending: CloseReason) -> Self {
        match ending {
            CloseReason::Drain { .. } => Self::Drain,
            CloseReason::WrongFrameType { .. } => Self::WrongFrameType,
            CloseReason::TokenExpired => Self::TokenExpired,
            CloseReason::TooSlow => Self::TooSlow,
            CloseReason::Overtaken => Self::Overtaken,
            CloseReason::NoMemory => Self::NoMemory,
            CloseReason::Disconnected => Self::Disconnected,
            CloseReason::Idle => Self::Idle,
            CloseReason::Unfinished => Self::Unfinished,
            CloseReason::Refused => Self::Refused,
            CloseReason::KeyRemoved => Self::KeyRemoved,
            CloseReason::InternalError => Self::InternalError,
        }
    }

    /// Returns true if the client was too slow (4003), for any of the reasons.
    #[must_use]
    pub fn is_too_slow(self) -> bool {
        matches!(self, Self::TooSlow | Self::Overtaken | Self::NoMemory)
    }

    /// Returns the label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ByClient => "client",
            Self::Lost => "lost",
            Self::ProtocolError => "protocol_error",
            Self::TooBig => "too_big",
            Self::BadUtf8 => "bad_utf8",
            Self::WrongFrameType => "wrong_frame_type",
            Self::TokenExpired => "token_expired",
            Self::TooSlow => "too_slow",
            Self::Overtaken => "overtaken",
            Self::NoMemory => "no_memory",
            Self::Disconnected => "disconnected",
            Self::Idle => "idle",
            Self::Unfinished => "unfinished",
            Self::Refused => "refused",
            Self::KeyRemoved => "key_removed",
            Self::InternalError => "internal_error",
            Self::Drain => "drain",
            Self::Reset => "reset",
        }
    }
}

/// The reason for which a backend's call was answered with 409, for the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictReason {
    /// A message id was already used for another event.
    MessageId,
    /// A precondition did not hold.
    Precondition,
}

impl ConflictReason {
    pub(super) const ALL: [Self; 2] = [Self::MessageId, Self::Precondition];

    /// Returns the label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::MessageId => "message_id",
            Self::Precondition => "precondition",
        }
    }
}

/// The result of fetching a key set, for the label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySetFetch {
    /// Keys were fetched.
    Fetched,
    /// The connection, the TLS handshake or the HTTP exchange failed.
    Unreachable,
    /// The fetch took too long.
    TimedOut,
    /// The answer had another status than 200.
    Status,
    /// The answer was too big.
    TooBig,
    /// The answer was not a key set with at least one usable key.
    Invalid,
}

impl KeySetFetch {
    pub(super) const ALL: [Self; 6] = [
        Self::Fetched,
        Self::Unreachable,
        Self::TimedOut,
        Self::Status,
        Self::TooBig,
        Self::Invalid,
    ];

    /// Returns the label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Status => "status",
            Self::TooBig => "too_big",
            Self::Invalid => "invalid",
        }
    }
}

/// The result of reloading the schema, for the label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaReload {
    /// The new schema is in force.
    Applied,
    /// The new schema means the same as the one in force.
    Unchanged,
    /// The new schema has an error or is incompatible, and the old one stays in force.
    Refused,
}

impl SchemaReload {
    pub(super) const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    /// Returns the label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}
