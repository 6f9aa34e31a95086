//! A frame as far as it is read before its limits are charged: its kind, its message id and the
//! topics of a client event.

use prost::Message;
use sidewire_protocol::{
    ErrorCode, MessageId,
    envelope::OnlyMessageId,
    reply::{MessageRefusal, Reply},
    schema::{
        ControlKind, InspectLimits, InspectedEnvelope, PayloadKind, Schema, WireError, WireFault,
    },
};

use super::{ConversationAction, rate_limit_refusal};
use crate::{event::RENDERED_AT_ONCE_MAX, limits::LimitExceeded};

/// A frame that has been parsed up to its kind and message id, and not been acted on.
#[derive(Debug)]
pub struct ParsedFrame<'a> {
    pub(super) schema: &'a Schema,
    pub(super) frame: &'a [u8],
    /// Size of the message as the client sent it, in bytes.
    pub(super) sent_len: usize,
    pub(super) envelope: Result<InspectedEnvelope<'a>, MessageRefusal>,
}

/// The kind of a message, which decides the limits that it is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// A Subscribe.
    Subscribe,
    /// An Unsubscribe.
    Unsubscribe,
    /// An Authenticate.
    Authenticate,
    /// A Ping, or a ping of the WebSocket.
    Ping,
    /// An event for other clients.
    ClientEvent,
    /// A presence message. It is charged when it is known whether the client has sent one before.
    Presence,
    /// Anything else, including messages that cannot be parsed.
    Other,
}

impl MessageKind {
    /// Returns the kind of a message with this payload.
    pub(in crate::connection) fn from_payload(
        payload: Option<PayloadKind>,
        is_presence: bool,
    ) -> Self {
        match payload {
            _ if is_presence => Self::Presence,
            Some(PayloadKind::Control(ControlKind::Subscribe)) => Self::Subscribe,
            Some(PayloadKind::Control(ControlKind::Unsubscribe)) => Self::Unsubscribe,
            Some(PayloadKind::Control(ControlKind::Authenticate)) => Self::Authenticate,
            Some(PayloadKind::Control(ControlKind::Ping)) => Self::Ping,
            Some(PayloadKind::Event {
                client_publish: true,
            }) => Self::ClientEvent,
            _ => Self::Other,
        }
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

    /// Returns the size of the envelope in bytes.
    pub(in crate::connection) fn len(&self) -> usize {
        self.frame.len()
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
pub(super) fn frame_refusal(frame: &[u8], error: &WireError) -> MessageRefusal {
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
