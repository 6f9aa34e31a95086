//! The payloads of an envelope: the relay's control messages and the application's events.

use prost_reflect::{FieldDescriptor, MessageDescriptor};

use super::{
    annotations::Annotations,
    relay_fields::{PAYLOAD, number},
};

/// A payload of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ControlKind {
    /// Subscribes to topics.
    Subscribe,
    /// The response.
    SubscriptionConfirmed,
    /// Unsubscribes from topics.
    Unsubscribe,
    /// The response.
    UnsubscribeConfirmed,
    /// Asks for a Pong.
    Ping,
    /// The response.
    Pong,
    /// Reports a refused message.
    Error,
    /// Several envelopes in one.
    Batch,
    /// Replaces the token of a connection.
    Authenticate,
    /// The response.
    Authenticated,
}

impl ControlKind {
    /// Returns the control message with this field number in the envelope.
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            number::SUBSCRIBE => Self::Subscribe,
            number::SUBSCRIPTION_CONFIRMED => Self::SubscriptionConfirmed,
            number::UNSUBSCRIBE => Self::Unsubscribe,
            number::UNSUBSCRIBE_CONFIRMED => Self::UnsubscribeConfirmed,
            number::PING => Self::Ping,
            number::PONG => Self::Pong,
            number::ERROR => Self::Error,
            number::BATCH => Self::Batch,
            number::AUTHENTICATE => Self::Authenticate,
            number::AUTHENTICATED => Self::Authenticated,
            _ => return None,
        })
    }
}

/// The kind of a payload: of the relay or of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadKind {
    /// A control message of the relay.
    Control(ControlKind),
    /// An event of the application.
    Event {
        /// True if clients may send it.
        client_publish: bool,
    },
}

impl PayloadKind {
    /// Returns true for an event of the application.
    #[must_use]
    pub fn is_event(self) -> bool {
        matches!(self, Self::Event { .. })
    }

    /// Returns true if the relay accepts the payload from clients: a control message that
    /// clients send, or an event with `client_publish`. It refuses every other payload and
    /// never suggests one.
    #[must_use]
    pub fn is_taken_from_clients(self) -> bool {
        use ControlKind::{Authenticate, Ping, Subscribe, Unsubscribe};
        matches!(
            self,
            Self::Control(Subscribe | Unsubscribe | Ping | Authenticate)
                | Self::Event {
                    client_publish: true
                }
        )
    }
}

/// A payload that the schema knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadType {
    /// The number of its field in the envelope.
    pub number: u32,
    /// The name of its field.
    pub name: String,
    /// The kind: of the relay or of the application.
    pub kind: PayloadKind,
    /// The full name of its message.
    pub message: String,
    /// The names of the fields into which the relay writes the id of the sending user.
    pub sender: Vec<String>,
    /// True if the relay stores it as its sender's presence.
    pub presence: bool,
    /// For a presence payload, the value that means that the user is absent.
    pub absent: Option<AbsentValue>,
}

/// The value of a field that means that a user is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsentValue {
    /// The field's name.
    pub field: String,
    /// The value: the name for an enum, `true` or `false` for a bool.
    pub value: String,
}

impl PayloadType {
    /// Returns the payloads of the envelope, sorted by number.
    pub(super) fn of_envelope(
        envelope: &MessageDescriptor,
        annotations: &Annotations,
    ) -> Vec<Self> {
        let fields = envelope.fields().filter(|field| {
            let oneof = field.containing_oneof();
            oneof.is_some_and(|oneof| oneof.name() == PAYLOAD)
        });
        let mut payloads: Vec<_> = fields
            .map(|field| Self::of_field(&field, annotations))
            .collect();
        payloads.sort_by_key(|payload| payload.number);
        payloads
    }

    fn of_field(field: &FieldDescriptor, annotations: &Annotations) -> Self {
        let message = field.kind().as_message().cloned();
        let fields = message.as_ref().map(|it| annotations.annotated_fields(it));
        let fields = fields.unwrap_or_default();
        let senders = fields.iter().filter(|field| field.is_sender);
        Self {
            number: field.number(),
            name: field.name().to_owned(),
            kind: payload_kind(field, annotations),
            sender: senders.map(|field| field.name.clone()).collect(),
            presence: message
                .as_ref()
                .is_some_and(|it| annotations.is_presence(it)),
            absent: fields.iter().find_map(|field| {
                let value = field.absent.clone()?;
                let field = field.name.clone();
                Some(AbsentValue { field, value })
            }),
            message: message.map_or_else(String::new, |it| it.full_name().to_owned()),
        }
    }
}

fn payload_kind(field: &FieldDescriptor, annotations: &Annotations) -> PayloadKind {
    if let Some(control) = ControlKind::from_number(field.number()) {
        return PayloadKind::Control(control);
    }
    PayloadKind::Event {
        client_publish: field
            .kind()
            .as_message()
            .is_some_and(|message| annotations.is_client_publish(message)),
    }
}
