//! Subscriptions to `kind:*`.

use std::time::Duration;

use crate::{
    support::{TestRelay, token_with},
    vocabulary::{about, also, created},
};

#[tokio::test]
async fn a_wildcard_brings_every_topic_of_its_kind_once_and_ends_by_itself() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    let topics = ["project:*", "project:p1"];
    assert_eq!(client.subscribe(&topics).await.topics, topics);
    for project in ["p1", "p2"] {
        let published = relay.publish("acme", created(project)).await;
        assert_eq!(published.matched, Some(1));
        assert_eq!(client.event().await.message_id, published.message_id);
    }
    let other = relay.publish("acme", about(&["sprint:s1"])).await;
    assert_eq!(other.matched, Some(0));
    let elsewhere = relay.publish("other", created("p1")).await;
    assert_eq!(elsewhere.matched, Some(0));

    let ended = client.unsubscribe(&["project:*"]).await;
    assert_eq!(ended.topics, ["project:*"]);
    assert_eq!(relay.publish("acme", created("p2")).await.matched, Some(0));
    assert_eq!(relay.publish("acme", created("p1")).await.matched, Some(1));
    client.event().await;
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_wildcard_is_resumed_apart_from_the_topics_of_its_kind() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    let start = client.subscribe(&["project:p1"]).await.position.unwrap();
    for project in ["p1", "p2"] {
        relay.publish("acme", created(project)).await;
    }
    assert_eq!(client.event().await.position.unwrap().offset, 1);
    // The event of p1 was delivered by the exact topic.
    let confirmed = client.resume(&["project:*"], &start).await;
    assert_eq!((confirmed.recovered, confirmed.replayed), (true, 1));
    assert_eq!(client.event().await.position.unwrap().offset, 2);
    drop(client);

    let mut client = relay.connect("acme", "ann").await;
    let confirmed = client.resume(&["project:*"], &start).await;
    assert_eq!((confirmed.recovered, confirmed.replayed), (true, 2));
    for offset in [1, 2] {
        assert_eq!(client.event().await.position.unwrap().offset, offset);
    }
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_wildcard_needs_a_token_that_lists_exactly_it() {
    let relay = TestRelay::start();
    let grant = ["project:p1", "sprint:*", "user:*", "tenant:*"];
    let token = token_with("acme", "ann", Duration::from_hours(1), Some(&grant));
    let mut client = relay.connect_with(token).await.unwrap();
    assert_eq!(client.subscribe(&["sprint:*"]).await.topics, ["sprint:*"]);
    for refused in ["project:*", "user:*", "tenant:*"] {
        let id = client.ask_for(&["sprint:s1", refused]).await;
        let error = client.error().await;
        assert_eq!(error.error_code, "AUTHORIZATION_FAILED", "{refused}");
        assert_eq!(error.request_message_id, id);
    }
    let event = also(created("p2"), &["user:bob"]);
    assert_eq!(relay.publish("acme", event).await.matched, Some(0));
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}
