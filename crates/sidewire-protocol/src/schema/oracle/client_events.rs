//! What the relay makes of the events of clients, compared with prost-reflect: their topics, the
//! sender, and the value that means that a user is absent.

use std::collections::BTreeSet;

use prost::encoding::{DecodeContext, decode_key};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};

use super::{
    super::{
        InspectLimits, InspectedEnvelope, InspectedPayload, Schema, WireError, json::encode_sorted,
    },
    reference::{Found, is_payload_field, top_level, topics_in},
};

const NO_LIMITS: InspectLimits = InspectLimits {
    topics: usize::MAX,
    decoded_bytes: usize::MAX,
};

/// The user who sends the events, whom no random event names.
const USER: &str = "the user";

/// Compares what the relay makes of an envelope from a client with what prost-reflect makes of
/// it. Returns true if it holds a client event that the relay accepts.
///
/// # Panics
///
/// Panics if they differ.
pub fn judge_client_event(schema: &Schema, envelope: &[u8]) -> bool {
    let inspected = match schema.inspect_from_client(envelope, NO_LIMITS) {
        Ok(inspected) => inspected,
        Err(error) => {
            check_refusal(schema, envelope, &error);
            return false;
        }
    };
    assert!(schema.inspect_unrouted(envelope).is_ok());
    let client_event = inspected
        .payload
        .filter(|payload| client_payload(schema, payload.number).is_some());
    let Some(payload) = client_event else {
        assert_eq!(inspected.topics, []);
        return false;
    };
    let named = named_topics(schema, &payload);
    assert!(!named.has_invalid, "an invalid topic was let through");
    check_topics(&inspected, &named);
    check_stamp(schema, &payload);
    check_absent(schema, &payload);
    true
}

fn check_refusal(schema: &Schema, envelope: &[u8], error: &WireError) {
    assert!(schema.inspect(envelope).is_err(), "{error}");
    let Ok(unrouted) = schema.inspect_unrouted(envelope) else {
        return;
    };
    let payload = unrouted.payload.expect("only a payload names topics");
    assert!(named_topics(schema, &payload).has_invalid, "{error}");
}

fn check_topics(inspected: &InspectedEnvelope<'_>, named: &Found) {
    let topics: Vec<_> = inspected.topics.iter().map(ToString::to_string).collect();
    assert_eq!(topics.len(), named.valid.len(), "twice: {topics:?}");
    assert_eq!(BTreeSet::from_iter(topics), named.valid);
}

/// Checks that the payload that goes on differs from the one that came only in its sender.
fn check_stamp(schema: &Schema, payload: &InspectedPayload<'_>) {
    let mut stamped = Vec::new();
    schema.append_client_event(payload, USER, &mut stamped);
    let after = only_field(&stamped, payload.number);
    let sender = sender_field(&descriptor_of(schema, payload));
    let change = sender.map(|field| (field, Value::String(USER.to_owned())));
    check_change(schema, payload, &after, change.as_ref());
}

/// Checks that absent is recognised, and written without another change.
fn check_absent(schema: &Schema, payload: &InspectedPayload<'_>) {
    let descriptor = descriptor_of(schema, payload);
    let is_presence = message_option(&descriptor, "presence");
    assert_eq!(schema.is_presence(payload.number), is_presence);
    let absent = absent_value(&descriptor);
    let is_absent = absent.as_ref().is_some_and(|(field, value)| {
        let message = DynamicMessage::decode(descriptor, payload.bytes).unwrap();
        let is_set = message.has_field(field) || !field.supports_presence();
        is_set && *message.get_field(field) == *value
    });
    assert_eq!(schema.is_absent(payload), is_absent);

    // The message_id "id".
    let mut envelope = b"\x0a\x02id".to_vec();
    schema.append_client_event(payload, USER, &mut envelope);
    let sent = schema.inspect_unrouted(&envelope).unwrap();
    let mut written = Vec::new();
    let is_written = schema.append_absent(&envelope, &mut written);
    assert_eq!(is_written, absent.is_some());
    if is_written {
        let after = only_field(&written, payload.number);
        check_change(schema, &sent.payload.unwrap(), &after, absent.as_ref());
        let bytes = &after;
        assert!(schema.is_absent(&InspectedPayload { bytes, ..*payload }));
    }
}

/// Checks that the payload has the field set to the value, once, and is otherwise as before.
fn check_change(
    schema: &Schema,
    before: &InspectedPayload<'_>,
    after: &[u8],
    change: Option<&(FieldDescriptor, Value)>,
) {
    let decode = |bytes| DynamicMessage::decode(descriptor_of(schema, before), bytes).unwrap();
    let mut expected = decode(before.bytes);
    if let Some((field, value)) = change {
        expected.set_field(field, value.clone());
    }
    assert_eq!(encode_sorted(&decode(after)), encode_sorted(&expected));
    let number = change.map(|(field, _)| field.number());
    let (kept, _) = split_fields(before.bytes, number);
    let (kept_after, count) = split_fields(after, number);
    assert_eq!(kept_after, kept, "another field changed");
    assert_eq!(count, usize::from(change.is_some()));
}

/// Returns the fields without those of this number, in order, and the number of those.
fn split_fields(message: &[u8], number: Option<u32>) -> (Vec<&[u8]>, usize) {
    let fields = top_level(message).unwrap().into_iter();
    let (changed, kept): (Vec<_>, Vec<_>) = fields.partition(|field| Some(field.number) == number);
    let kept = kept.into_iter().map(|field| &message[field.range]);
    (kept.collect(), changed.len())
}

/// Returns the bytes of the message that is the only field of `envelope`.
fn only_field(envelope: &[u8], number: u32) -> Vec<u8> {
    let fields = top_level(envelope).unwrap();
    assert_eq!(fields.len(), 1);
    assert_eq!(fields[0].number, number);
    let (mut rest, mut bytes) = (envelope, Vec::new());
    let (_, wire_type) = decode_key(&mut rest).unwrap();
    prost::encoding::bytes::merge(wire_type, &mut bytes, &mut rest, DecodeContext::default())
        .unwrap();
    bytes
}

/// Returns the topics that the payload names without its sender.
fn named_topics(schema: &Schema, payload: &InspectedPayload<'_>) -> Found {
    let descriptor = descriptor_of(schema, payload);
    let mut message = DynamicMessage::decode(descriptor.clone(), payload.bytes).unwrap();
    if let Some(sender) = sender_field(&descriptor) {
        message.clear_field(&sender);
    }
    topics_in(&message)
}

fn descriptor_of(schema: &Schema, payload: &InspectedPayload<'_>) -> MessageDescriptor {
    let field = schema.envelope.get_field(payload.number).unwrap();
    field.kind().as_message().unwrap().clone()
}

fn client_payload(schema: &Schema, number: u32) -> Option<FieldDescriptor> {
    let mut payloads = client_payloads(&schema.envelope).into_iter();
    payloads.find(|field| field.number() == number)
}

/// Returns the payloads that clients may send, by their options.
pub(super) fn client_payloads(envelope: &MessageDescriptor) -> Vec<FieldDescriptor> {
    let payloads = envelope.fields().filter(is_payload_field);
    let sent = payloads.filter(|field| {
        let kind = field.kind();
        let message = kind.as_message().unwrap();
        message_option(message, "client_publish") || message_option(message, "presence")
    });
    sent.collect()
}

/// Returns the field of a message that receives the sender.
pub(super) fn sender_field(message: &MessageDescriptor) -> Option<FieldDescriptor> {
    let is_sender = |field: &FieldDescriptor| {
        option(&field.options(), "sender").is_some_and(|value| value == Value::Bool(true))
    };
    message.fields().find(is_sender)
}

/// Returns the field of a message that says whether a user is absent, and the value for it.
pub(super) fn absent_value(message: &MessageDescriptor) -> Option<(FieldDescriptor, Value)> {
    message.fields().find_map(|field| {
        let text = option(&field.options(), "absent")?;
        let text = text.as_str()?.to_owned();
        let value = match field.kind() {
            Kind::Bool => Value::Bool(text == "true"),
            Kind::Enum(kind) => Value::EnumNumber(kind.get_value_by_name(&text)?.number()),
            _ => Value::String(text),
        };
        Some((field, value))
    })
}

fn message_option(message: &MessageDescriptor, name: &str) -> bool {
    option(&message.options(), name) == Some(Value::Bool(true))
}

/// Returns the value of one of Sidewire's options, if it is set.
fn option(options: &DynamicMessage, name: &str) -> Option<Value> {
    let pool = options.descriptor().parent_pool().clone();
    let option = pool.get_extension_by_name(&format!("sidewire.v1.{name}"))?;
    let is_set = options.has_extension(&option);
    is_set.then(|| options.get_extension(&option).into_owned())
}
