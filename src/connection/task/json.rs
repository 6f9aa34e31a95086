//! What clients say in JSON, on its way to become what they say in binary.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{Connection, Listener};
use crate::{
    connection::{conversation::Heard, stream::Transport},
    protocol::{ErrorCode, reply::Refusal},
    schema::JsonError,
};

/// The most bytes of JSON that the shard reads itself: in well under a millisecond.
const READ_AT_ONCE_MAX: usize = 4 * 1024;

/// A frame of JSON that another thread reads. Until it is read nothing more is taken from
/// the client.
pub(super) struct ReadingJson(Pin<Box<dyn Future<Output = Option<ReadJson>>>>);

/// The envelope that the JSON says, as bytes.
pub(super) type ReadJson = Result<Vec<u8>, JsonError>;

impl<S: Transport, L: Listener> Connection<S, L> {
    /// Answers a text frame, when it is read.
    pub(super) fn answer_json(&mut self, json: Utf8Bytes) {
        let shard = &self.account.shard;
        if json.len() <= READ_AT_ONCE_MAX {
            let schema = &shard.relay.live().schema;
            let read = schema.envelope_from_client_json(json.as_bytes());
            return self.answer_read(read);
        }
        let (shard, tenant) = (Rc::clone(shard), self.account.who().tenant.clone());
        let reading = async move {
            // The schema of this moment: the frame may wait for others of the tenant.
            let live = shard.relay.live.load_full();
            let read = move || live.schema.envelope_from_client_json(json.as_bytes());
            shard.turns.elsewhere(&tenant, read).await
        };
        self.reading_json = Some(Box::new(ReadingJson(Box::pin(reading))));
    }

    /// Answers what was read.
    pub(super) fn answer_read(&mut self, read: ReadJson) {
        match read {
            Ok(envelope) => self.answer(&envelope),
            Err(error) => {
                let live = self.account.shard.relay.live();
                let refusal = Refusal {
                    field: error.field().map(str::to_owned),
                    ..Refusal::new(ErrorCode::ValidationError, error.to_string())
                };
                self.act_on(Heard::refused(&live.schema, refusal));
            }
        }
    }

    /// Looks whether another thread has read a frame. What waits to be carried out comes
    /// before it.
    pub(super) fn poll_reading_json(&mut self, context: &mut Context<'_>) -> Poll<ReadJson> {
        let Some(reading) = self
            .reading_json
            .as_mut()
            .filter(|_| self.awaiting.is_none())
        else {
            return Poll::Pending;
        };
        match reading.0.as_mut().poll(context) {
            Poll::Ready(Some(read)) => {
                self.reading_json = None;
                Poll::Ready(read)
            }
            Poll::Ready(None) => {
                // The process ends, and the connection with it.
                self.reading_json = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
