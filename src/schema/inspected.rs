//! What the relay learns from an envelope's bytes.

use std::ops::Range;

use crate::protocol::Topic;

use super::{json::JsonBound, payload::PayloadKind};

/// An envelope whose bytes are well-formed all the way down.
#[derive(Debug, Clone)]
pub struct Inspected<'a> {
    /// The message_id; `None` where it is missing or empty. Its length and its
    /// characters are not checked.
    pub message_id: Option<&'a str>,
    /// Unix seconds; `None` where they are missing or 0.
    pub timestamp: Option<i64>,
    /// Whether a position is set, be it an empty one.
    pub has_position: bool,
    /// The payload; `None` where none is set that the schema knows.
    pub payload: Option<Payload<'a>>,
    /// What the annotated fields name, each topic once: in the order in which
    /// they stand in the bytes, or, where fields replaced each other or were
    /// merged, of their numbers. A control message names nothing.
    pub topics: Vec<Topic>,
    /// Field 18 as it was sent: unchecked, and not among `topics`.
    pub extra_topics: Vec<&'a str>,
    /// How many fields the envelope has, those of the messages in it included.
    pub fields: usize,
    /// Whether the envelope had to be decoded to find its topics, because fields replaced
    /// each other or were merged.
    pub was_decoded: bool,
    pub(super) envelope: &'a [u8],
    pub(super) cuts: Vec<Range<usize>>,
    pub(super) json_bound: JsonBound,
}

/// How far an envelope is looked into.
#[derive(Debug, Clone, Copy)]
pub struct InspectLimits {
    /// The most topics of annotated fields.
    pub topics: usize,
    /// The most bytes of an envelope that is decoded to find its topics.
    pub decoded_bytes: usize,
}

/// What comes of a look at an envelope.
#[derive(Debug)]
pub enum Inspection<'a> {
    /// All that there is to know.
    Complete(Inspected<'a>),
    /// The envelope is well-formed. To find its topics it would have to be decoded, and it
    /// is larger than [`InspectLimits::decoded_bytes`].
    NeedsDecoding,
}

/// The member that is set in the envelope's oneof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Its number in the envelope.
    pub number: u32,
    /// Its field's name.
    pub name: &'a str,
    /// Whose it is.
    pub kind: PayloadKind,
    /// The message, without its tag and length.
    pub bytes: &'a [u8],
}

impl<'a> Inspected<'a> {
    /// The envelope as it came, less field 18 and less a message_id or timestamp
    /// that holds its default, as the runs of bytes that remain. What the relay
    /// appends to them is set once.
    pub fn kept(&self) -> impl Iterator<Item = &'a [u8]> {
        let starts = std::iter::once(0).chain(self.cuts.iter().map(|cut| cut.end));
        let ends = self.cuts.iter().map(|cut| cut.start);
        let ends = ends.chain(std::iter::once(self.envelope.len()));
        let envelope = self.envelope;
        starts
            .zip(ends)
            .filter_map(move |(start, end)| envelope.get(start..end))
            .filter(|run| !run.is_empty())
    }

    /// Whether the event may have no JSON, or JSON of more than `bytes_max` bytes, those
    /// included that the relay adds: then [`Schema::check_json`](super::Schema::check_json)
    /// has to be asked. `false` needs no look at the event.
    #[must_use]
    pub fn json_is_in_doubt(&self, bytes_max: usize) -> bool {
        self.json_bound.is_in_doubt(self.envelope.len(), bytes_max)
    }

    /// How many bytes [`kept`](Self::kept) has.
    #[must_use]
    pub fn kept_len(&self) -> usize {
        self.kept().map(<[u8]>::len).sum()
    }
}
