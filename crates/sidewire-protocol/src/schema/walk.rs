//! The single walk over an envelope's bytes. Refuses bytes that are not well-formed at
//! every level, and collects the topics and the relay's own fields on the way.
//!
//! Topics are collected in the order of the bytes. That is correct as long as no field is
//! replaced or merged. Otherwise the result is marked as ambiguous, and the caller uses
//! `collect` on the decoded message instead.

use std::ops::Range;

use super::{
    error::{WireError, WireFault},
    relay_fields::{is_reserved, number},
    table::{RoutingTable, TableField, TypeIndex, ValueShape},
    topics::FoundTopics,
    wire::{RawField, WireFields, WireType, check_varints, utf8_text, varint_at},
};

/// Maximum nesting of messages below the envelope. A map entry counts as a level, as it
/// does for the decoders of C++, C#, Java and Python, whose limit is also 100; prost does
/// not count it.
pub(super) const DEPTH_MAX: u32 = 100;

/// Maximum number of fields of an envelope, including those of nested messages. Decoding
/// takes up to 1 KiB of memory per field: that of an empty list in a google.protobuf.Value.
pub(super) const FIELDS_MAX: usize = 100_000;

/// The result of a walk over an envelope.
#[derive(Debug, Default)]
pub(super) struct WalkResult<'a> {
    pub(super) message_id: Option<&'a str>,
    pub(super) timestamp: Option<i64>,
    pub(super) has_position: bool,
    pub(super) extra_topics: Vec<&'a str>,
    /// The payload's field number, and the range of its bytes.
    pub(super) payload: Option<(u32, Range<usize>)>,
    /// The byte ranges that are not delivered, in order and not adjacent.
    pub(super) cuts: Vec<Range<usize>>,
    pub(super) topics: FoundTopics,
    /// Number of fields, including those of nested messages.
    pub(super) fields: usize,
    /// Upper bound of the number of values in packed fields.
    pub(super) packed_values: usize,
    /// True if there are more topics than the limit; `topics` then has the first of them.
    pub(super) has_too_many_topics: bool,
    /// True if `topics` may be wrong because a field was replaced or merged.
    pub(super) is_ambiguous: bool,
}

/// The mode of the walk at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalkMode {
    /// Collect the topics here and below.
    Route,
    /// In an envelope from a client: collect the topics of a payload that clients may send,
    /// and no others.
    RouteFromClient,
    /// In a payload from a client: collect the topics, except those that the sender names,
    /// because the relay replaces it.
    RouteClientEvent,
    /// Only check the bytes.
    Check,
}

/// Walks over an envelope. Errors about topics do not occur in [`WalkMode::Check`].
pub(super) fn walk_envelope<'a>(
    table: &RoutingTable,
    envelope: &'a [u8],
    mode: WalkMode,
    topics_max: usize,
) -> Result<WalkResult<'a>, WireError> {
    let mut walk = EnvelopeWalk {
        table,
        bytes: envelope,
        topics_max,
        found: WalkResult::default(),
    };
    walk.check_envelope(WalkPosition { depth: 0, mode })?;
    Ok(walk.found)
}

struct EnvelopeWalk<'t, 'a> {
    table: &'t RoutingTable,
    bytes: &'a [u8],
    topics_max: usize,
    found: WalkResult<'a>,
}

/// The position of the walk.
#[derive(Clone, Copy)]
struct WalkPosition {
    /// Number of levels below the envelope.
    depth: u32,
    mode: WalkMode,
}

impl WalkPosition {
    /// Returns the position inside the field's value. Annotations below one of the relay's
    /// own fields do not name topics of the event.
    fn in_field(self, field: &TableField) -> Self {
        let mode = match self.mode {
            _ if !field.is_routing => WalkMode::Check,
            WalkMode::Route => WalkMode::Route,
            WalkMode::RouteFromClient if field.is_client_event => WalkMode::RouteClientEvent,
            WalkMode::RouteClientEvent if !field.is_sender => WalkMode::Route,
            _ => WalkMode::Check,
        };
        Self { mode, ..self }
    }

    /// Returns true if a field that occurs twice here makes the topics depend on order and
    /// merging.
    fn is_order_relevant(self) -> bool {
        matches!(self.mode, WalkMode::Route | WalkMode::RouteClientEvent)
    }

    fn next_level(self) -> Self {
        let depth = self.depth + 1;
        Self { depth, ..self }
    }
}

impl<'t, 'a> EnvelopeWalk<'t, 'a> {
    fn check_envelope(&mut self, place: WalkPosition) -> Result<(), WireError> {
        let whole = 0..self.bytes.len();
        let Some(kind) = self.table.get(RoutingTable::ENVELOPE) else {
            return Ok(());
        };
        let mut seen = SeenFields::default();
        let mut fields = 0;
        for raw in WireFields::new(self.bytes, &whole) {
            let raw = raw?;
            fields += 1;
            let Some(field) = kind.field(raw.number) else {
                if is_reserved(raw.number) {
                    return Err(WireError::new(WireFault::Reserved, raw.whole.start));
                }
                continue;
            };
            self.check_field(field, &raw, &whole, place, &mut seen.watched)?;
            self.read_relay_field(field, &raw, &mut seen)
                .map_err(|error| error.in_field(&field.name, None))?;
        }
        self.count_fields(fields, &whole)
    }

    /// Adds the fields of a message to the total and checks the limit.
    fn count_fields(&mut self, fields: usize, message: &Range<usize>) -> Result<(), WireError> {
        self.found.fields += fields;
        if self.found.fields > FIELDS_MAX {
            return Err(WireError::new(WireFault::TooManyFields, message.start));
        }
        Ok(())
    }

    /// Records a field of the envelope if the relay itself uses it or it is the payload.
    fn read_relay_field(
        &mut self,
        field: &TableField,
        raw: &RawField,
        seen: &mut SeenFields,
    ) -> Result<(), WireError> {
        let again = |fault| WireError::new(fault, raw.whole.start);
        match raw.number {
            number::MESSAGE_ID => {
                seen.message_id.mark_set().map_err(again)?;
                let id = utf8_text(self.bytes, &raw.value)?;
                self.found.message_id = (!id.is_empty()).then_some(id);
                if id.is_empty() {
                    self.add_cut(&raw.whole);
                }
            }
            number::TIMESTAMP => {
                seen.timestamp.mark_set().map_err(again)?;
                let (bits, _) = varint_at(self.bytes, raw.value.start)?;
                self.found.timestamp = (bits != 0).then_some(bits.cast_signed());
                if bits == 0 {
                    self.add_cut(&raw.whole);
                }
            }
            number::POSITION => {
                seen.position.mark_set().map_err(again)?;
                self.found.has_position = true;
            }
            number::TOPICS => {
                self.found
                    .extra_topics
                    .push(utf8_text(self.bytes, &raw.value)?);
                self.add_cut(&raw.whole);
            }
            _ if field.is_payload => {
                if self.found.payload.is_some() {
                    return Err(again(WireFault::SecondPayload));
                }
                self.found.payload = Some((raw.number, raw.value.clone()));
            }
            _ => {}
        }
        Ok(())
    }

    fn add_cut(&mut self, range: &Range<usize>) {
        match self.found.cuts.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.found.cuts.push(range.clone()),
        }
    }

    /// Walks over the message that is `bytes[range]`.
    fn check_message(
        &mut self,
        index: TypeIndex,
        range: &Range<usize>,
        place: WalkPosition,
    ) -> Result<(), WireError> {
        let Some(kind) = self.table.get(index) else {
            return Ok(());
        };
        let mut watched = 0;
        let mut fields = 0;
        for raw in WireFields::new(self.bytes, range) {
            let raw = raw?;
            fields += 1;
            if let Some(field) = kind.field(raw.number) {
                self.check_field(field, &raw, range, place, &mut watched)?;
            }
        }
        self.count_fields(fields, range)
    }

    /// Checks a field of the message that is `bytes[message]`, and everything below it.
    fn check_field(
        &mut self,
        field: &'t TableField,
        raw: &RawField,
        message: &Range<usize>,
        place: WalkPosition,
        watched: &mut u64,
    ) -> Result<(), WireError> {
        self.found.is_ambiguous |= *watched & field.watch != 0 && place.is_order_relevant();
        *watched |= field.watch;
        self.check_value(field, raw, place).map_err(|error| {
            let index = field.is_list().then(|| {
                let before = WireFields::new(self.bytes, &(message.start..raw.whole.start));
                before
                    .filter(|raw| raw.as_ref().is_ok_and(|raw| raw.number == field.number))
                    .count()
            });
            error.in_field(&field.name, index)
        })
    }

    fn check_value(
        &mut self,
        field: &'t TableField,
        raw: &RawField,
        place: WalkPosition,
    ) -> Result<(), WireError> {
        let length = raw.value.len();
        let below = place.in_field(field);
        match (field.shape, raw.wire_type) {
            (ValueShape::Varint, WireType::Varint)
            | (ValueShape::Fixed32, WireType::Fixed32)
            | (ValueShape::Fixed64, WireType::Fixed64)
            | (ValueShape::Bytes, WireType::Delimited) => Ok(()),
            (ValueShape::String, WireType::Delimited) => self.check_string(field, raw, below.mode),
            (ValueShape::Message(_) | ValueShape::MapEntry(_), WireType::Delimited)
                if place.depth >= DEPTH_MAX =>
            {
                Err(WireError::new(WireFault::TooDeep, raw.whole.start))
            }
            (ValueShape::Message(index) | ValueShape::MapEntry(index), WireType::Delimited) => {
                self.check_message(index, &raw.value, below.next_level())
            }
            // Repeated numbers may be packed or unpacked, however they are declared.
            (ValueShape::Varint, WireType::Delimited) if field.is_repeated => {
                self.found.packed_values += length;
                check_varints(self.bytes, &raw.value)
            }
            (ValueShape::Fixed32, WireType::Delimited) if field.is_repeated => {
                self.found.packed_values += length / 4;
                check_multiple(length, 4, raw)
            }
            (ValueShape::Fixed64, WireType::Delimited) if field.is_repeated => {
                self.found.packed_values += length / 8;
                check_multiple(length, 8, raw)
            }
            _ => Err(WireError::new(WireFault::Mistyped, raw.whole.start)),
        }
    }

    fn check_string(
        &mut self,
        field: &TableField,
        raw: &RawField,
        mode: WalkMode,
    ) -> Result<(), WireError> {
        let text = utf8_text(self.bytes, &raw.value)?;
        match &field.topic {
            Some(source) if mode == WalkMode::Route && !self.found.has_too_many_topics => {
                self.found
                    .topics
                    .add_value(source, text)
                    .map_err(|fault| WireError::new(fault, raw.value.start))?;
                // Not an error yet: a later field may replace some of the topics.
                self.found.has_too_many_topics = self.found.topics.len() > self.topics_max;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The fields of the envelope seen so far.
#[derive(Default)]
struct SeenFields {
    message_id: SetOnce,
    timestamp: SetOnce,
    position: SetOnce,
    watched: u64,
}

#[derive(Default)]
struct SetOnce(bool);

impl SetOnce {
    fn mark_set(&mut self) -> Result<(), WireFault> {
        let met = std::mem::replace(&mut self.0, true);
        if met {
            Err(WireFault::Repeated)
        } else {
            Ok(())
        }
    }
}

fn check_multiple(length: usize, size: usize, raw: &RawField) -> Result<(), WireError> {
    if length.is_multiple_of(size) {
        Ok(())
    } else {
        Err(WireError::new(WireFault::Truncated, raw.value.start))
    }
}
