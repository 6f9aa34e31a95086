//! The single walk over an envelope's bytes. Refuses bytes that are not well-formed at
//! every level, and collects the topics and the relay's own fields on the way.
//!
//! Topics are collected in the order of the bytes. That is correct as long as no field is
//! replaced or merged. Otherwise the result is marked as ambiguous, and the caller uses
//! `collect` on the decoded message instead.

use std::ops::Range;

use super::{
    error::{Fault, WireError},
    relay_fields::{is_reserved, number},
    table::{Field, Shape, Table, TypeIndex},
    topics::Topics,
    wire::{Fields, RawField, WireType, check_varints, text, varint_at},
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
pub(super) struct Found<'a> {
    pub(super) message_id: Option<&'a str>,
    pub(super) timestamp: Option<i64>,
    pub(super) has_position: bool,
    pub(super) extra_topics: Vec<&'a str>,
    /// The payload's field number, and the range of its bytes.
    pub(super) payload: Option<(u32, Range<usize>)>,
    /// The byte ranges that are not delivered, in order and not adjacent.
    pub(super) cuts: Vec<Range<usize>>,
    pub(super) topics: Topics,
    /// Number of fields, including those of nested messages.
    pub(super) fields: usize,
    /// Upper bound of the number of values in packed fields.
    pub(super) packed_values: usize,
    /// True if there are more topics than the limit; `topics` then has the first of them.
    pub(super) has_too_many_topics: bool,
    /// True if `topics` may be wrong because a field was replaced or merged.
    pub(super) is_ambiguous: bool,
}

/// The mode of the walk: collect topics, or only check the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Route,
    Check,
}

/// Walks over an envelope. Errors about topics occur only in [`Mode::Route`].
pub(super) fn walk<'a>(
    table: &Table,
    envelope: &'a [u8],
    mode: Mode,
    topics_max: usize,
) -> Result<Found<'a>, WireError> {
    let mut walk = Walk {
        table,
        bytes: envelope,
        topics_max,
        found: Found::default(),
    };
    walk.envelope(Place { depth: 0, mode })?;
    Ok(walk.found)
}

struct Walk<'t, 'a> {
    table: &'t Table,
    bytes: &'a [u8],
    topics_max: usize,
    found: Found<'a>,
}

/// The position of the walk.
#[derive(Clone, Copy)]
struct Place {
    /// Number of levels below the envelope.
    depth: u32,
    mode: Mode,
}

impl Place {
    /// Returns the position inside the field's value. Annotations below one of the relay's
    /// own fields do not name topics of the event.
    fn below(self, field: &Field) -> Self {
        let mode = if field.is_routing {
            self.mode
        } else {
            Mode::Check
        };
        Self { mode, ..self }
    }

    fn deeper(self) -> Self {
        let depth = self.depth + 1;
        Self { depth, ..self }
    }
}

impl<'t, 'a> Walk<'t, 'a> {
    fn envelope(&mut self, place: Place) -> Result<(), WireError> {
        let whole = 0..self.bytes.len();
        let Some(kind) = self.table.get(Table::ENVELOPE) else {
            return Ok(());
        };
        let mut seen = Seen::default();
        let mut fields = 0;
        for raw in Fields::new(self.bytes, &whole) {
            let raw = raw?;
            fields += 1;
            let Some(field) = kind.field(raw.number) else {
                if is_reserved(raw.number) {
                    return Err(WireError::new(Fault::Reserved, raw.whole.start));
                }
                continue;
            };
            self.field(field, &raw, &whole, place, &mut seen.watched)?;
            self.own_field(field, &raw, &mut seen)
                .map_err(|error| error.within(&field.name, None))?;
        }
        self.count(fields, &whole)
    }

    /// Adds the fields of a message to the total and checks the limit.
    fn count(&mut self, fields: usize, message: &Range<usize>) -> Result<(), WireError> {
        self.found.fields += fields;
        if self.found.fields > FIELDS_MAX {
            return Err(WireError::new(Fault::TooManyFields, message.start));
        }
        Ok(())
    }

    /// Reads a field of the envelope that the relay itself uses.
    fn own_field(
        &mut self,
        field: &Field,
        raw: &RawField,
        seen: &mut Seen,
    ) -> Result<(), WireError> {
        let again = |fault| WireError::new(fault, raw.whole.start);
        match raw.number {
            number::MESSAGE_ID => {
                seen.message_id.once().map_err(again)?;
                let id = text(self.bytes, &raw.value)?;
                self.found.message_id = (!id.is_empty()).then_some(id);
                if id.is_empty() {
                    self.cut(&raw.whole);
                }
            }
            number::TIMESTAMP => {
                seen.timestamp.once().map_err(again)?;
                let (bits, _) = varint_at(self.bytes, raw.value.start)?;
                self.found.timestamp = (bits != 0).then_some(bits.cast_signed());
                if bits == 0 {
                    self.cut(&raw.whole);
                }
            }
            number::POSITION => {
                seen.position.once().map_err(again)?;
                self.found.has_position = true;
            }
            number::TOPICS => {
                self.found.extra_topics.push(text(self.bytes, &raw.value)?);
                self.cut(&raw.whole);
            }
            _ if field.is_payload => {
                if self.found.payload.is_some() {
                    return Err(again(Fault::SecondPayload));
                }
                self.found.payload = Some((raw.number, raw.value.clone()));
            }
            _ => {}
        }
        Ok(())
    }

    fn cut(&mut self, range: &Range<usize>) {
        match self.found.cuts.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.found.cuts.push(range.clone()),
        }
    }

    /// Walks over the message that is `bytes[range]`.
    fn message(
        &mut self,
        index: TypeIndex,
        range: &Range<usize>,
        place: Place,
    ) -> Result<(), WireError> {
        let Some(kind) = self.table.get(index) else {
            return Ok(());
        };
        let mut watched = 0;
        let mut fields = 0;
        for raw in Fields::new(self.bytes, range) {
            let raw = raw?;
            fields += 1;
            if let Some(field) = kind.field(raw.number) {
                self.field(field, &raw, range, place, &mut watched)?;
            }
        }
        self.count(fields, range)
    }

    /// Checks a field of the message that is `bytes[message]`, and everything below it.
    fn field(
        &mut self,
        field: &'t Field,
        raw: &RawField,
        message: &Range<usize>,
        place: Place,
        watched: &mut u64,
    ) -> Result<(), WireError> {
        self.found.is_ambiguous |= place.mode == Mode::Route && *watched & field.watch != 0;
        *watched |= field.watch;
        self.value(field, raw, place).map_err(|error| {
            let index = field.is_list().then(|| {
                let before = Fields::new(self.bytes, &(message.start..raw.whole.start));
                before
                    .filter(|raw| raw.as_ref().is_ok_and(|raw| raw.number == field.number))
                    .count()
            });
            error.within(&field.name, index)
        })
    }

    fn value(&mut self, field: &'t Field, raw: &RawField, place: Place) -> Result<(), WireError> {
        let length = raw.value.len();
        let below = place.below(field);
        match (field.shape, raw.wire_type) {
            (Shape::Varint, WireType::Varint)
            | (Shape::Fixed32, WireType::Fixed32)
            | (Shape::Fixed64, WireType::Fixed64)
            | (Shape::Bytes, WireType::Delimited) => Ok(()),
            (Shape::String, WireType::Delimited) => self.string(field, raw, below.mode),
            (Shape::Message(_) | Shape::MapEntry(_), WireType::Delimited)
                if place.depth >= DEPTH_MAX =>
            {
                Err(WireError::new(Fault::TooDeep, raw.whole.start))
            }
            (Shape::Message(index) | Shape::MapEntry(index), WireType::Delimited) => {
                self.message(index, &raw.value, below.deeper())
            }
            // Repeated numbers may be packed or unpacked, however they are declared.
            (Shape::Varint, WireType::Delimited) if field.is_repeated => {
                self.found.packed_values += length;
                check_varints(self.bytes, &raw.value)
            }
            (Shape::Fixed32, WireType::Delimited) if field.is_repeated => {
                self.found.packed_values += length / 4;
                check_multiple(length, 4, raw)
            }
            (Shape::Fixed64, WireType::Delimited) if field.is_repeated => {
                self.found.packed_values += length / 8;
                check_multiple(length, 8, raw)
            }
            _ => Err(WireError::new(Fault::Mistyped, raw.whole.start)),
        }
    }

    fn string(&mut self, field: &Field, raw: &RawField, mode: Mode) -> Result<(), WireError> {
        let text = text(self.bytes, &raw.value)?;
        match &field.topic {
            Some(source) if mode == Mode::Route && !self.found.has_too_many_topics => {
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
struct Seen {
    message_id: Once,
    timestamp: Once,
    position: Once,
    watched: u64,
}

#[derive(Default)]
struct Once(bool);

impl Once {
    fn once(&mut self) -> Result<(), Fault> {
        let met = std::mem::replace(&mut self.0, true);
        if met { Err(Fault::Repeated) } else { Ok(()) }
    }
}

fn check_multiple(length: usize, size: usize, raw: &RawField) -> Result<(), WireError> {
    if length.is_multiple_of(size) {
        Ok(())
    } else {
        Err(WireError::new(Fault::Truncated, raw.value.start))
    }
}
