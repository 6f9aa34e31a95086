//! Errors about names that are unknown to the schema. They suggest the nearest known name,
//! or list all of them.

use prost_reflect::{FieldDescriptor, MessageDescriptor};

use super::super::{
    error::JsonError,
    payload::{PayloadKind, PayloadType},
    relay_fields::number,
};
use super::batch::MESSAGES;
use crate::{shorten::truncate_text, suggest::nearest_entry};

/// Maximum bytes of a name or a value that an error repeats.
pub(super) const NAME_BYTES_MAX: usize = 100;

/// Maximum bytes of a list of names in an error.
const LIST_BYTES_MAX: usize = 450;

/// The sender of the JSON, which determines the names that make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::schema) enum JsonSender {
    /// A backend, which posts events.
    Backend,
    /// A client, which sends control messages.
    Client,
}

/// The names that a sender may use in an envelope.
pub(in crate::schema) struct NameSuggester<'a> {
    pub(in crate::schema) envelope: &'a MessageDescriptor,
    pub(in crate::schema) payloads: &'a [PayloadType],
    pub(in crate::schema) sender: JsonSender,
}

impl NameSuggester<'_> {
    /// Returns the error about a name that is unknown in the message.
    pub(super) fn unknown_name(&self, message: &MessageDescriptor, name: &str) -> JsonError {
        let text = if message == self.envelope {
            self.unknown_in_envelope(name)
        } else {
            let known: Vec<_> = message.fields().collect();
            let shown = truncate_text(name, NAME_BYTES_MAX);
            match nearest_field(name, &known) {
                Some(near) => did_you_mean("field", name, near.json_name()),
                None if known.is_empty() => {
                    format!("unknown field `{shown}`; {} has no fields", message.name())
                }
                None => {
                    let list = list_names(&known);
                    format!("unknown field `{shown}`; {} has {list}", message.name())
                }
            }
        };
        JsonError::new(None, text)
    }

    fn unknown_in_envelope(&self, name: &str) -> String {
        let (payloads, fields): (Vec<_>, Vec<_>) = self
            .envelope
            .fields()
            .filter(|field| self.is_for_sender(field))
            .partition(|field| self.payload_kind(field).is_some());
        let known: Vec<_> = payloads.iter().chain(&fields).cloned().collect();
        let what = match self.sender {
            JsonSender::Backend => "event",
            JsonSender::Client => "message",
        };
        let near = nearest_field(name, &known).filter(|_| !self.is_batch(name));
        match near {
            Some(near) if self.payload_kind(near).is_some() => {
                did_you_mean(what, name, near.json_name())
            }
            Some(near) => did_you_mean("field", name, near.json_name()),
            None if self.is_batch(name) => {
                "`messages` is a batch, which is posted to events:batch; an event has one payload"
                    .to_owned()
            }
            None => format!(
                "unknown {what} `{}`; the {what}s are {}",
                truncate_text(name, NAME_BYTES_MAX),
                list_names(&payloads)
            ),
        }
    }

    /// Returns true if a backend sent a batch where a single event is expected.
    fn is_batch(&self, name: &str) -> bool {
        self.sender == JsonSender::Backend
            && name == MESSAGES
            && self.envelope.get_field(number::BATCH).is_some()
    }

    fn payload_kind(&self, field: &FieldDescriptor) -> Option<PayloadKind> {
        let payload = self.payloads.iter().find(|it| it.number == field.number());
        payload.map(|payload| payload.kind)
    }

    fn is_for_sender(&self, field: &FieldDescriptor) -> bool {
        match (self.sender, self.payload_kind(field)) {
            (JsonSender::Backend, Some(PayloadKind::Control(_))) => false,
            (JsonSender::Backend, Some(PayloadKind::Event { .. })) => true,
            (JsonSender::Client, Some(kind)) => kind.is_taken_from_clients(),
            (JsonSender::Backend, None) => field.number() != number::POSITION,
            (JsonSender::Client, None) => {
                ![number::POSITION, number::TOPICS].contains(&field.number())
            }
        }
    }
}

fn did_you_mean(what: &str, name: &str, near: &str) -> String {
    format!("unknown {what} `{name}`; did you mean `{near}`?")
}

/// Returns the field with the most similar name, in either style.
fn nearest_field<'a>(name: &str, known: &'a [FieldDescriptor]) -> Option<&'a FieldDescriptor> {
    let names = known
        .iter()
        .flat_map(|field| [(field.json_name(), field), (field.name(), field)]);
    nearest_entry(name, names)
}

/// Joins the names, up to the limit.
fn list_names(known: &[FieldDescriptor]) -> String {
    let mut list = String::new();
    for (index, field) in known.iter().enumerate() {
        if list.len() + field.json_name().len() > LIST_BYTES_MAX {
            let left = known.len() - index;
            return format!("{list} and {left} more");
        }
        if index > 0 {
            list.push_str(", ");
        }
        list.push_str(field.json_name());
    }
    list
}
