//! An event that a client sent to other clients: a finished frame without a position, which no
//! log holds. Knows no connections.

use std::sync::{Arc, OnceLock};

use bytes::BufMut;
use sidewire_protocol::{
    frame::{HEADER_BYTES_MAX, binary_header, text_frame},
    schema::{JsonError, Schema},
};
use tokio::time::Instant;

use super::{
    MESSAGE_ID_OVERHEAD_BYTES_MAX, NoJson, RENDERED_AT_ONCE_MAX, TIMESTAMP_BYTES_MAX,
    write_envelope,
};
use crate::{
    memory::MemoryAccount,
    repeated::{RepeatedLine, log_repeated},
};

/// Bytes charged for a client event in addition to its frames: its own fields, and its entries in
/// inboxes.
const OVERHEAD_BYTES: usize = 256;

/// The fields that the relay writes into a client event.
#[derive(Debug, Clone, Copy)]
pub struct ClientEventFields<'a> {
    /// The message id: that of the client, or a new one.
    pub message_id: &'a str,
    /// The time at which the relay received the event, in Unix seconds.
    pub timestamp: i64,
}

/// An event of a client that other clients receive.
#[derive(Debug)]
pub struct ClientEvent {
    /// Room for the longest frame header, then the envelope.
    buffer: Vec<u8>,
    /// Index in the buffer at which the frame begins.
    start: usize,
    /// The event as a whole text frame, once a JSON connection has needed it.
    json: OnceLock<Result<Box<[u8]>, NoJson>>,
    schema: Arc<Schema>,
    sent: Instant,
    cost: usize,
    account: Arc<MemoryAccount>,
}

impl ClientEvent {
    /// Creates the event from the envelope's field `payload`, sent at `now`.
    #[must_use]
    pub fn new(
        schema: &Arc<Schema>,
        payload: &[u8],
        fields: ClientEventFields<'_>,
        account: &Arc<MemoryAccount>,
        now: Instant,
    ) -> Self {
        let id_len = MESSAGE_ID_OVERHEAD_BYTES_MAX + fields.message_id.len();
        let mut buffer =
            Vec::with_capacity(HEADER_BYTES_MAX + id_len + TIMESTAMP_BYTES_MAX + payload.len());
        buffer.put_bytes(0, HEADER_BYTES_MAX);
        let (id, timestamp) = (Some(fields.message_id), Some(fields.timestamp));
        write_envelope(&[payload], id, timestamp, &mut buffer);
        let (header, header_len) = binary_header(buffer.len() - HEADER_BYTES_MAX);
        for (room, byte) in buffer.iter_mut().zip(header) {
            *room = byte;
        }
        let cost = OVERHEAD_BYTES + buffer.len();
        account.add_events(cost);
        Self {
            buffer,
            start: HEADER_BYTES_MAX - header_len,
            json: OnceLock::new(),
            schema: Arc::clone(schema),
            sent: now,
            cost,
            account: Arc::clone(account),
        }
    }

    /// Returns the event of a presence payload changed to say that its user is absent. Returns
    /// `None` if its type has no value for that.
    #[must_use]
    pub fn absent(&self, fields: ClientEventFields<'_>, now: Instant) -> Option<Self> {
        let mut payload = Vec::with_capacity(self.envelope().len());
        let is_made = self.schema.append_absent(self.envelope(), &mut payload);
        is_made.then(|| Self::new(&self.schema, &payload, fields, &self.account, now))
    }

    /// Returns the event as a whole binary WebSocket frame.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Returns the envelope as clients receive it.
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        self.buffer.get(HEADER_BYTES_MAX..).unwrap_or_default()
    }

    /// Returns its message id, which its client may have chosen. The envelope is searched for it.
    #[must_use]
    pub fn message_id(&self) -> &str {
        let inspected = self.schema.inspect_unrouted(self.envelope());
        inspected
            .ok()
            .and_then(|it| it.message_id)
            .unwrap_or_default()
    }

    /// Returns the schema under which it was sent.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Returns the time at which the relay received it.
    #[must_use]
    pub fn sent_at(&self) -> Instant {
        self.sent
    }

    /// Returns true if making its JSON could hold up a shard for too long.
    #[must_use]
    pub fn renders_slowly(&self) -> bool {
        self.envelope().len() > RENDERED_AT_ONCE_MAX
    }

    /// Checks that its JSON has at most `bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// When it cannot be rendered, or has more bytes.
    pub fn check_json(&self, bytes_max: usize) -> Result<(), JsonError> {
        self.schema.check_json(self.envelope(), bytes_max)
    }

    /// Returns the event as a whole text frame, which is made at most once. Calls `made` if this
    /// call makes it.
    ///
    /// # Errors
    ///
    /// When it cannot be rendered, or there is no memory for it.
    pub fn json_frame(&self, made: impl FnOnce()) -> Result<&[u8], NoJson> {
        let frame = self.json.get_or_init(|| {
            if self.account.is_exceeded() {
                return Err(NoJson::NoMemory);
            }
            made();
            match self.schema.envelope_to_json_text(self.envelope()) {
                Ok(json) => {
                    let frame = text_frame(&json);
                    self.account.add_events(frame.len());
                    Ok(frame)
                }
                Err(error) => {
                    log_repeated!(RepeatedLine::ClientEventWithoutJson, %error);
                    Err(NoJson::Unrenderable)
                }
            }
        });
        frame.as_deref().map_err(|no_json| *no_json)
    }

    /// Returns its JSON frame if it has been made.
    #[must_use]
    pub fn made_json(&self) -> Option<&[u8]> {
        self.json.get()?.as_deref().ok()
    }
}

impl Drop for ClientEvent {
    fn drop(&mut self) {
        let json = self.made_json().map_or(0, <[u8]>::len);
        self.account.sub_events(self.cost + json);
    }
}
