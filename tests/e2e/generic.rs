//! The generic schema: JSON or bytes without a custom .proto.

use serde_json::{Value, json};
use sidewire_testing::websocket::binary;

use crate::{
    ingest_support::{BATCH, Call, EVENTS, PROTOBUF, invalid, offset, refusal},
    raw::RawClient,
    support::TestRelay,
    vocabulary::TestSchema,
};

fn relay() -> TestRelay {
    TestRelay::serving(TestSchema::Generic, |_| ())
}

/// Connects a client that is subscribed to these topics.
async fn following(relay: &TestRelay, user: &str, topics: &[&str]) -> RawClient {
    let mut client = RawClient::open(relay, "acme", user).await;
    client
        .say(relay, json!({"subscribe": {"topics": topics}}))
        .await;
    let confirmed = client.envelope(relay).await;
    assert_eq!(confirmed["subscriptionConfirmed"]["topics"], json!(topics));
    client
}

/// Receives the client's next envelope and returns it without its position, which must be
/// present.
async fn payload(client: &mut RawClient, relay: &TestRelay) -> Value {
    let mut envelope = client.envelope(relay).await;
    let position = envelope.as_object_mut().unwrap().remove("position");
    assert!(position.is_some_and(|it| it["epoch"].is_string()));
    envelope
}

/// Posts an event to this target, and returns its topics.
async fn post(relay: &TestRelay, target: &str, event: &Value) -> Value {
    let answer = Call::event(target, event).answer(relay).await;
    assert_eq!(answer.status, 200, "{event}: {}", answer.text());
    answer.json()["topics"].take()
}

#[tokio::test]
async fn json_reaches_the_topics_of_its_call_unchanged() {
    let relay = relay();
    let mut client = following(&relay, "ann", &["order:7"]).await;
    let target = format!("{EVENTS}?topic=order:7");
    for data in [
        json!({"order": 7, "carrier": "post"}),
        json!({"lines": [{"sku": "a", "count": 2, "gift": null}, {}], "paid": true, "": [[], [0.5]]}),
        json!([1, -2.5e-3, "three", false, {}]),
        json!("a text"),
        json!(false),
        json!(0),
    ] {
        let event = json!({"event": {"type": "order.shipped", "data": data, "userId": "ann"}});
        assert_eq!(post(&relay, &target, &event).await, json!(["order:7"]));
        let received = payload(&mut client, &relay).await;
        assert_same(&received, &event);
    }
    // Null is a value, unlike a missing one.
    let event = json!({"event": {"type": "order.shipped", "data": null}});
    post(&relay, &target, &event).await;
    assert_eq!(payload(&mut client, &relay).await, event);
    let event = json!({"event": {"type": "order.shipped"}});
    post(&relay, &target, &event).await;
    assert_eq!(payload(&mut client, &relay).await, event);
    client.nothing_more(&relay).await;
    drop(client);
    assert!(relay.stop().await);
}

/// Asserts that two JSON values are equal, with numbers compared by value: 7 is 7.0.
fn assert_same(left: &Value, right: &Value) {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => assert_eq!(a.as_f64(), b.as_f64()),
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{left} {right}");
            a.iter().zip(b).for_each(|(a, b)| assert_same(a, b));
        }
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{left} {right}");
            a.values()
                .zip(b.values())
                .for_each(|(a, b)| assert_same(a, b));
        }
        _ => assert_eq!(left, right),
    }
}

#[tokio::test]
async fn numbers_are_doubles_so_integers_are_exact_up_to_2_to_the_53rd() {
    let relay = relay();
    let mut client = following(&relay, "ann", &["order:7"]).await;
    let exact = 1_u64 << 53;
    let data = json!([
        exact,
        exact + 1,
        (exact + 1).to_string(),
        -(exact as i64),
        1e300
    ]);
    let event = json!({"event": {"data": data}, "topics": ["order:7"]});
    post(&relay, EVENTS, &event).await;
    let received = payload(&mut client, &relay).await["event"]["data"].take();
    assert_same(
        &received,
        &json!([exact, exact, "9007199254740993", -(exact as i64), 1e300]),
    );
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn bytes_arrive_as_they_were_posted_in_either_encoding() {
    let relay = relay();
    let mut client = following(&relay, "ann", &["order:7"]).await;
    // All byte values, not valid UTF-8.
    let bytes: Vec<u8> = (0..=255).collect();
    let head = [0x82, 0x02, 0x83, 0x02, 0x1a, 0x80, 0x02];
    let envelope = [&head[..], &bytes].concat();
    let target = format!("{EVENTS}?topic=order:7");
    let call = Call::post(&target, PROTOBUF, envelope.clone());
    assert_eq!(offset(&call.answer(&relay).await), 1);
    let frame = client.frame().await;
    assert_eq!(&frame.payload[..envelope.len()], envelope);

    let as_json = relay.json(&envelope);
    assert_eq!(as_json["event"]["bytes"].as_str().unwrap().len(), 344);
    post(&relay, &target, &as_json).await;
    let frame = client.frame().await;
    assert_eq!(&frame.payload[..envelope.len()], envelope);
    client.nothing_more(&relay).await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn topics_come_from_the_call_and_from_field_18_each_once_in_batches_too() {
    let relay = relay();
    let mut orders = following(&relay, "ann", &["order:7"]).await;
    let mut all = following(&relay, "bob", &["shop:1", "order:8"]).await;
    let event = |kind: &str| json!({"event": {"type": kind}});
    let both = json!({"event": {"type": "a"}, "topics": ["order:7", "order:7"]});
    let target = format!("{EVENTS}?topic=shop:1&topic=order:7");
    assert_eq!(
        post(&relay, &target, &both).await,
        json!(["order:7", "shop:1"])
    );

    let batch = json!({"messages": [
        {"event": {"type": "b"}, "topics": ["order:7"]},
        {"event": {"type": "c"}, "topics": ["order:8", "shop:1"]},
        event("d"),
    ]});
    let target = format!("{BATCH}?topic=shop:1");
    let answer = Call::event(&target, &batch).answer(&relay).await.json();
    let topics: Vec<_> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["topics"].clone())
        .collect();
    assert_eq!(
        topics,
        [
            json!(["order:7", "shop:1"]),
            json!(["order:8", "shop:1"]),
            json!(["shop:1"])
        ]
    );
    // Field 18 is not delivered.
    for kind in ["a", "b"] {
        assert_eq!(payload(&mut orders, &relay).await, event(kind));
    }
    for kind in ["a", "b", "c", "d"] {
        assert_eq!(payload(&mut all, &relay).await, event(kind));
    }
    orders.nothing_more(&relay).await;
    all.nothing_more(&relay).await;
    drop((orders, all));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_message_or_presence_of_a_backend_is_an_event_of_the_topics_that_it_names() {
    let relay = relay();
    let mut ann = following(&relay, "ann", &["room:1"]).await;
    let mut bob = following(&relay, "bob", &["room:2"]).await;
    for name in ["message", "presence"] {
        let of =
            |topics: &[&str]| json!({name: {"type": "hello", "userId": "sam", "topics": topics}});
        let extra = json!({name: {"topics": ["room:1"]}, "topics": ["room:2"]});
        // Then: the topics of the event, and whether Ann and Bob receive it.
        for (event, topics, to_ann, to_bob) in [
            (of(&["room:1"]), json!(["room:1"]), true, false),
            (
                of(&["room:2", "room:1", "", "room:2"]),
                json!(["room:2", "room:1"]),
                true,
                true,
            ),
            (of(&["user:bob"]), json!(["user:bob"]), false, true),
            (of(&["tenant:*"]), json!(["tenant:*"]), true, true),
            (
                of(&["tenant:*", "room:1", "tenant:*"]),
                json!(["tenant:*", "room:1"]),
                true,
                true,
            ),
            (of(&["room:3"]), json!(["room:3"]), false, false),
            (extra, json!(["room:1", "room:2"]), true, true),
        ] {
            assert_eq!(post(&relay, EVENTS, &event).await, topics);
            // The payload's topics belong to the application and stay; those of the
            // envelope are removed.
            let mut delivered = event.clone();
            delivered.as_object_mut().unwrap().remove("topics");
            for (client, gets) in [(&mut ann, to_ann), (&mut bob, to_bob)] {
                if gets {
                    assert_eq!(payload(client, &relay).await, delivered);
                }
            }
        }
    }
    ann.nothing_more(&relay).await;
    bob.nothing_more(&relay).await;
    drop((ann, bob));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn invalid_topics_and_too_many_topics_are_refused() {
    let relay = relay();
    let mut client = following(&relay, "ann", &["room:1"]).await;
    let many = |count: usize| -> Vec<_> { (0..count).map(|id| format!("room:{id}")).collect() };
    for name in ["message", "presence"] {
        let first = format!("{name}.topics[0]");
        let second = format!("{name}.topics[1]");
        for (topics, field) in [
            (json!(["user:*"]), Some(&first)),
            (json!(["room:*"]), Some(&first)),
            (json!(["tenant:acme"]), Some(&first)),
            (json!(["room:1", "room"]), Some(&second)),
            (json!(["room:1", ":1"]), Some(&second)),
            (json!(["room:1", "Room:1"]), Some(&second)),
            (json!(["room:1", "room:"]), Some(&second)),
            (json!(["room:1", "room:a\nb"]), Some(&second)),
            (
                json!(["room:1", format!("room:{}", "i".repeat(257))]),
                Some(&second),
            ),
            (
                json!(["room:1", format!("{}:1", "k".repeat(33))]),
                Some(&second),
            ),
            (json!(many(101)), None),
            (json!(["", ""]), None),
            (json!([]), None),
        ] {
            let event = json!({name: {"type": "hello", "topics": topics}});
            let answer = Call::event(EVENTS, &event).answer(&relay).await;
            let expected = invalid(field.map(String::as_str));
            assert_eq!(refusal(&answer), expected, "{event}");
        }
        // 100 topics are accepted, however often each is named, but not one more.
        let twice = [many(100), many(100)].concat();
        let event = json!({name: {"topics": twice}});
        assert_eq!(post(&relay, EVENTS, &event).await, json!(many(100)));
        client.envelope(&relay).await;
        let call = Call::event(&format!("{EVENTS}?topic=board:1"), &event);
        assert_eq!(refusal(&call.answer(&relay).await), invalid(None));
    }
    client.nothing_more(&relay).await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_event_without_a_topic_is_refused_whatever_its_data_says() {
    let relay = relay();
    for event in [
        json!({"event": {}}),
        json!({"event": {"type": "order:7", "userId": "ann"}}),
        json!({"event": {"data": {"topic": "order:7", "topics": ["order:7"]}}}),
        json!({"event": {"type": "a"}, "topics": []}),
    ] {
        let answer = Call::event(EVENTS, &event).answer(&relay).await;
        assert_eq!(refusal(&answer), invalid(None), "{event}");
    }
    assert_eq!(relay.metrics().await["sidewire_events_ingested_total"], 0.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn subscribe_has_only_field_16() {
    let relay = relay();
    let lists = json!({"subscribe": {"projectIds": ["p1"]}}).to_string();
    assert!(relay.schema.envelope_from_json(lists.as_bytes()).is_err());
    // On the wire, field numbers 1 to 15 belong to no list in this schema.
    let mut client = RawClient::open(&relay, "acme", "ann").await;
    let subscribe = b"\x0a\x01s\x52\x0d\x0a\x02p1\x82\x01\x06room:1";
    client.send(&binary(subscribe)).await;
    let confirmed = client.envelope(&relay).await["subscriptionConfirmed"].take();
    assert_eq!(confirmed["topics"], json!(["room:1"]));
    assert_eq!(relay.metrics().await["sidewire_subscriptions"], 1.0);
    drop(client);
    assert!(relay.stop().await);
}
