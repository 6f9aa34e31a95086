//! Decodes the JSON messages of clients to binary envelopes.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use sidewire_protocol::{
    ErrorCode, MessageId,
    close::CloseReason,
    reply::{MessageRefusal, Reply},
    schema::{JsonError, Schema},
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{ConnectionPhase, ConnectionTask, open::OpenConnection};
use crate::{
    connection::{
        conversation::{
            Conversation, MessageKind, ParsedFrame, no_memory_refusal, rate_limit_refusal,
        },
        stream::Transport,
    },
    limits::Limit,
    memory::{MemoryAccount, MemoryExceeded, MemoryUse, run_with_memory},
    scheduler::Cost,
};

/// Maximum weight of JSON that the shard decodes itself: 250 values, which take half a
/// millisecond at most, or 2.6 KB of ordinary events.
const READ_AT_ONCE_WEIGHT_MAX: usize = 16 * 1024;

/// Bytes of a JSON frame that one step of the peek before decoding covers.
const PEEKED_BYTES_PER_STEP: usize = 8;

/// A JSON frame that another thread decodes. Nothing more is read from the client until it is
/// done.
pub(super) struct PendingJsonFrame(Pin<Box<dyn Future<Output = Option<DecodedJsonFrame>>>>);

/// A decoded JSON frame.
pub(super) struct DecodedJsonFrame {
    /// Its message id, if it has one that a refusal can echo.
    message_id: Option<MessageId>,
    /// The binary envelope, unless the JSON is invalid or there is no memory to decode it.
    envelope: Result<Result<Vec<u8>, JsonError>, MemoryExceeded>,
}

impl<S: Transport> ConnectionTask<S> {
    /// Handles a text frame. It is charged before it is decoded, since decoding is what it costs.
    pub(super) fn handle_json_frame(&mut self, json: Utf8Bytes) {
        let shard = &self.account.shard;
        let live = shard.relay.live();
        let peeked = live.schema.peek_client_json(json.as_bytes());
        self.charge_work(Cost::STEP.times(json.len() / PEEKED_BYTES_PER_STEP));
        let message_id = peeked.message_id;
        let kind = MessageKind::from_payload(peeked.payload);
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let charged = open
            .pace
            .charge_message(kind, self.account.user_key(), &shard.relay);
        if let Err(exceeded) = charged {
            let refusal = with_message_id(message_id.as_ref(), rate_limit_refusal(exceeded));
            return self.push_reply(&Reply::Error(refusal));
        }
        let weight = Schema::json_weight(json.as_bytes(), READ_AT_ONCE_WEIGHT_MAX);
        if weight <= READ_AT_ONCE_WEIGHT_MAX {
            self.charge_work(Cost::JSON_BYTE.times(weight));
            let envelope = live.schema.envelope_from_client_json(json.as_bytes());
            return self.handle_decoded_json(DecodedJsonFrame {
                message_id,
                envelope: Ok(envelope),
            });
        }
        // The frame counts towards the memory limit, because any number of connections may wait
        // for the thread.
        let messages = shard.hub.begun_messages();
        let Ok(held) = messages.reserve(&self.account.outbox, json.len()) else {
            shard.relay.metrics.limit_exceeded(Limit::Memory);
            return self.begin_close(CloseReason::NoMemory);
        };
        let work = shard
            .hub
            .work_queue()
            .tenant_work(&self.account.user_key().tenant);
        let shard = Rc::clone(shard);
        let reading = async move {
            let _held = held;
            // Loads the schema only now: the frame may have waited for others of the tenant.
            let live = shard.relay.live_shared();
            let read = move |memory: &Arc<MemoryAccount>| {
                let bytes = Schema::json_memory_max(json.as_bytes());
                let _memory = memory.reserve(MemoryUse::Decoding, bytes)?;
                Ok(live.schema.envelope_from_client_json(json.as_bytes()))
            };
            let memory = shard.relay.publisher.memory();
            let timeout = shard.relay.live().config.ingest.inbox_timeout;
            let envelope =
                run_with_memory(memory, timeout, read, async |job| work.offload(job).await);
            let envelope = envelope.await?;
            // Handling it can take as long as decoding it.
            work.wait_for_quantum().await;
            Some(DecodedJsonFrame {
                message_id,
                envelope,
            })
        };
        open.reading_json = Some(Box::new(PendingJsonFrame(Box::pin(reading))));
    }

    /// Handles a decoded JSON frame.
    pub(super) fn handle_decoded_json(&mut self, read: DecodedJsonFrame) {
        if let Ok(Ok(envelope)) = &read.envelope {
            self.charge_message(envelope);
        }
        let live = self.account.relay().live();
        let parsed = match &read.envelope {
            Ok(Ok(envelope)) => Conversation::parse_frame(&live.schema, envelope),
            Err(MemoryExceeded) => {
                self.account.relay().metrics.limit_exceeded(Limit::Memory);
                let refusal = no_memory_refusal();
                ParsedFrame::from_refusal(
                    &live.schema,
                    with_message_id(read.message_id.as_ref(), refusal),
                )
            }
            Ok(Err(error)) => {
                let refusal = MessageRefusal {
                    field: error.field().map(str::to_owned),
                    ..MessageRefusal::new(ErrorCode::ValidationError, error.to_string())
                };
                ParsedFrame::from_refusal(
                    &live.schema,
                    with_message_id(read.message_id.as_ref(), refusal),
                )
            }
        };
        self.handle_charged_message(parsed);
    }
}

impl OpenConnection {
    /// Polls for the frame that another thread decodes.
    pub(super) fn poll_decoded_json(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<DecodedJsonFrame> {
        let Some(reading) = &mut self.reading_json else {
            return Poll::Pending;
        };
        match reading.0.as_mut().poll(context) {
            Poll::Ready(Some(read)) => {
                self.reading_json = None;
                Poll::Ready(read)
            }
            Poll::Ready(None) => {
                // The process is shutting down, and the connection with it.
                self.reading_json = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Adds the message id to the refusal, if there is one.
fn with_message_id(message_id: Option<&MessageId>, refusal: MessageRefusal) -> MessageRefusal {
    match message_id {
        Some(id) => refusal.for_message(id.as_str()),
        None => refusal,
    }
}
