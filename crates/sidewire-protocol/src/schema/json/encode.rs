//! Encodes a message so that equal messages give equal bytes.

use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value};

/// Encodes a message with the entries of each map sorted by key. The order in which
/// prost-reflect keeps maps differs from run to run.
pub(in crate::schema) fn encode_sorted(message: &DynamicMessage) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, value) in message.fields() {
        if !encode_messages(field.number(), &field.kind(), value, &mut out) {
            let mut single = DynamicMessage::new(message.descriptor());
            single.set_field(&field, value.clone());
            out.append(&mut single.encode_to_vec());
        }
    }
    for (field, value) in message.extensions() {
        if !encode_messages(field.number(), &field.kind(), value, &mut out) {
            let mut single = DynamicMessage::new(message.descriptor());
            single.set_extension(&field, value.clone());
            out.append(&mut single.encode_to_vec());
        }
    }
    out
}

/// Encodes a value that consists of messages. Returns false for any other value.
fn encode_messages(number: u32, kind: &Kind, value: &Value, out: &mut Vec<u8>) -> bool {
    match (value, kind) {
        (Value::Message(message), _) => encode_message(number, message, out),
        (Value::List(values), Kind::Message(_)) => {
            for message in values.iter().filter_map(Value::as_message) {
                encode_message(number, message, out);
            }
        }
        (Value::Map(entries), Kind::Message(descriptor)) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            for (key, value) in entries {
                encode_message(number, &map_entry(descriptor, key, value), out);
            }
        }
        _ => return false,
    }
    true
}

fn encode_message(number: u32, message: &DynamicMessage, out: &mut Vec<u8>) {
    let bytes = encode_sorted(message);
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(u64::try_from(bytes.len()).unwrap_or(u64::MAX), out);
    out.extend(bytes);
}

/// Returns a map entry as a message, which is its form on the wire.
fn map_entry(descriptor: &MessageDescriptor, key: &MapKey, value: &Value) -> DynamicMessage {
    let mut entry = DynamicMessage::new(descriptor.clone());
    entry.set_field(&descriptor.map_entry_key_field(), key.clone().into());
    entry.set_field(&descriptor.map_entry_value_field(), value.clone());
    entry
}
