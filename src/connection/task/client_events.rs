//! Sends events of the client to other clients.

use std::sync::Arc;

use sidewire_protocol::{
    ErrorCode, Topic,
    reply::{MessageRefusal, Reply},
};
use tokio::time::Instant;

use super::{ConnectionPhase, ConnectionTask, offloaded::ReadMessage};
use crate::{
    connection::{
        conversation::{ClientEventRequest, PresenceChange, no_memory_refusal},
        stream::Transport,
    },
    event::{ClientEvent, ClientEventFields},
    limits::Limit,
    memory::{MemoryAccount, MemoryExceeded, MemoryUse},
    relay::LiveSettings,
    scheduler::Cost,
};

/// Fewest bytes of a field, by which the cost of checking the JSON of a small event is estimated.
const FIELD_BYTES_MIN: usize = 2;

/// A client event that another thread has read, or the reason for which it is refused.
pub(super) struct ReadClientEvent {
    message_id: String,
    event: Result<Result<(ClientEventRequest, ClientEvent), MessageRefusal>, MemoryExceeded>,
}

/// What the relay adds to a client event.
#[derive(Clone)]
struct EventStamp {
    /// The message id, if the client gave none.
    fresh_id: String,
    /// The time in Unix seconds.
    timestamp: i64,
    now: Instant,
}

impl EventStamp {
    /// Makes the event that others receive.
    ///
    /// # Errors
    ///
    /// When it has no JSON, or too much of it.
    fn make_event(
        &self,
        request: &ClientEventRequest,
        live: &LiveSettings,
        account: &Arc<MemoryAccount>,
    ) -> Result<ClientEvent, MessageRefusal> {
        let id = match request.message_id.as_str() {
            "" => self.fresh_id.as_str(),
            id => id,
        };
        let fields = ClientEventFields {
            message_id: id,
            timestamp: self.timestamp,
        };
        let event = ClientEvent::new(&live.schema, &request.field, fields, account, self.now);
        if request.json_is_in_doubt {
            event
                .check_json(live.config.limits.json_max)
                .map_err(|error| {
                    MessageRefusal {
                        field: error.field().map(str::to_owned),
                        ..MessageRefusal::new(ErrorCode::ValidationError, error.to_string())
                    }
                    .for_message(&request.message_id)
                })?;
        }
        Ok(event)
    }
}

impl<S: Transport> ConnectionTask<S> {
    /// Sends an event to the other clients of its topics, or refuses it.
    pub(super) fn relay_client_event(&mut self, request: ClientEventRequest) {
        if self.withdraw_presence(&request) {
            return self.account.relay().metrics.client_event_accepted(0);
        }
        if request.presence.is_some() && !self.charge_presence(&request) {
            return;
        }
        let relay = self.account.relay();
        if request.json_is_in_doubt {
            let fields = request.field.len() / FIELD_BYTES_MIN;
            self.charge_work(Cost::CHECKED_FIELD.times(fields));
        }
        let live = relay.live();
        let account = relay.publisher.memory();
        match self.event_stamp().make_event(&request, &live, account) {
            Ok(event) => self.send_to_others(request, event),
            Err(refusal) => self.push_reply(&Reply::Error(refusal)),
        }
    }

    /// Reads a client event on another thread.
    pub(super) fn read_client_event(&mut self, envelope: Vec<u8>, message_id: String) {
        let envelope_len = envelope.len();
        let relay = self.account.relay();
        let who = self.account.user_key();
        let has_json = relay.publisher.has_json_connection(&who.tenant);
        let (user, stamp) = (who.user.clone(), self.event_stamp());
        let read = move |live: &LiveSettings, account: &Arc<MemoryAccount>| {
            let bytes = live.schema.decoded_memory_max(&envelope);
            let _memory = account.reserve(MemoryUse::Decoding, bytes)?;
            let limits = (&live.config).into();
            let request = ClientEventRequest::from_envelope(&live.schema, &envelope, &user, limits);
            Ok(request.and_then(|request| {
                let event = stamp.make_event(&request, live, account)?;
                if has_json {
                    // If it has none, the connections that need it do not receive the event.
                    let _frame = event.json_frame(|| ());
                }
                Ok((request, event))
            }))
        };
        self.offload_message(envelope_len, read, |event| {
            ReadMessage::ClientEvent(Box::new(ReadClientEvent { message_id, event }))
        });
    }

    /// Handles a client event that another thread has read.
    pub(super) fn handle_read_event(&mut self, read: ReadClientEvent) {
        let read_event = match read.event {
            Ok(event) => event,
            Err(MemoryExceeded) => {
                self.account.relay().metrics.limit_exceeded(Limit::Memory);
                Err(no_memory_refusal().for_message(&read.message_id))
            }
        };
        let ConnectionPhase::Open(open) = &self.phase else {
            return;
        };
        let allowed = read_event.and_then(|(request, event)| {
            request.check_grant(&open.grant)?;
            Ok((request, event))
        });
        match allowed {
            Ok((request, _)) if self.withdraw_presence(&request) => {
                self.account.relay().metrics.client_event_accepted(0);
            }
            Ok((request, _)) if request.presence.is_some() && !self.charge_presence(&request) => {}
            Ok((request, event)) => self.send_to_others(request, event),
            Err(refusal) => self.push_reply(&Reply::Error(refusal)),
        }
    }

    fn send_to_others(&mut self, mut request: ClientEventRequest, event: ClientEvent) {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        if request.presence == Some(PresenceChange::Withdrawn) {
            // There was nothing to withdraw.
            return;
        }
        let relay = &self.account.shard.relay;
        let is_subscribed = |topic: &Topic| open.hub.is_subscribed(topic);
        if request.presence.is_some() && request.topics.iter().any(is_subscribed) {
            return self.set_presence(request, event);
        }
        request.topics.retain(is_subscribed);
        if request.topics.is_empty() {
            let message = format!(
                "{} names no topic that this connection is subscribed to",
                request.payload
            );
            let refusal = request.refusal(ErrorCode::AuthorizationFailed, message);
            return self.push_reply(&Reply::Error(refusal));
        }
        let topics = request.topics.into_boxed_slice();
        let bytes = event.frame().len();
        relay
            .publisher
            .relay_client_event(&open.hub, Arc::new(event), topics);
        relay.metrics.client_event_accepted(bytes);
    }

    fn event_stamp(&self) -> EventStamp {
        let relay = self.account.relay();
        EventStamp {
            fresh_id: relay.random.uuid_v7(&relay.clock).to_string(),
            timestamp: relay.clock.unix_seconds(),
            now: Instant::now(),
        }
    }
}
