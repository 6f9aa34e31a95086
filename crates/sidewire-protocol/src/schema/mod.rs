//! The compiled schema: which payloads exist and which topics an event relates to. It is
//! built from descriptors and annotations at startup and consulted for every envelope.
//!
//! ```text
//! .proto ─▶ compile ─▶ Schema ─▶ inspect ─▶ payload, topics, byte ranges to drop
//!           relay_fields, annotations,      walk (collect where fields replace each other)
//!           table, lists
//! ```
//!
//! Of what a client sends, `client_event` keeps only the payload, with the sender in it.
//!
//! Knows nothing about connections, tenants or any particular application.

mod advice;
mod annotation_rules;
mod annotations;
mod breaking_change;
mod built_in;
mod bundled;
mod client_event;
mod collect;
mod compatibility;
mod compile;
mod condition;
mod conversion;
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
mod sender_rules;
mod source;
mod specimen;
mod table;
mod topics;
mod walk;
mod wire;

#[cfg(any(test, fuzzing, feature = "testing"))]
pub mod oracle;
#[cfg(test)]
mod tests;

use std::time::Duration;

use prost_reflect::{DescriptorPool, MessageDescriptor};

use crate::MessageId;

use self::{
    annotations::Annotations,
    client_event::ClientEventType,
    collect::collect_topics,
    compile::SchemaDraft,
    json::JsonBounds,
    outline::SchemaOutline,
    report::SchemaReport,
    table::RoutingTable,
    topics::FoundTopics,
    walk::{WalkMode, WalkResult, walk_envelope},
    wire::{WireFields, WireType},
};

pub use self::{
    breaking_change::{BreakingChange, SchemaChange},
    built_in::BuiltInFile,
    bundled::BundledSchema,
    condition::{ConditionError, EventCondition},
    diagnostic::{Diagnostic, SchemaError, Severity},
    error::{BatchError, JsonError, WireError, WireFault},
    explain::AnnotatedValue,
    inspected::{InspectLimits, InspectedEnvelope, InspectedPayload},
    lists::{IdList, IdLists, NamedTopics},
    payload::{AbsentValue, ControlKind, PayloadKind, PayloadType},
    revision::SchemaRevision,
    routes::{RouteRecursion, TopicPath, TopicRoutes},
    sample::SampleEvent,
    source::SchemaSource,
    specimen::EventGenerator,
};

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    envelope: MessageDescriptor,
    batch: Option<MessageDescriptor>,
    table: RoutingTable,
    payloads: Vec<PayloadType>,
    client_events: Vec<ClientEventType>,
    subscribe: IdLists,
    unsubscribe: IdLists,
    diagnostics: Vec<Diagnostic>,
    json_bounds: JsonBounds,
    annotations: Annotations,
    revision: SchemaRevision,
    compile_time: Duration,
}

/// The message id and payload of a client's JSON, as far as they are known before it is
/// parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientJson {
    /// The message id, if there is a valid one.
    pub message_id: Option<MessageId>,
    /// The kind of the payload, if there is exactly one.
    pub payload: Option<PayloadKind>,
    /// True if that is a presence payload.
    pub is_presence: bool,
}

/// The size of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaSize {
    /// Number of payloads that are not the relay's.
    pub events: usize,
    /// Number of messages that the schema's files declare, without the built-in files.
    pub messages: usize,
    /// Number of files that were read, including imports.
    pub files: usize,
}

impl Schema {
    /// Returns the default bundled schema.
    ///
    /// # Errors
    ///
    /// Cannot fail in a binary that passed its tests.
    pub fn bundled() -> Result<Self, SchemaError> {
        BundledSchema::load_default()?.compile()
    }

    /// Compiles the schema with the envelope of this full name.
    ///
    /// # Errors
    ///
    /// Fails if the envelope lacks one of the relay's fields or declares it differently, or
    /// if an annotation has no effect where it is. The error names the field.
    pub fn compile(pool: &DescriptorPool, envelope: &str) -> Result<Self, SchemaError> {
        let draft = SchemaDraft {
            pool,
            envelope,
            topics_in_calls: false,
            report: SchemaReport::default(),
        };
        draft.compile()
    }

    /// Compiles .proto files in memory. Each pair is the name by which other files import
    /// it, and its text. The built-in files may be omitted.
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

    /// Returns the schema's files as an encoded FileDescriptorSet, from which it can be compiled
    /// [again](Self::from_descriptor_set).
    #[must_use]
    pub fn to_descriptor_set(&self) -> Vec<u8> {
        self.envelope.parent_pool().encode_to_vec()
    }

    /// Returns the warnings and notes about the schema, sorted by file and line.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Returns the number of messages that the schema's files declare, without the built-in
    /// files.
    #[must_use]
    pub fn message_count(&self) -> usize {
        let messages = self.envelope.parent_pool().all_messages();
        let is_own = |message: &MessageDescriptor| {
            !message.is_map_entry() && !built_in::is_built_in(message.parent_file().name())
        };
        messages.filter(is_own).count()
    }

    /// Returns the time taken to read and compile the schema; zero if it was not
    /// [loaded](SchemaSource::load) from a source.
    #[must_use]
    pub fn compile_time(&self) -> Duration {
        self.compile_time
    }

    /// Inspects an envelope in a single walk over its bytes.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not well-formed at every level, if a payload or one of the
    /// relay's fields is set twice, if a reserved field is set, or if an annotated field
    /// holds an invalid topic id.
    pub fn inspect<'a>(&'a self, envelope: &'a [u8]) -> Result<InspectedEnvelope<'a>, WireError> {
        let mut found = self.walk_for_topics(envelope, WalkMode::Route, usize::MAX)?;
        if found.is_ambiguous {
            found.topics = self.collect_topics(envelope, usize::MAX)?;
        }
        Ok(self.inspected_envelope(envelope, found))
    }

    /// Inspects an envelope as [`inspect`](Self::inspect) does, within the given limits. Returns
    /// `None` if the envelope is well-formed, but would have to be decoded to find its topics
    /// and is larger than [`InspectLimits::decoded_bytes`].
    ///
    /// # Errors
    ///
    /// As for [`inspect`](Self::inspect), and if there are more topics than the limit.
    pub fn inspect_within<'a>(
        &'a self,
        envelope: &'a [u8],
        limits: InspectLimits,
    ) -> Result<Option<InspectedEnvelope<'a>>, WireError> {
        let mut found = self.walk_for_topics(envelope, WalkMode::Route, limits.topics)?;
        if found.is_ambiguous {
            if envelope.len() > limits.decoded_bytes {
                return Ok(None);
            }
            found.topics = self.collect_topics(envelope, limits.topics)?;
        } else if found.has_too_many_topics {
            return Err(WireError::without_offset(WireFault::TooManyTopics));
        }
        Ok(Some(self.inspected_envelope(envelope, found)))
    }

    /// Returns the topics of an envelope that has to be decoded to find them.
    fn collect_topics(&self, envelope: &[u8], topics_max: usize) -> Result<FoundTopics, WireError> {
        let index = RoutingTable::ENVELOPE;
        collect_topics(&self.table, index, &self.envelope, envelope, topics_max)
    }

    /// Walks over an envelope. If the result is ambiguous, the caller must collect the
    /// topics from the decoded envelope.
    // Inlined, because the result is large: moving it takes 40 of the 6,600 instructions
    // for a small event.
    #[inline(always)]
    fn walk_for_topics<'a>(
        &self,
        envelope: &'a [u8],
        mode: WalkMode,
        topics_max: usize,
    ) -> Result<WalkResult<'a>, WireError> {
        match walk_envelope(&self.table, envelope, mode, topics_max) {
            // A later field may replace the invalid topic.
            Err(error) if error.fault().is_topic_fault() => {
                let mut found = walk_envelope(&self.table, envelope, WalkMode::Check, 0)?;
                found.is_ambiguous = true;
                Ok(found)
            }
            found => found,
        }
    }

    /// Inspects an envelope without collecting its topics.
    ///
    /// # Errors
    ///
    /// As for [`inspect`](Self::inspect), except for errors about topics.
    pub fn inspect_unrouted<'a>(
        &'a self,
        envelope: &'a [u8],
    ) -> Result<InspectedEnvelope<'a>, WireError> {
        let found = walk_envelope(&self.table, envelope, WalkMode::Check, 0)?;
        Ok(self.inspected_envelope(envelope, found))
    }

    #[inline(always)]
    fn inspected_envelope<'a>(
        &'a self,
        envelope: &'a [u8],
        found: WalkResult<'a>,
    ) -> InspectedEnvelope<'a> {
        let payload = found
            .payload
            .and_then(|(number, range)| self.find_payload(number, envelope.get(range)?));
        InspectedEnvelope {
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
            packed_values: found.packed_values,
            was_decoded: found.is_ambiguous,
            envelope,
            cuts: found.cuts,
        }
    }

    fn find_payload<'a>(&'a self, number: u32, bytes: &'a [u8]) -> Option<InspectedPayload<'a>> {
        let index = self
            .payloads
            .binary_search_by_key(&number, |payload| payload.number);
        let kind = self.payloads.get(index.ok()?)?;
        Some(InspectedPayload {
            number,
            name: &kind.name,
            kind: kind.kind,
            bytes,
        })
    }

    /// Splits a BatchUpdate into its envelopes, which are not inspected.
    ///
    /// # Errors
    ///
    /// Fails as soon as there are more than `max` envelopes or more than `max` unknown
    /// fields, if the batch itself is malformed, or if the schema has no batches.
    pub fn batch_messages<'a>(
        &self,
        batch: &'a [u8],
        max: usize,
    ) -> Result<Vec<&'a [u8]>, BatchError> {
        if !self.has_batch() {
            return Err(BatchError::Unsupported);
        }
        let (mut messages, mut unknown) = (Vec::new(), 0);
        for field in WireFields::new(batch, &(0..batch.len())) {
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
                let error = WireError::new(WireFault::Mistyped, field.whole.start);
                return Err(error.in_field("messages", Some(messages.len())).into());
            }
            messages.extend(batch.get(field.value));
        }
        Ok(messages)
    }

    /// Returns true if the envelope has field 17, the batch.
    #[must_use]
    pub fn has_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// Returns the schema's lists of ids in Subscribe.
    #[must_use]
    pub fn subscribe_lists(&self) -> &IdLists {
        &self.subscribe
    }

    /// Returns the schema's lists of ids in Unsubscribe.
    #[must_use]
    pub fn unsubscribe_lists(&self) -> &IdLists {
        &self.unsubscribe
    }

    /// Returns every payload of the envelope, sorted by number.
    #[must_use]
    pub fn payloads(&self) -> &[PayloadType] {
        &self.payloads
    }

    /// Returns a generator of events for benchmarks; `None` if no event of the schema
    /// relates to a topic that clients can subscribe to.
    #[must_use]
    pub fn synthetic_event(&self) -> Option<EventGenerator> {
        EventGenerator::find(&self.table, &self.payloads)
    }

    /// Returns the envelope's full name.
    #[must_use]
    pub fn envelope_name(&self) -> &str {
        self.envelope.full_name()
    }

    /// Returns the hash of everything that an envelope can contain. It does not depend on
    /// comments, on the order of files and declarations, or on messages that no envelope
    /// can contain.
    #[must_use]
    pub fn revision(&self) -> SchemaRevision {
        self.revision
    }

    /// Returns the number of events, messages and files.
    #[must_use]
    pub fn size(&self) -> SchemaSize {
        let events = self.payloads.iter();
        SchemaSize {
            events: events.filter(|payload| payload.kind.is_event()).count(),
            messages: self.message_count(),
            files: self.envelope.parent_pool().files().len(),
        }
    }

    /// Returns every change from this schema to `new` that would break connected clients or
    /// events in the log; empty if `new` can replace it.
    #[must_use]
    pub fn breaking_changes(&self, new: &Self) -> Vec<BreakingChange> {
        compatibility::breaking_changes(&self.outline(), &new.outline())
    }

    fn outline(&self) -> SchemaOutline {
        SchemaOutline::of_envelope(&self.envelope, &self.annotations)
    }
}

/// Field number of the envelopes in a BatchUpdate.
const BATCH_MESSAGES: u32 = 1;
