//! Decodes the JSON messages of clients to binary envelopes.

use std::sync::Arc;

use sidewire_protocol::{
    ErrorCode, MessageId,
    reply::{MessageRefusal, Reply},
    schema::{JsonError, Schema},
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{ConnectionPhase, ConnectionTask, offloaded::ReadMessage};
use crate::{
    connection::{
        conversation::{
            ConversationAction, MessageKind, ParsedFrame, no_memory_refusal, rate_limit_refusal,
        },
        stream::Transport,
    },
    limits::Limit,
    memory::{MemoryAccount, MemoryExceeded, MemoryUse},
    relay::LiveSettings,
    scheduler::Cost,
};

/// Maximum weight of JSON that the shard decodes itself: 250 values, which take half a
/// millisecond at most, or 2.6 KB of ordinary events.
const READ_AT_ONCE_WEIGHT_MAX: usize = 16 * 1024;

/// Bytes of a JSON frame that one step of the peek before decoding covers.
const PEEKED_BYTES_PER_STEP: usize = 8;

/// A decoded JSON frame.
pub(super) struct DecodedJsonFrame {
    /// Its message id, if it has one that a refusal can echo.
    message_id: Option<MessageId>,
    /// Its size in bytes.
    len: usize,
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
        let kind = MessageKind::from_payload(peeked.payload, peeked.is_presence);
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let charged = open
            .pace
            .charge_message(kind, self.account.user_key(), &shard.relay);
        if let Err(exceeded) = charged {
            let refusal = with_message_id(message_id.as_ref(), rate_limit_refusal(exceeded));
            let action = ConversationAction::Reply(Reply::Error(refusal));
            return self.carry_out_or_queue(action, json.len());
        }
        let weight = Schema::json_weight(json.as_bytes(), READ_AT_ONCE_WEIGHT_MAX);
        let len = json.len();
        if weight <= READ_AT_ONCE_WEIGHT_MAX {
            self.charge_work(Cost::JSON_BYTE.times(weight));
            let envelope = live.schema.envelope_from_client_json(json.as_bytes());
            return self.handle_decoded_json(DecodedJsonFrame {
                message_id,
                len,
                envelope: Ok(envelope),
            });
        }
        let read = move |live: &LiveSettings, memory: &Arc<MemoryAccount>| {
            let bytes = Schema::json_memory_max(json.as_bytes());
            let _memory = memory.reserve(MemoryUse::Decoding, bytes)?;
            Ok(live.schema.envelope_from_client_json(json.as_bytes()))
        };
        self.offload_message(len, read, move |envelope| {
            ReadMessage::Json(DecodedJsonFrame {
                message_id,
                len,
                envelope,
            })
        });
    }

    /// Handles a decoded JSON frame.
    pub(super) fn handle_decoded_json(&mut self, read: DecodedJsonFrame) {
        if let Ok(Ok(envelope)) = &read.envelope {
            self.charge_message(envelope);
        }
        let live = self.account.relay().live();
        let parsed = match &read.envelope {
            Ok(Ok(envelope)) => {
                let topics_max = live.config.limits.topics_per_event;
                ParsedFrame::parse(&live.schema, envelope, topics_max).sent_as(read.len)
            }
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

/// Adds the message id to the refusal, if there is one.
fn with_message_id(message_id: Option<&MessageId>, refusal: MessageRefusal) -> MessageRefusal {
    match message_id {
        Some(id) => refusal.for_message(id.as_str()),
        None => refusal,
    }
}
