//! An event on its way through the relay: a byte string that is built once, as the WebSocket
//! frame that every connection receives. Writes the envelope's relay fields, and knows nothing
//! of payloads.

mod client_event;
mod fingerprint;
mod json;
mod position_at_end;

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use prost::encoding::{encode_varint, encoded_len_varint};
use tokio::time::Instant;

pub use client_event::{ClientEvent, ClientEventFields};
pub use fingerprint::{Fingerprint, FingerprintKey};
pub(crate) use json::RENDERED_AT_ONCE_MAX;
pub use json::{JsonCell, JsonFrame, NoJson};
pub(crate) use position_at_end::PositionFinder;

use json::JsonDraft;
use sidewire_protocol::{
    MessageId, Position, Topic,
    envelope::key,
    frame::{HEADER_BYTES_MAX, binary_header},
    position::EPOCH_CHARS,
    schema::{JsonError, Schema},
};

use crate::memory::MemoryAccount;

/// Most bytes of the field `position`: two tags, two lengths, the epoch, a tag and a varint of 64
/// bits.
const POSITION_BYTES_MAX: usize = 2 + 2 + EPOCH_CHARS + 1 + 10;

/// Most bytes that an appended message id takes in addition to its text: a tag and a length.
const MESSAGE_ID_OVERHEAD_BYTES_MAX: usize = 3;

/// Most bytes that an appended timestamp takes: a tag and a varint of 64 bits.
const TIMESTAMP_BYTES_MAX: usize = 11;

/// Bytes charged for an event in addition to its bytes and its topics' bytes: its own fields and
/// its entry in the log. Counted so that many tiny events are accounted for.
const OVERHEAD_BYTES: usize = 160;

/// Bytes charged for each topic of an event in addition to its text.
const TOPIC_OVERHEAD_BYTES: usize = 40;

/// An event that was accepted and has no position in its tenant's log yet.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "testing"), derive(Clone))]
pub struct EventDraft {
    body: EventBody,
    message_id: MessageId,
    fingerprint: Option<Fingerprint>,
    json: Option<JsonDraft>,
}

/// What is stored of an event, before it has a position.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "testing"), derive(Clone))]
pub struct EventBody {
    /// Room for the longest frame header, then the envelope without `position`.
    buffer: Vec<u8>,
    topics: Arc<[Topic]>,
    schema: Arc<Schema>,
}

/// The parts of which an [`EventDraft`] is built.
#[derive(Debug)]
pub struct EventDraftParts<'a> {
    /// The bytes of the envelope that are forwarded unchanged, in order.
    pub kept: &'a [&'a [u8]],
    /// The envelope's message id.
    pub message_id: MessageId,
    /// True if the id must be appended because the kept bytes have none.
    pub append_message_id: bool,
    /// The timestamp, in Unix seconds, that must be appended because the kept bytes have none.
    pub append_timestamp: Option<i64>,
    /// The topics of the event, without duplicates.
    pub topics: Arc<[Topic]>,
    /// The schema by which the envelope is decoded.
    pub schema: Arc<Schema>,
}

impl EventDraft {
    /// Creates a draft. Copies the kept bytes once, into the event's final buffer.
    #[must_use]
    pub fn new(parts: EventDraftParts<'_>) -> Self {
        let kept_len: usize = parts.kept.iter().map(|run| run.len()).sum();
        let id = parts.message_id.as_str();
        let id_len = if parts.append_message_id {
            MESSAGE_ID_OVERHEAD_BYTES_MAX + id.len()
        } else {
            0
        };
        let timestamp_len = parts.append_timestamp.map_or(0, |_| TIMESTAMP_BYTES_MAX);
        let mut buffer = Vec::with_capacity(
            HEADER_BYTES_MAX + kept_len + id_len + timestamp_len + POSITION_BYTES_MAX,
        );
        buffer.put_bytes(0, HEADER_BYTES_MAX);
        let append_id = parts.append_message_id.then_some(id);
        write_envelope(parts.kept, append_id, parts.append_timestamp, &mut buffer);
        Self {
            body: EventBody {
                buffer,
                topics: parts.topics,
                schema: parts.schema,
            },
            message_id: parts.message_id,
            fingerprint: None,
            json: None,
        }
    }

    /// Renders the event's JSON now, so that no shard has to do it during delivery.
    ///
    /// # Errors
    ///
    /// When the event cannot be rendered as JSON.
    pub fn render_json(&mut self) -> Result<(), JsonError> {
        let body = &self.body;
        self.json = Some(JsonDraft::render(&body.schema, body.envelope())?);
        Ok(())
    }

    /// Checks that the event's JSON has at most `bytes_max` bytes, its position included.
    ///
    /// # Errors
    ///
    /// When it cannot be rendered, or has more bytes.
    pub fn check_json(&self, bytes_max: usize) -> Result<(), JsonError> {
        self.body.schema.check_json(self.body.envelope(), bytes_max)
    }

    /// Returns the most bytes of memory that the event takes while its JSON is
    /// [checked](Self::check_json) or [rendered](Self::render_json), in addition to the JSON
    /// itself.
    #[must_use]
    pub fn decoded_memory_max(&self) -> usize {
        self.body.schema.decoded_memory_max(self.body.envelope())
    }

    /// Returns the length of the envelope without its position, in bytes.
    #[must_use]
    pub fn envelope_len(&self) -> usize {
        self.body.envelope().len()
    }

    /// Returns the length of the [rendered](Self::render_json) JSON in bytes, or 0 without one.
    #[must_use]
    pub fn json_len(&self) -> usize {
        self.json.as_ref().map_or(0, JsonDraft::len)
    }

    /// Takes out the rendered JSON, to be stored with the event.
    pub(crate) fn take_json(&mut self) -> Option<JsonDraft> {
        self.json.take()
    }

    /// Sets the fingerprint by which duplicates of the event are recognized, if there is one.
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: Option<Fingerprint>) -> Self {
        self.fingerprint = fingerprint;
        self
    }

    /// Returns the fingerprint by which duplicates of the event are recognized; `None` if the
    /// relay generated its id.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Returns the envelope's message id.
    #[must_use]
    pub fn message_id(&self) -> &MessageId {
        &self.message_id
    }

    /// Returns the topics of the event.
    #[must_use]
    pub fn topics(&self) -> &Arc<[Topic]> {
        &self.body.topics
    }

    /// Creates the event at this position, appended at `now`.
    #[must_use]
    pub fn into_event(
        self,
        position: Position,
        account: &Arc<MemoryAccount>,
        now: Instant,
    ) -> Event {
        self.body.into_event(position, account, now)
    }
}

impl EventBody {
    /// Creates the body of an event that was [stored](Event::envelope_without_position) before.
    #[must_use]
    pub fn of_stored(envelope: &[u8], topics: Arc<[Topic]>, schema: Arc<Schema>) -> Self {
        let capacity = HEADER_BYTES_MAX + envelope.len() + POSITION_BYTES_MAX;
        let mut buffer = Vec::with_capacity(capacity);
        buffer.put_bytes(0, HEADER_BYTES_MAX);
        buffer.extend_from_slice(envelope);
        Self {
            buffer,
            topics,
            schema,
        }
    }

    /// Returns the envelope without `position`.
    fn envelope(&self) -> &[u8] {
        self.buffer.get(HEADER_BYTES_MAX..).unwrap_or_default()
    }

    /// Creates the event at this position, appended at `now`: appends the position and completes
    /// the frame.
    #[must_use]
    pub fn into_event(
        self,
        position: Position,
        account: &Arc<MemoryAccount>,
        now: Instant,
    ) -> Event {
        let mut buffer = self.buffer;
        append_position(&mut buffer, position);
        let (header, header_len) = binary_header(buffer.len() - HEADER_BYTES_MAX);
        for (room, byte) in buffer.iter_mut().zip(header) {
            *room = byte;
        }
        let frame = Bytes::from(buffer).split_off(HEADER_BYTES_MAX - header_len);
        let topics_cost: usize = self
            .topics
            .iter()
            .map(|topic| topic.as_str().len() + TOPIC_OVERHEAD_BYTES)
            .sum();
        let cost = OVERHEAD_BYTES + HEADER_BYTES_MAX + frame.len() + topics_cost;
        account.add_events(cost);
        Event {
            frame,
            header_len,
            position,
            placed: now,
            topics: self.topics,
            schema: self.schema,
            cost,
            account: Arc::clone(account),
        }
    }
}

/// Writes an envelope without its position: the kept bytes unchanged, followed by the message id
/// and the timestamp if these are given.
pub(crate) fn write_envelope(
    kept: &[&[u8]],
    message_id: Option<&str>,
    timestamp: Option<i64>,
    buffer: &mut Vec<u8>,
) {
    for run in kept {
        buffer.extend_from_slice(run);
    }
    if let Some(id) = message_id {
        buffer.put_u8(key::MESSAGE_ID);
        encode_varint(id.len() as u64, buffer);
        buffer.extend_from_slice(id.as_bytes());
    }
    if let Some(timestamp) = timestamp {
        buffer.put_u8(key::TIMESTAMP);
        encode_varint(timestamp.cast_unsigned(), buffer);
    }
}

fn append_position(buffer: &mut Vec<u8>, position: Position) {
    let offset_len = encoded_len_varint(position.offset);
    buffer.put_u8(key::POSITION);
    encode_varint((2 + EPOCH_CHARS + 1 + offset_len) as u64, buffer);
    buffer.put_u8(key::EPOCH);
    encode_varint(EPOCH_CHARS as u64, buffer);
    buffer.extend_from_slice(&position.epoch.to_ascii());
    buffer.put_u8(key::OFFSET);
    encode_varint(position.offset, buffer);
}

/// Returns the number of bytes that [`append_position`] appends.
fn position_len(position: Position) -> usize {
    2 + 2 + EPOCH_CHARS + 1 + encoded_len_varint(position.offset)
}

/// An event at its position in its tenant's log.
#[derive(Debug)]
pub struct Event {
    frame: Bytes,
    header_len: usize,
    position: Position,
    placed: Instant,
    topics: Arc<[Topic]>,
    /// The schema in force when the event was accepted; a reload may have replaced it since.
    schema: Arc<Schema>,
    cost: usize,
    account: Arc<MemoryAccount>,
}

impl Event {
    /// Returns the whole WebSocket frame.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Returns the envelope as clients receive it.
    #[must_use]
    pub fn envelope(&self) -> Bytes {
        self.frame.slice(self.header_len..)
    }

    /// Returns the envelope without the position at its end.
    #[must_use]
    pub fn envelope_without_position(&self) -> &[u8] {
        let end = self.frame.len().saturating_sub(position_len(self.position));
        self.frame.get(self.header_len..end).unwrap_or_default()
    }

    /// Returns true if rendering its JSON could hold up a shard for too long.
    pub(crate) fn renders_slowly(&self) -> bool {
        self.envelope_without_position().len() > RENDERED_AT_ONCE_MAX
    }

    /// Returns the account to which its memory is charged.
    pub(crate) fn account(&self) -> &Arc<MemoryAccount> {
        &self.account
    }

    /// Returns its position in the tenant's log.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the time at which it was appended.
    #[must_use]
    pub fn placed_at(&self) -> Instant {
        self.placed
    }

    /// Returns its topics, without duplicates.
    #[must_use]
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Returns its topics, to be shared.
    #[must_use]
    pub fn shared_topics(&self) -> &Arc<[Topic]> {
        &self.topics
    }

    /// Returns the schema in force when it was accepted.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Returns the bytes of memory charged for it.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.cost
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.account.sub_events(self.cost);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::memory::MemoryUse;
    use sidewire_protocol::Epoch;

    /// Returns the schema of the events that tests make.
    pub(crate) fn schema() -> Arc<Schema> {
        static SCHEMA: LazyLock<Arc<Schema>> =
            LazyLock::new(|| Arc::new(Schema::bundled().unwrap()));
        Arc::clone(&SCHEMA)
    }

    /// Returns a draft with these topics and an envelope that has only a message id.
    pub(crate) fn draft(id: &str, topics: &[&str]) -> EventDraft {
        EventDraft::new(EventDraftParts {
            kept: &[],
            message_id: MessageId::parse(id).unwrap(),
            append_message_id: true,
            append_timestamp: None,
            topics: topics.iter().map(|t| Topic::parse(t).unwrap()).collect(),
            schema: schema(),
        })
    }

    fn position(offset: u64) -> Position {
        Position {
            epoch: Epoch::from_bits(0xab),
            offset,
        }
    }

    #[test]
    fn an_envelope_has_the_posted_fields_then_missing_ones_then_the_position() {
        let event = EventDraft::new(EventDraftParts {
            kept: &[b"\x12\x00", b"\x1a\x00"],
            message_id: MessageId::parse("m").unwrap(),
            append_message_id: true,
            append_timestamp: Some(300),
            topics: Arc::default(),
            schema: schema(),
        })
        .into_event(position(5), &Arc::default(), Instant::now());
        let mut expected = vec![
            0x12, 0x00, 0x1a, 0x00, // as they came
            0x0a, 1, b'm', // 1: message_id
            0x40, 0xac, 0x02, // 8: timestamp
            0x4a, 36, 0x0a, 32, // 9: position, its epoch
        ];
        expected.extend_from_slice(b"000000000000000000000000000000ab");
        expected.extend_from_slice(&[0x10, 5]); // its offset
        assert_eq!(event.envelope(), expected);
        assert_eq!(event.frame()[..2], [0x82, 48]);
        assert_eq!(event.frame().len(), 50);
    }

    #[test]
    fn an_event_with_id_and_timestamp_gets_only_the_position() {
        let event = EventDraft::new(EventDraftParts {
            kept: &[b"\x0a\x01m\x40\x01\x12\x00"],
            message_id: MessageId::parse("m").unwrap(),
            append_message_id: false,
            append_timestamp: None,
            topics: Arc::default(),
            schema: schema(),
        })
        .into_event(position(u64::MAX), &Arc::default(), Instant::now());
        assert!(
            event
                .envelope()
                .starts_with(b"\x0a\x01m\x40\x01\x12\x00\x4a")
        );
    }

    #[test]
    fn the_buffer_is_big_enough_from_the_start() {
        let longest = "x".repeat(128);
        let draft = EventDraft::new(EventDraftParts {
            kept: &[],
            message_id: MessageId::parse(&longest).unwrap(),
            append_message_id: true,
            append_timestamp: Some(-1),
            topics: Arc::default(),
            schema: schema(),
        });
        let capacity = draft.body.buffer.capacity();
        let mut buffer = draft.body.buffer;
        append_position(&mut buffer, position(u64::MAX));
        assert_eq!(buffer.capacity(), capacity);
    }

    #[test]
    fn the_event_memory_is_zero_again_once_all_events_are_dropped() {
        let account = Arc::default();
        let events: Vec<_> = (1..=3)
            .map(|offset| {
                draft("m", &["a:1", "b:2"]).into_event(position(offset), &account, Instant::now())
            })
            .collect();
        let sum: usize = events.iter().map(Event::memory_bytes).sum();
        assert_eq!(account.held_bytes(MemoryUse::Events), sum as u64);
        drop(events);
        assert_eq!(account.held_bytes(MemoryUse::Events), 0);
    }
}
