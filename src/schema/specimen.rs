//! Makes events that relate to one topic and have a given size, for who measures
//! the relay: any schema has a place where they fit in.

use std::collections::HashSet;

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::{
    annotations::TopicSource,
    payload::PayloadType,
    relay_fields::is_relays,
    table::{Field, Shape, Table, TypeIndex},
};
use crate::protocol::topic::USER_KIND;

/// How deep in a payload a topic is looked for.
const DEPTH_MAX: usize = 8;

/// The shortest field that the schema need not know: a tag of two bytes and an
/// empty value.
const UNKNOWN_BYTES_MIN: usize = 3;

/// The kind of the topics where the annotated field holds whole topics.
const WHOLE_TOPIC_KIND: &str = "bench";

/// What stands in the padding.
const PADDING: u8 = b'x';

/// The way to an annotated field of one of the schema's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Specimen {
    kind: String,
    /// The annotated field holds the topic, not its id.
    is_whole: bool,
    /// The fields' numbers, from the payload's in the envelope to the annotated one's.
    path: Vec<u32>,
    /// A text beside the annotated field, to put the padding in.
    padded: Option<u32>,
    /// A number that the envelope has no field of, whose tag has two bytes.
    unknown: u32,
}

impl Specimen {
    /// The one that lies least deep, of the payload with the lowest number.
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

    /// The kind of the topic that its events relate to.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The payload of an envelope, and what fills the envelope up, of exactly
    /// `bytes` bytes, that relates to `kind:id` alone. `None` where that is less
    /// than the id needs.
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
                // Where a length gets another byte, no padding gives just this size.
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

    /// Adds so many bytes that no schema knows.
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
    /// Messages without an annotated field so many levels below. Each is looked at once a
    /// depth; a message with many fields of its own type has very many ways through it.
    exhausted: HashSet<(TypeIndex, usize)>,
}

impl Search {
    /// The way from the field down to an annotated one, `depth` levels below: their
    /// numbers, the last one first; how the annotated one gives topics, and a text beside
    /// it.
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
    // Nobody can subscribe to the topics of a user.
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
