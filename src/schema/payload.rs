//! What an envelope can carry: the relay's control messages and the
//! application's events.

use prost_reflect::{FieldDescriptor, MessageDescriptor};

use super::{
    annotations::Annotations,
    relay_fields::{PAYLOAD, number},
};

/// One of the relay's own payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Control {
    /// Asks for topics.
    Subscribe,
    /// The answer to it.
    SubscriptionConfirmed,
    /// Gives topics up.
    Unsubscribe,
    /// The answer to it.
    UnsubscribeConfirmed,
    /// Asks for a sign of life.
    Ping,
    /// The answer to it.
    Pong,
    /// Says what was refused.
    Error,
    /// Several envelopes in one.
    Batch,
    /// Replaces the token of a connection.
    Authenticate,
    /// The answer to it.
    Authenticated,
}

impl Control {
    /// The control message of a number of the envelope.
    fn of(number: u32) -> Option<Self> {
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

/// Whose a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadKind {
    /// The relay's.
    Control(Control),
    /// The application's.
    Event {
        /// Whether clients may send it.
        client_publish: bool,
    },
}

impl PayloadKind {
    /// Whether it is the application's.
    #[must_use]
    pub fn is_event(self) -> bool {
        matches!(self, Self::Event { .. })
    }

    /// Whether the relay takes it from clients; it answers every other payload with a
    /// refusal, and suggests none of them.
    #[must_use]
    pub fn is_taken_from_clients(self) -> bool {
        matches!(
            self,
            Self::Control(Control::Subscribe | Control::Unsubscribe | Control::Ping)
        )
    }
}

/// A payload that the schema knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadType {
    /// Its number in the envelope.
    pub number: u32,
    /// Its field's name.
    pub name: String,
    /// Whose it is.
    pub kind: PayloadKind,
    /// The full name of its message.
    pub message: String,
    /// The names of its fields into which the relay puts the sending user's id.
    pub sender: Vec<String>,
    /// The relay remembers it as its sender's presence.
    pub presence: bool,
    /// For a presence payload: what means that the user is not there.
    pub absent: Option<Absent>,
}

/// The value of a field that means that a user is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// The field's name.
    pub field: String,
    /// The value: of an enum its name, of a bool `true` or `false`.
    pub value: String,
}

impl PayloadType {
    /// The payloads of the envelope, by number.
    pub(super) fn all(envelope: &MessageDescriptor, annotations: &Annotations) -> Vec<Self> {
        let fields = envelope.fields().filter(|field| {
            let oneof = field.containing_oneof();
            oneof.is_some_and(|oneof| oneof.name() == PAYLOAD)
        });
        let mut payloads: Vec<_> = fields.map(|field| Self::of(&field, annotations)).collect();
        payloads.sort_by_key(|payload| payload.number);
        payloads
    }

    fn of(field: &FieldDescriptor, annotations: &Annotations) -> Self {
        let message = field.kind().as_message().cloned();
        let fields = message.as_ref().map(|it| annotations.fields(it));
        let fields = fields.unwrap_or_default();
        let senders = fields.iter().filter(|field| field.is_sender);
        Self {
            number: field.number(),
            name: field.name().to_owned(),
            kind: kind(field, annotations),
            sender: senders.map(|field| field.name.clone()).collect(),
            presence: message.as_ref().is_some_and(|it| annotations.presence(it)),
            absent: fields.iter().find_map(|field| {
                let value = field.absent.clone()?;
                let field = field.name.clone();
                Some(Absent { field, value })
            }),
            message: message.map_or_else(String::new, |it| it.full_name().to_owned()),
        }
    }
}

fn kind(field: &FieldDescriptor, annotations: &Annotations) -> PayloadKind {
    if let Some(control) = Control::of(field.number()) {
        return PayloadKind::Control(control);
    }
    PayloadKind::Event {
        client_publish: field
            .kind()
            .as_message()
            .is_some_and(|message| annotations.client_publish(message)),
    }
}
