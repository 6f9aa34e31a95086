//! The basic promises of the relay with each bundled schema, whichever is under test, and
//! how much of the suite runs with each.

use std::fs;

use serde_json::{Value, json};

use crate::{
    ingest_support::{BATCH, Call, EVENTS, JSON, PROTOBUF, invalid, offset, refusal},
    raw::RawClient,
    support::TestRelay,
    vocabulary::{TestSchema, also, named, topics_of},
};

/// Returns the payload of an envelope that was posted or received, with its name.
fn payload(envelope: &Value) -> Value {
    let mut payload = envelope.clone();
    let members = payload.as_object_mut().unwrap();
    for other in ["messageId", "timestamp", "position", "topics"] {
        members.remove(other);
    }
    assert_eq!(members.len(), 1, "{envelope}");
    payload
}

#[tokio::test]
async fn with_each_schema_a_client_gets_events_of_its_topics_posted_in_every_way() {
    for schema in TestSchema::ALL {
        let relay = TestRelay::serving(schema, |_| ());
        let mut client = RawClient::open(&relay, "acme", "ann").await;
        let topics = ["project:p1", "sprint:s1", "board:1"];
        let subscribe = json!({"messageId": "s", "subscribe": schema.topics(&topics)});
        client.say(&relay, subscribe).await;
        let confirmed = client.envelope(&relay).await["subscriptionConfirmed"].take();
        assert_eq!(topics_of(&confirmed), schema.subscribed(&topics));

        let created = schema.item_created("w1", "p1", "some text");
        let elsewhere = schema.item_created("w1", "p2", "some text");
        let about_sprint = schema.about(&["sprint:s1"]);
        let typing = schema.typing("p1");
        let extra = also(elsewhere.clone(), &["board:1"]);
        let batch = json!({"messages": [elsewhere, created, typing]});
        let calls = [
            Call::event(EVENTS, &created),
            Call::post(EVENTS, PROTOBUF, relay.envelope(created.clone())),
            Call::event(EVENTS, &about_sprint),
            Call::event(EVENTS, &extra),
            Call::event(&format!("{EVENTS}?topic=board:1"), &schema.edited_by("ann")),
            Call::event(EVENTS, &typing),
            Call::event(BATCH, &batch),
            Call::post(
                BATCH,
                PROTOBUF,
                relay
                    .schema
                    .batch_from_json(batch.to_string().as_bytes(), usize::MAX)
                    .unwrap(),
            ),
        ];
        for call in &calls {
            let answer = call.answer(&relay).await;
            assert_eq!(answer.status, 200, "{schema:?}: {}", answer.text());
        }
        let edited = schema.edited_by("ann");
        let expected = [
            &created,
            &created,
            &about_sprint,
            &extra,
            &edited,
            &typing,
            &created,
            &typing,
            &created,
            &typing,
        ];
        for event in expected {
            assert_eq!(payload(&client.envelope(&relay).await), payload(event));
        }

        let unsubscribe = json!({"unsubscribe": schema.topics(&topics)});
        client.say(&relay, unsubscribe).await;
        let confirmed = client.envelope(&relay).await["unsubscribeConfirmed"].take();
        assert_eq!(topics_of(&confirmed), schema.unsubscribed(&topics));
        let unwanted = Call::event(EVENTS, &created).answer(&relay).await;
        assert_eq!(unwanted.json()["matched"], json!(0));
        client.nothing_more(&relay).await;
        drop(client);
        assert!(relay.stop().await);
    }
}

#[tokio::test]
async fn with_each_schema_a_client_resumes_and_a_duplicate_is_answered() {
    for schema in TestSchema::ALL {
        let relay = TestRelay::serving(schema, |_| ());
        let mut client = relay.connect("acme", "ann").await;
        let had = client.subscribe(&["project:p1"]).await.position.unwrap();
        drop(client);
        let event = named("m", schema.item_created("w1", "p1", "some text"));
        for _ in 0..2 {
            let answer = Call::event(EVENTS, &event).answer(&relay).await;
            assert_eq!(offset(&answer), 1);
        }
        let mut client = relay.connect("acme", "ann").await;
        let confirmed = client.resume(&["project:p1"], &had).await;
        assert_eq!((confirmed.recovered, confirmed.replayed), (true, 1));
        let received = client.event().await;
        assert_eq!(payload(&relay.json(&received.envelope)), payload(&event));
        client.nothing_more().await;
        drop(client);
        assert!(relay.stop().await);
    }
}

#[tokio::test]
async fn with_each_schema_an_invalid_event_is_refused_with_its_field() {
    for schema in TestSchema::ALL {
        let relay = TestRelay::serving(schema, |_| ());
        let member = schema.typing_member();
        for (event, field) in [
            (schema.edited_by("ann"), None),
            (schema.without_id(), None),
            (schema.unreadable(), Some(member)),
            (schema.typing("*"), Some(schema.typing_path())),
            (json!({"ping": {}, "topics": ["board:1"]}), Some("ping")),
            (json!({"topics": ["board:1"]}), Some("payload")),
            (also(schema.edited_by("ann"), &["board"]), Some("topics[0]")),
        ] {
            let answer = Call::event(EVENTS, &event).answer(&relay).await;
            assert_eq!(refusal(&answer), invalid(field), "{schema:?}: {event}");
        }
        let text = Call::post(EVENTS, JSON, "{").answer(&relay).await;
        assert_eq!(text.status, 400);
        assert!(relay.stop().await);
    }
}

/// Counts in the source text, so that a test cannot opt out unnoticed.
#[test]
fn most_of_the_suite_runs_with_each_schema() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e");
    let (mut tests, mut tracker_only) = (0, 0);
    for file in fs::read_dir(directory).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let count = |text: &str, part: &str| text.matches(part).count();
        tests += count(&text, "\n#[tokio::test") + count(&text, "\n#[test]\n");
        tracker_only += count(&text, concat!("if !only_", "with_tracker("));
    }
    assert!(tests > 150, "{tests}");
    eprintln!("{tracker_only} of {tests} tests run with the tracker schema only");
    assert!(
        (1..=MAX_TRACKER_ONLY).contains(&tracker_only),
        "{tracker_only}"
    );
    assert!(5 * tracker_only <= tests);
}

/// Raise this only for a test that is about the tracker's own messages or bytes.
const MAX_TRACKER_ONLY: usize = 2;
