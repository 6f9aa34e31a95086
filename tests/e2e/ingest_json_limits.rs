//! Events with too much JSON are refused when they are posted, whatever the subscribers'
//! encoding and however they are posted. So are unknown names in JSON, with a suggestion of
//! the nearest name in the schema.

use serde_json::{Value, json};
use sidewire_testing::http::Answer;

use crate::{
    ingest_support::{BATCH, Call, EVENTS, JSON, PROTOBUF, invalid, offset, refusal},
    support::TestRelay,
    vocabulary::TestSchema,
};

const JSON_MAX: usize = 16 * 1024;

/// Starts a relay with a low limit on an event's JSON.
fn small() -> TestRelay {
    TestRelay::serving(TestSchema::Tracker, |config| {
        config.limits.json_max = JSON_MAX;
    })
}

fn work_item_created(project: &str) -> Value {
    json!({"workItemCreated": {"workItem": {"id": "item-1", "projectId": project}, "userId": "ann"}})
}

/// Returns an event with a description of this many control characters. Each of them is one
/// byte, and six in JSON.
fn described(characters: usize) -> Value {
    let mut event = work_item_created("p1");
    event["workItemCreated"]["workItem"]["description"] = json!("\u{1}".repeat(characters));
    event
}

/// Posts a single event as JSON and as bytes.
async fn posted(relay: &TestRelay, event: &Value) -> [Answer; 2] {
    let as_json = Call::event(EVENTS, event).answer(relay).await;
    let bytes = relay.envelope(event.clone());
    let as_bytes = Call::post(EVENTS, PROTOBUF, bytes).answer(relay).await;
    [as_json, as_bytes]
}

#[tokio::test]
async fn an_event_with_too_much_json_is_refused_even_if_it_is_posted_as_bytes() {
    let relay = small();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    // The first is inspected by the shard itself, the second is not.
    for characters in [JSON_MAX / 6, JSON_MAX] {
        for answer in posted(&relay, &described(characters)).await {
            assert_eq!(refusal(&answer), invalid(Some("work_item_created")));
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("16384 bytes of JSON"), "{detail}");
        }
    }
    client.nothing_more().await;
    for (index, answer) in posted(&relay, &described(JSON_MAX / 7))
        .await
        .iter()
        .enumerate()
    {
        assert_eq!(offset(answer), index as u64 + 1);
        client.event().await;
    }
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_json_of_an_event_with_the_relays_additions_may_reach_the_limit() {
    let relay = small();
    let (mut least, mut most) = (0, JSON_MAX);
    // The length from which an event is refused.
    while most - least > 1 {
        let middle = usize::midpoint(least, most);
        let mut event = described(0);
        event["workItemCreated"]["workItem"]["title"] = json!("x".repeat(middle));
        match Call::event(EVENTS, &event).answer(&relay).await.status {
            200 => least = middle,
            400 => most = middle,
            other => panic!("answered {other}"),
        }
    }
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    let mut event = described(0);
    event["workItemCreated"]["workItem"]["title"] = json!("x".repeat(least));
    offset(&Call::event(EVENTS, &event).answer(&relay).await);
    let delivered = client.event().await;
    let text = relay
        .schema
        .envelope_to_json_text(&delivered.envelope)
        .unwrap();
    // The offset has one or two digits here, but may have twenty.
    assert!(
        (JSON_MAX - 19..=JSON_MAX).contains(&text.len()),
        "{}",
        text.len()
    );
    drop(client);
    assert!(relay.stop().await);
}

/// Starts a relay with the generic schema.
fn generic() -> TestRelay {
    TestRelay::serving(TestSchema::Generic, |_| ())
}

/// Returns an envelope of the generic schema with an `event` whose `data` is a list of
/// these bytes of a google.protobuf.Value. The lengths take one byte.
fn generic_event(value: &[u8]) -> Vec<u8> {
    let field = |tag: &[u8], value: &[u8]| {
        let length = u8::try_from(value.len()).unwrap();
        assert!(length < 128);
        [tag, &[length], value].concat()
    };
    let list = field(&[0x0a], value);
    let data = field(&[0x32], &list);
    field(&[0x82, 0x02], &field(&[0x12], &data))
}

/// Returns a google.protobuf.Value that is a number.
fn number(value: f64) -> Vec<u8> {
    [&[0x11], &value.to_le_bytes()[..]].concat()
}

#[tokio::test]
async fn a_value_without_json_is_refused_with_its_path() {
    let relay = generic();
    let events = format!("{EVENTS}?topic=order:7");
    let batches = format!("{BATCH}?topic=order:7");
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let event = generic_event(&number(value));
        let answer = Call::post(&events, PROTOBUF, event.clone())
            .answer(&relay)
            .await;
        assert_eq!(refusal(&answer), invalid(Some("event.data")));
        let good = generic_event(&number(7.0));
        let batch: Vec<u8> = [good, event]
            .iter()
            .flat_map(|event| [&[0x0a, event.len() as u8], &event[..]].concat())
            .collect();
        let answer = Call::post(&batches, PROTOBUF, batch).answer(&relay).await;
        let errors = answer.json()["errors"].clone();
        assert_eq!(
            (&errors[0]["index"], &errors[0]["field"]),
            (&json!(1), &json!("event.data"))
        );
        assert_eq!(errors.as_array().unwrap().len(), 1);
    }
    let good = Call::post(&events, PROTOBUF, generic_event(&number(7.0)));
    assert_eq!(offset(&good.answer(&relay).await), 1);
    let text = r#"{"event": {"type": "order.shipped", "data": {"weight": 1.5, "tags": [null]}}}"#;
    let as_json = Call::post(&events, JSON, text).answer(&relay).await;
    assert_eq!(offset(&as_json), 2);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_batch_names_each_of_its_events_that_has_too_much_json() {
    let relay = small();
    let many = described(JSON_MAX / 6);
    let huge = described(JSON_MAX);
    let no_topic = json!({"userTyping": {"userId": "ann"}});
    let batch = json!({"messages": [work_item_created("p1"), huge, no_topic, many, work_item_created("p2")]});
    let batch = batch.to_string().into_bytes();
    let bytes = relay.schema.batch_from_json(&batch, usize::MAX).unwrap();
    for (content_type, body) in [(JSON, batch), (PROTOBUF, bytes)] {
        let answer = Call::post(BATCH, content_type, body).answer(&relay).await;
        assert_eq!(refusal(&answer), invalid(None));
        let errors: Vec<_> = answer.json()["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| (error["index"].clone(), error["field"].clone()))
            .collect();
        let field = json!("work_item_created");
        let expected = [
            (json!(1), field.clone()),
            (json!(2), Value::Null),
            (json!(3), field),
        ];
        assert_eq!(errors, expected);
    }
    let answer = Call::event(EVENTS, &work_item_created("p1"));
    assert_eq!(offset(&answer.answer(&relay).await), 1);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_large_event_with_json_is_accepted_in_a_batch_too() {
    let relay = small();
    let mut large = described(0);
    large["workItemCreated"]["workItem"]["title"] = json!("x".repeat(JSON_MAX / 2));
    let batch = json!({"messages": [large, described(JSON_MAX / 8), work_item_created("p2")]});
    let answer = Call::post(BATCH, JSON, batch.to_string())
        .answer(&relay)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["results"].as_array().unwrap().len(), 3);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_error_about_an_unknown_name_suggests_the_nearest_name() {
    let relay = TestRelay::serving(TestSchema::Tracker, |_| ());
    let event = json!({"workItemCreate": {"workItem": {"id": "item-1"}}});
    let answer = Call::event(EVENTS, &event).answer(&relay).await;
    assert_eq!(refusal(&answer), invalid(None));
    let detail = "unknown event `workItemCreate`; did you mean `workItemCreated`?";
    assert_eq!(answer.json()["detail"], detail);
    let batch = json!({"messages": [work_item_created("p1"), event]});
    let answer = Call::post(BATCH, JSON, batch.to_string())
        .answer(&relay)
        .await;
    let expected = json!([{"index": 1, "field": null, "message": detail}]);
    assert_eq!(answer.json()["errors"], expected);
    let event = json!({"workItemCreated": {"workItem": {"projektId": "p1"}}});
    let answer = Call::event(EVENTS, &event).answer(&relay).await;
    assert_eq!(refusal(&answer), invalid(Some("workItemCreated.workItem")));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_batch_in_json_is_counted_before_it_is_read() {
    let relay = TestRelay::with(|config| config.ingest.batch_events_max = 3);
    // The text after the fourth message is not read.
    let answer = Call::post(BATCH, JSON, r#"{"messages": [{}, {}, {}, {}, "#)
        .answer(&relay)
        .await;
    assert_eq!(refusal(&answer), invalid(None));
    assert_eq!(
        answer.json()["detail"],
        "a batch may have at most 3 messages"
    );
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_event_in_json_with_too_many_values_is_refused_before_it_is_read() {
    let relay = TestRelay::start();
    // The relay refuses it before it checks the names.
    let event = format!(r#"{{"x":[{}]}}"#, vec!["1"; 100_000].join(","));
    let answer = Call::post(EVENTS, JSON, event.clone()).answer(&relay).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["code"], "VALIDATION_ERROR");
    let batch = format!(r#"{{"messages":[{},{event}]}}"#, work_item_created("p1"));
    let answer = Call::post(BATCH, JSON, batch).answer(&relay).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["errors"][0]["index"], 1);
    assert!(relay.stop().await);
}
