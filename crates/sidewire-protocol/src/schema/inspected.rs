//! The facts that the relay extracts from an envelope's bytes.

use std::ops::Range;

use crate::Topic;

use super::{json::JsonBound, payload::PayloadKind};

/// An envelope whose bytes are well-formed at every level.
#[derive(Debug, Clone)]
pub struct InspectedEnvelope<'a> {
    /// The message_id; `None` if it is missing or empty. Its length and characters are not
    /// checked.
    pub message_id: Option<&'a str>,
    /// The timestamp in Unix seconds; `None` if it is missing or 0.
    pub timestamp: Option<i64>,
    /// True if a position is set, even an empty one.
    pub has_position: bool,
    /// The payload; `None` if no payload known to the schema is set.
    pub payload: Option<InspectedPayload<'a>>,
    /// The topics that annotated fields name, without duplicates, in the order of the
    /// bytes; ordered by field number if fields replaced each other or were merged. A
    /// control message names none.
    pub topics: Vec<Topic>,
    /// Field 18 as it was sent: unchecked, and not included in `topics`.
    pub extra_topics: Vec<&'a str>,
    /// Number of fields in the envelope, including those of nested messages.
    pub fields: usize,
    /// Upper bound of the number of values in packed fields.
    pub packed_values: usize,
    /// True if the envelope had to be decoded to find its topics, because fields replaced
    /// each other or were merged.
    pub was_decoded: bool,
    pub(super) envelope: &'a [u8],
    pub(super) cuts: Vec<Range<usize>>,
    pub(super) json_bound: JsonBound,
}

/// The limits for inspecting an envelope.
#[derive(Debug, Clone, Copy)]
pub struct InspectLimits {
    /// Maximum number of topics from annotated fields.
    pub topics: usize,
    /// Maximum size of an envelope that is decoded to find its topics, in bytes.
    pub decoded_bytes: usize,
}

/// The payload that is set in the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectedPayload<'a> {
    /// The number of its field in the envelope.
    pub number: u32,
    /// The name of its field.
    pub name: &'a str,
    /// The kind: of the relay or of the application.
    pub kind: PayloadKind,
    /// The message, without its tag and length.
    pub bytes: &'a [u8],
}

impl<'a> InspectedEnvelope<'a> {
    /// Returns the received bytes of the envelope without field 18 and without a message_id
    /// or timestamp that holds its default value, as the remaining runs of bytes. Fields
    /// that the relay appends to them are therefore set only once.
    pub fn kept_bytes(&self) -> impl Iterator<Item = &'a [u8]> {
        let starts = std::iter::once(0).chain(self.cuts.iter().map(|cut| cut.end));
        let ends = self.cuts.iter().map(|cut| cut.start);
        let ends = ends.chain(std::iter::once(self.envelope.len()));
        let envelope = self.envelope;
        starts
            .zip(ends)
            .filter_map(move |(start, end)| envelope.get(start..end))
            .filter(|run| !run.is_empty())
    }

    /// Returns true if the event may have no JSON form, or JSON of more than `bytes_max`
    /// bytes including the fields that the relay adds. The caller must then call
    /// [`Schema::check_json`](super::Schema::check_json).
    #[must_use]
    pub fn json_is_in_doubt(&self, bytes_max: usize) -> bool {
        self.json_bound.is_in_doubt(self.envelope.len(), bytes_max)
    }

    /// Returns the total length of [`kept_bytes`](Self::kept_bytes), in bytes.
    #[must_use]
    pub fn kept_len(&self) -> usize {
        self.kept_bytes().map(<[u8]>::len).sum()
    }
}
