//! The client protocol as pure functions: frames go in; replies, and requests for the hub to carry
//! out, come out. Knows no socket, no clock and no other connection.

mod client_event;
mod parsed_frame;
mod topics_request;

use std::{fmt, time::Duration};

use prost::Message;
use sidewire_protocol::{
    ErrorCode, Position, Topic, UserName,
    envelope::OnlyResumeFrom,
    reply::{MessageRefusal, Reply},
    schema::{ControlKind, IdLists, InspectedEnvelope, InspectedPayload, PayloadKind, Schema},
    wire,
};

use self::client_event::check_size;
pub(super) use self::client_event::presence_refusal;
pub use self::{
    client_event::{ClientEventLimits, ClientEventRequest, PresenceChange},
    parsed_frame::{MessageKind, ParsedFrame},
    topics_request::{TopicsAnswer, TopicsRequest},
};
use crate::{auth::Grant, config::Config, event::RENDERED_AT_ONCE_MAX, limits::LimitExceeded};

/// Delay after which a client should retry a request that was refused for lack of memory.
const NO_MEMORY_RETRY_AFTER: Duration = Duration::from_secs(10);

/// Delay after which a client should retry a message that was refused because too many wait.
const WAITING_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Decides what to do about the frames of a client, by its user, its grant and the limits in
/// force.
#[derive(Debug, Clone, Copy)]
pub struct Conversation<'a> {
    user: &'a UserName,
    grant: &'a Grant,
    /// False if the grant is judged later.
    judges_grant: bool,
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

/// The action that a frame requires.
#[derive(Debug, PartialEq)]
pub enum ConversationAction {
    /// Send this reply.
    Reply(Reply),
    /// Carry out this request, then answer it.
    Request(ClientRequest),
    /// Verify this token, and put it in place of the client's.
    RenewToken(RenewalRequest),
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

/// An Authenticate: a request to replace the client's token.
#[derive(PartialEq, Eq)]
pub struct RenewalRequest {
    /// The id of the message; empty if it has none.
    pub message_id: String,
    /// The new token, which has not been verified.
    pub token: String,
}

impl fmt::Debug for RenewalRequest {
    /// Leaves out the token, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewalRequest")
            .field("message_id", &self.message_id)
            .finish_non_exhaustive()
    }
}

/// A request that passed all checks. Requests are carried out one after another.
#[derive(Debug, PartialEq)]
pub enum ClientRequest {
    /// Subscribe, then answer with [`TopicsAnswer::subscribe_confirmation`].
    Subscribe(TopicsRequest),
    /// Unsubscribe, then answer with [`TopicsAnswer::unsubscribe_confirmation`].
    Unsubscribe(TopicsRequest),
}

impl<'a> Conversation<'a> {
    /// Creates the rules for a client of this user with this grant.
    #[must_use]
    pub fn new(user: &'a UserName, grant: &'a Grant, limits: ConversationLimits) -> Self {
        Self {
            user,
            grant,
            judges_grant: true,
            limits,
        }
    }

    /// Leaves it to the caller to judge what is decided by the grant when it is carried out.
    #[must_use]
    pub fn without_grant(self) -> Self {
        Self {
            judges_grant: false,
            ..self
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
            PayloadKind::Control(ControlKind::Authenticate) => {
                let message = wire::Authenticate::decode(payload.bytes)
                    .map_err(|_| payload_refusal(payload))?;
                Ok(ConversationAction::RenewToken(RenewalRequest {
                    message_id: envelope.message_id.unwrap_or_default().to_owned(),
                    token: message.token,
                }))
            }
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
                if self.judges_grant {
                    event.check_grant(self.grant)?;
                }
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
        if self.judges_grant {
            self.check_grant(&request)?;
        }
        Ok(ConversationAction::Request(ClientRequest::Subscribe(
            request,
        )))
    }

    /// Checks a request that has waited: the client's grant may have changed since.
    ///
    /// # Errors
    ///
    /// When the client may no longer subscribe to one of the topics.
    pub fn judge_again(&self, request: &ClientRequest) -> Result<(), MessageRefusal> {
        match request {
            ClientRequest::Subscribe(subscribe) => self
                .check_grant(subscribe)
                .map_err(|refusal| refusal.for_message(&subscribe.answer.message_id)),
            ClientRequest::Unsubscribe(_) => Ok(()),
        }
    }

    /// Checks that the client may subscribe to all of the topics.
    fn check_grant(&self, subscribe: &TopicsRequest) -> Result<(), MessageRefusal> {
        let mut topics = subscribe.topics.iter();
        let refused = topics.find_map(|topic| self.topic_refusal(topic));
        refused.map_or(Ok(()), Err)
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

impl ConversationAction {
    /// Returns the refusal of a request when `waiting_max` of them already wait for a replay to
    /// end.
    pub(super) fn too_many_requests_refusal(&self, waiting_max: usize) -> MessageRefusal {
        self.waiting_refusal(format!(
            "at most {waiting_max} Subscribes and Unsubscribes may wait during a replay"
        ))
    }

    /// Returns the refusal of a message when `waiting_max` of them already wait for a Subscribe
    /// to be answered.
    pub(super) fn too_many_waiting_refusal(&self, waiting_max: usize) -> MessageRefusal {
        self.waiting_refusal(format!(
            "at most {waiting_max} messages may wait until an earlier Subscribe is answered"
        ))
    }

    fn waiting_refusal(&self, message: String) -> MessageRefusal {
        let message_id = match self {
            Self::Reply(Reply::Error(refusal)) => refusal.request_message_id.as_str(),
            Self::Reply(_) => "",
            Self::Request(request) => &request.contents().answer.message_id,
            Self::Relay(event) => &event.message_id,
            Self::ReadClientEvent { message_id, .. } => message_id,
            Self::RenewToken(request) => &request.message_id,
        };
        MessageRefusal {
            retry_after: Some(WAITING_RETRY_AFTER),
            ..MessageRefusal::new(ErrorCode::RateLimitExceeded, message).for_message(message_id)
        }
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
