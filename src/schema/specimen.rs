//! Generates events of a given size that relate to a single topic, for benchmarks with any
//! schema.

use std::collections::HashSet;

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::{
    annotations::TopicSource,
    payload::PayloadType,
    relay_fields::is_relays,
    table::{Field, Shape, Table, TypeIndex},
};
use crate::protocol::topic::USER_KIND;

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
pub struct Specimen {
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

impl Specimen {
    /// Finds the least deeply nested annotated field, in the payload with the lowest
    /// number.
    pub(super) fn find(table: &Table, payloads: &[PayloadType]) -> Option<Self> {
        let envelope = table.get(Table::ENVELOPE)?;
        let unknown = (1024..2048).find(|it| !is_relays(*it) && envelope.field(*it).is_none())?;
        let events = payloads.iter().filter(|payload| payload.kind.is_event());
        let events: Vec<_> = events.filter_map(|it| envelope.field(it.number)).collect();
        let mut search = Search::default();
        (1..=DEPTH_MAX).find_map(|depth| {
            let mut found = events.iter().filter_map(|event| {
                let (mut path, source, padded) = search.below(table, event, depth)?;
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
        let mut padding = bytes.checked_sub(self.payload(id, 0).len())?;
        if self.padded.is_none() {
            padding = 0;
        }
        loop {
            let mut payload = self.payload(id, padding);
            match bytes.checked_sub(payload.len()) {
                Some(0) => return Some(payload),
                Some(rest) if rest >= UNKNOWN_BYTES_MIN => {
                    self.fill(&mut payload, rest);
                    return Some(payload);
                }
                // Where a length prefix grows by a byte, no padding gives exactly this
                // size.
                _ => padding = padding.checked_sub(1)?,
            }
        }
    }

    fn payload(&self, id: &str, padding: usize) -> Vec<u8> {
        let (annotated, outer) = self.path.split_last().unwrap_or((&0, &[]));
        let mut message = if self.is_whole {
            delimited(*annotated, format!("{}:{id}", self.kind).as_bytes())
        } else {
            delimited(*annotated, id.as_bytes())
        };
        if let (Some(number), 1..) = (self.padded, padding) {
            message.extend(delimited(number, &vec![PADDING; padding]));
        }
        let outer = outer.iter().rev();
        outer.fold(message, |inner, number| delimited(*number, &inner))
    }

    /// Appends unknown fields of exactly this many bytes.
    fn fill(&self, out: &mut Vec<u8>, bytes: usize) {
        let whole = |value: usize| 2 + encoded_len_varint(value as u64) + value;
        let value = (0..=bytes.saturating_sub(UNKNOWN_BYTES_MIN))
            .rev()
            .take(UNKNOWN_BYTES_MIN + 8)
            .find(|value| whole(*value) == bytes || whole(*value) + UNKNOWN_BYTES_MIN <= bytes)
            .unwrap_or_default();
        out.extend(delimited(self.unknown, &vec![PADDING; value]));
        if let rest @ 1.. = bytes.saturating_sub(whole(value)) {
            self.fill(out, rest);
        }
    }
}

/// Looks for annotated fields in nested messages.
#[derive(Default)]
struct Search {
    /// Messages without an annotated field at a given number of levels below. Each is
    /// searched once per depth, because a message with many fields of its own type has a
    /// huge number of paths.
    exhausted: HashSet<(TypeIndex, usize)>,
}

impl Search {
    /// Finds an annotated field `depth` levels below `field`. Returns the field numbers of
    /// the path, innermost first, the source of the topics, and a string field next to the
    /// annotated one for padding.
    fn below<'t>(
        &mut self,
        table: &'t Table,
        field: &Field,
        depth: usize,
    ) -> Option<(Vec<u32>, &'t TopicSource, Option<&'t Field>)> {
        let Shape::Message(index) = field.shape else {
            return None;
        };
        if self.exhausted.contains(&(index, depth)) {
            return None;
        }
        let found = if depth == 1 {
            annotated(table, index).map(|(number, source, padded)| (vec![number], source, padded))
        } else {
            table.get(index)?.fields().find_map(|inner| {
                let (mut path, source, padded) = self.below(table, inner, depth - 1)?;
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

fn annotated(table: &Table, index: TypeIndex) -> Option<(u32, &TopicSource, Option<&Field>)> {
    let is_text = |field: &&Field| field.shape == Shape::String;
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

fn delimited(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 10);
    encode_key(number, WireType::LengthDelimited, &mut out);
    encode_varint(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}
