//! An event's JSON on its way to clients: rendered once while the event is delivered, as the text
//! frame that every JSON connection receives. Knows no connections.

use std::sync::{Arc, OnceLock};

use bytes::BufMut;
use sidewire_protocol::{
    Position,
    close::CloseReason,
    frame::{HEADER_BYTES_MAX, text_header},
    position::EPOCH_CHARS,
    schema::{JsonError, Schema},
};
use tokio::time::Instant;

use super::Event;
use crate::{
    memory::{MemoryAccount, MemoryExceeded, MemoryReservation, MemoryUse},
    planted,
    repeated::{RepeatedLine, log_repeated},
};

/// The text between the epoch and the offset of a position.
pub(super) const BETWEEN: &[u8] = br#"","offset":""#;

/// The text that closes the offset, the position and the envelope.
pub(super) const END: &[u8] = br#""}}"#;

/// Most decimal digits of an offset.
pub(super) const OFFSET_DIGITS_MAX: usize = 20;

/// Bytes charged for the JSON of an event in addition to its text: the frame's own fields, and
/// the state that the outboxes of each shard share for it.
const OVERHEAD_BYTES: usize = 192;

/// The largest envelope, in bytes, that a shard renders itself, which takes at most 1 ms. No
/// memory is reserved for that either: it takes less than 3 MiB, for one event of a shard at a
/// time.
pub(crate) const RENDERED_AT_ONCE_MAX: usize = 4 * 1024;

/// The JSON of an event that has no position yet.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "testing"), derive(Clone))]
pub(crate) struct JsonDraft {
    /// Room for the longest frame header, then the envelope up to the epoch's text.
    buffer: Vec<u8>,
}

impl JsonDraft {
    /// Renders an envelope without a position.
    pub(super) fn render(schema: &Schema, envelope: &[u8]) -> Result<Self, JsonError> {
        let text = schema.envelope_to_json_text(envelope)?;
        let members = text.strip_suffix('}').unwrap_or(&text);
        let comma = if members == "{" { "" } else { "," };
        let name = serde_json::Value::from(schema.position_json_name());
        let position = format!("{comma}{name}:{{\"epoch\":\"");
        let rest = EPOCH_CHARS + BETWEEN.len() + OFFSET_DIGITS_MAX + END.len();
        let mut buffer =
            Vec::with_capacity(HEADER_BYTES_MAX + members.len() + position.len() + rest);
        buffer.put_bytes(0, HEADER_BYTES_MAX);
        buffer.extend_from_slice(members.as_bytes());
        buffer.extend_from_slice(position.as_bytes());
        Ok(Self { buffer })
    }

    /// Returns its current length in bytes.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Completes the frame with the position of its event, which was appended at `placed`.
    fn into_frame(
        self,
        position: Position,
        placed: Instant,
        account: &Arc<MemoryAccount>,
    ) -> JsonFrame {
        let mut buffer = self.buffer;
        buffer.extend_from_slice(&position.epoch.to_ascii());
        buffer.extend_from_slice(BETWEEN);
        buffer.extend_from_slice(position.offset.to_string().as_bytes());
        buffer.extend_from_slice(END);
        let (header, header_len) = text_header(buffer.len() - HEADER_BYTES_MAX);
        for (room, byte) in buffer.iter_mut().zip(header) {
            *room = byte;
        }
        let cost = OVERHEAD_BYTES + buffer.capacity();
        account.add_events(cost);
        JsonFrame {
            start: HEADER_BYTES_MAX - header_len,
            buffer,
            offset: position.offset,
            placed,
            cost,
            account: Arc::clone(account),
        }
    }
}

/// The JSON of an event as a whole WebSocket text frame.
#[derive(Debug)]
pub struct JsonFrame {
    buffer: Vec<u8>,
    /// Index in the buffer at which the frame begins.
    start: usize,
    offset: u64,
    placed: Instant,
    cost: usize,
    account: Arc<MemoryAccount>,
}

impl JsonFrame {
    /// Renders the JSON of a stored event, by the schema under which it was accepted.
    ///
    /// # Errors
    ///
    /// When the event cannot be rendered, or there is no memory for it.
    pub fn render_event(event: &Event) -> Result<Self, NoJson> {
        let _memory = Self::reserve_memory(event)?;
        Self::render_or_log(event).ok_or(NoJson::Unrenderable)
    }

    /// Reserves the memory that rendering takes in addition to the JSON itself.
    fn reserve_memory(event: &Event) -> Result<Option<MemoryReservation>, NoJson> {
        if event.account.is_exceeded() {
            return Err(NoJson::NoMemory);
        }
        let envelope = event.envelope_without_position();
        if envelope.len() <= RENDERED_AT_ONCE_MAX {
            return Ok(None);
        }
        let bytes = event.schema.decoded_memory_max(envelope);
        let reserved = event.account.reserve(MemoryUse::Decoding, bytes);
        reserved
            .map(Some)
            .map_err(|MemoryExceeded| NoJson::NoMemory)
    }

    /// Renders the event. Logs an error and returns `None` if it cannot be rendered.
    fn render_or_log(event: &Event) -> Option<Self> {
        let schema = planted::rendering_schema(&event.schema);
        match JsonDraft::render(schema.as_ref(), event.envelope_without_position()) {
            Ok(draft) => Some(Self::from_draft(draft, event)),
            Err(error) => {
                let position = event.position;
                log_repeated!(RepeatedLine::EventWithoutJson, %position, %error);
                None
            }
        }
    }

    /// Returns the frame of JSON that was rendered when the event was a draft.
    pub(crate) fn from_draft(draft: JsonDraft, event: &Event) -> Self {
        draft.into_frame(event.position, event.placed, &event.account)
    }

    /// Returns the whole WebSocket frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Returns the JSON, without the header of the frame.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.buffer.get(HEADER_BYTES_MAX..).unwrap_or_default()
    }

    /// Returns the offset of its event.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the time at which its event was appended.
    #[must_use]
    pub fn placed_at(&self) -> Instant {
        self.placed
    }
}

impl Drop for JsonFrame {
    fn drop(&mut self) {
        self.account.sub_events(self.cost);
    }
}

/// The reason for which a JSON connection cannot receive an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoJson {
    /// The event cannot be rendered. Ingest refuses such events, so this is a bug in the relay.
    #[error("a stored event cannot be rendered as JSON")]
    Unrenderable,
    /// There is no memory to render or hold it.
    #[error("the relay has no memory to render an event as JSON")]
    NoMemory,
}

impl From<MemoryExceeded> for NoJson {
    fn from(_: MemoryExceeded) -> Self {
        Self::NoMemory
    }
}

impl From<NoJson> for CloseReason {
    fn from(no_json: NoJson) -> Self {
        match no_json {
            NoJson::Unrenderable => Self::InternalError,
            NoJson::NoMemory => Self::NoMemory,
        }
    }
}

/// The JSON of one event while it is being delivered, shared by all shards. It is rendered at
/// most once.
#[derive(Debug, Default)]
pub struct JsonCell(OnceLock<Result<Arc<JsonFrame>, NoJson>>);

impl JsonCell {
    /// Stores JSON that was rendered before the event was appended.
    pub(crate) fn fill(&self, frame: JsonFrame) {
        // The cell is not shared yet.
        self.0.get_or_init(|| Ok(Arc::new(frame)));
    }

    /// Returns true if it is decided what JSON connections receive.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.0.get().is_some()
    }

    /// Records that there is no JSON for the event, unless there is some.
    pub fn give_up(&self, why: NoJson) {
        self.0.get_or_init(|| Err(why));
    }

    /// Returns the event's JSON. Renders it if necessary, and then calls `made` first. If another
    /// shard is rendering it, the caller blocks until that is done.
    ///
    /// # Errors
    ///
    /// When the event cannot be rendered, or there is no memory for it.
    pub fn get_or_render(
        &self,
        event: &Event,
        made: impl FnOnce(),
    ) -> Result<Arc<JsonFrame>, NoJson> {
        let _memory = match self.0.get() {
            Some(_) => None,
            None => JsonFrame::reserve_memory(event)?,
        };
        let frame = self.0.get_or_init(|| {
            made();
            let frame = JsonFrame::render_or_log(event).map(Arc::new);
            frame.ok_or(NoJson::Unrenderable)
        });
        frame.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventDraft, EventDraftParts, tests::schema};
    use crate::memory::{MemoryLimits, MemoryUse};
    use sidewire_protocol::{Epoch, MessageId};

    fn draft() -> EventDraft {
        EventDraft::new(EventDraftParts {
            // A user is typing.
            kept: &[b"\xea\x02\x05\x0a\x03ann"],
            message_id: MessageId::parse("m").unwrap(),
            append_message_id: true,
            append_timestamp: Some(5),
            topics: Arc::default(),
            schema: schema(),
        })
    }

    fn position(offset: u64) -> Position {
        Position {
            epoch: Epoch::from_bits(0xab),
            offset,
        }
    }

    fn json(frame: &JsonFrame) -> serde_json::Value {
        let frame = sidewire_testing::websocket::only_frame(frame.bytes());
        assert_eq!(frame.opcode, 0x1);
        serde_json::from_slice(&frame.payload).unwrap()
    }

    #[test]
    fn json_rendered_before_and_after_the_append_is_the_same() {
        for offset in [1, u64::MAX] {
            let account = Arc::default();
            let mut draft = draft();
            draft.render_json().unwrap();
            let early = draft.take_json().unwrap();
            let capacity = early.buffer.capacity();
            let event = draft.into_event(position(offset), &account, Instant::now());
            let early = JsonFrame::from_draft(early, &event);
            assert_eq!(early.buffer.capacity(), capacity);
            let late = JsonFrame::render_event(&event).unwrap();
            assert_eq!(late.bytes(), early.bytes());
            assert_eq!(
                json(&late),
                serde_json::json!({
                    "messageId": "m",
                    "timestamp": "5",
                    "position": {
                        "epoch": "000000000000000000000000000000ab",
                        "offset": offset.to_string(),
                    },
                    "userTyping": {"userId": "ann"},
                })
            );
            assert_eq!(
                json(&late),
                event.schema.envelope_to_json(&event.envelope()).unwrap()
            );
        }
    }

    #[test]
    fn the_json_of_an_event_is_charged_to_memory_until_it_is_dropped() {
        let account = Arc::default();
        let event = draft().into_event(position(1), &account, Instant::now());
        let alone = account.held_bytes(MemoryUse::Events);
        let (cell, mut made) = (JsonCell::default(), 0);
        let frame = cell.get_or_render(&event, || made += 1).unwrap();
        let again = cell.get_or_render(&event, || made += 1).unwrap();
        assert!(Arc::ptr_eq(&frame, &again));
        assert_eq!(
            (made, account.held_bytes(MemoryUse::Events)),
            (1, alone + frame.cost as u64)
        );
        drop((frame, again));
        assert!(
            account.held_bytes(MemoryUse::Events) > alone,
            "the cell has it"
        );
        drop(cell);
        assert_eq!(account.held_bytes(MemoryUse::Events), alone);
    }

    #[test]
    fn without_memory_no_json_is_rendered_but_rendered_json_is_returned() {
        let account: Arc<MemoryAccount> = Arc::default();
        let event = draft().into_event(position(1), &account, Instant::now());
        account.set_limits(MemoryLimits { max: 1, window: 0 });
        let cell = JsonCell::default();
        assert_eq!(
            cell.get_or_render(&event, || ()).unwrap_err(),
            NoJson::NoMemory
        );
        assert_eq!(
            JsonFrame::render_event(&event).unwrap_err(),
            NoJson::NoMemory
        );
        account.set_limits(MemoryLimits {
            max: u64::MAX,
            window: 0,
        });
        cell.get_or_render(&event, || ()).unwrap();
        account.set_limits(MemoryLimits { max: 1, window: 0 });
        cell.get_or_render(&event, || ()).unwrap();
    }
}
