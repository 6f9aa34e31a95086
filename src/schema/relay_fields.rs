//! The fields that the relay owns in every schema, and the check that a schema
//! has them as the relay knows them.

use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};

use super::compile::Flaw;

/// The oneof of the envelope that holds the payload.
pub(super) const PAYLOAD: &str = "payload";

/// The numbers of the envelope's fields that the relay reads itself.
pub(super) mod number {
    pub(in crate::schema) const MESSAGE_ID: u32 = 1;
    pub(in crate::schema) const TIMESTAMP: u32 = 8;
    pub(in crate::schema) const POSITION: u32 = 9;
    pub(in crate::schema) const SUBSCRIBE: u32 = 10;
    pub(in crate::schema) const SUBSCRIPTION_CONFIRMED: u32 = 11;
    pub(in crate::schema) const UNSUBSCRIBE: u32 = 12;
    pub(in crate::schema) const UNSUBSCRIBE_CONFIRMED: u32 = 13;
    pub(in crate::schema) const PING: u32 = 14;
    pub(in crate::schema) const PONG: u32 = 15;
    pub(in crate::schema) const ERROR: u32 = 16;
    pub(in crate::schema) const BATCH: u32 = 17;
    pub(in crate::schema) const TOPICS: u32 = 18;
    pub(in crate::schema) const AUTHENTICATE: u32 = 19;
    pub(in crate::schema) const AUTHENTICATED: u32 = 20;
}

/// Whether a number of the envelope belongs to the relay.
pub(super) fn is_relays(number: u32) -> bool {
    number == number::MESSAGE_ID || (8..=31).contains(&number)
}

/// Whether a number of the envelope is the relay's and need not be declared. What has
/// one that is not declared is refused.
pub(super) fn is_reserved(number: u32) -> bool {
    (number::AUTHENTICATE..=31).contains(&number)
}

/// The schema's own numbers in the subscription messages.
pub(super) const LIST_NUMBERS: std::ops::RangeInclusive<u32> = 1..=15;

/// Whether a number of a subscription message belongs to the relay.
pub(super) fn is_relays_in_lists(number: u32) -> bool {
    (16..=31).contains(&number)
}

/// What type a field must have.
#[derive(Clone, Copy)]
enum Type {
    Bool,
    Int64,
    Uint64,
    String,
    /// The message of this full name.
    Message(&'static str),
    /// A message of the schema's own.
    Own,
}

struct RelayField {
    number: u32,
    name: &'static str,
    kind: Type,
    repeated: bool,
}

const fn one(number: u32, name: &'static str, kind: Type) -> RelayField {
    RelayField {
        number,
        name,
        kind,
        repeated: false,
    }
}

const fn strings(number: u32, name: &'static str) -> RelayField {
    RelayField {
        number,
        name,
        kind: Type::String,
        repeated: true,
    }
}

const POSITION: &str = "sidewire.v1.Position";

const PLAIN: [RelayField; 4] = [
    one(number::MESSAGE_ID, "message_id", Type::String),
    one(number::TIMESTAMP, "timestamp", Type::Int64),
    one(number::POSITION, "position", Type::Message(POSITION)),
    strings(number::TOPICS, "topics"),
];

const PAYLOADS: [RelayField; 7] = [
    one(number::SUBSCRIBE, "subscribe", Type::Own),
    one(
        number::SUBSCRIPTION_CONFIRMED,
        "subscription_confirmed",
        Type::Own,
    ),
    one(number::UNSUBSCRIBE, "unsubscribe", Type::Own),
    one(
        number::UNSUBSCRIBE_CONFIRMED,
        "unsubscribe_confirmed",
        Type::Own,
    ),
    one(number::PING, "ping", Type::Message("sidewire.v1.Ping")),
    one(number::PONG, "pong", Type::Message("sidewire.v1.Pong")),
    one(
        number::ERROR,
        "error",
        Type::Message("sidewire.v1.ErrorResponse"),
    ),
];

const BATCH: RelayField = one(number::BATCH, "batch", Type::Own);

/// Payloads that a schema may leave out.
const OPTIONAL_PAYLOADS: [RelayField; 2] = [
    one(
        number::AUTHENTICATE,
        "authenticate",
        Type::Message("sidewire.v1.Authenticate"),
    ),
    one(
        number::AUTHENTICATED,
        "authenticated",
        Type::Message("sidewire.v1.Authenticated"),
    ),
];

/// What lies in the relay's payloads, by the envelope's number.
const WITHIN: [(u32, &[RelayField]); 8] = [
    (
        number::POSITION,
        &[
            one(1, "epoch", Type::String),
            one(2, "offset", Type::Uint64),
        ],
    ),
    (
        number::SUBSCRIBE,
        &[
            strings(16, "topics"),
            one(17, "resume_from", Type::Message(POSITION)),
        ],
    ),
    (
        number::SUBSCRIPTION_CONFIRMED,
        &[
            strings(16, "topics"),
            one(17, "position", Type::Message(POSITION)),
            one(18, "recovered", Type::Bool),
            one(19, "request_message_id", Type::String),
            one(20, "replayed", Type::Uint64),
        ],
    ),
    (number::UNSUBSCRIBE, &[strings(16, "topics")]),
    (
        number::UNSUBSCRIBE_CONFIRMED,
        &[
            strings(16, "topics"),
            one(19, "request_message_id", Type::String),
        ],
    ),
    (number::PING, &[one(1, "timestamp", Type::Int64)]),
    (
        number::PONG,
        &[
            one(1, "timestamp", Type::Int64),
            one(2, "client_timestamp", Type::Int64),
        ],
    ),
    (
        number::ERROR,
        &[
            one(1, "error_code", Type::String),
            one(2, "error_message", Type::String),
            one(3, "request_message_id", Type::String),
            one(4, "field_name", Type::String),
            one(5, "retry_after_ms", Type::Uint64),
        ],
    ),
];

/// Checks that the envelope has the relay's fields, and beside them nothing in
/// the relay's numbers.
pub(super) fn check(envelope: &MessageDescriptor) -> Result<(), Flaw> {
    for wanted in &PLAIN {
        let field = check_field(envelope, wanted)?;
        check_oneof(&field, None)?;
    }
    for wanted in &PAYLOADS {
        let field = check_field(envelope, wanted)?;
        check_oneof(&field, Some(PAYLOAD))?;
    }
    for wanted in &OPTIONAL_PAYLOADS {
        if envelope.get_field(wanted.number).is_some() {
            let field = check_field(envelope, wanted)?;
            check_oneof(&field, Some(PAYLOAD))?;
        }
    }
    for (number, wanted) in &WITHIN {
        message_of(envelope, *number).map_or(Ok(()), |inner| check_within(&inner, wanted))?;
    }
    check_batch(envelope)?;
    check_rest(envelope)
}

/// Checks a message that the relay fills or reads: it has these fields, and
/// nothing else above the numbers of the schema's lists.
fn check_within(message: &MessageDescriptor, wanted: &[RelayField]) -> Result<(), Flaw> {
    for field in wanted {
        check_field(message, field)?;
    }
    let foreign = message.fields().find(|field| {
        let known = wanted.iter().any(|wanted| wanted.number == field.number());
        !known && !LIST_NUMBERS.contains(&field.number())
    });
    match foreign {
        Some(field) => Err(Flaw::ReservedNumber {
            field: field.full_name().to_owned(),
        }),
        None => Ok(()),
    }
}

/// The type of a field that is a message.
pub(super) fn message_of(message: &MessageDescriptor, number: u32) -> Option<MessageDescriptor> {
    message.get_field(number)?.kind().as_message().cloned()
}

fn check_field(message: &MessageDescriptor, wanted: &RelayField) -> Result<FieldDescriptor, Flaw> {
    let field = message
        .get_field(wanted.number)
        .ok_or_else(|| Flaw::Missing {
            message: message.full_name().to_owned(),
            wanted: wanted.to_string(),
        })?;
    let repeated = field.cardinality() == Cardinality::Repeated;
    if field.name() == wanted.name && repeated == wanted.repeated && wanted.kind.fits(&field.kind())
    {
        Ok(field)
    } else {
        Err(Flaw::Mismatch {
            field: field.full_name().to_owned(),
            wanted: wanted.to_string(),
        })
    }
}

fn check_oneof(field: &FieldDescriptor, wanted: Option<&str>) -> Result<(), Flaw> {
    let oneof = field
        .containing_oneof()
        .filter(|oneof| !oneof.is_synthetic());
    if oneof.as_ref().map(|oneof| oneof.name()) == wanted {
        return Ok(());
    }
    let field = field.full_name().to_owned();
    Err(match wanted {
        Some(_) => Flaw::OutsidePayload { field },
        None => Flaw::InsideOneof { field },
    })
}

/// Field 17 may be left out; where it is there it is a batch of envelopes.
fn check_batch(envelope: &MessageDescriptor) -> Result<(), Flaw> {
    if envelope.get_field(BATCH.number).is_none() {
        return Ok(());
    }
    let field = check_field(envelope, &BATCH)?;
    check_oneof(&field, Some(PAYLOAD))?;
    let messages = message_of(envelope, BATCH.number).and_then(|batch| batch.get_field(1));
    let fits = messages.is_some_and(|messages| {
        messages.is_list()
            && messages.name() == "messages"
            && messages.kind().as_message() == Some(envelope)
    });
    if fits {
        Ok(())
    } else {
        Err(Flaw::Batch {
            field: field.full_name().to_owned(),
            envelope: envelope.full_name().to_owned(),
        })
    }
}

/// The application's own fields: none in the relay's numbers, and those of the
/// oneof are messages.
fn check_rest(envelope: &MessageDescriptor) -> Result<(), Flaw> {
    for field in envelope.fields() {
        let full_name = field.full_name().to_owned();
        let is_optional = |it: &RelayField| it.number == field.number();
        if is_reserved(field.number()) && !OPTIONAL_PAYLOADS.iter().any(is_optional) {
            return Err(Flaw::ReservedNumber { field: full_name });
        }
        let payload = field
            .containing_oneof()
            .is_some_and(|oneof| oneof.name() == PAYLOAD);
        if payload && field.kind().as_message().is_none() {
            return Err(Flaw::PayloadNotMessage { field: full_name });
        }
    }
    match envelope
        .extensions()
        .find(|field| is_relays(field.number()))
    {
        Some(field) => Err(Flaw::ReservedNumber {
            field: field.full_name().to_owned(),
        }),
        None => Ok(()),
    }
}

impl Type {
    fn fits(self, kind: &Kind) -> bool {
        match self {
            Self::Bool => *kind == Kind::Bool,
            Self::Int64 => *kind == Kind::Int64,
            Self::Uint64 => *kind == Kind::Uint64,
            Self::String => *kind == Kind::String,
            Self::Own => kind.as_message().is_some(),
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
            Type::Bool => "bool",
            Type::Int64 => "int64",
            Type::Uint64 => "uint64",
            Type::String => "string",
            Type::Own => "message",
            Type::Message(name) => name,
        })?;
        write!(f, " {} = {}", self.name, self.number)
    }
}
