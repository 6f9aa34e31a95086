//! What the values of labels stand for: closed sets.

use crate::protocol::close::Ending;

/// Why a connection was closed, for the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The client has sent a Close frame.
    ByClient,
    /// The stream ended without a Close frame.
    Lost,
    /// The client has broken the WebSocket protocol (1002).
    ProtocolError,
    /// A frame or message was too big (1009).
    TooBig,
    /// What should have been text was not UTF-8 (1007).
    BadUtf8,
    /// A text frame came on a binary connection, or the other way round (1003).
    WrongFrameType,
    /// The token has expired (4001).
    TokenExpired,
    /// The outbox was full (4003).
    TooSlow,
    /// What it was to get next left the replay window first (4003).
    Overtaken,
    /// The relay needed the memory of its outbox (4003).
    NoMemory,
    /// A backend has asked for it (4002).
    Disconnected,
    /// Nothing came from the client for too long (4004).
    Idle,
    /// A message of the client's did not come to its end (4004).
    Unfinished,
    /// The client kept being refused (4005).
    Refused,
    /// The key of the token was taken away (4001).
    KeyRemoved,
    /// A fault of the relay (1011).
    InternalError,
    /// The relay is shutting down (1001).
    Drain,
    /// A frame could not be written within the write deadline (1006).
    Reset,
}

impl Closed {
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

    /// The reason for which the relay has closed it.
    #[must_use]
    pub fn by_relay(ending: Ending) -> Self {
        match ending {
            Ending::Drain { .. } => Self::Drain,
            Ending::WrongFrameType { .. } => Self::WrongFrameType,
            Ending::TokenExpired => Self::TokenExpired,
            Ending::TooSlow => Self::TooSlow,
            Ending::Overtaken => Self::Overtaken,
            Ending::NoMemory => Self::NoMemory,
            Ending::Disconnected => Self::Disconnected,
            Ending::Idle => Self::Idle,
            Ending::Unfinished => Self::Unfinished,
            Ending::Refused => Self::Refused,
            Ending::KeyRemoved => Self::KeyRemoved,
            Ending::InternalError => Self::InternalError,
        }
    }

    /// Whether the client was too slow (4003), in one way or another.
    #[must_use]
    pub fn is_too_slow(self) -> bool {
        matches!(self, Self::TooSlow | Self::Overtaken | Self::NoMemory)
    }

    /// The reason as a word.
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

/// Why a backend's call was answered with 409, for the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// A message id had been given to another body.
    MessageId,
    /// A precondition did not hold.
    Precondition,
}

impl Conflict {
    pub(super) const ALL: [Self; 2] = [Self::MessageId, Self::Precondition];

    /// The reason as a word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::MessageId => "message_id",
            Self::Precondition => "precondition",
        }
    }
}

/// What came of fetching a key set, for the label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySetFetch {
    /// Keys.
    Fetched,
    /// There was no connection, no TLS, or no HTTP.
    Unreachable,
    /// It took too long.
    TimedOut,
    /// The answer was another than 200.
    Status,
    /// The answer was too big.
    TooBig,
    /// The answer was no set with a key for signatures.
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

    /// The result as a word.
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

/// What came of reading the schema again, for the label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaReload {
    /// The new schema serves.
    Applied,
    /// It means the same as the one that serves.
    Unchanged,
    /// It has an error or would break what it replaces, and the old one serves on.
    Refused,
}

impl SchemaReload {
    pub(super) const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    /// The result as a word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}
