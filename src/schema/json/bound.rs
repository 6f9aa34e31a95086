//! How much longer than its bytes the JSON of an event can be, and whether it can have
//! none: worked out when the schema is compiled, so that most events need no look.

use std::collections::HashMap;

use prost::encoding::encoded_len_varint;
use prost_reflect::{ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use super::{
    super::relay_fields::{PAYLOAD, number},
    well_known::WellKnown,
};

/// The longest JSON of what the relay itself adds to an event.
mod longest {
    /// A message_id that the relay has made.
    pub(super) const MESSAGE_ID: &str = r#""01234567-89ab-7def-0123-456789abcdef""#;
    /// Any 64-bit integer.
    pub(super) const TIMESTAMP: &str = r#""-9223372036854775808""#;
    /// A position in the log.
    pub(super) const POSITION: &str =
        r#"{"epoch":"0123456789abcdef0123456789abcdef","offset":"18446744073709551615"}"#;
}

/// The braces of the envelope.
const BRACES_BYTES: usize = 2;

/// What stands beside a member's name: quotes, a colon and a comma.
const NAME_BYTES: usize = 4;

/// The brackets of a list or the braces of an object; of a wrapper that is empty it is
/// the default value, of which `false` is the longest.
const EMPTY_BYTES_MAX: usize = 5;

/// What is known of all values of a type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::schema) struct JsonBound {
    /// The JSON has at most so many bytes for each byte on the wire.
    factor: usize,
    /// The JSON has at most so many bytes more, which the relay adds.
    added_bytes: usize,
    /// Some values have no JSON.
    is_fallible: bool,
}

impl JsonBound {
    /// Whether an event of so many bytes can have no JSON, or JSON of more than `max`
    /// bytes when the relay's fields are in it.
    pub(in crate::schema) fn is_in_doubt(self, bytes: usize, max: usize) -> bool {
        self.is_fallible
            || bytes
                .saturating_mul(self.factor)
                .saturating_add(self.added_bytes)
                > max
    }

    fn join(self, other: Self) -> Self {
        Self {
            factor: self.factor.max(other.factor),
            added_bytes: self.added_bytes.max(other.added_bytes),
            is_fallible: self.is_fallible || other.is_fallible,
        }
    }
}

/// The bounds of the envelope's payloads.
#[derive(Debug)]
pub(in crate::schema) struct JsonBounds {
    /// By the payload's number, in their order.
    by_payload: Vec<(u32, JsonBound)>,
    /// What the field `position` takes at the most, with a comma.
    position_bytes_max: usize,
}

impl JsonBounds {
    pub(in crate::schema) fn of(envelope: &MessageDescriptor) -> Self {
        let mut types = Types::default();
        types.index(envelope);
        let mut done = 0;
        while let Some(message) = types.messages.get(done).cloned() {
            let own = types.own(&message);
            types.types.push(own);
            done += 1;
        }
        types.spread();
        let is_payload = |field: &FieldDescriptor| {
            let oneof = field.containing_oneof();
            oneof.is_some_and(|oneof| oneof.name() == PAYLOAD)
        };
        let (payloads, beside): (Vec<_>, Vec<_>) = envelope.fields().partition(is_payload);
        let beside = beside.iter().map(|field| types.bound(&field.into()));
        let beside = beside
            .chain(
                envelope
                    .extensions()
                    .map(|field| types.bound(&(&field).into())),
            )
            .fold(JsonBound::default(), JsonBound::join);
        let beside = JsonBound {
            added_bytes: added_bytes_max(envelope),
            ..beside
        };
        let mut by_payload: Vec<_> = payloads
            .iter()
            .map(|field| (field.number(), types.bound(&field.into()).join(beside)))
            .collect();
        by_payload.sort_by_key(|(number, _)| *number);
        Self {
            by_payload,
            position_bytes_max: member_bytes(envelope, number::POSITION, longest::POSITION),
        }
    }

    /// The most bytes that the field `position` takes in an envelope's JSON, with the
    /// comma before it.
    pub(in crate::schema) fn position_bytes_max(&self) -> usize {
        self.position_bytes_max
    }

    /// The bound of an envelope with this payload.
    pub(in crate::schema) fn of_payload(&self, number: u32) -> JsonBound {
        let found = self
            .by_payload
            .binary_search_by_key(&number, |(number, _)| *number);
        let bound = found.ok().and_then(|index| self.by_payload.get(index));
        bound.map(|(_, bound)| *bound).unwrap_or_default()
    }
}

fn added_bytes_max(envelope: &MessageDescriptor) -> usize {
    let added = [
        (number::MESSAGE_ID, longest::MESSAGE_ID),
        (number::TIMESTAMP, longest::TIMESTAMP),
        (number::POSITION, longest::POSITION),
    ];
    let added = added.map(|(number, value)| member_bytes(envelope, number, value));
    BRACES_BYTES + added.iter().sum::<usize>()
}

/// What a field with this value takes in an envelope's JSON, with its name, a colon and
/// a comma.
fn member_bytes(envelope: &MessageDescriptor, number: u32, value: &str) -> usize {
    let name = envelope.get_field(number);
    let name = name.map(|field| serde_json::Value::from(field.json_name()).to_string());
    name.map_or(0, |name| name.len() + 2 + value.len())
}

/// The messages that can lie in the envelope.
#[derive(Default)]
struct Types {
    messages: Vec<MessageDescriptor>,
    indexes: HashMap<String, usize>,
    types: Vec<Type>,
}

/// A message: the bound of itself, and of what lies below it when that is spread.
struct Type {
    bound: JsonBound,
    below: Vec<usize>,
}

/// What of a field or an extension says how long its JSON is.
struct Member {
    number: u32,
    name: String,
    kind: Kind,
    is_list: bool,
}

impl From<&FieldDescriptor> for Member {
    fn from(field: &FieldDescriptor) -> Self {
        Self {
            number: field.number(),
            name: field.json_name().to_owned(),
            kind: field.kind(),
            is_list: field.is_list(),
        }
    }
}

impl From<&ExtensionDescriptor> for Member {
    fn from(field: &ExtensionDescriptor) -> Self {
        Self {
            number: field.number(),
            name: field.json_name().to_owned(),
            kind: field.kind(),
            is_list: field.is_list(),
        }
    }
}

impl Types {
    fn index(&mut self, message: &MessageDescriptor) -> usize {
        let next = self.messages.len();
        let messages = &mut self.messages;
        let name = message.full_name().to_owned();
        *self.indexes.entry(name).or_insert_with(|| {
            messages.push(message.clone());
            next
        })
    }

    fn own(&mut self, message: &MessageDescriptor) -> Type {
        let is_fallible = WellKnown::of(message).is_some_and(WellKnown::is_fallible);
        let mut own = Type {
            bound: JsonBound {
                factor: 1,
                added_bytes: 0,
                is_fallible,
            },
            below: Vec::new(),
        };
        if is_fallible {
            // Its events are always looked at, whatever is in it.
            return own;
        }
        let fields = message.fields().map(|field| Member::from(&field));
        let extensions = message.extensions().map(|field| Member::from(&field));
        for member in fields.chain(extensions) {
            own.bound.factor = own.bound.factor.max(factor(&member));
            if let Kind::Message(below) = &member.kind {
                own.below.push(self.index(below));
            }
        }
        own
    }

    /// Joins each type's bound with those of what lies below it, until nothing changes:
    /// messages may contain each other.
    fn spread(&mut self) {
        loop {
            let bounds: Vec<_> = self.types.iter().map(|it| it.bound).collect();
            for it in &mut self.types {
                let below = it.below.iter().filter_map(|index| bounds.get(*index));
                it.bound = below.copied().fold(it.bound, JsonBound::join);
            }
            if self.types.iter().map(|it| it.bound).eq(bounds) {
                return;
            }
        }
    }

    /// The bound of a field with all that lies below it.
    fn bound(&self, member: &Member) -> JsonBound {
        let own = JsonBound {
            factor: factor(member),
            added_bytes: 0,
            is_fallible: false,
        };
        let Kind::Message(message) = &member.kind else {
            return own;
        };
        let below = self.indexes.get(message.full_name());
        let below = below.and_then(|index| self.types.get(*index));
        below.map_or(own, |below| own.join(below.bound))
    }
}

/// How the JSON of a kind's values grows with their bytes.
struct Growth {
    /// The least bytes that a value has on the wire, behind its tag and its length.
    wire_min: usize,
    /// The most bytes of JSON that such a value has.
    json_max: usize,
    /// The most bytes of JSON for each byte more.
    slope: usize,
}

fn growth(kind: &Kind) -> Growth {
    let (wire_min, json_max, slope) = match kind {
        Kind::Bool => (1, 5, 0),
        // A byte of a varint has 7 bits, which are 2.1 digits.
        Kind::Int32 | Kind::Uint32 | Kind::Sint32 => (1, 4, 3),
        Kind::Int64 | Kind::Uint64 | Kind::Sint64 => (1, 6, 3),
        Kind::Fixed32 | Kind::Sfixed32 => (4, 11, 0),
        Kind::Fixed64 | Kind::Sfixed64 => (8, 22, 0),
        Kind::Float => (4, 26, 0),
        Kind::Double => (8, 26, 0),
        Kind::Enum(descriptor) => {
            let names = descriptor.values().map(|value| value.name().len() + 2);
            (1, names.max().unwrap_or_default().max(11), 0)
        }
        // A control character is `\u0000`.
        Kind::String => (0, 2, 6),
        Kind::Bytes => (0, 2, 4),
        Kind::Message(message) if message.is_map_entry() => (0, map_entry_bytes_max(message), 0),
        Kind::Message(_) => (0, EMPTY_BYTES_MAX, 0),
    };
    Growth {
        wire_min,
        json_max,
        slope,
    }
}

/// What an entry without a key and a value is: the defaults of both stand there.
fn map_entry_bytes_max(entry: &MessageDescriptor) -> usize {
    let value = growth(&entry.map_entry_value_field().kind());
    // The braces, the key and its quotes.
    2 + 8 + value.json_max.max(EMPTY_BYTES_MAX)
}

/// The most bytes of JSON for each byte of the field on the wire, without what lies in
/// messages below it.
fn factor(member: &Member) -> usize {
    let Growth {
        wire_min,
        json_max,
        slope,
    } = growth(&member.kind);
    let tag = encoded_len_varint(u64::from(member.number) << 3);
    // Where it is escaped, a character is six bytes.
    let escaped: usize = member.name.bytes().map(name_byte_bytes).sum();
    let name = escaped + NAME_BYTES + 2 * usize::from(member.is_list);
    let length = usize::from(!is_number(&member.kind));
    let single = (name + json_max).div_ceil(tag + length + wire_min);
    if !(member.is_list && is_number(&member.kind)) {
        return single.max(slope);
    }
    // Packed: a tag and a length, then nothing but values and their commas.
    let list = name.div_ceil(tag + 1);
    let packed = (json_max + 1).div_ceil(wire_min);
    single.max(list).max(packed).max(slope + 1)
}

fn name_byte_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | 0..=0x1f => 6,
        _ => 1,
    }
}

/// Whether it has no length on the wire.
fn is_number(kind: &Kind) -> bool {
    !matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_))
}
