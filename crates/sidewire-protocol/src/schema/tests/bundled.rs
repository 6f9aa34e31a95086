//! The bundled schema agrees with the contract.

use std::collections::BTreeSet;

use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};

use super::{
    super::{BundledSchema, ControlKind, PayloadKind, Schema},
    topics,
};
use prost::Message as _;

const EVENTS: [(u32, &str); 20] = [
    (2, "work_item_created"),
    (3, "work_item_updated"),
    (4, "work_item_deleted"),
    (5, "comment_added"),
    (6, "sprint_updated"),
    (7, "user_presence"),
    (32, "work_item_moved"),
    (33, "sprint_created"),
    (34, "sprint_deleted"),
    (35, "sprint_started"),
    (36, "sprint_completed"),
    (37, "comment_updated"),
    (38, "comment_deleted"),
    (39, "time_entry_started"),
    (40, "time_entry_stopped"),
    (41, "time_entry_updated"),
    (42, "time_entry_deleted"),
    (43, "dependency_created"),
    (44, "dependency_deleted"),
    (45, "user_typing"),
];

#[test]
fn the_bundled_schema_has_the_twenty_events_and_ten_control_messages() {
    let schema = Schema::bundled().unwrap();
    let (events, control): (Vec<_>, Vec<_>) = schema
        .payloads()
        .iter()
        .partition(|payload| matches!(payload.kind, PayloadKind::Event { .. }));
    let numbered: Vec<_> = events
        .iter()
        .map(|event| (event.number, event.name.as_str()))
        .collect();
    assert_eq!(numbered, EVENTS);
    let control: Vec<_> = control.iter().map(|payload| payload.kind).collect();
    let expected = [
        ControlKind::Subscribe,
        ControlKind::SubscriptionConfirmed,
        ControlKind::Unsubscribe,
        ControlKind::UnsubscribeConfirmed,
        ControlKind::Ping,
        ControlKind::Pong,
        ControlKind::Error,
        ControlKind::Batch,
        ControlKind::Authenticate,
        ControlKind::Authenticated,
    ];
    assert_eq!(control, expected.map(PayloadKind::Control));
}

#[test]
fn clients_may_publish_only_presence_and_typing() {
    let schema = Schema::bundled().unwrap();
    let published: Vec<_> = schema
        .payloads()
        .iter()
        .filter(|payload| {
            payload.kind
                == PayloadKind::Event {
                    client_publish: true,
                }
        })
        .map(|payload| payload.name.as_str())
        .collect();
    assert_eq!(published, ["user_presence", "user_typing"]);
}

/// Returns a message with every field set; strings hold the name of their field.
fn full(descriptor: &MessageDescriptor) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let value = match field.kind() {
            Kind::String => Value::String(field.name().to_owned()),
            Kind::Message(inner) => Value::Message(full(&inner)),
            kind => Value::default_value(&kind),
        };
        let value = if field.is_list() {
            Value::List(vec![value])
        } else {
            value
        };
        message.set_field(&field, value);
    }
    message
}

#[test]
fn every_event_names_its_project_its_user_and_every_id_that_it_has() {
    let schema = Schema::bundled().unwrap();
    for (number, name) in EVENTS {
        let field = schema.envelope.get_field(number).unwrap();
        let event = full(field.kind().as_message().unwrap());
        assert!(event.has_field_by_name("user_id"), "{name}");
        let mut envelope = DynamicMessage::new(schema.envelope.clone());
        envelope.set_field(&field, Value::Message(event.clone()));
        let bytes = envelope.encode_to_vec();
        let inspected = schema.inspect(&bytes).unwrap();
        let found = BTreeSet::from_iter(topics(&inspected));
        assert_eq!(found, expected_topics(&event), "{name}");
        assert!(found.contains("project:project_id"), "{name}");
        assert_eq!(inspected.payload.unwrap().name, name);
    }
}

/// Returns the topics to expect from the names of the fields.
fn expected_topics(message: &DynamicMessage) -> BTreeSet<String> {
    let mut expected = BTreeSet::new();
    for (field, value) in message.fields() {
        if let Value::Message(inner) = value {
            expected.extend(expected_topics(inner));
        }
        let name = field.name();
        let entity = field.parent_message().name();
        let kind = match (name, entity) {
            ("id", "Sprint") => "sprint",
            ("id", "WorkItem") => "work_item",
            _ if name.ends_with("project_id") => "project",
            _ if name.ends_with("sprint_id") => "sprint",
            _ if name.ends_with("item_id") || name.ends_with("parent_id") => "work_item",
            _ => continue,
        };
        expected.insert(format!("{kind}:{name}"));
    }
    expected
}

#[test]
fn the_sample_event_relates_to_the_sample_topic() {
    let bundled = BundledSchema::load_default().unwrap();
    let schema = bundled.compile().unwrap();
    let event = schema
        .envelope_from_json(bundled.sample_event.as_bytes())
        .unwrap();
    let inspected = schema.inspect(&event).unwrap();
    assert!(topics(&inspected).contains(&bundled.sample_topic));
    assert!(
        !bundled.sample_event.contains(['\'', '\n']),
        "is to be pasted into a shell"
    );
}

#[test]
fn the_bundled_schemas_have_no_diagnostics() {
    for bundled in BundledSchema::load_all().unwrap() {
        let schema = bundled.compile().unwrap();
        assert_eq!(schema.diagnostics(), [], "{}", bundled.name);
        let pool = schema.envelope.parent_pool();
        let others = BundledSchema::load_all()
            .unwrap()
            .into_iter()
            .filter(|it| *it != bundled);
        for other in others {
            let foreign = pool.get_message_by_name(&other.envelope);
            assert!(foreign.is_none(), "{}: {foreign:?}", bundled.name);
        }
    }
}
