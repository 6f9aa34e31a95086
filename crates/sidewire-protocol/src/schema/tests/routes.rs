//! The routing table and the samples of a schema.

use std::fmt::Write;

use super::{pool_of, torture};
use crate::schema::{BundledSchema, PayloadKind, Schema, TopicRoutes};

fn routes(schema: &Schema, name: &str) -> TopicRoutes {
    let payload = schema.events().find(|payload| payload.name == name);
    schema.payload_routes(payload.unwrap())
}

#[test]
fn every_path_to_an_annotated_field_is_listed_once() {
    let routes = routes(&torture(), "tree");
    let paths: Vec<_> = routes.paths.iter().map(|it| it.path.as_str()).collect();
    let expected = [
        "id",
        "note",
        "tags[]",
        "choice.name",
        "quoted.legacy.id",
        "quoted.legacy.[test.v1.label]",
        "quoted.trace",
        "owner",
    ];
    for path in expected {
        assert!(paths.contains(&path), "{path} is not in {paths:?}");
    }
    let recursions = routes.recursions.iter();
    let recursions: Vec<_> = recursions
        .map(|it| (it.path.as_str(), it.same_as.as_str()))
        .collect();
    for recursion in [
        ("left", ""),
        ("children[]", ""),
        ("named{}", ""),
        ("numbered{}", ""),
        ("choice.tree", ""),
        ("quoted.tree", ""),
        ("quoted.legacy.below", "quoted.legacy"),
    ] {
        assert!(recursions.contains(&recursion), "{recursions:?}");
    }
    assert!(!routes.is_cut);
}

#[test]
fn a_path_has_the_json_names_and_the_numbers() {
    let schema = Schema::bundled().unwrap();
    let routes = routes(&schema, "work_item_created");
    let path = routes
        .paths
        .iter()
        .find(|it| it.path == "work_item.project_id");
    let path = path.unwrap();
    assert_eq!(path.json_path, "workItem.projectId");
    assert_eq!(path.numbers.len(), 2);
    assert_eq!(path.kind.as_deref(), Some("project"));
}

#[test]
fn the_fields_of_the_envelope_beside_the_payload_are_listed_apart() {
    let paths = torture().envelope_routes().paths;
    let paths: Vec<_> = paths.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(paths, ["trace"]);
    let bundled = Schema::bundled().unwrap();
    assert_eq!(bundled.envelope_routes(), TopicRoutes::default());
}

/// Returns a schema of `count` messages, each of which contains all others.
fn entangled(count: usize) -> Schema {
    let mut text = String::from(
        r#"syntax = "proto3"; package test.v1;
        import "sidewire/v1/options.proto"; import "sidewire/v1/relay.proto";
        message Envelope {
          string message_id = 1; int64 timestamp = 8; sidewire.v1.Position position = 9;
          repeated string topics = 18;
          oneof payload {
            sidewire.v1.Subscribe subscribe = 10;
            sidewire.v1.SubscriptionConfirmed subscription_confirmed = 11;
            sidewire.v1.Unsubscribe unsubscribe = 12;
            sidewire.v1.UnsubscribeConfirmed unsubscribe_confirmed = 13;
            sidewire.v1.Ping ping = 14;
            sidewire.v1.Pong pong = 15;
            sidewire.v1.ErrorResponse error = 16;
            M0 event = 40;
          }
        }"#,
    );
    for index in 0..count {
        write!(
            text,
            "message M{index} {{ string id = 1 [(sidewire.v1.topic) = \"m\"];"
        )
        .unwrap();
        for other in 0..count {
            write!(text, "M{other} f{other} = {};", other + 2).unwrap();
        }
        text.push('}');
    }
    Schema::compile(&pool_of(&text), "test.v1.Envelope").unwrap()
}

#[test]
fn an_endless_table_is_cut_and_keeps_the_short_paths() {
    let schema = entangled(12);
    let found = routes(&schema, "event");
    assert!(found.is_cut);
    assert!((500..1000).contains(&found.paths.len()));
    assert!(found.paths.iter().any(|it| it.path == "id"));
    assert!(found.paths.iter().any(|it| it.path == "f11.id"));
    assert!(schema.best_sample().is_some());
}

#[test]
fn a_sample_of_each_event_is_accepted_and_names_topics_of_its_routes() {
    let bundled = BundledSchema::load_all().unwrap();
    let mut schemas: Vec<_> = bundled.iter().map(|it| it.compile().unwrap()).collect();
    schemas.push(torture());
    let mut samples = 0;
    for schema in &schemas {
        for payload in schema.events() {
            let sample = schema.sample_event(payload);
            let json = sample.event.to_string();
            let envelope = schema.envelope_from_json(json.as_bytes()).unwrap();
            let inspected = schema.inspect(&envelope).unwrap();
            assert_eq!(inspected.payload.unwrap().number, payload.number);
            assert_eq!(inspected.topics, sample.topics);
            let is_routed = !schema.payload_routes(payload).paths.is_empty();
            assert_eq!(sample.topics.is_empty(), !is_routed, "{json}");
            assert_eq!(sample.topic_in_call.is_some(), !is_routed, "{json}");
            assert!(!json.contains(['\'', '\n']), "{json}");
            samples += 1;
        }
    }
    assert!(samples >= 20 + 3 + 6, "{samples}");
}

#[test]
fn the_best_sample_is_a_backend_event_with_a_topic_to_follow() {
    let schema = Schema::bundled().unwrap();
    let sample = schema.best_sample().unwrap();
    let payload = schema.events().find(|it| it.name == sample.payload);
    let is_backends = PayloadKind::Event {
        client_publish: false,
    };
    assert_eq!(payload.unwrap().kind, is_backends);
    assert_eq!(sample.topic_in_call, None);
    assert!(sample.topic_to_follow().is_some());

    let generic = BundledSchema::by_name("generic")
        .unwrap()
        .compile()
        .unwrap();
    let sample = generic.best_sample().unwrap();
    assert_eq!(sample.payload, "event");
    assert_eq!(sample.topic_in_call.as_ref(), sample.topic_to_follow());
    assert!(sample.topic_to_follow().is_some());
}

#[test]
fn a_presence_payload_names_the_value_that_means_absent() {
    let generic = BundledSchema::by_name("generic")
        .unwrap()
        .compile()
        .unwrap();
    let presence = generic.events().find(|it| it.name == "presence").unwrap();
    assert!(presence.presence);
    assert_eq!(presence.message, "generic.v1.Presence");
    assert_eq!(presence.sender, ["user_id"]);
    let absent = presence.absent.as_ref().unwrap();
    assert_eq!(
        (absent.field.as_str(), absent.value.as_str()),
        ("absent", "true")
    );
    assert!(
        !generic
            .sample_event(presence)
            .event
            .to_string()
            .contains("absent")
    );
}
