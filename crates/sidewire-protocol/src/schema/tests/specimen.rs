//! Generated events for benchmarks: their size and topics.

use super::{pool_of, torture};
use crate::schema::{BundledSchema, Schema};

#[test]
fn an_event_has_exactly_the_requested_topic_and_size() {
    let generic = BundledSchema::by_name("generic")
        .unwrap()
        .compile()
        .unwrap();
    for schema in [Schema::bundled().unwrap(), generic, torture()] {
        let specimen = schema.synthetic_event().unwrap();
        let topic = format!("{}:bench-17", specimen.kind());
        for bytes in (60..700).chain(16_300..16_500).chain([100_000, 1 << 20]) {
            let event = specimen.encode("bench-17", bytes).unwrap();
            assert_eq!(event.len(), bytes);
            let inspected = schema.inspect(&event).unwrap();
            assert_eq!(inspected.topics.len(), 1);
            assert_eq!(inspected.topics[0].as_str(), topic);
            assert!(inspected.extra_topics.is_empty());
        }
    }
}

#[test]
fn a_size_that_the_id_does_not_fit_into_is_refused() {
    let specimen = Schema::bundled().unwrap().synthetic_event().unwrap();
    assert_eq!(specimen.encode("bench-17", 10), None);
    let least = (0..100).find(|it| specimen.encode("b", *it).is_some());
    assert!(least.is_some_and(|least| least < 10), "{least:?}");
}

#[test]
fn a_single_deeply_nested_annotation_is_enough() {
    let schema = Schema::compile(&pool_of(DEEP), "test.v1.Envelope").unwrap();
    let specimen = schema.synthetic_event().unwrap();
    assert_eq!(specimen.kind(), "thing");
    for bytes in 30..600 {
        let event = specimen.encode("id", bytes).unwrap();
        assert_eq!(event.len(), bytes);
        assert_eq!(schema.inspect(&event).unwrap().topics[0].id(), "id");
    }
}

#[test]
fn a_schema_with_events_that_name_only_users_has_no_synthetic_event() {
    let text = DEEP.replace("\"thing\"", "\"user\"");
    let schema = Schema::compile(&pool_of(&text), "test.v1.Envelope").unwrap();
    assert_eq!(schema.synthetic_event(), None);
}

const DEEP: &str = r#"
    syntax = "proto3";
    package test.v1;
    import "sidewire/v1/options.proto";
    import "sidewire/v1/relay.proto";
    message Inner { repeated string ids = 300 [(sidewire.v1.topic) = "thing"]; }
    message Event { Inner inner = 2; }
    message Envelope {
      string message_id = 1;
      int64 timestamp = 8;
      sidewire.v1.Position position = 9;
      repeated string topics = 18;
      oneof payload {
        sidewire.v1.Subscribe subscribe = 10;
        sidewire.v1.SubscriptionConfirmed subscription_confirmed = 11;
        sidewire.v1.Unsubscribe unsubscribe = 12;
        sidewire.v1.UnsubscribeConfirmed unsubscribe_confirmed = 13;
        sidewire.v1.Ping ping = 14;
        sidewire.v1.Pong pong = 15;
        sidewire.v1.ErrorResponse error = 16;
        Event event = 40;
      }
    }
"#;
