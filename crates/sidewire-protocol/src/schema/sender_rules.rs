//! The rule for the place of a `sender` field: at the top of a payload. The relay replaces it
//! only there, so that further down a client could name any user as the sender.

use std::collections::{HashSet, VecDeque};

use prost_reflect::{Kind, MessageDescriptor};

use super::{
    annotations::{Annotations, DeclaredField},
    payload::{PayloadKind, PayloadType},
    relay_fields::message_of,
    report::SchemaReport,
};

/// Reports each field below a payload that clients may send if its message has a sender.
pub(super) fn check(
    envelope: &MessageDescriptor,
    payloads: &[PayloadType],
    annotations: &Annotations,
    report: &mut SchemaReport,
) {
    let client_publish = PayloadKind::Event {
        client_publish: true,
    };
    let mut seen = HashSet::new();
    for payload in payloads.iter().filter(|it| it.kind == client_publish) {
        let mut waiting = VecDeque::from_iter(message_of(envelope, payload.number));
        while let Some(message) = waiting.pop_front() {
            if !seen.insert(message.full_name().to_owned()) {
                continue;
            }
            for field in annotations.annotated_fields(&message) {
                let Some(held) = held_message(&field) else {
                    continue;
                };
                if let Some(sender) = sender_of(&held, annotations) {
                    refuse_nested(&field, &sender, payload, report);
                }
                waiting.push_back(held);
            }
        }
    }
}

/// Returns the message that a field holds; for a map, that of its values.
fn held_message(field: &DeclaredField) -> Option<MessageDescriptor> {
    match &field.kind {
        Kind::Message(entry) if field.is_map => {
            entry.map_entry_value_field().kind().as_message().cloned()
        }
        kind => kind.as_message().cloned(),
    }
}

/// Returns the sender of a message that clients may send. That of another message is reported
/// by `annotation_rules`.
fn sender_of(message: &MessageDescriptor, annotations: &Annotations) -> Option<DeclaredField> {
    let mut fields = annotations.annotated_fields(message).into_iter();
    let sender = fields.find(|field| field.is_sender);
    sender.filter(|_| annotations.is_client_publish(message))
}

fn refuse_nested(
    field: &DeclaredField,
    sender: &DeclaredField,
    payload: &PayloadType,
    report: &mut SchemaReport,
) {
    report.error(
        field,
        format!(
            "{} is within {}, which clients may send, and holds the sender {}, which they could forge there",
            field.full_name, payload.message, sender.full_name
        ),
        "declare another message without a sender for this field: the relay sets the sender only at the top of a payload",
    );
}
