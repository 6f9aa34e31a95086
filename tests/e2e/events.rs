//! Every event of the tracker schema travels from a backend to a client of each of its
//! topics, with nothing lost and nothing else added.

use prost::Message as _;
use prost_reflect::{
    DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, SerializeOptions, Value,
};
use sidewire_client::PublishEncoding;
use sidewire_protocol::schema::PayloadKind;

use crate::{
    client::TestClient,
    event_bytes::{check_bytes, post},
    support::TestRelay,
    vocabulary::only_with_tracker,
};

/// The events, each with its topics when every field is filled: strings contain the path
/// that leads to them.
const EVENTS: [(&str, &[&str]); 20] = [
    ("work_item_created", WORK_ITEM),
    ("work_item_updated", WORK_ITEM),
    (
        "work_item_deleted",
        &[
            "project:project_id",
            "sprint:sprint_id",
            "work_item:work_item_id",
            "work_item:parent_id",
        ],
    ),
    (
        "comment_added",
        &["project:project_id", "work_item:comment.work_item_id"],
    ),
    ("sprint_updated", SPRINT),
    (
        "user_presence",
        &[
            "project:project_id",
            "work_item:viewing_item_id",
            "work_item:editing_item_id",
        ],
    ),
    (
        "work_item_moved",
        &[
            "project:project_id",
            "sprint:new_sprint_id",
            "sprint:old_sprint_id",
            "work_item:work_item_id",
            "work_item:new_parent_id",
            "work_item:old_parent_id",
        ],
    ),
    ("sprint_created", SPRINT),
    (
        "sprint_deleted",
        &["project:project_id", "sprint:sprint_id"],
    ),
    (
        "sprint_started",
        &["project:project_id", "sprint:sprint_id"],
    ),
    (
        "sprint_completed",
        &["project:project_id", "sprint:sprint_id"],
    ),
    (
        "comment_updated",
        &["project:project_id", "work_item:comment.work_item_id"],
    ),
    (
        "comment_deleted",
        &["project:project_id", "work_item:work_item_id"],
    ),
    (
        "time_entry_started",
        &["project:project_id", "work_item:time_entry.work_item_id"],
    ),
    (
        "time_entry_stopped",
        &["project:project_id", "work_item:time_entry.work_item_id"],
    ),
    (
        "time_entry_updated",
        &["project:project_id", "work_item:time_entry.work_item_id"],
    ),
    (
        "time_entry_deleted",
        &["project:project_id", "work_item:work_item_id"],
    ),
    (
        "dependency_created",
        &[
            "project:project_id",
            "work_item:dependency.blocking_item_id",
            "work_item:dependency.blocked_item_id",
        ],
    ),
    (
        "dependency_deleted",
        &[
            "project:project_id",
            "work_item:blocking_item_id",
            "work_item:blocked_item_id",
        ],
    ),
    (
        "user_typing",
        &["project:project_id", "work_item:work_item_id"],
    ),
];

const WORK_ITEM: &[&str] = &[
    "project:work_item.project_id",
    "sprint:work_item.sprint_id",
    "work_item:work_item.id",
    "work_item:work_item.parent_id",
];

const SPRINT: &[&str] = &["project:sprint.project_id", "sprint:sprint.id"];

#[tokio::test]
async fn every_event_arrives_whole_at_a_client_of_each_topic_that_it_names() {
    if !only_with_tracker("the table is of its twenty events") {
        return;
    }
    let relay = TestRelay::start();
    let schema = envelope();
    let mut stranger = relay.connect_binary("acme", "eve").await;
    stranger.subscribe(&["project:elsewhere"]).await;
    let mut foreigner = relay.connect_binary("other", "ann").await;

    let mut events = 0;
    for payload in relay.schema.payloads() {
        if !matches!(payload.kind, PayloadKind::Event { .. }) {
            continue;
        }
        events += 1;
        let (_, topics) = EVENTS
            .iter()
            .find(|(name, _)| *name == payload.name)
            .unwrap_or_else(|| panic!("{} is in the table", payload.name));
        foreigner.subscribe(topics).await;
        let mut clients = Vec::new();
        for topic in *topics {
            let mut client = relay.connect_binary("acme", "ann").await;
            client.subscribe(&[topic]).await;
            clients.push(client);
        }
        let event = event(&schema, payload.number);
        check_protobuf(&relay, &event, &mut clients).await;
        for with_proto_names in [false, true] {
            check_json(&relay, &event, with_proto_names, &mut clients).await;
        }
        for client in &mut clients {
            client.nothing_more().await;
        }
    }
    assert_eq!(events, EVENTS.len());
    stranger.nothing_more().await;
    foreigner.nothing_more().await;
    drop((stranger, foreigner));
    assert!(relay.stop().await);
}

async fn check_protobuf(relay: &TestRelay, event: &DynamicMessage, clients: &mut [TestClient]) {
    let sent = event.encode_to_vec();
    let published = post(relay, sent.clone(), PublishEncoding::Protobuf).await;
    assert_eq!(published.matched, Some(clients.len() as u64));
    for client in clients {
        let received = client.event().await;
        check_bytes(&received, &published, &sent, true, true);
    }
}

async fn check_json(
    relay: &TestRelay,
    event: &DynamicMessage,
    with_proto_names: bool,
    clients: &mut [TestClient],
) {
    let options = SerializeOptions::new().use_proto_field_name(with_proto_names);
    let json = event
        .serialize_with_options(serde_json::value::Serializer, &options)
        .unwrap();
    let published = post(relay, json.to_string(), PublishEncoding::Json).await;
    assert_eq!(published.matched, Some(clients.len() as u64));
    for client in clients {
        let received = client.event().await;
        let mut message = DynamicMessage::decode(event.descriptor(), received.envelope).unwrap();
        for own in ["message_id", "timestamp", "position"] {
            assert!(message.has_field_by_name(own), "{own}");
            message.clear_field_by_name(own);
        }
        assert_eq!(&message, event);
        assert_eq!(received.message_id, published.message_id);
        assert_eq!(received.position.as_ref(), Some(&published.position));
    }
}

/// Returns the envelope's descriptor, from the same files that others generate code from.
fn envelope() -> MessageDescriptor {
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let files = protox::Compiler::new([proto])
        .unwrap()
        .open_file("tracker/v1/envelope.proto")
        .unwrap()
        .descriptor_pool();
    files
        .get_message_by_name("tracker.v1.WebSocketMessage")
        .unwrap()
}

/// Returns the envelope with this payload, in which every field is filled.
fn event(envelope: &MessageDescriptor, number: u32) -> DynamicMessage {
    let field = envelope.get_field(number).unwrap();
    let mut event = DynamicMessage::new(envelope.clone());
    event.set_field(&field, filled(&field.kind(), "", number));
    event
}

fn filled(kind: &Kind, path: &str, number: u32) -> Value {
    match kind {
        Kind::String => Value::String(path.to_owned()),
        Kind::Bool => Value::Bool(true),
        Kind::Int32 => Value::I32(-(number as i32)),
        Kind::Int64 => Value::I64(i64::MAX - i64::from(number)),
        Kind::Enum(values) => Value::EnumNumber(values.values().last().unwrap().number()),
        Kind::Message(descriptor) => Value::Message(filled_message(descriptor, path)),
        other => panic!("no event has a field of {other:?}"),
    }
}

fn filled_message(descriptor: &MessageDescriptor, path: &str) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{}", field.name());
        let value = if field.is_list() {
            let items = (0..2).map(|i| filled(&field.kind(), &format!("{path}[{i}]"), i + 1));
            Value::List(items.collect())
        } else {
            filled(&field.kind(), &path, field.number())
        };
        message.set_field(&field, value);
        assert!(message.has_field(&field), "{}", field.full_name());
    }
    message
}
