//! Sample events of any schema, for guides and docs: annotated fields hold ids, and a few
//! other fields hold values that fit their type.

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{
    Schema,
    annotations::TopicSource,
    payload::{PayloadKind, PayloadType},
    table::{RoutingTable, TableField, TypeIndex, ValueShape},
};
use crate::{Topic, topic::USER_KIND};

/// Maximum number of fields of a message that are filled in although they name no topic.
const OTHER_FIELDS_MAX: usize = 4;

/// Maximum nesting of messages in a sample; the second value is used only if the first
/// yields no topic.
const DEPTHS_MAX: [usize; 2] = [3, 8];

/// Maximum number of messages in a sample.
const MESSAGES_MAX: usize = 30;

/// The user in samples. `sidewire dev` prints a token for this user.
const USER: &str = "alice";

/// The topic of events that name none, in a schema without topic kinds.
const OTHER_TOPIC: &str = "example:1";

/// A sample event of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleEvent {
    /// The payload's name.
    pub payload: String,
    /// The envelope as proto3 JSON.
    pub event: Value,
    /// The topics that the event names itself.
    pub topics: Vec<Topic>,
    /// The topic to pass in the call, if the event names none.
    pub topic_in_call: Option<Topic>,
}

impl SampleEvent {
    /// Returns a topic to subscribe to in order to receive the event; `None` if it is
    /// delivered without a subscription.
    #[must_use]
    pub fn topic_to_follow(&self) -> Option<&Topic> {
        let topics = self.topics.iter().chain(&self.topic_in_call);
        let mut topics = topics.filter(|topic| !topic.is_implicit());
        topics.next()
    }
}

impl Schema {
    /// Returns a sample of the event that best demonstrates the schema: preferably one from
    /// a backend that names a topic to subscribe to. `None` for a schema without events.
    #[must_use]
    pub fn best_sample(&self) -> Option<SampleEvent> {
        self.events()
            .map(|payload| {
                let sample = self.sample_event(payload);
                let is_clients = payload.kind
                    == PayloadKind::Event {
                        client_publish: true,
                    };
                let names_no_topic = sample.topics.is_empty() || sample.topic_to_follow().is_none();
                ((is_clients, names_no_topic), sample)
            })
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, sample)| sample)
    }

    /// Returns a sample of an event.
    #[must_use]
    pub fn sample_event(&self, payload: &PayloadType) -> SampleEvent {
        let [shallow, deep] = DEPTHS_MAX;
        let sample = self.sample_within(payload, shallow);
        if sample.topics.is_empty() {
            self.sample_within(payload, deep)
        } else {
            sample
        }
    }

    fn sample_within(&self, payload: &PayloadType, depth_max: usize) -> SampleEvent {
        let event = self.sample_envelope(payload, depth_max);
        let bytes = self.envelope_from_json(event.to_string().as_bytes());
        let bytes = bytes.unwrap_or_default();
        let topics = self.inspect(&bytes).map(|it| it.topics).unwrap_or_default();
        SampleEvent {
            payload: payload.name.clone(),
            topic_in_call: topics.is_empty().then(|| self.sample_topic()),
            event,
            topics,
        }
    }

    fn sample_envelope(&self, payload: &PayloadType, depth_max: usize) -> Value {
        let field = self.envelope.get_field(payload.number);
        let Some(field) = field else {
            return json!({});
        };
        let index = self.table.get(RoutingTable::ENVELOPE).and_then(|envelope| {
            let field = envelope.field(payload.number)?;
            match field.shape {
                ValueShape::Message(index) => Some(index),
                _ => None,
            }
        });
        let message = match (index, field.kind()) {
            (Some(index), Kind::Message(message)) => {
                let mut sampler = SampleBuilder {
                    schema: self,
                    payload,
                    depth_max,
                    messages: 0,
                };
                Value::Object(sampler.sample_message(index, &message, &mut Vec::new()))
            }
            _ => json!({}),
        };
        json!({ field.json_name(): message })
    }

    /// Returns a topic of the schema's first kind.
    fn sample_topic(&self) -> Topic {
        let lists = self.subscribe_lists().as_slice().first();
        let listed = lists.and_then(|list| Topic::new(&list.kind, &id_of(&list.kind)).ok());
        listed
            .or_else(|| Topic::parse(OTHER_TOPIC).ok())
            .unwrap_or_else(Topic::everyone)
    }
}

struct SampleBuilder<'s> {
    schema: &'s Schema,
    payload: &'s PayloadType,
    depth_max: usize,
    /// Number of messages so far.
    messages: usize,
}

impl<'s> SampleBuilder<'s> {
    /// Creates a sample of a message. `outer` are the messages that contain it.
    fn sample_message(
        &mut self,
        index: TypeIndex,
        message: &MessageDescriptor,
        outer: &mut Vec<TypeIndex>,
    ) -> Map<String, Value> {
        let is_outermost = outer.is_empty();
        self.messages += 1;
        let mut sample = Map::new();
        let mut others = 0;
        outer.push(index);
        for field in sampled_fields(self.schema, index, message) {
            let known = self.schema.table.get(index);
            let known = known.and_then(|kind| kind.field(field.number()));
            let value = match known {
                Some(known) if known.is_routing => self.routing_value(known, &field, outer),
                _ if others < OTHER_FIELDS_MAX => {
                    let value = self.other_value(&field, is_outermost);
                    others += usize::from(value.is_some());
                    value
                }
                _ => None,
            };
            if let Some(value) = value {
                sample.insert(field.json_name().to_owned(), value);
            }
        }
        outer.pop();
        sample
    }

    /// Returns the value of an annotated field, or of a field with an annotated field below
    /// it.
    fn routing_value(
        &mut self,
        known: &TableField,
        field: &FieldDescriptor,
        outer: &mut Vec<TypeIndex>,
    ) -> Option<Value> {
        if let Some(source) = &known.topic {
            let value = match source {
                TopicSource::Kind(kind) => id_of(kind),
                TopicSource::Whole => self.schema.sample_topic().to_string(),
            };
            return Some(if known.is_list() {
                json!([value])
            } else {
                json!(value)
            });
        }
        let Kind::Message(message) = field.kind() else {
            return None;
        };
        match known.shape {
            ValueShape::Message(index) => {
                let inner = self.nested_message(index, &message, outer)?;
                Some(if known.is_list() {
                    json!([inner])
                } else {
                    inner
                })
            }
            ValueShape::MapEntry(entry) => {
                let value = self.schema.table.map_value(entry)?;
                let ValueShape::Message(index) = value.shape else {
                    return None;
                };
                let key = match message.map_entry_key_field().kind() {
                    Kind::Bool => "true",
                    Kind::String => "first",
                    _ => "1",
                };
                match message.map_entry_value_field().kind() {
                    Kind::Message(message) => {
                        Some(json!({ key: self.nested_message(index, &message, outer)? }))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Creates a nested message, unless it is recursive or a limit is reached.
    fn nested_message(
        &mut self,
        index: TypeIndex,
        message: &MessageDescriptor,
        outer: &mut Vec<TypeIndex>,
    ) -> Option<Value> {
        let is_fit =
            !outer.contains(&index) && outer.len() < self.depth_max && self.messages < MESSAGES_MAX;
        is_fit.then(|| Value::Object(self.sample_message(index, message, outer)))
    }

    /// Returns the value of a field that names no topic; `None` if it is left out.
    fn other_value(&self, field: &FieldDescriptor, is_outermost: bool) -> Option<Value> {
        if field.is_list() || field.is_map() {
            return None;
        }
        let absent = self.payload.absent.as_ref();
        let absent = absent.filter(|it| is_outermost && it.field == field.name());
        let is_sender = is_outermost && self.payload.sender.iter().any(|it| it == field.name());
        Some(match field.kind() {
            // The value might be the one that means that the user is absent.
            Kind::String | Kind::Bool if absent.is_some() => return None,
            Kind::String if is_sender => json!(USER),
            Kind::String => json!(text_for(field.name())),
            Kind::Bool => json!(true),
            Kind::Enum(kind) => json!(enum_value(&kind, absent.map(|it| it.value.as_str()))?),
            Kind::Message(message) => match message.full_name() {
                "google.protobuf.Timestamp" => json!("2026-01-01T12:00:00Z"),
                "google.protobuf.Struct" | "google.protobuf.Value" => json!({"answer": 42}),
                _ => return None,
            },
            Kind::Bytes => return None,
            Kind::Double | Kind::Float => json!(1.5),
            _ => json!(1),
        })
    }
}

/// Returns the fields of a sample. Of each oneof it selects one member, preferably one that
/// leads to a topic.
fn sampled_fields(
    schema: &Schema,
    index: TypeIndex,
    message: &MessageDescriptor,
) -> Vec<FieldDescriptor> {
    let kind = schema.table.get(index);
    let is_routing = |field: &FieldDescriptor| {
        let known = kind.and_then(|kind| kind.field(field.number()));
        known.is_some_and(|known| known.is_routing)
    };
    let is_chosen = |field: &FieldDescriptor| {
        let oneof = field.containing_oneof().filter(|it| !it.is_synthetic());
        oneof.is_none_or(|oneof| {
            let members = || oneof.fields();
            let chosen = members().find(is_routing).or_else(|| members().next());
            chosen.is_some_and(|chosen| chosen.number() == field.number())
        })
    };
    message.fields().filter(is_chosen).collect()
}

fn id_of(kind: &str) -> String {
    match kind {
        USER_KIND => USER.to_owned(),
        kind => format!("{kind}-1"),
    }
}

fn text_for(name: &str) -> String {
    match name.strip_suffix("_id").unwrap_or(name) {
        "user" | "author" | "sender" | "actor" => USER.to_owned(),
        "id" => "1".to_owned(),
        thing if thing.len() < name.len() => format!("{thing}-1"),
        name => format!("some {}", name.replace('_', " ")),
    }
}

/// Returns a value that is neither the default nor `absent`.
fn enum_value(kind: &EnumDescriptor, absent: Option<&str>) -> Option<String> {
    if kind.full_name() == "google.protobuf.NullValue" {
        return None;
    }
    let is_fit = |name: &str| Some(name) != absent;
    let mut values = kind.values();
    let value = values.find(|it| it.number() != 0 && is_fit(it.name()));
    value.map(|value| value.name().to_owned())
}
