//! Tokens that subscribe to topics by their claim `subscribe`.

use serde_json::{Value, json};
use sidewire_client::{OpenError, RelayMessage};
use sidewire_protocol::wire;

use crate::{
    client::TestClient,
    support::{TestRelay, token_of, token_subscribing},
    vocabulary::{about, created},
};

/// Connects a client with a token that subscribes to these topics, and returns it with the
/// message that confirms them.
async fn connect(relay: &TestRelay, topics: &[&str]) -> (TestClient, wire::SubscriptionConfirmed) {
    let token = token_subscribing("acme", "ann", topics);
    let mut client = relay.connect_bearing(&token).await;
    match client.receive().await {
        RelayMessage::SubscriptionConfirmed(confirmed) => (client, confirmed),
        other => panic!("not confirmed: {other:?}"),
    }
}

#[tokio::test]
async fn a_token_subscribes_at_connect_and_that_is_confirmed_first() {
    let relay = TestRelay::start();
    let topics = ["sprint:*", "project:p1"];
    let (mut client, confirmed) = connect(&relay, &topics).await;
    let expected = wire::SubscriptionConfirmed {
        topics: topics.map(str::to_owned).to_vec(),
        ..Default::default()
    };
    assert_eq!(confirmed, expected);
    for event in [created("p1"), about(&["sprint:s1"])] {
        let published = relay.publish("acme", event).await;
        assert_eq!(published.matched, Some(1));
        assert_eq!(client.event().await.message_id, published.message_id);
    }
    client.unsubscribe(&["sprint:*"]).await;
    let published = relay.publish("acme", about(&["sprint:s1"])).await;
    assert_eq!(published.matched, Some(0));
    drop(client);

    // The next connection has all of them again.
    let (client, confirmed) = connect(&relay, &topics).await;
    assert_eq!(confirmed.topics, topics);
    assert_eq!(relay.metrics().await["sidewire_subscriptions"], 2.0);
    drop(client);
    let (mut client, confirmed) = connect(&relay, &[]).await;
    assert_eq!(confirmed, wire::SubscriptionConfirmed::default());
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_empty_subscribe_resumes_the_topics_of_the_token_that_still_stand() {
    let relay = TestRelay::start();
    let topics = ["project:p1", "project:p2"];
    let (mut client, _) = connect(&relay, &topics).await;
    let start = client.subscribe(&[]).await.position.unwrap();
    drop(client);
    for project in ["p1", "p2", "p3"] {
        relay.publish("acme", created(project)).await;
    }
    let (mut client, _) = connect(&relay, &topics).await;
    let confirmed = client.resume(&[], &start).await;
    assert_eq!((confirmed.recovered, confirmed.replayed), (true, 2));
    for offset in [1, 2] {
        assert_eq!(client.event().await.position.unwrap().offset, offset);
    }
    assert_eq!(client.resume(&[], &start).await.replayed, 0);
    client.nothing_more().await;
    drop(client);

    let (mut client, _) = connect(&relay, &topics).await;
    client.unsubscribe(&["project:p1"]).await;
    let confirmed = client.resume(&[], &start).await;
    assert_eq!((confirmed.recovered, confirmed.replayed), (true, 1));
    assert_eq!(client.event().await.position.unwrap().offset, 2);
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_malformed_list_of_topics_to_subscribe_to_is_refused() {
    let relay = TestRelay::with(|config| config.limits.topics_per_connection = 2);
    let claims = |subscribe: Value| {
        json!({
            "tenant_id": "acme", "user_id": "ann", "exp": 4_000_000_000_u64,
            "topics": ["project:*", "sprint:s1", "user:*", "tenant:*"], "subscribe": subscribe,
        })
    };
    for (subscribe, problem) in [
        (json!("project:p1"), "is not a list"),
        (json!(["project:p1", "sprint:s2"]), "[1] is not granted"),
        (json!(["sprint:*"]), "[0] is not granted"),
        (json!(["user:ann"]), "[0] is of a kind that nobody"),
        (json!(["user:*"]), "[0] is of a kind that nobody"),
        (json!(["tenant:*"]), "[0] is of a kind that nobody"),
        (
            json!(["project:a", "project:b", "project:c"]),
            "names 3 topics; the maximum is 2",
        ),
    ] {
        let refused = relay
            .connect_with(token_of(&claims(subscribe.clone())))
            .await;
        let Err(OpenError::Unauthorized(problem_document)) = refused else {
            panic!("{subscribe} is accepted");
        };
        let text = problem_document.to_string();
        assert!(text.contains(problem), "{subscribe}: {text}");
    }
    let token = token_of(&claims(json!(["project:*", "sprint:s1"])));
    drop(relay.connect_with(token).await.unwrap());
    assert!(relay.stop().await);
}
