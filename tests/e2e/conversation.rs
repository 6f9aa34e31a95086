//! Control messages, their answers, and their effect on which events a client receives.

use serde_json::{Value, json};
use sidewire_client::RelayMessage;
use sidewire_protocol::wire;
use sidewire_testing::websocket::binary;

use crate::{
    raw::RawClient,
    support::TestRelay,
    vocabulary::{
        TestSchema, about, also, created, item_created, named, subscribe, subscribed, typing,
        unsubscribe, unsubscribed,
    },
};

/// Receives the next envelope, which must be an event, and returns its offset.
async fn event_offset(client: &mut RawClient, relay: &TestRelay) -> String {
    let event = client.envelope(relay).await;
    match &event["position"]["offset"] {
        Value::String(offset) => offset.clone(),
        _ => panic!("no event: {event}"),
    }
}

#[tokio::test]
async fn the_schema_lists_are_subscribed_to_confirmed_and_unsubscribed() {
    let relay = TestRelay::start();
    let mut client = RawClient::open(&relay, "acme", "ann").await;
    let topics = ["project:p1", "sprint:s1", "work_item:w1", "build:b1"];
    let twice = [&topics[..], &["project:p1"]].concat();
    client.say(&relay, named("1", subscribe(&twice))).await;
    let mut confirmed = client.envelope(&relay).await;
    let epoch = confirmed["subscriptionConfirmed"]["position"]["epoch"].take();
    assert_eq!(epoch.as_str().unwrap().len(), 32);
    let mut expected = subscribed(&topics);
    expected["position"] = json!({"epoch": null});
    expected["requestMessageId"] = json!("1");
    assert_eq!(confirmed, json!({ "subscriptionConfirmed": expected }));

    let about_both = |item, project| item_created(item, project, "");
    for (event, offset) in [
        (about_both("w9", "p1"), "1"),
        (about_both("w1", "p9"), "2"),
        (also(about_both("w9", "p9"), &["build:b1"]), "3"),
        (about(&["sprint:s1"]), "4"),
    ] {
        assert_eq!(
            relay.publish("acme", event.clone()).await.matched,
            Some(1),
            "{event}"
        );
        assert_eq!(event_offset(&mut client, &relay).await, offset);
    }

    client.say(&relay, named("2", unsubscribe(&twice))).await;
    let mut expected = unsubscribed(&topics);
    expected["requestMessageId"] = json!("2");
    assert_eq!(
        client.envelope(&relay).await,
        json!({ "unsubscribeConfirmed": expected })
    );
    assert_eq!(
        relay.publish("acme", about_both("w1", "p1")).await.matched,
        Some(0)
    );
    client.nothing_more(&relay).await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn events_for_a_user_and_for_all_arrive_without_a_subscribe() {
    let relay = TestRelay::start();
    let mut ann = relay.connect("acme", "ann").await;
    let mut bob = relay.connect("acme", "bob").await;
    let for_topics = |topics: &[&str]| also(created("p1"), topics);
    for (topics, matched) in [
        (&["user:ann"][..], 1),
        (&["tenant:*"], 2),
        (&["user:ann", "user:bob", "tenant:*"], 2),
        (&["user:cid"], 0),
    ] {
        let published = relay.publish("acme", for_topics(topics)).await;
        assert_eq!(published.matched, Some(matched), "{topics:?}");
    }
    for offset in [1, 2, 3] {
        assert_eq!(ann.event().await.position.unwrap().offset, offset);
    }
    // Nobody can give them up either.
    ann.unsubscribe(&["user:ann", "tenant:*"]).await;
    let again = relay.publish("acme", for_topics(&["user:ann"])).await;
    assert_eq!(again.matched, Some(1));
    assert_eq!(ann.event().await.message_id, again.message_id);
    ann.nothing_more().await;
    for offset in [2, 3] {
        assert_eq!(bob.event().await.position.unwrap().offset, offset);
    }
    bob.nothing_more().await;
    drop((ann, bob));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn subscribing_again_is_confirmed_again_and_delivers_each_event_once() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    for _ in 0..3 {
        let confirmed = client.subscribe(&["project:p1", "project:p1"]).await;
        assert_eq!(confirmed.topics, ["project:p1"]);
    }
    let published = relay.publish("acme", created("p1")).await;
    assert_eq!(published.matched, Some(1));
    client.event().await;
    client.nothing_more().await;
    assert_eq!(relay.metrics().await["sidewire_subscriptions"], 1.0);
    // One Unsubscribe is enough, however often the topic was subscribed.
    client.unsubscribe(&["project:p1"]).await;
    let unwanted = relay.publish("acme", created("p1")).await;
    assert_eq!(unwanted.matched, Some(0));
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_event_that_relates_to_several_topics_of_a_client_arrives_once() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client
        .subscribe(&["project:p1", "work_item:item-1", "build:b1", "build:b2"])
        .await;
    let event = also(
        created("p1"),
        &["build:b1", "build:b2", "user:ann", "tenant:*"],
    );
    let published = relay.publish("acme", event).await;
    assert_eq!(published.matched, Some(1));
    assert_eq!(published.topics.len(), 6);
    client.event().await;
    client.nothing_more().await;
    // The remaining topics of the client are enough.
    client
        .unsubscribe(&["project:p1", "build:b1", "build:b2"])
        .await;
    relay.publish("acme", created("p1")).await;
    client.event().await;
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn unsubscribing_from_topics_never_subscribed_to_is_confirmed() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    let never_had = ["project:p2", "build:b1", "user:ann", "project:*"];
    assert_eq!(client.unsubscribe(&never_had).await.topics, never_had);
    assert_eq!(relay.metrics().await["sidewire_subscriptions"], 1.0);
    relay.publish("acme", created("p1")).await;
    client.event().await;
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_open_and_changes_nothing() {
    let relay = TestRelay::start();
    let mut client = RawClient::open(&relay, "acme", "ann").await;
    client.say(&relay, subscribe(&["project:p1"])).await;
    client.envelope(&relay).await;

    let thousand_and_one: Vec<_> = (0..1_001).map(|id| format!("project:{id}")).collect();
    let thousand_and_one: Vec<_> = thousand_and_one.iter().map(String::as_str).collect();
    let in_full = |topics: [&str; 2]| json!({"subscribe": {"topics": topics}});
    // In a list the star is an id that does not exist; in full it is a wildcard, which nobody may
    // have of these kinds.
    let of_the_star = match TestSchema::under_test() {
        TestSchema::Tracker => (subscribe(&["project:p2", "project:*"]), "VALIDATION_ERROR"),
        TestSchema::Generic => (in_full(["project:p2", "user:*"]), "AUTHORIZATION_FAILED"),
    };
    let refused = [
        of_the_star,
        (in_full(["project:p2", "none"]), "VALIDATION_ERROR"),
        (in_full(["project:p2", "tenant:*"]), "AUTHORIZATION_FAILED"),
        (in_full(["project:p2", "user:bob"]), "AUTHORIZATION_FAILED"),
        (subscribe(&thousand_and_one), "VALIDATION_ERROR"),
        (unsubscribe(&["project:p1", "project:"]), "VALIDATION_ERROR"),
        (json!({"pong": {}}), "VALIDATION_ERROR"),
        (
            json!({"batch": {"messages": [subscribe(&["project:p2"])]}}),
            "VALIDATION_ERROR",
        ),
        (typing("p2"), "AUTHORIZATION_FAILED"),
        (about(&["work_item:w1", "project:p1"]), "VALIDATION_ERROR"),
    ];
    let refused = refused.map(|(envelope, code)| (named("m", envelope), code));
    for (envelope, code) in &refused {
        client.say(&relay, envelope.clone()).await;
        let error = client.envelope(&relay).await["error"].take();
        assert_eq!(error["errorCode"], *code, "{envelope}");
        assert_eq!(error["requestMessageId"], "m", "{envelope}");
    }
    client.send(&binary(b"no protobuf")).await;
    let error = client.envelope(&relay).await["error"].take();
    assert_eq!(error["errorCode"], "VALIDATION_ERROR");
    assert_eq!(error.get("requestMessageId"), None);

    let metrics = relay.metrics().await;
    let counted = |code| metrics[&format!("sidewire_messages_refused_total{{code=\"{code}\"}}")];
    for (code, undecodable) in [("AUTHORIZATION_FAILED", 0), ("VALIDATION_ERROR", 1)] {
        let expected = refused.iter().filter(|(_, it)| *it == code).count() + undecodable;
        assert!(expected > 1);
        assert_eq!(counted(code), expected as f64, "{code}");
    }
    assert_eq!(metrics["sidewire_subscriptions"], 1.0);
    assert_eq!(relay.publish("acme", created("p2")).await.matched, Some(0));
    assert_eq!(relay.publish("acme", created("p1")).await.matched, Some(1));
    assert_eq!(event_offset(&mut client, &relay).await, "2");
    client.nothing_more(&relay).await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_connection_cannot_have_more_topics_than_the_limit() {
    let relay = TestRelay::with(|config| config.limits.topics_per_connection = 3);
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1", "project:p2"]).await;
    let id = client.ask_for(&["project:p3", "project:p4"]).await;
    let error = client.error().await;
    assert_eq!(error.error_code, "VALIDATION_ERROR");
    assert_eq!(error.request_message_id, id);
    assert_eq!(error.field_name.as_deref(), Some("subscribe"));
    assert_eq!(error.retry_after_ms, None);
    assert_eq!(relay.publish("acme", created("p3")).await.matched, Some(0));

    // A topic that the client already has does not count again; giving one up makes room.
    client
        .subscribe(&["project:p2", "project:p1", "project:p3"])
        .await;
    client.ask_for(&["project:p4"]).await;
    assert_eq!(client.error().await.error_code, "VALIDATION_ERROR");
    client.unsubscribe(&["project:p1"]).await;
    client.subscribe(&["project:p4"]).await;
    for (project, matched) in [("p1", 0), ("p2", 1), ("p3", 1), ("p4", 1)] {
        let published = relay.publish("acme", created(project)).await;
        assert_eq!(published.matched, Some(matched), "{project}");
        if matched == 1 {
            assert_eq!(client.event().await.message_id, published.message_id);
        }
    }
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

/// Subscribes to one topic after another while events for all of them are published, so
/// that Subscribes overlap with events in every phase.
#[tokio::test]
async fn a_position_lies_after_received_events_and_before_later_ones() {
    const ROUNDS: u64 = 100;
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    let publishing = async {
        for _ in 0..3 * ROUNDS {
            relay.publish("acme", created("p1")).await;
        }
    };
    let subscribing = async {
        let mut came = 0;
        for round in 0..ROUNDS {
            let head = relay.publish("acme", created("p9")).await.position;
            let topic = format!("build:{round}");
            client.ask_for(&[&topic]).await;
            let position = loop {
                match client.receive().await {
                    RelayMessage::Event(event) => came = in_order(came, event.position),
                    RelayMessage::SubscriptionConfirmed(confirmed) => {
                        break confirmed.position.unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(position.epoch, head.epoch);
            assert!(position.offset >= head.offset, "it is below the head");
            assert!(position.offset >= came, "an event ran ahead");
            came = position.offset;
        }
        came
    };
    let ((), mut came) = tokio::join!(publishing, subscribing);
    // All events published after the last position come after it.
    let last = relay.publish("acme", created("p1")).await.position;
    while came < last.offset {
        came = in_order(came, client.event().await.position);
    }
    client.nothing_more().await;
    let metrics = relay.metrics().await;
    assert_eq!(
        metrics["sidewire_events_written_total"],
        (3 * ROUNDS + 1) as f64
    );
    drop(client);
    assert!(relay.stop().await);
}

/// Returns the event's offset, which must be greater than `came`.
fn in_order(came: u64, position: Option<wire::Position>) -> u64 {
    let offset = position.unwrap().offset;
    assert!(offset > came, "{offset} after {came}");
    offset
}
