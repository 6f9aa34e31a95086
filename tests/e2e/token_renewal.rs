//! Tokens that are replaced on an open connection: what the connection may do then, and how long
//! it lives.

use std::{num::NonZeroU32, time::Duration};

use serde_json::json;
use sidewire_protocol::clock::Clock;
use sidewire_testing::{protobuf, websocket::binary};
use tempfile::TempDir;

use crate::{
    json_client::JsonClient,
    raw::RawClient,
    support::{TestRelay, token, token_of, token_with},
    vocabulary::{about, created, typing},
};

const HOUR: Duration = Duration::from_hours(1);

/// Starts a relay that closes a connection exactly when its token expires.
fn without_leeway() -> TestRelay {
    TestRelay::with(|config| config.auth.leeway = Duration::ZERO)
}

/// Returns the time in seconds since the Unix epoch.
fn now() -> f64 {
    Clock::system().since_unix_epoch().as_secs_f64()
}

/// Returns a token of ann that expires at this time.
fn token_until(expiry: f64) -> String {
    token_of(&json!({"tenant_id": "acme", "user_id": "ann", "exp": expiry}))
}

/// Returns a token of ann for these topics only.
fn token_for(topics: &[&str]) -> String {
    token_with("acme", "ann", HOUR, Some(topics))
}

#[tokio::test]
async fn a_renewed_connection_outlives_its_first_token() {
    let relay = without_leeway();
    let first = now() + 1.5;
    let mut renewed = relay.connect_bearing(&token_until(first)).await;
    renewed.subscribe(&["project:p1"]).await;
    let mut other = relay.connect_bearing(&token_until(first + 0.5)).await;
    let hour_long = token("acme", "ann");
    let answer = renewed.authenticate(&hour_long).await.unwrap();
    assert!(answer.expires_at > now() as i64 + 3_000, "{answer:?}");
    // A token that expires a little later than the first has expired.
    assert_eq!(other.error().await.error_code, "AUTHENTICATION_FAILED");
    assert_eq!(other.closed().await.0, 4001);
    assert!(now() >= first + 0.5);
    let published = relay.publish("acme", created("p1")).await;
    assert_eq!(renewed.event().await.message_id, published.message_id);
    renewed.nothing_more().await;
    drop(renewed);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_connection_ends_when_its_newest_token_expires() {
    let relay = without_leeway();
    let mut client = relay.connect("acme", "ann").await;
    let expiry = now() + 1.5;
    let answer = client.authenticate(&token_until(expiry)).await.unwrap();
    assert_eq!(answer.expires_at, expiry as i64);
    let error = client.error().await;
    assert_eq!(error.error_code, "AUTHENTICATION_FAILED");
    assert_eq!(error.request_message_id, "");
    assert_eq!(client.closed().await, (4001, "token expired".to_owned()));
    assert!(now() >= expiry);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_refused_token_does_not_change_when_the_connection_ends() {
    let relay = without_leeway();
    let expiry = now() + 2.0;
    let mut client = relay.connect_bearing(&token_until(expiry)).await;
    let of_bob = |lifetime| token_with("acme", "bob", lifetime, None);
    let refused = [
        of_bob(HOUR),
        of_bob(Duration::from_secs(1)),
        token_until(1.0),
    ];
    for token in &refused {
        client.authenticate(token).await.unwrap_err();
    }
    assert_eq!(client.error().await.error_code, "AUTHENTICATION_FAILED");
    assert_eq!(client.closed().await.0, 4001);
    assert!(now() >= expiry);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_narrower_token_ends_subscriptions_and_names_them() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    let held = [
        "project:p1",
        "project:p2",
        "sprint:*",
        "sprint:s1",
        "sprint:s2",
        "work_item:*",
    ];
    client.subscribe(&held).await;
    let narrow = ["project:p1", "sprint:s1", "work_item:*"];
    let answer = client.authenticate(&token_for(&narrow)).await.unwrap();
    let mut revoked = answer.revoked_topics;
    revoked.sort();
    assert_eq!(revoked, ["project:p2", "sprint:*", "sprint:s2"]);

    for lost in ["project:p2", "sprint:s2", "sprint:s3"] {
        let published = relay.publish("acme", about(&[lost])).await;
        assert_eq!(published.matched, Some(0), "{lost}");
    }
    // What the token covers stays, and so do the implicit topics.
    for kept in [
        "project:p1",
        "sprint:s1",
        "work_item:w1",
        "user:ann",
        "tenant:*",
    ] {
        let published = relay.publish("acme", about(&[kept])).await;
        assert_eq!(published.matched, Some(1), "{kept}");
        assert_eq!(
            client.event().await.message_id,
            published.message_id,
            "{kept}"
        );
    }
    // An event of a lost topic and of one that stays comes once.
    let both = relay
        .publish("acme", about(&["work_item:w1", "project:p2"]))
        .await;
    assert_eq!(client.event().await.message_id, both.message_id);
    for denied in ["project:p2", "sprint:*", "sprint:s2"] {
        client.ask_for(&["project:p1", denied]).await;
        assert_eq!(
            client.error().await.error_code,
            "AUTHORIZATION_FAILED",
            "{denied}"
        );
    }
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_wildcard_stays_only_under_a_token_that_names_it() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:*", "project:p1"]).await;
    for (granted, revoked) in [
        (&["project:*", "sprint:s1"][..], &[][..]),
        (&["project:*"], &[]),
        // Not even all of its topics that exist make up for it.
        (&["project:p1", "project:p2"], &["project:*"]),
        (&[], &["project:p1"]),
    ] {
        let answer = client.authenticate(&token_for(granted)).await.unwrap();
        assert_eq!(answer.revoked_topics, revoked, "{granted:?}");
    }
    // A wider token gives back the right, and not the subscription.
    let answer = client.authenticate(&token("acme", "ann")).await.unwrap();
    assert_eq!(answer.revoked_topics, [""; 0]);
    let published = relay.publish("acme", created("p1")).await;
    assert_eq!(published.matched, Some(0));
    client.subscribe(&["project:*"]).await;
    let published = relay.publish("acme", created("p1")).await;
    assert_eq!(client.event().await.message_id, published.message_id);
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_topics_that_a_token_subscribed_to_end_with_their_grant() {
    let relay = TestRelay::start();
    let first = json!({
        "tenant_id": "acme", "user_id": "ann", "exp": 4_000_000_000_u64,
        "subscribe": ["project:p1", "project:p2"],
    });
    let mut client = relay.connect_bearing(&token_of(&first)).await;
    client.receive().await;
    let answer = client
        .authenticate(&token_for(&["project:p2"]))
        .await
        .unwrap();
    assert_eq!(answer.revoked_topics, ["project:p1"]);
    relay.publish("acme", created("p1")).await;
    let published = relay.publish("acme", created("p2")).await;
    assert_eq!(client.event().await.message_id, published.message_id);
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_event_is_judged_by_the_newest_token() {
    let relay = TestRelay::start();
    let mut sender = JsonClient::open(&relay, "acme", "ann").await;
    let mut receiver = relay.connect("acme", "bob").await;
    for project in ["project:p1", "project:p2"] {
        sender.subscribe(json!({"topics": [project]})).await;
        receiver.subscribe(&[project]).await;
    }
    let token = token_for(&["project:p1"]);
    sender.say(json!({"authenticate": {"token": token}})).await;
    let answer = sender.envelope().await;
    assert_eq!(
        answer["authenticated"]["revokedTopics"],
        json!(["project:p2"])
    );
    sender.say(typing("p2")).await;
    assert_eq!(sender.refused().await["errorCode"], "AUTHORIZATION_FAILED");
    let id = sender.say(typing("p1")).await;
    assert_eq!(receiver.event().await.message_id, id);
    receiver.nothing_more().await;
    drop((sender, receiver));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn tokens_are_charged_to_their_user_and_the_one_hundred_and_first_is_refused() {
    let relay = TestRelay::with(|config| {
        assert_eq!(config.limits.user_burst.get(), 100);
        // Nothing refills while the test runs.
        config.limits.user_period = Duration::from_hours(100);
        config.limits.tenant_burst = NonZeroU32::MIN;
        config.limits.tenant_period = Duration::from_hours(100);
    });
    let mut clients = [
        relay.connect("acme", "ann").await,
        relay.connect("acme", "ann").await,
    ];
    let token = token("acme", "ann");
    for number in 0..100 {
        let client = &mut clients[number % 2];
        // What is refused is charged too.
        match number % 10 {
            0 => drop(client.authenticate("no token").await.unwrap_err()),
            _ => drop(client.authenticate(&token).await.unwrap()),
        }
    }
    for client in &mut clients {
        let error = client.authenticate(&token).await.unwrap_err();
        assert_eq!(error.error_code, "RATE_LIMIT_EXCEEDED");
        assert!(error.retry_after_ms.unwrap() > 1_000_000, "{error:?}");
        // The connection stays as it is; its first Subscribe is free.
        client.subscribe(&["project:p1"]).await;
        client.ask_for(&["project:p2"]).await;
        assert_eq!(client.error().await.error_code, "RATE_LIMIT_EXCEEDED");
    }
    let mut other = relay.connect("acme", "bob").await;
    let of_bob = token_with("acme", "bob", HOUR, None);
    other.authenticate(&of_bob).await.unwrap();
    let series = "sidewire_limits_exceeded_total{limit=\"user_messages\"}";
    assert_eq!(relay.metrics().await.get(series), Some(&4.0));
    drop((clients, other));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_that_sends_bad_tokens_again_and_again_is_disconnected() {
    let relay = TestRelay::with(|config| {
        config.limits.refusals_per_minute = NonZeroU32::new(5).unwrap();
    });
    let mut client = relay.connect("acme", "ann").await;
    for _ in 0..5 {
        client.authenticate("no token").await.unwrap_err();
    }
    assert_eq!(client.closed().await.0, 4005);
    assert!(relay.stop().await);
}

/// An envelope that lacks the fields 19 and 20.
const WITHOUT_TOKENS: &str = r#"
syntax = "proto3";
package plain.v1;
import "sidewire/v1/options.proto";
import "sidewire/v1/relay.proto";
message Envelope {
  string message_id = 1;
  int64 timestamp = 8;
  sidewire.v1.Position position = 9;
  repeated string topics = 18;
  oneof payload {
    Note note = 2;
    sidewire.v1.Subscribe subscribe = 10;
    sidewire.v1.SubscriptionConfirmed subscription_confirmed = 11;
    sidewire.v1.Unsubscribe unsubscribe = 12;
    sidewire.v1.UnsubscribeConfirmed unsubscribe_confirmed = 13;
    sidewire.v1.Ping ping = 14;
    sidewire.v1.Pong pong = 15;
    sidewire.v1.ErrorResponse error = 16;
  }
}
message Note {
  string project_id = 1 [(sidewire.v1.topic) = "project"];
}
"#;

#[tokio::test]
async fn a_schema_that_lacks_these_messages_works_and_refuses_them() {
    let files = TempDir::new().unwrap();
    let file = files.path().join("plain.proto");
    std::fs::write(&file, WITHOUT_TOKENS).unwrap();
    let relay = TestRelay::with(|config| {
        config.schema.files = vec![file];
        config.schema.envelope = Some("plain.v1.Envelope".to_owned());
    });
    let note = json!({"note": {"projectId": "p1"}});
    let token = token("acme", "ann");

    let mut client = RawClient::open(&relay, "acme", "ann").await;
    client
        .say(&relay, json!({"subscribe": {"topics": ["project:p1"]}}))
        .await;
    assert!(client.envelope(&relay).await["subscriptionConfirmed"].is_object());
    let authenticate = protobuf::bytes(19, &protobuf::text(1, &token));
    let id = protobuf::text(1, "a");
    client.send(&binary(&[id, authenticate].concat())).await;
    let error = client.envelope(&relay).await["error"].take();
    assert_eq!(error["errorCode"], "VALIDATION_ERROR", "{error}");
    assert_eq!(error["requestMessageId"], "a", "{error}");
    relay.publish("acme", note.clone()).await;
    assert_eq!(client.envelope(&relay).await["note"], note["note"]);
    client.nothing_more(&relay).await;
    drop(client);

    let mut client = JsonClient::open(&relay, "acme", "ann").await;
    client.subscribe(json!({"topics": ["project:p1"]})).await;
    client.say(json!({"authenticate": {"token": token}})).await;
    let error = client.refused().await;
    assert_eq!(error["errorCode"], "VALIDATION_ERROR", "{error}");
    assert!(!error.to_string().contains(&token));
    relay.publish("acme", note.clone()).await;
    assert_eq!(client.event().await["note"], note["note"]);
    drop(client);
    assert!(relay.stop().await);
}
