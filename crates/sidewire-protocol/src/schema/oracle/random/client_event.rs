//! Random envelopes from clients, with an event that clients may send. The fields that the relay
//! sets in it occur several times, anywhere among its other fields.

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor};

use super::{
    super::{
        client_events::{absent_value, client_payloads, sender_field},
        reference::top_level,
    },
    Member, Tape, encoded, field, message, shuffle,
};

/// Writes a well-formed envelope with an event of a client; `None` if clients may send none.
pub(in crate::schema::oracle) fn client_event(
    tape: &mut Tape<'_>,
    envelope: &MessageDescriptor,
) -> Option<Vec<u8>> {
    let payloads = client_payloads(envelope);
    if payloads.is_empty() {
        return None;
    }
    let payload = tape.pick(&payloads);
    let mut parts = vec![forged_payload(tape, payload)];
    let mut others = envelope.fields().collect::<Vec<_>>();
    others.retain(|other| other.containing_oneof().is_none());
    for other in others {
        if tape.one_in(3) {
            parts.push(encoded(tape, &Member::from(&other), 1));
        }
    }
    shuffle(tape, &mut parts);
    Some(parts.concat())
}

/// Writes a payload with up to three more occurrences of its sender and of its absent value.
fn forged_payload(tape: &mut Tape<'_>, payload: &FieldDescriptor) -> Vec<u8> {
    let descriptor = payload.kind().as_message().unwrap().clone();
    let bytes = message(tape, &descriptor, 0);
    let mut fields: Vec<_> = match top_level(&bytes) {
        Some(fields) => {
            let fields = fields.into_iter();
            fields.map(|field| bytes[field.range].to_vec()).collect()
        }
        None => vec![bytes],
    };
    let mut forged: Vec<_> = sender_field(&descriptor).into_iter().collect();
    if let Some((field, value)) = absent_value(&descriptor) {
        let mut absent = DynamicMessage::new(descriptor);
        absent.set_field(&field, value);
        if tape.one_in(2) {
            fields.push(absent.encode_to_vec());
        }
        forged.push(field);
    }
    for forged in forged {
        for _ in 0..tape.below(4) {
            let at = tape.below(fields.len() + 1);
            fields.insert(at, encoded(tape, &Member::from(&forged), 1));
        }
    }
    field(tape, payload.number(), &fields.concat())
}
