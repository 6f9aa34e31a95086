//! The client protocol as pure functions: frames go in; replies, and requests for the hub to carry
//! out, come out. Knows no socket, no clock and no other connection.

mod client_event;
mod topics_request;

use std::time::Duration;

use prost::Message;
use sidewire_protocol::{
    ErrorCode, MessageId, Position, Topic, UserName,
    envelope::{OnlyMessageId, OnlyResumeFrom},
    reply::{MessageRefusal, Reply},
    schema::{
        ControlKind, IdLists, InspectLimits, InspectedEnvelope, InspectedPayload, PayloadKind,
        Schema, WireError, WireFault,
    },
    wire,
};

use self::client_event::check_size;
pub(super) use self::client_event::presence_refusal;
pub use self::{
    client_event::{ClientEventLimits, ClientEventRequest, PresenceChange},
    topics_request::{TopicsAnswer, TopicsRequest},
};
use crate::{auth::Grant, config::Config, event::RENDERED_AT_ONCE_MAX, limits::LimitExceeded};

/// Delay after which a client should retry a request that was refused for lack of memory.
const NO_MEMORY_RETRY_AFTER: Duration = Duration::from_secs(10);

/// Decides what to do about the frames of a client, by its user, its grant and the limits in
/// force.
#[derive(Debug, Clone, Copy)]
pub struct Conversation<'a> {
    user: &'a UserName,
    grant: &'a Grant,
    limits: ConversationLimits,
}

/// Limits of what clients may send.
#[derive(Debug, Clone, Copy)]
pub struct ConversationLimits {
    /// Most topics of a Subscribe or Unsubscribe.
    pub topics_per_subscribe: usize,
    /// Limits of client events.
    pub events: ClientEventLimits,
}

impl From<&Config> for ConversationLimits {
    fn from(config: &Config) -> Self {
        Self {
            topics_per_subscribe: config.limits.topics_per_subscribe,
            events: config.into(),
        }
    }
}

/// A frame that has been parsed up to its kind and message id, and not been acted on.
#[derive(Debug)]
pub struct ParsedFrame<'a> {
    schema: &'a Schema,
    frame: &'a [u8],
    /// Size of the message as the client sent it, in bytes.
    sent_len: usize,
    envelope: Result<InspectedEnvelope<'a>, MessageRefusal>,
}

/// The kind of a message, which decides the limits that it is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// A Subscribe.
    Subscribe,
    /// An Unsubscribe.
    Unsubscribe,
    /// A Ping, or a ping of the WebSocket.
    Ping,
    /// An event for other clients.
    ClientEvent,
    /// A presence message. It is charged when it is known whether the client has sent one before.
    Presence,
    /// Anything else, including messages that cannot be parsed.
    Other,
}

/// The action that a frame requires.
#[derive(Debug, PartialEq)]
pub enum ConversationAction {
    /// Send this reply.
    Reply(Reply),
    /// Carry out this request, then answer it.
    Request(ClientRequest),
    /// Send this event to other clients.
    Relay(ClientEventRequest),
    /// Make a [`ClientEventRequest`] of this envelope, which takes long.
    ReadClientEvent {
        /// The envelope.
        envelope: Vec<u8>,
        /// Its message id; empty if it has none.
        message_id: String,
    },
}

/// A request that passed all checks. Requests are carried out one after another.
#[derive(Debug, PartialEq)]
pub enum ClientRequest {
    /// Subscribe, then answer with [`TopicsAnswer::subscribe_confirmation`].
    Subscribe(TopicsRequest),
    /// Unsubscribe, then answer with [`TopicsAnswer::unsubscribe_confirmation`].
    Unsubscribe(TopicsRequest),
}

impl MessageKind {
    /// Returns the kind of a message with this payload.
    pub(super) fn from_payload(payload: Option<PayloadKind>, is_presence: bool) -> Self {
        match payload {
            _ if is_presence => Self::Presence,
            Some(PayloadKind::Control(ControlKind::Subscribe)) => Self::Subscribe,
            Some(PayloadKind::Control(ControlKind::Unsubscribe)) => Self::Unsubscribe,
            Some(PayloadKind::Control(ControlKind::Ping)) => Self::Ping,
            Some(PayloadKind::Event {
                client_publish: true,
            }) => Self::ClientEvent,
            _ => Self::Other,
        }
    }
}

impl<'a> Conversation<'a> {
    /// Creates the rules for a client of this user with this grant.
    #[must_use]
    pub fn new(user: &'a UserName, grant: &'a Grant, limits: ConversationLimits) -> Self {
        Self {
            user,
            grant,
            limits,
        }
    }

    /// Parses a frame and decides what to do about it. `now` is the time in Unix seconds.
    #[must_use]
    pub fn handle_frame(&self, schema: &Schema, frame: &[u8], now: i64) -> ConversationAction {
        let parsed = ParsedFrame::parse(schema, frame, self.limits.events.topics);
        self.decide_action(parsed, now)
    }

    /// Decides what to do about a parsed frame. `now` is the time in Unix seconds.
    #[must_use]
    pub fn decide_action(&self, parsed: ParsedFrame<'_>, now: i64) -> ConversationAction {
        let action = parsed.envelope.as_ref().map_err(Clone::clone);
        let action = action.and_then(|envelope| {
            let id = envelope.message_id.unwrap_or_default();
            self.handle_payload(&parsed, envelope, now)
                .map_err(|refusal| refusal.for_message(id))
        });
        action.unwrap_or_else(|refusal| ConversationAction::Reply(Reply::Error(refusal)))
    }

    fn handle_payload(
        &self,
        parsed: &ParsedFrame<'_>,
        envelope: &InspectedEnvelope<'_>,
        now: i64,
    ) -> Result<ConversationAction, MessageRefusal> {
        let schema = parsed.schema;
        let Some(payload) = &envelope.payload else {
            return Err(no_payload_refusal());
        };
        match payload.kind {
            kind if !kind.is_taken_from_clients() => Err(MessageRefusal::invalid(
                payload.name,
                format!("a client may not send {}", payload.name),
            )),
            PayloadKind::Control(ControlKind::Subscribe) => {
                self.subscribe_action(schema.subscribe_lists(), envelope, payload)
            }
            PayloadKind::Control(ControlKind::Unsubscribe) => self
                .topics_request(schema.unsubscribe_lists(), envelope, payload)
                .map(|request| ConversationAction::Request(ClientRequest::Unsubscribe(request))),
            PayloadKind::Control(ControlKind::Ping) => pong_action(payload, now),
            PayloadKind::Event { .. } => {
                let limits = self.limits.events;
                let is_presence = schema.is_presence(payload.number);
                check_size(payload.name, is_presence, parsed.sent_len, limits)?;
                if parsed.frame.len() > RENDERED_AT_ONCE_MAX {
                    return Ok(ConversationAction::ReadClientEvent {
                        envelope: parsed.frame.to_vec(),
                        message_id: envelope.message_id.unwrap_or_default().to_owned(),
                    });
                }
                let event = ClientEventRequest::from_inspected(
                    schema, envelope, payload, self.user, limits,
                )?;
                event.check_grant(self.grant)?;
                Ok(ConversationAction::Relay(event))
            }
            PayloadKind::Control(_) => Err(MessageRefusal::new(
                ErrorCode::InternalError,
                format!("the relay does not know what to do with {}", payload.name),
            )),
        }
    }

    fn subscribe_action(
        &self,
        lists: &IdLists,
        envelope: &InspectedEnvelope<'_>,
        payload: &InspectedPayload<'_>,
    ) -> Result<ConversationAction, MessageRefusal> {
        let mut request = self.topics_request(lists, envelope, payload)?;
        let fields = OnlyResumeFrom::decode(payload.bytes).map_err(|_| payload_refusal(payload))?;
        request.resume_from = fields.resume_from.as_ref().map(Position::try_from);
        let refused = request
            .topics
            .iter()
            .find_map(|topic| self.topic_refusal(topic));
        match refused {
            Some(refusal) => Err(refusal),
            None => Ok(ConversationAction::Request(ClientRequest::Subscribe(
                request,
            ))),
        }
    }

    /// Returns the refusal if the client may not subscribe to the topic.
    fn topic_refusal(&self, topic: &Topic) -> Option<MessageRefusal> {
        let reason = self.grant.refusal_reason(topic)?;
        Some(MessageRefusal::new(
            ErrorCode::AuthorizationFailed,
            format!("{topic} {reason}"),
        ))
    }
}

impl<'a> ParsedFrame<'a> {
    /// Parses a frame up to its kind and message id, and the topics of a client event, of which
    /// it may have at most `topics_max`.
    #[must_use]
    pub fn parse(schema: &'a Schema, frame: &'a [u8], topics_max: usize) -> Self {
        Self {
            schema,
            frame,
            sent_len: frame.len(),
            envelope: inspect_frame(schema, frame, topics_max),
        }
    }

    /// Sets the size of the message as the client sent it, in bytes, if that was not the frame.
    #[must_use]
    pub fn sent_as(self, sent_len: usize) -> Self {
        Self { sent_len, ..self }
    }

    /// A frame that could not be read.
    #[must_use]
    pub fn from_refusal(schema: &'a Schema, refusal: MessageRefusal) -> Self {
        Self {
            schema,
            frame: &[],
            sent_len: 0,
            envelope: Err(refusal),
        }
    }

    /// Returns the kind of the message.
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        let payload = self
            .envelope
            .as_ref()
            .ok()
            .and_then(|it| it.payload.as_ref());
        let is_presence = payload.is_some_and(|payload| self.schema.is_presence(payload.number));
        MessageKind::from_payload(payload.map(|payload| payload.kind), is_presence)
    }

    /// Returns the reply to a message that exceeds a rate limit and is not carried out.
    #[must_use]
    pub fn rate_limit_reply(&self, exceeded: LimitExceeded) -> ConversationAction {
        let id = match &self.envelope {
            Ok(envelope) => envelope.message_id.unwrap_or_default(),
            Err(refusal) => &refusal.request_message_id,
        };
        ConversationAction::Reply(Reply::Error(rate_limit_refusal(exceeded).for_message(id)))
    }
}

/// Returns the refusal of a message that exceeds a rate limit.
#[must_use]
pub(super) fn rate_limit_refusal(exceeded: LimitExceeded) -> MessageRefusal {
    MessageRefusal {
        retry_after: Some(exceeded.retry_after),
        ..MessageRefusal::new(ErrorCode::RateLimitExceeded, exceeded.to_string())
    }
}

/// Returns the refusal of a message that there is no memory to decode.
#[must_use]
pub(super) fn no_memory_refusal() -> MessageRefusal {
    let message = "the relay has no memory to read this message (limits.memory_max)";
    MessageRefusal {
        retry_after: Some(NO_MEMORY_RETRY_AFTER),
        ..MessageRefusal::new(ErrorCode::RateLimitExceeded, message)
    }
}

impl ClientRequest {
    /// Returns the contents of the request.
    #[must_use]
    pub fn contents(&self) -> &TopicsRequest {
        match self {
            Self::Subscribe(contents) | Self::Unsubscribe(contents) => contents,
        }
    }
}

fn inspect_frame<'a>(
    schema: &'a Schema,
    frame: &'a [u8],
    topics_max: usize,
) -> Result<InspectedEnvelope<'a>, MessageRefusal> {
    let within = InspectLimits {
        topics: topics_max,
        decoded_bytes: RENDERED_AT_ONCE_MAX,
    };
    let inspected = match schema.inspect_from_client(frame, within) {
        // Its topics are found when it is read on another thread.
        Err(error) if error.fault() == WireFault::TooLargeToDecode => {
            schema.inspect_unrouted(frame)
        }
        Err(error) => inspect_withdrawal(schema, frame).ok_or(error),
        inspected => inspected,
    };
    let envelope = inspected.map_err(|error| frame_refusal(frame, &error))?;
    match envelope.message_id.map(MessageId::parse) {
        // The refusal does not echo the id, because the id is what is invalid.
        Some(Err(error)) => Err(MessageRefusal::invalid(
            "message_id",
            format!("message_id {error}"),
        )),
        Some(Ok(_)) | None => Ok(envelope),
    }
}

/// Inspects a frame whose topics may be invalid, which matters to nobody if it withdraws presence.
/// Returns `None` if it does not.
fn inspect_withdrawal<'a>(schema: &'a Schema, frame: &'a [u8]) -> Option<InspectedEnvelope<'a>> {
    let inspected = schema.inspect_unrouted(frame).ok()?;
    let withdraws = |payload| schema.is_absent(payload);
    let is_withdrawal = inspected.payload.as_ref().is_some_and(withdraws);
    is_withdrawal.then_some(inspected)
}

/// Returns the refusal of a frame that the walk refused. If only its content is at fault, the
/// refusal still has the message id.
fn frame_refusal(frame: &[u8], error: &WireError) -> MessageRefusal {
    let code = match error.fault() {
        // Nobody may send events to such a topic.
        WireFault::TenantTopic => ErrorCode::AuthorizationFailed,
        _ => ErrorCode::ValidationError,
    };
    let refusal = MessageRefusal {
        field: error.field().map(str::to_owned),
        ..MessageRefusal::new(code, error.to_string())
    };
    let is_content = matches!(
        error.fault(),
        WireFault::SecondPayload
            | WireFault::Repeated
            | WireFault::Reserved
            | WireFault::Topic(_)
            | WireFault::Wildcard
            | WireFault::TenantTopic
            | WireFault::TooManyTopics
    );
    if !is_content {
        return refusal;
    }
    let id = OnlyMessageId::decode(frame).unwrap_or_default().message_id;
    match MessageId::parse(&id) {
        Ok(id) => refusal.for_message(id.as_str()),
        Err(_) => refusal,
    }
}

fn no_payload_refusal() -> MessageRefusal {
    MessageRefusal::invalid("payload", "the envelope has no payload")
}

/// Returns the refusal of a payload that cannot be decoded. The walk has accepted it, so this is
/// not expected to happen.
fn payload_refusal(payload: &InspectedPayload<'_>) -> MessageRefusal {
    MessageRefusal::invalid(payload.name, format!("{} cannot be decoded", payload.name))
}

fn pong_action(
    payload: &InspectedPayload<'_>,
    now: i64,
) -> Result<ConversationAction, MessageRefusal> {
    let ping = wire::Ping::decode(payload.bytes).map_err(|_| payload_refusal(payload))?;
    Ok(ConversationAction::Reply(Reply::Pong(wire::Pong {
        timestamp: now,
        client_timestamp: ping.timestamp,
        position: None,
    })))
}

#[cfg(test)]
mod tests;
