//! The verdict of prost-reflect on an envelope, and the reasons for which the relay may
//! differ from it.

use std::{collections::BTreeSet, ops::Range};

use prost::{
    Message as _,
    encoding::{DecodeContext, WireType, decode_key, skip_field},
};
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, ReflectMessage as _, Value,
};

use super::super::{InspectedEnvelope, Schema, WireError, WireFault};

/// The only reasons for which the relay is stricter than prost-reflect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deliberate {
    /// A group, even in an unknown field.
    Group,
    /// Two payloads, or one twice.
    SecondPayload,
    /// message_id, timestamp or position twice.
    RepeatedRelayField,
    /// One of the envelope's numbers 19 to 31.
    ReservedNumber,
    /// A map entry that is not length-delimited. prost-reflect ignores the wire type of map
    /// entries.
    MistypedMapEntry,
    /// An annotated field with an invalid topic id.
    NoTopic,
}

impl Deliberate {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Group,
        Self::SecondPayload,
        Self::RepeatedRelayField,
        Self::ReservedNumber,
        Self::MistypedMapEntry,
        Self::NoTopic,
    ];

    /// Returns the reason that justifies refusing what prost-reflect accepts, found in the
    /// bytes without the walk.
    fn of(schema: &Schema, error: &WireError, bytes: &[u8], topics: &Found) -> Option<Self> {
        // prost may be unable to read the rest, for example where prost-reflect ignores the wire
        // type of a map entry.
        let (fields, _) = readable_top_level(bytes);
        let count = |wanted: &dyn Fn(u32) -> bool| {
            fields.iter().filter(|field| wanted(field.number)).count()
        };
        let (reason, is_so) = match error.fault() {
            WireFault::Group => {
                let tag = bytes.get(error.offset()?)?;
                (Self::Group, matches!(tag & 7, 3 | 4))
            }
            WireFault::SecondPayload => (
                Self::SecondPayload,
                count(&|number| is_payload(schema, number)) > 1,
            ),
            WireFault::Repeated => {
                let repeated = [1, 8, 9].iter().any(|n| count(&|number| number == *n) > 1);
                (Self::RepeatedRelayField, repeated)
            }
            WireFault::Reserved => (
                Self::ReservedNumber,
                count(&|number| (19..=31).contains(&number)) > 0,
            ),
            // A wire type that prost-reflect ignores may also claim more bytes than there
            // are.
            WireFault::Mistyped | WireFault::Truncated => {
                let tag = decode_key(&mut bytes.get(error.offset()?..)?).ok()?;
                let is_map = is_map_somewhere(schema, tag.0);
                (
                    Self::MistypedMapEntry,
                    is_map && tag.1 != WireType::LengthDelimited,
                )
            }
            WireFault::Topic(_) | WireFault::Wildcard | WireFault::TenantTopic => {
                (Self::NoTopic, topics.has_invalid)
            }
            _ => return None,
        };
        is_so.then_some(reason)
    }
}

fn is_payload(schema: &Schema, number: u32) -> bool {
    let field = schema.envelope.get_field(number);
    field.is_some_and(|field| is_payload_field(&field))
}

/// Returns true if a field of the envelope is a member of `oneof payload`.
pub(super) fn is_payload_field(field: &FieldDescriptor) -> bool {
    let oneof = field.containing_oneof();
    oneof.is_some_and(|oneof| oneof.name() == "payload")
}

/// Returns true if `number` is the number of a map field in any message.
fn is_map_somewhere(schema: &Schema, number: u32) -> bool {
    let mut messages = schema.envelope.parent_pool().all_messages();
    messages.any(|message| {
        message
            .get_field(number)
            .is_some_and(|field| field.is_map())
    })
}

/// The topics that a decoded message names.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that are topics of events.
    pub valid: BTreeSet<String>,
    /// An annotated field holds an invalid topic.
    pub has_invalid: bool,
}

/// Returns the topics that the envelope names, found without the relay's code: decoded by
/// prost-reflect and walked field by field. `None` if it cannot be decoded.
#[must_use]
pub fn naive_topics(schema: &Schema, envelope: &[u8]) -> Option<Found> {
    let message = DynamicMessage::decode(schema.envelope.clone(), envelope).ok()?;
    Some(topics_in(&message))
}

/// Returns the bytes of the envelope that prost-reflect parses from the JSON.
#[must_use]
pub fn reflected_from_json(schema: &Schema, json: &[u8]) -> Option<Vec<u8>> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let descriptor = schema.envelope.clone();
    let message =
        DynamicMessage::deserialize_with_options(descriptor, &mut deserializer, &options).ok()?;
    Some(message.encode_to_vec())
}

pub(super) fn topics_in(message: &DynamicMessage) -> Found {
    let mut found = Found::default();
    collect(message, &mut found);
    found
}

/// The verdict on an envelope.
#[derive(Debug)]
pub enum Verdict {
    /// Both accept it and agree.
    Taken,
    /// Neither accepts it.
    RefusedByBoth,
    /// Only prost-reflect accepts it.
    RefusedByChoice(Deliberate),
}

/// Compares the relay's verdict on the envelope with that of prost-reflect.
///
/// # Panics
///
/// Panics if they differ without a justified reason.
pub fn judge(schema: &Schema, envelope: &[u8]) -> Verdict {
    let ours = schema.inspect(envelope);
    let theirs = DynamicMessage::decode(schema.envelope.clone(), envelope);
    let (message, inspected) = match (theirs, ours) {
        (Err(_), Err(_)) => return Verdict::RefusedByBoth,
        (Err(error), Ok(_)) => panic!("taken, but prost-reflect says: {error}"),
        (Ok(message), Err(error)) => {
            let found = topics_in(&message);
            let reason = Deliberate::of(schema, &error, envelope, &found);
            let reason = reason.unwrap_or_else(|| panic!("refused without reason: {error}"));
            return Verdict::RefusedByChoice(reason);
        }
        (Ok(message), Ok(inspected)) => (message, inspected),
    };
    let found = topics_in(&message);
    let topics: Vec<_> = inspected.topics.iter().map(ToString::to_string).collect();
    assert!(!found.has_invalid, "an invalid topic was let through");
    assert_eq!(
        topics.len(),
        found.valid.len(),
        "a topic came twice: {topics:?}"
    );
    assert_eq!(BTreeSet::from_iter(topics), found.valid);
    check_relay_fields(schema, &message, &inspected, envelope);
    Verdict::Taken
}

fn check_relay_fields(
    schema: &Schema,
    message: &DynamicMessage,
    inspected: &InspectedEnvelope<'_>,
    envelope: &[u8],
) {
    let value = |number| message.get_field_by_number(number).unwrap().into_owned();
    let fields = top_level(envelope).unwrap();
    assert_eq!(
        inspected.message_id.unwrap_or_default(),
        value(1).as_str().unwrap()
    );
    assert_ne!(inspected.message_id, Some(""));
    assert_eq!(
        inspected.timestamp.unwrap_or_default(),
        value(8).as_i64().unwrap()
    );
    assert_ne!(inspected.timestamp, Some(0));
    assert_eq!(inspected.has_position, message.has_field_by_number(9));
    let extra: Vec<_> = value(18).as_list().unwrap().to_vec();
    let extra: Vec<_> = extra.iter().map(|topic| topic.as_str().unwrap()).collect();
    assert_eq!(inspected.extra_topics, extra);
    let payload = fields.iter().find(|field| is_payload(schema, field.number));
    assert_eq!(
        inspected.payload.map(|p| p.number),
        payload.map(|p| p.number)
    );
    assert!(inspected.payload.is_none_or(|p| {
        let payload = &envelope[payload.unwrap().range.clone()];
        message.has_field_by_number(p.number) && payload.ends_with(p.bytes)
    }));
    let mut kept: Vec<u8> = Vec::new();
    for field in fields {
        let is_default = match field.number {
            1 => inspected.message_id.is_none(),
            8 => inspected.timestamp.is_none(),
            number => number == 18,
        };
        if !is_default {
            kept.extend(&envelope[field.range]);
        }
    }
    assert_eq!(inspected.kept_bytes().collect::<Vec<_>>().concat(), kept);
    assert_eq!(inspected.kept_len(), kept.len());
}

pub(super) struct TopField {
    pub(super) number: u32,
    pub(super) range: Range<usize>,
}

/// Returns the fields of the outermost message, read by prost; `None` if it cannot read
/// them.
pub(super) fn top_level(bytes: &[u8]) -> Option<Vec<TopField>> {
    let (fields, is_complete) = readable_top_level(bytes);
    is_complete.then_some(fields)
}

/// Returns the fields of the outermost message up to the first that prost cannot read, and true
/// if it can read all.
fn readable_top_level(bytes: &[u8]) -> (Vec<TopField>, bool) {
    let mut rest = bytes;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let start = bytes.len() - rest.len();
        let Some(number) = skip_top_field(&mut rest) else {
            return (fields, false);
        };
        let range = start..bytes.len() - rest.len();
        fields.push(TopField { number, range });
    }
    (fields, true)
}

/// Returns the number of the first field, after skipping it.
fn skip_top_field(rest: &mut &[u8]) -> Option<u32> {
    let (number, wire_type) = decode_key(rest).ok()?;
    if wire_type == WireType::EndGroup {
        return None;
    }
    skip_field(wire_type, number, rest, DecodeContext::default()).ok()?;
    Some(number)
}

/// Collects the topics of a message and its nested messages. The relay's own fields of an
/// envelope name no topics.
fn collect(message: &DynamicMessage, found: &mut Found) {
    let descriptor = message.descriptor();
    let is_envelope = descriptor
        .get_field_by_name("unsubscribe_confirmed")
        .is_some();
    for (field, value) in message.fields() {
        let is_relays = is_envelope && matches!(field.number(), 1 | 8..=31);
        if !is_relays {
            collect_value(topic_option(&field.options()).as_deref(), value, found);
        }
    }
    for (field, value) in message.extensions() {
        collect_value(topic_option(&field.options()).as_deref(), value, found);
    }
}

/// Returns the topic option of a field: a kind, or `*`.
pub(super) fn topic_option(options: &DynamicMessage) -> Option<String> {
    let pool = options.descriptor().parent_pool().clone();
    let option = pool.get_extension_by_name("sidewire.v1.topic")?;
    let value = options.get_extension(&option);
    Some(value.as_str()?.to_owned()).filter(|kind| !kind.is_empty())
}

fn collect_value(kind: Option<&str>, value: &Value, found: &mut Found) {
    match value {
        Value::Message(message) => collect(message, found),
        Value::List(values) => values
            .iter()
            .for_each(|value| collect_value(kind, value, found)),
        Value::Map(entries) => entries
            .values()
            .for_each(|value| collect_value(None, value, found)),
        Value::String(text) if !text.is_empty() => {
            let topic = match kind {
                None => return,
                Some("*") => text.clone(),
                Some(kind) => format!("{kind}:{text}"),
            };
            if is_topic_of_an_event(&topic) {
                found.valid.insert(topic);
            } else {
                found.has_invalid = true;
            }
        }
        _ => {}
    }
}

/// Returns true if an event may relate to the topic, by section 1 of the contract.
fn is_topic_of_an_event(topic: &str) -> bool {
    let Some((kind, id)) = topic.split_once(':') else {
        return false;
    };
    let is_kind = (1..=32).contains(&kind.len())
        && kind.starts_with(|first: char| first.is_ascii_lowercase())
        && kind
            .chars()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_');
    let is_id = (1..=256).contains(&id.len()) && !id.chars().any(char::is_control);
    is_kind && is_id && (kind == "tenant") == (id == "*")
}
