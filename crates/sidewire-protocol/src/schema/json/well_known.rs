//! Google's types with a special JSON form
//! (<https://protobuf.dev/programming-guides/json/>), and the values of them that have
//! none.

use prost_reflect::{DynamicMessage, MapKey, MessageDescriptor, Value, prost_types};
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

use super::write::{JsonErrorSlot, KeyJson, MessageJson, ValueJson};

/// The first and the last second of the years 1 to 9999, in Unix time.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The longest duration in either direction, in seconds.
const SPAN_SECONDS_MAX: u64 = 315_576_000_000;

const NANOS_MAX: u32 = 999_999_999;

/// Field numbers of the members of google.protobuf.Value.
mod value_kind {
    pub(super) const NUMBER: u32 = 2;
    pub(super) const STRUCT: u32 = 5;
    pub(super) const LIST: u32 = 6;
}

/// A type with a special JSON form. `Any` is missing because the relay does not support it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WellKnown {
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    ListValue,
    /// A message that wraps one value and has the JSON form of that value.
    Wrapper,
    Empty,
}

impl WellKnown {
    pub(super) fn of_message(descriptor: &MessageDescriptor) -> Option<Self> {
        let name = descriptor.full_name().strip_prefix("google.protobuf.")?;
        Some(match name {
            "Timestamp" => Self::Timestamp,
            "Duration" => Self::Duration,
            "FieldMask" => Self::FieldMask,
            "Struct" => Self::Struct,
            "Value" => Self::Value,
            "ListValue" => Self::ListValue,
            "Empty" => Self::Empty,
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value"
            | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue" => Self::Wrapper,
            _ => return None,
        })
    }

    /// Returns true if some of its values have no JSON form.
    pub(super) fn is_fallible(self) -> bool {
        !matches!(self, Self::Wrapper | Self::Empty)
    }

    pub(super) fn serialize<S: Serializer>(
        self,
        json: &MessageJson<'_>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let (message, refusal) = (json.message, json.refusal);
        match self {
            Self::Timestamp => match valid_timestamp(message) {
                Some(timestamp) => serializer.collect_str(&timestamp),
                None => Err(refusal.refuse("timestamp out of range (years 1 to 9999); it cannot be represented in JSON")),
            },
            Self::Duration => match valid_duration(message) {
                Some(duration) => serializer.collect_str(&duration),
                None => Err(refusal.refuse("duration out of range (at most 315,576,000,000 seconds, seconds and nanos of one sign); it cannot be represented in JSON")),
            },
            Self::FieldMask => {
                match field_mask(message) {
                    Some(mask) => serializer.serialize_str(&mask),
                    None => Err(refusal
                        .refuse("field mask with a path that is not lower_snake_case; it cannot be represented in JSON")),
                }
            }
            Self::Struct => FreeObject { message, refusal }.serialize(serializer),
            Self::Value => FreeValue { message, refusal }.serialize(serializer),
            Self::ListValue => FreeList { message, refusal }.serialize(serializer),
            Self::Wrapper => serialize_wrapped(message, refusal, serializer),
            Self::Empty => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

fn seconds(message: &DynamicMessage) -> i64 {
    let seconds = message.get_field_by_number(1);
    seconds.and_then(|it| it.as_i64()).unwrap_or_default()
}

fn nanos(message: &DynamicMessage) -> i32 {
    let nanos = message.get_field_by_number(2);
    nanos.and_then(|it| it.as_i32()).unwrap_or_default()
}

fn valid_timestamp(message: &DynamicMessage) -> Option<prost_types::Timestamp> {
    let (seconds, nanos) = (seconds(message), nanos(message));
    let in_range = TIMESTAMP_SECONDS.contains(&seconds)
        && u32::try_from(nanos).is_ok_and(|nanos| nanos <= NANOS_MAX);
    in_range.then_some(prost_types::Timestamp { seconds, nanos })
}

fn valid_duration(message: &DynamicMessage) -> Option<prost_types::Duration> {
    let (seconds, nanos) = (seconds(message), nanos(message));
    let in_range = seconds.unsigned_abs() <= SPAN_SECONDS_MAX
        && nanos.unsigned_abs() <= NANOS_MAX
        && seconds.signum() * i64::from(nanos.signum()) >= 0;
    in_range.then_some(prost_types::Duration { nanos, seconds })
}

/// Returns the paths in lowerCamelCase; `None` if one of them could not be converted back.
fn field_mask(message: &DynamicMessage) -> Option<String> {
    let mut mask = String::new();
    let paths = message.get_field_by_number(1);
    for (index, path) in paths.as_ref()?.as_list()?.iter().enumerate() {
        let path = path.as_str().filter(|path| !path.is_empty())?;
        if index > 0 {
            mask.push(',');
        }
        let mut characters = path.chars();
        while let Some(character) = characters.next() {
            match character {
                '_' => mask.push(
                    characters
                        .next()
                        .filter(char::is_ascii_lowercase)?
                        .to_ascii_uppercase(),
                ),
                ',' | 'A'..='Z' => return None,
                _ => mask.push(character),
            }
        }
    }
    Some(mask)
}

fn serialize_wrapped<S: Serializer>(
    message: &DynamicMessage,
    refusal: &JsonErrorSlot,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let descriptor = prost_reflect::ReflectMessage::descriptor(message);
    match descriptor.get_field(1) {
        Some(field) => {
            let value = message.get_field(&field);
            ValueJson::new(&value, &field.kind(), refusal).serialize(serializer)
        }
        None => serializer.serialize_unit(),
    }
}

/// Serializes a google.protobuf.Value.
struct FreeValue<'a> {
    message: &'a DynamicMessage,
    refusal: &'a JsonErrorSlot,
}

impl Serialize for FreeValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let refusal = self.refusal;
        let Some((field, value)) = self.message.fields().next() else {
            return serializer.serialize_unit();
        };
        match (field.number(), value) {
            (value_kind::NUMBER, Value::F64(number)) if !number.is_finite() => {
                Err(refusal.refuse("google.protobuf.Value with a number that is NaN or infinite; it cannot be represented in JSON"))
            }
            (value_kind::STRUCT, Value::Message(message)) => {
                FreeObject { message, refusal }.serialize(serializer)
            }
            (value_kind::LIST, Value::Message(message)) => {
                FreeList { message, refusal }.serialize(serializer)
            }
            _ => ValueJson::new(value, &field.kind(), refusal).serialize(serializer),
        }
    }
}

/// Serializes a google.protobuf.Struct.
struct FreeObject<'a> {
    message: &'a DynamicMessage,
    refusal: &'a JsonErrorSlot,
}

impl Serialize for FreeObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let refusal = self.refusal;
        let fields = self.message.get_field_by_number(1);
        let mut entries: Vec<(&MapKey, &DynamicMessage)> = fields
            .as_ref()
            .and_then(|fields| fields.as_map())
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key, value.as_message()?)))
            .collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        let mut members = serializer.serialize_map(Some(entries.len()))?;
        for (key, message) in entries {
            members.serialize_entry(&KeyJson(key), &FreeValue { message, refusal })?;
        }
        members.end()
    }
}

/// Serializes a google.protobuf.ListValue.
struct FreeList<'a> {
    message: &'a DynamicMessage,
    refusal: &'a JsonErrorSlot,
}

impl Serialize for FreeList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let refusal = self.refusal;
        let values = self.message.get_field_by_number(1);
        let values = values.as_ref().and_then(|values| values.as_list());
        let values = values.unwrap_or_default();
        let mut items = serializer.serialize_seq(Some(values.len()))?;
        for message in values.iter().filter_map(Value::as_message) {
            items.serialize_element(&FreeValue { message, refusal })?;
        }
        items.end()
    }
}
