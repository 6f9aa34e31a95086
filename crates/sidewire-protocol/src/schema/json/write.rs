//! Serializes a message as canonical proto3 JSON, with any serde serializer.
//!
//! Unlike the serializer of prost-reflect, this one sorts maps by key, so that the same
//! bytes give the same text, writes every `serialize_float` and `serialize_double` so that it can be parsed
//! again, refuses values of Google's types that have no JSON form, and names the faulty
//! field.

use std::cell::RefCell;

use base64::{display::Base64Display, prelude::BASE64_STANDARD};
use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, MapKey, ReflectMessage as _, Value};
use serde::ser::{Error as _, Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

use super::{super::error::JsonError, well_known::WellKnown};

/// Carries the error about a message that has no JSON form past serde, because errors of
/// serde have no paths.
#[derive(Debug, Default)]
pub(super) struct JsonErrorSlot(RefCell<Option<JsonError>>);

impl JsonErrorSlot {
    /// Stores the reason and returns the serializer's error for a value that has no JSON
    /// form.
    pub(super) fn refuse<E: serde::ser::Error>(&self, reason: &'static str) -> E {
        self.0.replace(Some(JsonError::new(None, reason)));
        E::custom(reason)
    }

    /// Passes a value's result through, and prefixes the path of the error with the value's
    /// position.
    fn prefix_path<T, E>(&self, place: &str, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() {
            let refused = self.0.take().map(|error| error.in_field(place));
            self.0.replace(refused);
        }
        result
    }

    /// Returns the error, if the message was refused.
    pub(super) fn into_error(self) -> Option<JsonError> {
        self.0.into_inner()
    }
}

/// Serializes a message as JSON.
pub(super) struct MessageJson<'a> {
    pub(super) message: &'a DynamicMessage,
    pub(super) refusal: &'a JsonErrorSlot,
}

impl Serialize for MessageJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let descriptor = self.message.descriptor();
        if let Some(kind) = WellKnown::of_message(&descriptor) {
            return kind.serialize(self, serializer);
        }
        let mut members = serializer.serialize_map(None)?;
        for (field, value) in self.message.fields() {
            let written = members.serialize_entry(
                field.json_name(),
                &ValueJson::new(value, &field.kind(), self.refusal),
            );
            self.refusal.prefix_path(field.name(), written)?;
        }
        for (field, value) in self.message.extensions() {
            let written = members.serialize_entry(
                field.json_name(),
                &ValueJson::new(value, &field.kind(), self.refusal),
            );
            self.refusal.prefix_path(field.json_name(), written)?;
        }
        members.end()
    }
}

/// Serializes a field's value as JSON.
pub(super) struct ValueJson<'a> {
    value: &'a Value,
    /// The kind of the value or of the list's values; the entry type for a map.
    kind: &'a Kind,
    refusal: &'a JsonErrorSlot,
}

impl<'a> ValueJson<'a> {
    pub(super) fn new(value: &'a Value, kind: &'a Kind, refusal: &'a JsonErrorSlot) -> Self {
        Self {
            value,
            kind,
            refusal,
        }
    }
}

impl Serialize for ValueJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let refusal = self.refusal;
        match self.value {
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::I32(value) => serializer.serialize_i32(*value),
            Value::U32(value) => serializer.serialize_u32(*value),
            Value::I64(value) => serializer.collect_str(value),
            Value::U64(value) => serializer.collect_str(value),
            Value::F32(value) => serialize_float(*value, serializer),
            Value::F64(value) => serialize_double(*value, serializer),
            Value::String(value) => serializer.serialize_str(value),
            Value::Bytes(value) => {
                serializer.collect_str(&Base64Display::new(value, &BASE64_STANDARD))
            }
            Value::EnumNumber(number) => enum_value(*number, self.kind.as_enum(), serializer),
            Value::Message(message) => MessageJson { message, refusal }.serialize(serializer),
            Value::List(values) => {
                let mut items = serializer.serialize_seq(Some(values.len()))?;
                for (index, value) in values.iter().enumerate() {
                    let item = Self::new(value, self.kind, refusal);
                    if let Err(error) = items.serialize_element(&item) {
                        return refusal.prefix_path(&format!("[{index}]"), Err(error));
                    }
                }
                items.end()
            }
            Value::Map(entries) => {
                let Some(entry) = self.kind.as_message().filter(|it| it.is_map_entry()) else {
                    return Err(S::Error::custom("a map's field is of another kind"));
                };
                let kind = entry.map_entry_value_field().kind();
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                let mut members = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    let value = ValueJson::new(value, &kind, refusal);
                    let written = members.serialize_entry(&KeyJson(key), &value);
                    refusal.prefix_path("value", written)?;
                }
                members.end()
            }
        }
    }
}

/// Serializes a map's key.
pub(super) struct KeyJson<'a>(pub(super) &'a MapKey);

impl Serialize for KeyJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            MapKey::Bool(key) => serializer.serialize_str(if *key { "true" } else { "false" }),
            MapKey::I32(key) => serializer.collect_str(key),
            MapKey::I64(key) => serializer.collect_str(key),
            MapKey::U32(key) => serializer.collect_str(key),
            MapKey::U64(key) => serializer.collect_str(key),
            MapKey::String(key) => serializer.serialize_str(key),
        }
    }
}

/// From this number on, a double cannot represent every integer.
const INTEGERS_END: f64 = 9_007_199_254_740_992.0;

/// Returns the integer that the double represents. `None` if it has a fraction, if it is so
/// large that its digits would be inexact, or for -0, which is not an integer.
#[expect(
    clippy::cast_possible_truncation,
    reason = "only integers below 2^53 are cast"
)]
fn exact_integer(value: f64) -> Option<i64> {
    let is_integer = value.fract() == 0.0 && value.abs() < INTEGERS_END;
    let is_negative_zero = value == 0.0 && value.is_sign_negative();
    (is_integer && !is_negative_zero).then_some(value as i64)
}

fn serialize_double<S: Serializer>(value: f64, serializer: S) -> Result<S::Ok, S::Error> {
    if let Some(integer) = exact_integer(value) {
        // Written as it was posted, and as most JSON writers do.
        serializer.serialize_i64(integer)
    } else if value.is_finite() {
        serializer.serialize_f64(value)
    } else if value.is_nan() {
        serializer.serialize_str("NaN")
    } else if value > 0.0 {
        serializer.serialize_str("Infinity")
    } else {
        serializer.serialize_str("-Infinity")
    }
}

fn serialize_float<S: Serializer>(value: f32, serializer: S) -> Result<S::Ok, S::Error> {
    if let Some(integer) = exact_integer(value.into()) {
        return serializer.serialize_i64(integer);
    }
    // The shortest digits of `f32::MAX`, parsed as a double, exceed it, and readers that
    // check the range refuse them.
    if value.is_finite() && value.abs() < f32::MAX {
        serializer.serialize_f32(value)
    } else {
        serialize_double(value.into(), serializer)
    }
}

/// Serializes an enum value as its name, or as its number if the schema has no name for it.
fn enum_value<S: Serializer>(
    number: i32,
    descriptor: Option<&EnumDescriptor>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let Some(descriptor) = descriptor else {
        return serializer.serialize_i32(number);
    };
    if descriptor.full_name() == "google.protobuf.NullValue" {
        return serializer.serialize_unit();
    }
    match descriptor.get_value(number) {
        Some(value) => serializer.serialize_str(value.name()),
        None => serializer.serialize_i32(number),
    }
}
