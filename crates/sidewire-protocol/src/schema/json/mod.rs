//! Converts proto3 JSON (<https://protobuf.dev/programming-guides/json/>) to messages and
//! back. Equal JSON gives equal bytes, and equal bytes give equal JSON.

mod batch;
mod bound;
mod count;
mod encode;
mod names;
mod peek;
mod scalars;
mod suggest;
mod syntax;
mod weight;
mod well_known;
mod write;

use std::{cell::Cell, io};

use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde::{Deserializer, Serialize, de::DeserializeSeed};
use serde_json::error::Category;

use super::error::JsonError;
use syntax::describe_error;
use weight::{VALUES_MAX, heavy_envelope};
use write::{JsonErrorSlot, MessageJson};

pub(super) use batch::ENVELOPE_LEVEL;
pub(super) use bound::{JsonBound, JsonBounds};
pub(super) use count::has_more_than;
pub(super) use encode::encode_sorted;
pub(super) use peek::{PeekedEnvelope, peek_envelope};
pub(super) use suggest::{JsonSender, NameSuggester};
pub(super) use weight::{memory_max, text_weight};

/// Parses JSON to a message. Fields may have either style of name. Refuses unknown fields,
/// fields that are set twice and numbers that would change in value.
pub(super) fn parse_message(
    descriptor: &MessageDescriptor,
    json: &[u8],
    suggest: &NameSuggester<'_>,
) -> Result<DynamicMessage, JsonError> {
    if heavy_envelope(json, 0, VALUES_MAX).is_some() {
        return Err(too_many_values());
    }
    read_checked(descriptor, json, suggest, MessageSeed(descriptor))
}

/// Parses the JSON of a batch and encodes each envelope with `encode`. Holds only one
/// envelope at a time as a message, which takes many times the memory of its text. All
/// envelopes together may have at most `bytes_max` bytes.
pub(super) fn parse_batch(
    descriptor: &MessageDescriptor,
    json: &[u8],
    suggest: &NameSuggester<'_>,
    encode: impl Fn(&DynamicMessage) -> Vec<u8>,
    bytes_max: usize,
) -> Result<Vec<Vec<u8>>, JsonError> {
    if let Some(index) = heavy_envelope(json, ENVELOPE_LEVEL, VALUES_MAX) {
        return Err(too_many_values().in_field(&format!("{}[{index}]", batch::MESSAGES)));
    }
    let bytes_left = Cell::new(Some(bytes_max));
    let seed = batch::BatchSeed {
        envelope: suggest.envelope,
        encode: &encode,
        bytes_left: &bytes_left,
    };
    read_checked(descriptor, json, suggest, seed).map_err(|error| match bytes_left.get() {
        Some(_) => error,
        None => JsonError::too_large(format_args!(
            "the events may have at most {bytes_max} bytes in total, encoded as Protocol Buffers"
        )),
    })
}

fn too_many_values() -> JsonError {
    JsonError::too_large(format_args!(
        "an envelope in JSON may have at most {VALUES_MAX} values, where each comma, colon and opening bracket counts as one"
    ))
}

/// Parses the whole text, then checks its names and numbers.
fn read_checked<'de, T: DeserializeSeed<'de>>(
    descriptor: &MessageDescriptor,
    json: &'de [u8],
    suggest: &NameSuggester<'_>,
    seed: T,
) -> Result<T::Value, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    let value = seed.deserialize(tracked).map_err(|error| {
        if error.classify() == Category::Data
            && let Err(better) = names::explain_refusal(descriptor, json, suggest)
        {
            return better;
        }
        // If the text itself is not JSON, the path ends in a `?`.
        let path = track.path().to_string();
        let field = path.trim_end_matches(['?', '.']);
        JsonError::new(
            (!field.is_empty()).then(|| field.to_owned()),
            describe_error(&error),
        )
    })?;
    deserializer
        .end()
        .map_err(|error| JsonError::new(None, describe_error(&error)))?;
    names::check_names(descriptor, json, suggest)?;
    Ok(value)
}

/// Deserializes a message with prost-reflect.
struct MessageSeed<'a>(&'a MessageDescriptor);

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = DynamicMessage;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        DynamicMessage::deserialize_with_options(self.0.clone(), deserializer, &options)
    }
}

/// Returns the message as a JSON value, with the digits of the JSON text: a `float` of 0.1
/// is 0.1.
pub(super) fn render_value(message: &DynamicMessage) -> Result<serde_json::Value, JsonError> {
    let text = render_text(message, 0)?;
    serde_json::from_str(&text).map_err(|error| JsonError::new(None, describe_error(&error)))
}

/// Returns the message as JSON text, without whitespace.
pub(super) fn render_text(
    message: &DynamicMessage,
    bytes_expected: usize,
) -> Result<String, JsonError> {
    let mut text = Vec::with_capacity(bytes_expected);
    serialize_message(message, &mut serde_json::Serializer::new(&mut text))?;
    // serde_json writes only UTF-8.
    String::from_utf8(text).map_err(|error| JsonError::new(None, error))
}

/// Returns the length of the JSON text in bytes; `None` if it would exceed `max`.
pub(super) fn text_len(message: &DynamicMessage, max: usize) -> Result<Option<usize>, JsonError> {
    let mut counted = ByteCounter { len: 0, max };
    let written = serialize_message(message, &mut serde_json::Serializer::new(&mut counted));
    if counted.len > max {
        return Ok(None);
    }
    written.map(|()| Some(counted.len))
}

fn serialize_message<S: serde::Serializer>(
    message: &DynamicMessage,
    serializer: S,
) -> Result<S::Ok, JsonError> {
    let refusal = JsonErrorSlot::default();
    let json = MessageJson {
        message,
        refusal: &refusal,
    };
    let serialized = json.serialize(serializer);
    serialized.map_err(|error| {
        let refused = refusal.into_error();
        refused.unwrap_or_else(|| JsonError::new(None, error))
    })
}

/// A writer that counts bytes up to a limit.
struct ByteCounter {
    len: usize,
    max: usize,
}

impl io::Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.len = self.len.saturating_add(bytes.len());
        if self.len > self.max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
