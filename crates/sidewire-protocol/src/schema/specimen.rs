//! Generates events of a given size that relate to a single topic, for benchmarks with any
//! schema.

use std::collections::HashSet;

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::{
    annotations::TopicSource,
    payload::PayloadType,
    relay_fields::is_relay_number,
    table::{RoutingTable, TableField, TypeIndex, ValueShape},
};
use crate::topic::USER_KIND;

/// Maximum depth in a payload at which an annotated field is searched.
const DEPTH_MAX: usize = 8;

/// Size of the shortest field unknown to the schema, in bytes: a tag of two bytes and an
/// empty value.
const UNKNOWN_BYTES_MIN: usize = 3;

/// The kind of the topics if the annotated field holds whole topics.
const WHOLE_TOPIC_KIND: &str = "bench";

/// The byte that fills the padding.
const PADDING: u8 = b'x';

/// A generator of events, based on the path to an annotated field of one of the schema's
/// events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventGenerator {
    kind: String,
    /// True if the annotated field holds a whole topic, not an id.
    is_whole: bool,
    /// The field numbers, from the payload in the envelope to the annotated field.
    path: Vec<u32>,
    /// The number of a string field next to the annotated field, which holds the padding.
    padded: Option<u32>,
    /// A field number that is undeclared in the envelope, with a tag of two bytes.
    unknown: u32,
}

impl EventGenerator {
    /// Finds the least deeply nested annotated field, in the payload with the lowest
    /// number.
    pub(super) fn find(table: &RoutingTable, payloads: &[PayloadType]) -> Option<Self> {
        let envelope = table.get(RoutingTable::ENVELOPE)?;
        let unknown =
            (1024..2048).find(|it| !is_relay_number(*it) && envelope.field(*it).is_none())?;
        let events = payloads.iter().filter(|payload| payload.kind.is_event());
        let events: Vec<_> = events.filter_map(|it| envelope.field(it.number)).collect();
        let mut search = TopicFieldSearch::default();
        (1..=DEPTH_MAX).find_map(|depth| {
            let mut found = events.iter().filter_map(|event| {
                let (mut path, source, padded) = search.find_below(table, event, depth)?;
                path.push(event.number);
                path.reverse();
                Some(Self {
                    kind: source.kind().unwrap_or(WHOLE_TOPIC_KIND).to_owned(),
                    is_whole: *source == TopicSource::Whole,
                    path,
                    padded: padded.map(|it| it.number),
                    unknown,
                })
            });
            found.next()
        })
    }

    /// Returns the kind of the topic that the events relate to.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns the payload of an envelope with filler, of exactly `bytes` bytes, that
    /// relates only to `kind:id`. `None` if `bytes` is too small for the id.
    #[must_use]
    pub fn encode(&self, id: &str, bytes: usize) -> Option<Vec<u8>> {
        let mut padding = bytes.checked_sub(self.padded_payload(id, 0).len())?;
        if self.padded.is_none() {
            padding = 0;
        }
        loop {
            let mut payload = self.padded_payload(id, padding);
            match bytes.checked_sub(payload.len()) {
                Some(0) => return Some(payload),
                Some(rest) if rest >= UNKNOWN_BYTES_MIN => {
                    self.add_filler(&mut payload, rest);
                    return Some(payload);
                }
                // Where a length prefix grows by a byte, no padding gives exactly this
                // size.
                _ => padding = padding.checked_sub(1)?,
            }
        }
    }

    fn padded_payload(&self, id: &str, padding: usize) -> Vec<u8> {
        let (annotated, outer) = self.path.split_last().unwrap_or((&0, &[]));
        let mut message = if self.is_whole {
            delimited_field(*annotated, format!("{}:{id}", self.kind).as_bytes())
        } else {
            delimited_field(*annotated, id.as_bytes())
        };
        if let (Some(number), 1..) = (self.padded, padding) {
            message.extend(delimited_field(number, &vec![PADDING; padding]));
        }
        let outer = outer.iter().rev();
        outer.fold(message, |inner, number| delimited_field(*number, &inner))
    }

    /// Appends unknown fields of exactly this many bytes.
    fn add_filler(&self, out: &mut Vec<u8>, bytes: usize) {
        let whole = |value: usize| 2 + encoded_len_varint(value as u64) + value;
        let value = (0..=bytes.saturating_sub(UNKNOWN_BYTES_MIN))
            .rev()
            .take(UNKNOWN_BYTES_MIN + 8)
            .find(|value| whole(*value) == bytes || whole(*value) + UNKNOWN_BYTES_MIN <= bytes)
            .unwrap_or_default();
        out.extend(delimited_field(self.unknown, &vec![PADDING; value]));
        if let rest @ 1.. = bytes.saturating_sub(whole(value)) {
            self.add_filler(out, rest);
        }
    }
}

/// Looks for annotated fields in nested messages.
#[derive(Default)]
struct TopicFieldSearch {
    /// Messages without an annotated field at a given number of levels below. Each is
    /// searched once per depth, because a message with many fields of its own type has a
    /// huge number of paths.
    exhausted: HashSet<(TypeIndex, usize)>,
}

impl TopicFieldSearch {
    /// Finds an annotated field `depth` levels below `field`. Returns the field numbers of
    /// the path, innermost first, the source of the topics, and a string field next to the
    /// annotated one for padding.
    fn find_below<'t>(
        &mut self,
        table: &'t RoutingTable,
        field: &TableField,
        depth: usize,
    ) -> Option<(Vec<u32>, &'t TopicSource, Option<&'t TableField>)> {
        let ValueShape::Message(index) = field.shape else {
            return None;
        };
        if self.exhausted.contains(&(index, depth)) {
            return None;
        }
        let found = if depth == 1 {
            annotated_field(table, index)
                .map(|(number, source, padded)| (vec![number], source, padded))
        } else {
            table.get(index)?.fields().find_map(|inner| {
                let (mut path, source, padded) = self.find_below(table, inner, depth - 1)?;
                path.push(inner.number);
                Some((path, source, padded))
            })
        };
        if found.is_none() {
            self.exhausted.insert((index, depth));
        }
        found
    }
}

fn annotated_field(
    table: &RoutingTable,
    index: TypeIndex,
) -> Option<(u32, &TopicSource, Option<&TableField>)> {
    let is_text = |field: &&TableField| field.shape == ValueShape::String;
    let fields = || table.get(index).into_iter().flat_map(|it| it.fields());
    // Clients cannot subscribe to topics of users.
    let subscribable = |source: &&TopicSource| match source {
        TopicSource::Kind(kind) => kind != USER_KIND,
        TopicSource::Whole => true,
    };
    let (number, source) = fields().filter(is_text).find_map(|field| {
        let source = field.topic.as_ref().filter(subscribable)?;
        Some((field.number, source))
    })?;
    let padded = fields()
        .filter(is_text)
        .find(|field| field.topic.is_none() && !field.is_in_oneof() && !field.is_list());
    Some((number, source, padded))
}

fn delimited_field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 10);
    encode_key(number, WireType::LengthDelimited, &mut out);
    encode_varint(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}
