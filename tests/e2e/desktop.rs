//! Desktop mode: no tokens, one tenant.

use serde_json::json;
use sidewire_testing::http::{handshake, handshake_to};

use crate::{
    raw::{RawClient, query},
    support::{TestRelay, token},
    vocabulary::{also, created, subscribe, subscribed, topics_of},
};

/// Connects a client that claims to be this user.
async fn connect(relay: &TestRelay, user: &str) -> RawClient {
    let target = format!("/ws{}", query(&[("user_id", user)]));
    RawClient::open_with(relay, handshake_to(&target, "").as_bytes()).await
}

#[tokio::test]
async fn each_user_has_their_own_topic_and_all_share_the_tenant() {
    let relay = TestRelay::desktop();
    let odd_name = "Jörg / 100 %&=+";
    let mut ann = connect(&relay, "ann").await;
    let mut odd = connect(&relay, odd_name).await;
    let mut nameless = RawClient::open_with(&relay, handshake("").as_bytes()).await;
    for (user, client) in [
        ("ann", &mut ann),
        (odd_name, &mut odd),
        ("local", &mut nameless),
    ] {
        let event = also(created("p1"), &[format!("user:{user}")]);
        let published = relay.publish("local", event).await;
        assert_eq!(published.matched, Some(1), "{user}");
        let event = client.envelope(&relay).await;
        assert_eq!(
            event["position"]["offset"],
            published.position.offset.to_string()
        );
    }
    let event = also(created("p1"), &["tenant:*"]);
    assert_eq!(relay.publish("local", event).await.matched, Some(3));
    for client in [&mut ann, &mut odd, &mut nameless] {
        assert_eq!(client.envelope(&relay).await["position"]["offset"], "4");
        client.nothing_more(&relay).await;
    }
    drop((ann, odd, nameless));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_can_subscribe_to_any_topic_except_those_of_users() {
    let relay = TestRelay::desktop();
    let mut ann = connect(&relay, "ann").await;
    ann.say(&relay, subscribe(&["project:p1"])).await;
    let confirmed = ann.envelope(&relay).await;
    assert_eq!(
        topics_of(&confirmed["subscriptionConfirmed"]),
        subscribed(&["project:p1"])
    );
    ann.say(&relay, subscribe(&["user:bob"])).await;
    let refused = ann.envelope(&relay).await;
    assert_eq!(refused["error"]["errorCode"], "AUTHORIZATION_FAILED");
    assert_eq!(relay.publish("local", created("p1")).await.matched, Some(1));
    ann.envelope(&relay).await;
    ann.nothing_more(&relay).await;
    drop(ann);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_token_does_not_lead_to_another_tenant() {
    let relay = TestRelay::desktop();
    let mut client = relay.connect_with(token("acme", "ann")).await.unwrap();
    let event = also(created("p1"), &["tenant:*", "user:ann"]);
    assert_eq!(relay.publish("acme", event.clone()).await.matched, Some(0));
    assert_eq!(relay.publish("local", event).await.matched, Some(1));
    client.event().await;
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_with_an_invalid_name_is_refused() {
    let relay = TestRelay::desktop();
    for name in ["", "a\nb", &"x".repeat(129)] {
        let target = format!("/ws{}", query(&[("user_id", name)]));
        let request = handshake_to(&target, "");
        let (answer, client) = RawClient::ask(relay.addresses.client, request.as_bytes()).await;
        assert_eq!(answer.status, 401, "{name:?}");
        assert_eq!(answer.problem_code(), "AUTHENTICATION_FAILED");
        client.ended().await;
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn local_pages_may_connect() {
    let relay = TestRelay::desktop();
    for origin in [
        "http://localhost",
        "http://localhost:5173",
        "https://127.0.0.1:8443",
        "http://[::1]:3000",
    ] {
        let request = handshake(&format!("Origin: {origin}\r\n"));
        let mut client = RawClient::open_with(&relay, request.as_bytes()).await;
        client.nothing_more(&relay).await;
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_that_authenticates_is_told_that_no_token_is_needed() {
    let relay = TestRelay::desktop();
    let mut ann = connect(&relay, "ann").await;
    ann.say(&relay, subscribe(&["project:p1"])).await;
    ann.envelope(&relay).await;
    for token in [token("local", "ann"), token("acme", "bob"), String::new()] {
        ann.say(&relay, json!({"authenticate": {"token": token}}))
            .await;
        let error = ann.envelope(&relay).await["error"].take();
        assert_eq!(error["errorCode"], "VALIDATION_ERROR", "{error}");
        assert_eq!(error["fieldName"], "authenticate", "{error}");
    }
    relay.publish("local", created("p1")).await;
    assert!(ann.envelope(&relay).await["position"].is_object());
    ann.nothing_more(&relay).await;
    drop(ann);
    assert!(relay.stop().await);
}
