//! Proto3 JSON (<https://protobuf.dev/programming-guides/json/>) to messages and back.
//! Equal JSON gives equal bytes, and equal bytes give equal JSON.

mod bound;
mod count;
mod encode;
mod names;
mod suggest;
mod well_known;
mod write;

use std::io;

use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde::Serialize;

use super::error::JsonError;
use write::{MessageJson, Refusal};

pub(super) use bound::{JsonBound, JsonBounds};
pub(super) use count::is_over;
pub(super) use encode::encode_sorted;
pub(super) use suggest::{Sender, Suggest};

/// The beginning of prost-reflect's error about a name that the schema does not know.
const UNKNOWN_FIELD: &str = "unrecognized field name";

/// The message that the JSON says. Fields may have either style of name; unknown ones
/// are refused, and so is one that is set twice.
pub(super) fn parse(
    descriptor: &MessageDescriptor,
    json: &[u8],
    suggest: &Suggest<'_>,
) -> Result<DynamicMessage, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let mut track = serde_path_to_error::Track::new();
    let parsed = DynamicMessage::deserialize_with_options(
        descriptor.clone(),
        serde_path_to_error::Deserializer::new(&mut deserializer, &mut track),
        &DeserializeOptions::new().deny_unknown_fields(true),
    );
    let message = parsed.map_err(|error| {
        let text = error.to_string();
        if text.starts_with(UNKNOWN_FIELD)
            && let Err(better) = names::check(descriptor, json, suggest)
        {
            return better;
        }
        // Where the text itself is no JSON, the path ends in a `?`.
        let path = track.path().to_string();
        let field = path.trim_end_matches(['?', '.']);
        JsonError::new((!field.is_empty()).then(|| field.to_owned()), text)
    })?;
    deserializer
        .end()
        .map_err(|error| JsonError::new(None, error))?;
    names::check(descriptor, json, suggest)?;
    Ok(message)
}

/// The message as a JSON value, whose numbers are doubles where they are no integers.
pub(super) fn render(message: &DynamicMessage) -> Result<serde_json::Value, JsonError> {
    serialize(message, serde_json::value::Serializer)
}

/// The message as the text of its JSON, without white space.
pub(super) fn render_text(
    message: &DynamicMessage,
    bytes_expected: usize,
) -> Result<String, JsonError> {
    let mut text = Vec::with_capacity(bytes_expected);
    serialize(message, &mut serde_json::Serializer::new(&mut text))?;
    // serde_json writes nothing but UTF-8.
    String::from_utf8(text).map_err(|error| JsonError::new(None, error))
}

/// How many bytes the text has; `None` where it would have more than `max`.
pub(super) fn text_len(message: &DynamicMessage, max: usize) -> Result<Option<usize>, JsonError> {
    let mut counted = Counted { len: 0, max };
    let written = serialize(message, &mut serde_json::Serializer::new(&mut counted));
    if counted.len > max {
        return Ok(None);
    }
    written.map(|()| Some(counted.len))
}

fn serialize<S: serde::Serializer>(
    message: &DynamicMessage,
    serializer: S,
) -> Result<S::Ok, JsonError> {
    let refusal = Refusal::default();
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

/// Counts the bytes that are written, up to a limit.
struct Counted {
    len: usize,
    max: usize,
}

impl io::Write for Counted {
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
