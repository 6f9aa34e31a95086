//! Conversion of envelopes and batches between JSON and Protocol Buffers, under a schema, and the
//! memory that it takes.

use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::{
    BATCH_MESSAGES, BatchError, ClientJson, JsonError, PayloadKind, Schema,
    json::{self, JsonSender, NameSuggester, PeekedEnvelope},
    relay_fields,
    walk::{WalkMode, walk_envelope},
};
use crate::MessageId;

/// Maximum memory of a decoded field, in bytes: that of an empty list in a
/// google.protobuf.Value.
const DECODED_FIELD_BYTES: usize = 1100;

/// Maximum memory of a decoded number in a packed field, in bytes. The list's capacity
/// doubles as it grows.
const DECODED_PACKED_BYTES: usize = 200;

/// Maximum bytes before each envelope: a tag, and a length of at most 32 bits.
const LENGTH_BYTES_MAX: usize = 6;

impl Schema {
    /// Returns the JSON name of the envelope's field `position`.
    #[must_use]
    pub fn position_json_name(&self) -> String {
        let field = self.envelope.get_field(relay_fields::number::POSITION);
        field.map_or_else(String::new, |field| field.json_name().to_owned())
    }

    /// Parses a backend's JSON and returns the envelope's bytes. The same JSON always gives
    /// the same bytes.
    ///
    /// # Errors
    ///
    /// Fails if the text is not the JSON of an envelope. This includes unknown fields, a
    /// field that is set twice, a second payload and a number out of the field's range.
    /// Text of more than 100,000 values is refused before it is parsed.
    pub fn envelope_from_json(&self, json: &[u8]) -> Result<Vec<u8>, JsonError> {
        let message = self.parse_json(&self.envelope, json, JsonSender::Backend)?;
        Ok(self.encode(&message))
    }

    /// Parses a client's JSON and returns the envelope's bytes. Errors suggest only what
    /// clients may send.
    ///
    /// # Errors
    ///
    /// As for [`envelope_from_json`](Self::envelope_from_json).
    pub fn envelope_from_client_json(&self, json: &[u8]) -> Result<Vec<u8>, JsonError> {
        let message = self.parse_json(&self.envelope, json, JsonSender::Client)?;
        Ok(self.encode(&message))
    }

    /// Parses a backend's JSON and returns the bytes of the BatchUpdate.
    ///
    /// # Errors
    ///
    /// As for [`envelope_from_json`](Self::envelope_from_json), for each envelope. Also
    /// fails if all envelopes together have more than `bytes_max` bytes, or if the schema
    /// has no batches.
    pub fn batch_from_json(&self, json: &[u8], bytes_max: usize) -> Result<Vec<u8>, JsonError> {
        let batch = self
            .batch
            .as_ref()
            .ok_or_else(|| JsonError::new(None, BatchError::Unsupported))?;
        let suggest = self.suggester(JsonSender::Backend);
        let encode = |message: &_| self.encode(message);
        let envelopes = json::parse_batch(batch, json, &suggest, encode, bytes_max)?;
        let len = envelopes.iter().map(|it| it.len() + LENGTH_BYTES_MAX).sum();
        let mut bytes = Vec::with_capacity(len);
        for envelope in envelopes {
            prost::encoding::bytes::encode(BATCH_MESSAGES, &envelope, &mut bytes);
        }
        Ok(bytes)
    }

    /// Returns the payload kind and the message id of a client's JSON without parsing it
    /// fully. Both are `None` if the text is not JSON; the id is also `None` if it is
    /// invalid.
    #[must_use]
    pub fn peek_client_json(&self, json: &[u8]) -> ClientJson {
        let is_payload = |number: u32| self.payload_kind(number).is_some();
        let PeekedEnvelope {
            message_id,
            payload,
        } = json::peek_envelope(&self.envelope, json, is_payload);
        ClientJson {
            message_id: message_id.and_then(|id| MessageId::parse(&id).ok()),
            payload: payload.and_then(|number| self.payload_kind(number)),
            is_presence: payload.is_some_and(|number| self.is_presence(number)),
        }
    }

    fn payload_kind(&self, number: u32) -> Option<PayloadKind> {
        let payloads = &self.payloads;
        let index = payloads.binary_search_by_key(&number, |payload| payload.number);
        Some(payloads.get(index.ok()?)?.kind)
    }

    /// Returns the work of parsing the JSON, measured in bytes of unstructured text. Stops
    /// counting once the result exceeds `max`.
    #[must_use]
    pub fn json_weight(json: &[u8], max: usize) -> usize {
        json::text_weight(json, max)
    }

    /// Returns the maximum memory that parsing an envelope in JSON takes, in bytes, without
    /// the text itself.
    #[must_use]
    pub fn json_memory_max(json: &[u8]) -> usize {
        json::memory_max(json, 0, usize::MAX)
    }

    /// Returns the maximum memory that parsing a batch in JSON takes, in bytes, without the
    /// text. Its envelopes may have at most `bytes_max` bytes in total.
    #[must_use]
    pub fn json_batch_memory_max(json: &[u8], bytes_max: usize) -> usize {
        json::memory_max(json, json::ENVELOPE_LEVEL, bytes_max)
    }

    /// Returns the maximum memory that an envelope takes, in bytes, while it is decoded to
    /// render it or to find its topics. Counts its fields and the values of packed fields.
    #[must_use]
    pub fn decoded_memory_max(&self, envelope: &[u8]) -> usize {
        let found = walk_envelope(&self.table, envelope, WalkMode::Check, 0);
        // A malformed envelope is never decoded.
        let found = found.unwrap_or_default();
        DECODED_FIELD_BYTES * found.fields
            + DECODED_PACKED_BYTES * found.packed_values
            + 2 * envelope.len()
    }

    /// Checks the number of envelopes in a batch in JSON, before any of them is parsed.
    ///
    /// # Errors
    ///
    /// Fails as soon as there are more than `max`.
    pub fn check_json_batch_len(&self, json: &[u8], max: usize) -> Result<(), BatchError> {
        match json::has_more_than(json, max) {
            true => Err(BatchError::TooMany { max }),
            false => Ok(()),
        }
    }

    fn parse_json(
        &self,
        descriptor: &MessageDescriptor,
        json: &[u8],
        sender: JsonSender,
    ) -> Result<DynamicMessage, JsonError> {
        json::parse_message(descriptor, json, &self.suggester(sender))
    }

    fn suggester(&self, sender: JsonSender) -> NameSuggester<'_> {
        NameSuggester {
            envelope: &self.envelope,
            payloads: &self.payloads,
            sender,
        }
    }

    fn encode(&self, message: &DynamicMessage) -> Vec<u8> {
        if self.table.has_maps() {
            json::encode_sorted(message)
        } else {
            message.encode_to_vec()
        }
    }

    /// Returns the envelope as canonical proto3 JSON.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are malformed, or if one of Google's types holds a value that has
    /// no JSON form, such as a timestamp after the year 9999.
    pub fn envelope_to_json(&self, envelope: &[u8]) -> Result<serde_json::Value, JsonError> {
        json::render_value(&self.decode(envelope)?)
    }

    /// Returns the envelope as canonical proto3 JSON text, without whitespace. The same
    /// bytes always give the same text.
    ///
    /// # Errors
    ///
    /// As for [`envelope_to_json`](Self::envelope_to_json).
    pub fn envelope_to_json_text(&self, envelope: &[u8]) -> Result<String, JsonError> {
        json::render_text(&self.decode(envelope)?, 2 * envelope.len())
    }

    /// Checks that the JSON of an envelope has at most `bytes_max` bytes, including the
    /// longest possible position, which the relay adds later. Only needed if
    /// [`json_is_in_doubt`](super::InspectedEnvelope::json_is_in_doubt) returns true. The
    /// envelope must already have a message_id and a timestamp.
    ///
    /// # Errors
    ///
    /// As for [`envelope_to_json`](Self::envelope_to_json). Also fails if the JSON is
    /// longer than the limit; the error's field is then the payload.
    pub fn check_json(&self, envelope: &[u8], bytes_max: usize) -> Result<(), JsonError> {
        let message = self.decode(envelope)?;
        let len_max = bytes_max.saturating_sub(self.json_bounds.position_bytes_max());
        if json::text_len(&message, len_max)?.is_some() {
            return Ok(());
        }
        let payload = self
            .payloads
            .iter()
            .find(|payload| message.has_field_by_number(payload.number));
        Err(JsonError::new(
            payload.map(|payload| payload.name.clone()),
            format_args!(
                "the event would have more than {bytes_max} bytes of JSON, limits.json_max"
            ),
        ))
    }

    fn decode(&self, envelope: &[u8]) -> Result<DynamicMessage, JsonError> {
        DynamicMessage::decode(self.envelope.clone(), envelope)
            .map_err(|error| JsonError::new(None, error))
    }
}
