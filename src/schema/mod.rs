//! The schema: which payloads there are, and what an event relates to. Compiled
//! from descriptors and annotations at start, then asked about every envelope.
//!
//! ```text
//! .proto ─▶ compile ─▶ Schema ─▶ inspect ─▶ Inspected: payload, topics, what to cut
//!           relay_fields, annotations,      walk (collect where fields replace each other)
//!           table, lists
//! ```
//!
//! Knows no connection and no tenant, and no word of any application.

mod advice;
mod annotation_rules;
mod annotations;
mod breaking_change;
mod built_in;
mod bundled;
mod collect;
mod compatibility;
mod compile;
mod condition;
mod descriptor_set;
mod diagnostic;
mod embedded;
mod error;
mod explain;
mod inspected;
mod json;
mod link;
mod lists;
mod outline;
mod parse_errors;
mod payload;
mod positions;
mod proto_files;
mod read;
mod relay_fields;
mod relay_rules;
mod report;
mod revision;
mod routes;
mod sample;
mod source;
mod specimen;
mod table;
mod topics;
mod walk;
mod wire;

#[cfg(any(test, fuzzing))]
pub mod oracle;
#[cfg(test)]
mod tests;

use std::time::Duration;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use crate::protocol::MessageId;

use self::{
    annotations::Annotations,
    compile::Draft,
    json::{JsonBounds, Peeked, Sender, Suggest},
    outline::Outline,
    report::Report,
    table::Table,
    walk::{Found, Mode, walk},
    wire::{Fields, WireType},
};

pub use self::{
    breaking_change::{BreakingChange, Change},
    built_in::BuiltInFile,
    bundled::Bundled,
    condition::{Condition, ConditionError},
    diagnostic::{Diagnostic, SchemaError, Severity},
    error::{BatchError, Fault, JsonError, WireError},
    explain::AnnotatedValue,
    inspected::{InspectLimits, Inspected, Inspection, Payload},
    lists::{IdList, IdLists},
    payload::{Absent, Control, PayloadKind, PayloadType},
    revision::Revision,
    routes::{Recursion, Routes, TopicPath},
    sample::Sample,
    source::SchemaSource,
    specimen::Specimen,
};

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    envelope: MessageDescriptor,
    batch: Option<MessageDescriptor>,
    table: Table,
    payloads: Vec<PayloadType>,
    subscribe: IdLists,
    unsubscribe: IdLists,
    diagnostics: Vec<Diagnostic>,
    json_bounds: JsonBounds,
    annotations: Annotations,
    revision: Revision,
    compile_time: Duration,
}

/// What a client's JSON is, as far as that is known before it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientJson {
    /// The message id, if there is one that can be repeated.
    pub message_id: Option<MessageId>,
    /// What the payload is, if there is exactly one.
    pub payload: Option<PayloadKind>,
}

/// How large a schema is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaSize {
    /// Payloads that are not the relay's.
    pub events: usize,
    /// Messages that the schema's files declare, the built-in files apart.
    pub messages: usize,
    /// Files that the messages were read with, imports included.
    pub files: usize,
}

impl Schema {
    /// The schema that the program carries in itself.
    ///
    /// # Errors
    ///
    /// Never in a program that passed its tests.
    pub fn bundled() -> Result<Self, SchemaError> {
        Bundled::load()?.schema()
    }

    /// The schema whose envelope is the message of this full name.
    ///
    /// # Errors
    ///
    /// When the envelope lacks a field of the relay's or declares it otherwise, or
    /// when an annotation stands where it means nothing. The error names the field.
    pub fn compile(pool: &DescriptorPool, envelope: &str) -> Result<Self, SchemaError> {
        let draft = Draft {
            pool,
            envelope,
            topics_in_calls: false,
            report: Report::default(),
        };
        draft.compile()
    }

    /// Compiles .proto files that are in memory. Each has the name by which the others
    /// import it; the built-in files need not be among them.
    ///
    /// # Errors
    ///
    /// As for [`SchemaSource::load`].
    pub fn from_texts(files: &[(&str, &str)], envelope: &str) -> Result<Self, SchemaError> {
        source::compile_texts(files, envelope)
    }

    /// Compiles an encoded FileDescriptorSet.
    ///
    /// # Errors
    ///
    /// As for [`SchemaSource::load`].
    pub fn from_descriptor_set(bytes: &[u8], envelope: &str) -> Result<Self, SchemaError> {
        source::compile_set(bytes, "the descriptor set", envelope)
    }

    /// Warnings and notes about the schema, by file and line.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// How many messages the schema's files declare, the built-in files apart.
    #[must_use]
    pub fn message_count(&self) -> usize {
        let messages = self.envelope.parent_pool().all_messages();
        let is_own = |message: &MessageDescriptor| {
            !message.is_map_entry() && !built_in::is_built_in(message.parent_file().name())
        };
        messages.filter(is_own).count()
    }

    /// How long it took to read and compile the schema; zero where it was not
    /// [loaded](SchemaSource::load).
    #[must_use]
    pub fn compile_time(&self) -> Duration {
        self.compile_time
    }

    /// Looks at an envelope: the one walk over its bytes.
    ///
    /// # Errors
    ///
    /// When the bytes are not well-formed all the way down, when a payload or a
    /// field of the relay's is set twice or a reserved one is set, and when an
    /// annotated field holds what no topic's id can be.
    pub fn inspect<'a>(&'a self, envelope: &'a [u8]) -> Result<Inspected<'a>, WireError> {
        let mut found = self.walk_for_topics(envelope, usize::MAX)?;
        if found.is_ambiguous {
            found.topics = collect::collect(&self.table, &self.envelope, envelope, usize::MAX)?;
        }
        Ok(self.inspected(envelope, found))
    }

    /// Looks at an envelope as [`inspect`](Self::inspect) does, no further than the limits
    /// say.
    ///
    /// # Errors
    ///
    /// As for [`inspect`](Self::inspect), and when there are more topics than may be.
    pub fn inspect_within<'a>(
        &'a self,
        envelope: &'a [u8],
        limits: InspectLimits,
    ) -> Result<Inspection<'a>, WireError> {
        let mut found = self.walk_for_topics(envelope, limits.topics)?;
        if found.is_ambiguous {
            if envelope.len() > limits.decoded_bytes {
                return Ok(Inspection::NeedsDecoding);
            }
            found.topics = collect::collect(&self.table, &self.envelope, envelope, limits.topics)?;
        } else if found.has_too_many_topics {
            return Err(WireError::unplaced(Fault::TooManyTopics));
        }
        Ok(Inspection::Complete(self.inspected(envelope, found)))
    }

    /// Walks over an envelope. Its topics are to be collected from the decoded envelope
    /// where that is ambiguous.
    // Inlined like `inspected`: what is found is large, and moving it takes 40 instructions
    // of 6,600 for a small event.
    #[inline(always)]
    fn walk_for_topics<'a>(
        &self,
        envelope: &'a [u8],
        topics_max: usize,
    ) -> Result<Found<'a>, WireError> {
        match walk(&self.table, envelope, Mode::Route, topics_max) {
            // What is no topic may have been replaced further on.
            Err(error) if error.fault().is_of_topic() => {
                let mut found = walk(&self.table, envelope, Mode::Check, 0)?;
                found.is_ambiguous = true;
                Ok(found)
            }
            found => found,
        }
    }

    /// Looks at an envelope of which the topics are of no interest.
    ///
    /// # Errors
    ///
    /// As for [`inspect`](Self::inspect), but for topics.
    pub fn inspect_unrouted<'a>(&'a self, envelope: &'a [u8]) -> Result<Inspected<'a>, WireError> {
        let found = walk(&self.table, envelope, Mode::Check, 0)?;
        Ok(self.inspected(envelope, found))
    }

    #[inline(always)]
    fn inspected<'a>(&'a self, envelope: &'a [u8], found: Found<'a>) -> Inspected<'a> {
        let payload = found
            .payload
            .and_then(|(number, range)| self.payload(number, envelope.get(range)?));
        Inspected {
            json_bound: payload
                .map(|payload| self.json_bounds.of_payload(payload.number))
                .unwrap_or_default(),
            message_id: found.message_id,
            timestamp: found.timestamp,
            has_position: found.has_position,
            payload,
            topics: found.topics.into_vec(),
            extra_topics: found.extra_topics,
            fields: found.fields,
            was_decoded: found.is_ambiguous,
            envelope,
            cuts: found.cuts,
        }
    }

    fn payload<'a>(&'a self, number: u32, bytes: &'a [u8]) -> Option<Payload<'a>> {
        let index = self
            .payloads
            .binary_search_by_key(&number, |payload| payload.number);
        let kind = self.payloads.get(index.ok()?)?;
        Some(Payload {
            number,
            name: &kind.name,
            kind: kind.kind,
            bytes,
        })
    }

    /// Takes a BatchUpdate apart into its envelopes, which are not looked at.
    ///
    /// # Errors
    ///
    /// When there are more than `max`, or as many unknown fields beside them, as soon as that
    /// is seen; when the batch
    /// itself is malformed; when the schema has none.
    pub fn batch_messages<'a>(
        &self,
        batch: &'a [u8],
        max: usize,
    ) -> Result<Vec<&'a [u8]>, BatchError> {
        if !self.has_batch() {
            return Err(BatchError::Unsupported);
        }
        let (mut messages, mut unknown) = (Vec::new(), 0);
        for field in Fields::new(batch, &(0..batch.len())) {
            let field = field?;
            if field.number != BATCH_MESSAGES {
                unknown += 1;
                if unknown > max {
                    return Err(BatchError::UnknownFields { max });
                }
                continue;
            }
            if messages.len() >= max {
                return Err(BatchError::TooMany { max });
            }
            if field.wire_type != WireType::Delimited {
                let error = WireError::new(Fault::Mistyped, field.whole.start);
                return Err(error.within("messages", Some(messages.len())).into());
            }
            messages.extend(batch.get(field.value));
        }
        Ok(messages)
    }

    /// Whether the envelope has field 17.
    #[must_use]
    pub fn has_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// The schema's lists of ids in Subscribe.
    #[must_use]
    pub fn subscribe_lists(&self) -> &IdLists {
        &self.subscribe
    }

    /// The schema's lists of ids in Unsubscribe.
    #[must_use]
    pub fn unsubscribe_lists(&self) -> &IdLists {
        &self.unsubscribe
    }

    /// Every payload of the envelope, by number.
    #[must_use]
    pub fn payloads(&self) -> &[PayloadType] {
        &self.payloads
    }

    /// How to make events to measure with; `None` where no event of the schema
    /// relates to what clients can subscribe to.
    #[must_use]
    pub fn specimen(&self) -> Option<Specimen> {
        Specimen::find(&self.table, &self.payloads)
    }

    /// The envelope's full name.
    #[must_use]
    pub fn envelope_name(&self) -> &str {
        self.envelope.full_name()
    }

    /// The hash of all that an envelope can hold. Comments, the order of files and
    /// declarations, and messages that no envelope can hold do not change it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How large the schema is.
    #[must_use]
    pub fn size(&self) -> SchemaSize {
        let events = self.payloads.iter();
        SchemaSize {
            events: events.filter(|payload| payload.kind.is_event()).count(),
            messages: self.message_count(),
            files: self.envelope.parent_pool().files().len(),
        }
    }

    /// Every change from this schema to the new one that would break clients that are
    /// connected or events in the log; empty if the new one can take its place.
    #[must_use]
    pub fn breaking_changes(&self, new: &Self) -> Vec<BreakingChange> {
        compatibility::breaking_changes(&self.outline(), &new.outline())
    }

    fn outline(&self) -> Outline {
        Outline::of(&self.envelope, &self.annotations)
    }

    /// The name of the envelope's field `position` in JSON.
    #[must_use]
    pub fn position_json_name(&self) -> String {
        let field = self.envelope.get_field(relay_fields::number::POSITION);
        field.map_or_else(String::new, |field| field.json_name().to_owned())
    }

    /// The bytes of the envelope that a backend's JSON says. The same JSON gives the same
    /// bytes.
    ///
    /// # Errors
    ///
    /// When the text is no JSON of an envelope: also for a field that the schema
    /// does not know, for one that is set twice, for a second payload and for a number that
    /// the field cannot hold. When it has more than 100,000 values, before it is read.
    pub fn envelope_from_json(&self, json: &[u8]) -> Result<Vec<u8>, JsonError> {
        let message = self.parse(&self.envelope, json, Sender::Backend)?;
        Ok(self.encode(&message))
    }

    /// The bytes of the envelope that a client's JSON says, likewise. Its errors suggest
    /// what clients may send.
    ///
    /// # Errors
    ///
    /// As for a backend's.
    pub fn envelope_from_client_json(&self, json: &[u8]) -> Result<Vec<u8>, JsonError> {
        let message = self.parse(&self.envelope, json, Sender::Client)?;
        Ok(self.encode(&message))
    }

    /// The bytes of the BatchUpdate that a backend's JSON says, likewise.
    ///
    /// # Errors
    ///
    /// As for an envelope, of each, when all together have more than `bytes_max` bytes, and
    /// when the schema has no batches.
    pub fn batch_from_json(&self, json: &[u8], bytes_max: usize) -> Result<Vec<u8>, JsonError> {
        let batch = self
            .batch
            .as_ref()
            .ok_or_else(|| JsonError::new(None, BatchError::Unsupported))?;
        let suggest = self.suggest(Sender::Backend);
        let encode = |message: &_| self.encode(message);
        let envelopes = json::parse_batch(batch, json, &suggest, encode, bytes_max)?;
        let len = envelopes.iter().map(|it| it.len() + LENGTH_BYTES_MAX).sum();
        let mut bytes = Vec::with_capacity(len);
        for envelope in envelopes {
            prost::encoding::bytes::encode(BATCH_MESSAGES, &envelope, &mut bytes);
        }
        Ok(bytes)
    }

    /// What a client's JSON is, before it is read: the payload that it has and its message
    /// id. Neither where the text is not JSON; no id where it is not one.
    #[must_use]
    pub fn peek_client_json(&self, json: &[u8]) -> ClientJson {
        let is_payload = |number: u32| self.payload_kind(number).is_some();
        let Peeked {
            message_id,
            payload,
        } = json::peek(&self.envelope, json, is_payload);
        ClientJson {
            message_id: message_id.and_then(|id| MessageId::parse(&id).ok()),
            payload: payload.and_then(|number| self.payload_kind(number)),
        }
    }

    fn payload_kind(&self, number: u32) -> Option<PayloadKind> {
        let payloads = &self.payloads;
        let index = payloads.binary_search_by_key(&number, |payload| payload.number);
        Some(payloads.get(index.ok()?)?.kind)
    }

    /// How much work it is to read the JSON, in bytes of text without structure. Once
    /// that is more than `max`, any number above `max`.
    #[must_use]
    pub fn json_weight(json: &[u8], max: usize) -> usize {
        json::weight(json, max)
    }

    /// The most bytes of memory that an envelope in JSON takes while it is read, the text
    /// not included.
    #[must_use]
    pub fn json_memory_max(json: &[u8]) -> usize {
        json::memory_max(json, 0, usize::MAX)
    }

    /// The same for a batch in JSON, whose envelopes may have `bytes_max` bytes in all.
    #[must_use]
    pub fn json_batch_memory_max(json: &[u8], bytes_max: usize) -> usize {
        json::memory_max(json, json::ENVELOPE_LEVEL, bytes_max)
    }

    /// The most bytes of memory that an envelope takes while it is decoded to be rendered
    /// or to find its topics: its fields, or what they hold where they are packed.
    #[must_use]
    pub fn decoded_memory_max(&self, envelope: &[u8]) -> usize {
        let found = walk(&self.table, envelope, Mode::Check, 0);
        // What is malformed is not decoded.
        let found = found.unwrap_or_default();
        DECODED_FIELD_BYTES * found.fields
            + DECODED_PACKED_BYTES * found.packed_values
            + 2 * envelope.len()
    }

    /// Counts the envelopes of a batch in JSON, before anything is made of them.
    ///
    /// # Errors
    ///
    /// When there are more than `max`, as soon as that is seen.
    pub fn check_json_batch_len(&self, json: &[u8], max: usize) -> Result<(), BatchError> {
        match json::is_over(json, max) {
            true => Err(BatchError::TooMany { max }),
            false => Ok(()),
        }
    }

    fn parse(
        &self,
        descriptor: &MessageDescriptor,
        json: &[u8],
        sender: Sender,
    ) -> Result<DynamicMessage, JsonError> {
        json::parse(descriptor, json, &self.suggest(sender))
    }

    fn suggest(&self, sender: Sender) -> Suggest<'_> {
        Suggest {
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

    /// The envelope as canonical proto3 JSON.
    ///
    /// # Errors
    ///
    /// When the bytes are malformed, and when one of Google's own types in them
    /// holds what has no JSON, such as a timestamp after the year 9999.
    pub fn envelope_to_json(&self, envelope: &[u8]) -> Result<serde_json::Value, JsonError> {
        json::render(&self.decode(envelope)?)
    }

    /// The envelope as the text of its canonical proto3 JSON, without white space. The
    /// same bytes give the same text.
    ///
    /// # Errors
    ///
    /// As for [`envelope_to_json`](Self::envelope_to_json).
    pub fn envelope_to_json_text(&self, envelope: &[u8]) -> Result<String, JsonError> {
        json::render_text(&self.decode(envelope)?, 2 * envelope.len())
    }

    /// Checks that an envelope has JSON of at most `bytes_max` bytes, the longest
    /// position included, which the relay adds later. To be asked of an event of which
    /// [`Inspected::json_is_in_doubt`]; the envelope is one with a message_id and a
    /// timestamp.
    ///
    /// # Errors
    ///
    /// As for [`envelope_to_json`](Self::envelope_to_json), and when there are more
    /// bytes: the field is then the payload.
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

/// The most memory that a field takes when it is decoded, in bytes: an empty list in a
/// google.protobuf.Value.
const DECODED_FIELD_BYTES: usize = 1100;

/// The same for a number in a packed field, in a list that doubles as it grows.
const DECODED_PACKED_BYTES: usize = 200;

/// The number of the envelopes in a BatchUpdate.
const BATCH_MESSAGES: u32 = 1;

/// What stands before each of them: a tag, and a length of at most 32 bits.
const LENGTH_BYTES_MAX: usize = 6;
