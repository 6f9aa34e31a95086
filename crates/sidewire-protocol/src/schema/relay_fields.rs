//! The fields that the relay owns in every schema.

use prost_reflect::{Kind, MessageDescriptor};

pub(super) use crate::envelope::number;
use crate::envelope::position_number;

/// The oneof of the envelope that holds the payload.
pub(super) const PAYLOAD: &str = "payload";

/// Returns true if a field number of the envelope belongs to the relay.
pub(super) fn is_relay_number(number: u32) -> bool {
    number == number::MESSAGE_ID || (8..=31).contains(&number)
}

/// Returns true if a field number of the envelope belongs to the relay and may be
/// undeclared. An envelope with an undeclared field in this range is refused.
pub(super) fn is_reserved(number: u32) -> bool {
    (number::AUTHENTICATE..=31).contains(&number)
}

/// The field numbers that a schema may use in the subscription messages.
pub(super) const LIST_NUMBERS: std::ops::RangeInclusive<u32> = 1..=15;

/// The number of the list of whole topics in the subscription messages.
pub(super) const TOPICS_LIST: u32 = 16;

/// The type that a field must have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayFieldType {
    Bool,
    Int64,
    Uint64,
    String,
    /// The message of this full name.
    Message(&'static str),
    /// A message declared by the schema; the name is its usual one.
    Own(&'static str),
}

/// A field that the relay reads or writes.
pub(super) struct RelayField {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) kind: RelayFieldType,
    pub(super) repeated: bool,
}

const fn singular_field(number: u32, name: &'static str, kind: RelayFieldType) -> RelayField {
    RelayField {
        number,
        name,
        kind,
        repeated: false,
    }
}

const fn repeated_strings(number: u32, name: &'static str) -> RelayField {
    RelayField {
        number,
        name,
        kind: RelayFieldType::String,
        repeated: true,
    }
}

const POSITION: &str = "sidewire.v1.Position";

/// The envelope's fields outside of the payload.
pub(super) const PLAIN: [RelayField; 4] = [
    singular_field(number::MESSAGE_ID, "message_id", RelayFieldType::String),
    singular_field(number::TIMESTAMP, "timestamp", RelayFieldType::Int64),
    singular_field(
        number::POSITION,
        "position",
        RelayFieldType::Message(POSITION),
    ),
    repeated_strings(number::TOPICS, "topics"),
];

/// The payloads that every schema needs.
pub(super) const PAYLOADS: [RelayField; 7] = [
    singular_field(
        number::SUBSCRIBE,
        "subscribe",
        RelayFieldType::Own("Subscribe"),
    ),
    singular_field(
        number::SUBSCRIPTION_CONFIRMED,
        "subscription_confirmed",
        RelayFieldType::Own("SubscriptionConfirmed"),
    ),
    singular_field(
        number::UNSUBSCRIBE,
        "unsubscribe",
        RelayFieldType::Own("Unsubscribe"),
    ),
    singular_field(
        number::UNSUBSCRIBE_CONFIRMED,
        "unsubscribe_confirmed",
        RelayFieldType::Own("UnsubscribeConfirmed"),
    ),
    singular_field(
        number::PING,
        "ping",
        RelayFieldType::Message("sidewire.v1.Ping"),
    ),
    singular_field(
        number::PONG,
        "pong",
        RelayFieldType::Message("sidewire.v1.Pong"),
    ),
    singular_field(
        number::ERROR,
        "error",
        RelayFieldType::Message("sidewire.v1.ErrorResponse"),
    ),
];

/// The batch of envelopes, which a schema may omit.
pub(super) const BATCH: RelayField =
    singular_field(number::BATCH, "batch", RelayFieldType::Own("BatchUpdate"));

/// The payloads with which tokens are renewed in place. A schema has both or neither.
pub(super) const OPTIONAL_PAYLOADS: [RelayField; 2] = [
    singular_field(
        number::AUTHENTICATE,
        "authenticate",
        RelayFieldType::Message("sidewire.v1.Authenticate"),
    ),
    singular_field(
        number::AUTHENTICATED,
        "authenticated",
        RelayFieldType::Message("sidewire.v1.Authenticated"),
    ),
];

/// The fields within the relay's messages, by the number of the message in the envelope.
pub(super) const WITHIN: [(u32, &[RelayField]); 10] = [
    (
        number::POSITION,
        &[
            singular_field(position_number::EPOCH, "epoch", RelayFieldType::String),
            singular_field(position_number::OFFSET, "offset", RelayFieldType::Uint64),
        ],
    ),
    (
        number::SUBSCRIBE,
        &[
            repeated_strings(TOPICS_LIST, "topics"),
            singular_field(17, "resume_from", RelayFieldType::Message(POSITION)),
        ],
    ),
    (
        number::SUBSCRIPTION_CONFIRMED,
        &[
            repeated_strings(TOPICS_LIST, "topics"),
            singular_field(17, "position", RelayFieldType::Message(POSITION)),
            singular_field(18, "recovered", RelayFieldType::Bool),
            singular_field(19, "request_message_id", RelayFieldType::String),
            singular_field(20, "replayed", RelayFieldType::Uint64),
        ],
    ),
    (
        number::UNSUBSCRIBE,
        &[repeated_strings(TOPICS_LIST, "topics")],
    ),
    (
        number::UNSUBSCRIBE_CONFIRMED,
        &[
            repeated_strings(TOPICS_LIST, "topics"),
            singular_field(19, "request_message_id", RelayFieldType::String),
        ],
    ),
    (
        number::PING,
        &[singular_field(1, "timestamp", RelayFieldType::Int64)],
    ),
    (
        number::PONG,
        &[
            singular_field(1, "timestamp", RelayFieldType::Int64),
            singular_field(2, "client_timestamp", RelayFieldType::Int64),
        ],
    ),
    (
        number::ERROR,
        &[
            singular_field(1, "error_code", RelayFieldType::String),
            singular_field(2, "error_message", RelayFieldType::String),
            singular_field(3, "request_message_id", RelayFieldType::String),
            singular_field(4, "field_name", RelayFieldType::String),
            singular_field(5, "retry_after_ms", RelayFieldType::Uint64),
        ],
    ),
    (
        number::AUTHENTICATE,
        &[singular_field(1, "token", RelayFieldType::String)],
    ),
    (
        number::AUTHENTICATED,
        &[
            singular_field(1, "expires_at", RelayFieldType::Int64),
            repeated_strings(2, "revoked_topics"),
            singular_field(3, "request_message_id", RelayFieldType::String),
        ],
    ),
];

/// Returns the message type of the field with this number, if it is a message.
pub(super) fn message_of(message: &MessageDescriptor, number: u32) -> Option<MessageDescriptor> {
    message.get_field(number)?.kind().as_message().cloned()
}

/// Describes a field's type, with an article.
pub(super) fn type_name(kind: &Kind, is_map: bool) -> String {
    match kind {
        _ if is_map => "a map".to_owned(),
        Kind::Message(message) => format!("the message {}", message.full_name()),
        Kind::Enum(kind) => format!("the enum {}", kind.full_name()),
        Kind::Int32 | Kind::Int64 => format!("an {kind:?}"),
        Kind::Bytes => "bytes".to_owned(),
        kind => format!("a {kind:?}"),
    }
}

impl RelayFieldType {
    pub(super) fn fits_kind(self, kind: &Kind) -> bool {
        match self {
            Self::Bool => *kind == Kind::Bool,
            Self::Int64 => *kind == Kind::Int64,
            Self::Uint64 => *kind == Kind::Uint64,
            Self::String => *kind == Kind::String,
            Self::Own(_) => kind.as_message().is_some(),
            Self::Message(name) => kind
                .as_message()
                .is_some_and(|message| message.full_name() == name),
        }
    }
}

impl std::fmt::Display for RelayField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.repeated {
            f.write_str("repeated ")?;
        }
        f.write_str(match self.kind {
            RelayFieldType::Bool => "bool",
            RelayFieldType::Int64 => "int64",
            RelayFieldType::Uint64 => "uint64",
            RelayFieldType::String => "string",
            RelayFieldType::Own(name) | RelayFieldType::Message(name) => name,
        })?;
        write!(f, " {} = {}", self.name, self.number)
    }
}
