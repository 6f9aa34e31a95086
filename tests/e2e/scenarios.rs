//! The scenarios of the protocol document.

use sidewire_client::OpenError;

use crate::support::{TestRelay, token};
use crate::vocabulary::{also, created};

#[tokio::test]
async fn a_valid_token_connects() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.nothing_more().await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_subscribes_and_receives() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    let confirmed = client.subscribe(&["project:p1"]).await;
    assert_eq!(confirmed.topics, ["project:p1"]);
    let position = confirmed.position.unwrap();
    assert_eq!(position.offset, 0);

    let published = relay.publish("acme", created("p1")).await;
    assert_eq!(published.matched, Some(1));
    let event = client.event().await;
    assert_eq!(event.message_id, published.message_id);
    assert_eq!(event.position, Some(published.position.clone()));
    assert_eq!(published.position.epoch, position.epoch);
    assert_eq!(published.position.offset, 1);
    client.nothing_more().await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn several_clients_get_the_same_broadcast() {
    let relay = TestRelay::start();
    let mut clients = Vec::new();
    for user in ["ann", "bob", "cid", "ann"] {
        let mut client = relay.connect("acme", user).await;
        client.subscribe(&["project:p1"]).await;
        clients.push(client);
    }
    let published = relay.publish("acme", created("p1")).await;
    assert_eq!(published.matched, Some(4));
    let mut envelopes = Vec::new();
    for client in &mut clients {
        envelopes.push(client.event().await.envelope);
        client.nothing_more().await;
    }
    envelopes.dedup();
    assert_eq!(envelopes.len(), 1, "all got the same bytes");
    assert!(relay.stop().await);
}

#[tokio::test]
async fn only_subscribed_updates_arrive() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1", "project:p2"]).await;
    client.unsubscribe(&["project:p2"]).await;
    for (project, matched) in [("p2", 0), ("p3", 0), ("p1", 1)] {
        let published = relay.publish("acme", created(project)).await;
        assert_eq!(published.matched, Some(matched), "{project}");
    }
    assert_eq!(client.event().await.position.unwrap().offset, 3);
    client.nothing_more().await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_reconnects_after_a_disconnect() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    drop(client);
    relay
        .metrics_where(|metrics| metrics["sidewire_connections"] == 0.0)
        .await;
    let missed = relay.publish("acme", created("p1")).await;
    assert_eq!(missed.matched, Some(0));

    let mut client = relay.connect("acme", "ann").await;
    let confirmed = client.subscribe(&["project:p1"]).await;
    assert_eq!(confirmed.position, Some(missed.position));
    let published = relay.publish("acme", created("p1")).await;
    assert_eq!(client.event().await.message_id, published.message_id);
    client.nothing_more().await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_invalid_token_is_refused() {
    let relay = TestRelay::start();
    let mut forged = token("acme", "ann");
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    let refused = relay.connect_with(forged).await.err().unwrap();
    assert!(matches!(refused, OpenError::Unauthorized(_)), "{refused}");
    let metrics = relay.metrics().await;
    let failures =
        "sidewire_authentication_failures_total{listener=\"client\",reason=\"bad_signature\"}";
    assert_eq!(metrics[failures], 1.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn tenants_are_isolated_even_if_topics_and_users_have_the_same_names() {
    let relay = TestRelay::start();
    let mut ours = relay.connect("acme", "ann").await;
    let mut theirs = relay.connect("other", "ann").await;
    for client in [&mut ours, &mut theirs] {
        client.subscribe(&["project:p1"]).await;
    }
    let event = also(created("p1"), &["user:ann", "tenant:*"]);
    let published = relay.publish("acme", event).await;
    assert_eq!(published.matched, Some(1));
    assert_eq!(ours.event().await.message_id, published.message_id);
    ours.nothing_more().await;
    theirs.nothing_more().await;

    let elsewhere = relay.publish("other", created("p1")).await;
    assert_ne!(elsewhere.position.epoch, published.position.epoch);
    assert_eq!(theirs.event().await.message_id, elsewhere.message_id);
    ours.nothing_more().await;
    assert!(relay.stop().await);
}
