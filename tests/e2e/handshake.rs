//! Accepted handshakes: the tokens, the users, and data that follows directly.

use std::num::NonZeroU32;

use serde_json::{Value, json};
use sidewire::config::WebOrigin;
use sidewire_testing::{
    http::{ACCEPT, Answer, bearer, handshake, handshake_to},
    websocket::binary,
};

use crate::{
    raw::{RawClient, query},
    support::{TestRelay, token, token_of, token_with},
    vocabulary::{also, created, named, subscribe, subscribed},
};

/// Returns the relay's answer to a handshake with these header lines.
async fn shake_hands(relay: &TestRelay, headers: &str) -> Answer {
    let request = handshake(headers);
    RawClient::ask(relay.addresses.client, request.as_bytes())
        .await
        .0
}

/// Starts a relay with `?access_token=` enabled.
fn with_query_token() -> TestRelay {
    TestRelay::with(|config| config.client.query_token = true)
}

fn protocols(offer: &str) -> String {
    format!("Sec-WebSocket-Protocol: {offer}\r\n")
}

#[tokio::test]
async fn a_handshake_is_answered_as_rfc_6455_requires() {
    let relay = TestRelay::start();
    let answer = shake_hands(&relay, &bearer(&token("acme", "ann"))).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.headers["sec-websocket-accept"], ACCEPT);
    assert_eq!(answer.headers["upgrade"], "websocket");
    assert_eq!(answer.headers["connection"], "Upgrade");
    assert!(!answer.headers.contains_key("sec-websocket-protocol"));
    assert!(!answer.headers.contains_key("sec-websocket-extensions"));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn header_names_and_tokens_are_read_in_any_case_and_among_others() {
    let relay = TestRelay::start();
    let request = handshake(&format!(
        "AUTHORIZATION: bEaReR {}\r\n",
        token("acme", "ann")
    ))
    .replace("Connection: Upgrade", "connection: keep-alive, UPGRADE")
    .replace("Upgrade: websocket", "upgrade: WebSocket");
    let mut client = RawClient::open_with(&relay, request.as_bytes()).await;
    client.nothing_more(&relay).await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_subprotocol_of_the_relay_is_echoed_and_a_token_never_is() {
    let relay = TestRelay::start();
    let token = token("acme", "ann");
    let (ours, other) = ("sidewire.v1.protobuf", "graphql-transport-ws");
    for offer in [
        format!("{ours}, bearer.{token}"),
        format!("bearer.{token}, {ours}"),
        format!("bearer.{token},{other},{ours}"),
        format!("{other}\r\nSec-WebSocket-Protocol: {ours}, bearer.{token}"),
    ] {
        let answer = shake_hands(&relay, &protocols(&offer)).await;
        assert_eq!(answer.status, 101, "{offer}: {}", answer.text());
        assert_eq!(answer.headers["sec-websocket-protocol"], ours, "{offer}");
        let told: String = answer.headers.into_values().collect();
        assert!(!told.contains(&token), "{told}");
    }
    let answer = shake_hands(&relay, &(bearer(&token) + &protocols(ours))).await;
    assert_eq!(answer.headers["sec-websocket-protocol"], ours);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_token_in_the_query_is_accepted_only_if_the_config_allows_it() {
    let target = format!("/ws{}", query(&[("access_token", &token("acme", "ann"))]));
    let request = handshake_to(&target, "");
    for (relay, status) in [(TestRelay::start(), 401), (with_query_token(), 101)] {
        let (answer, client) = RawClient::ask(relay.addresses.client, request.as_bytes()).await;
        assert_eq!(answer.status, status);
        drop(client);
        assert!(relay.stop().await);
    }
}

#[tokio::test]
async fn a_token_is_taken_from_the_header_then_the_subprotocol_then_the_query() {
    let relay = with_query_token();
    let good = token("acme", "ann");
    let in_query = |token: &str| format!("/ws{}", query(&[("access_token", token)]));
    let offered = |token: &str| protocols(&format!("sidewire.v1.protobuf, bearer.{token}"));
    let basic = "Authorization: Basic YW5uOnNlY3JldA==\r\n";
    for (case, target, headers, status) in [
        (
            "a bad header beside good ones",
            in_query(&good),
            bearer("bad") + &offered(&good),
            401,
        ),
        (
            "an empty header beside good ones",
            in_query(&good),
            "Authorization: Bearer\r\n".to_owned() + &offered(&good),
            401,
        ),
        (
            "a good header beside bad ones",
            in_query("bad"),
            bearer(&good) + &offered("bad"),
            101,
        ),
        (
            "a bad subprotocol beside a good query",
            in_query(&good),
            offered("bad"),
            4401,
        ),
        (
            "a good subprotocol beside a bad query",
            in_query("bad"),
            offered(&good),
            101,
        ),
        (
            "another scheme beside a good subprotocol",
            "/ws".to_owned(),
            basic.to_owned() + &offered(&good),
            101,
        ),
        (
            "another scheme beside a good query",
            in_query(&good),
            basic.to_owned(),
            101,
        ),
        (
            "another scheme beside a good header",
            "/ws".to_owned(),
            basic.to_owned() + &bearer(&good),
            101,
        ),
        (
            "another scheme alone",
            "/ws".to_owned(),
            basic.to_owned(),
            401,
        ),
        (
            "two headers of the scheme",
            "/ws".to_owned(),
            bearer(&good) + &bearer(&good),
            401,
        ),
    ] {
        let request = handshake_to(&target, &headers);
        let (answer, mut client) = RawClient::ask(relay.addresses.client, request.as_bytes()).await;
        match status {
            101 => client.nothing_more(&relay).await,
            // Refused after the upgrade.
            4401 => assert_eq!(client.frame().await.close_code(), status),
            _ => assert_eq!(answer.status, status, "{case}"),
        }
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_with_a_listed_origin_or_without_one_may_connect() {
    let listed = TestRelay::with(|config| {
        config.client.origins = vec![WebOrigin::parse("https://app.example").unwrap()];
    });
    let open = TestRelay::start();
    let token = bearer(&token("acme", "ann"));
    for (relay, origin) in [
        (&listed, ""),
        (&listed, "Origin: https://app.example\r\n"),
        (&listed, "Origin: https://app.example:443\r\n"),
        (&open, ""),
        (&open, "Origin: https://whoever.example\r\n"),
        (&open, "Origin: null\r\n"),
    ] {
        let answer = shake_hands(relay, &(token.clone() + origin)).await;
        assert_eq!(answer.status, 101, "{origin:?}: {}", answer.text());
    }
    assert!(listed.stop().await);
    assert!(open.stop().await);
}

#[tokio::test]
async fn integers_are_valid_names() {
    let relay = TestRelay::start();
    let token = token_of(&json!({"tenant_id": 7, "user_id": 12, "exp": 4_000_000_000_u64}));
    let mut client = relay.connect_with(token).await.unwrap();
    let event = also(created("p1"), &["user:12"]);
    let published = relay.publish("7", event).await;
    assert_eq!(published.matched, Some(1));
    assert_eq!(client.event().await.message_id, published.message_id);
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_topics_of_a_token_limit_the_subscriptions_of_its_client() {
    let relay = TestRelay::start();
    let hour = std::time::Duration::from_hours(1);
    let token = token_with("acme", "ann", hour, Some(&["project:p1", "sprint:*"]));
    let mut client = relay.connect_with(token).await.unwrap();
    let granted = ["project:p1", "sprint:s1", "sprint:s2", "sprint:*"];
    assert_eq!(client.subscribe(&granted).await.topics, granted);
    for refused in ["project:p2", "work_item:w1", "project:*"] {
        let id = client.ask_for(&["sprint:s3", refused]).await;
        let error = client.error().await;
        assert_eq!(error.error_code, "AUTHORIZATION_FAILED", "{refused}");
        assert_eq!(error.request_message_id, id);
    }
    // A grant cannot take the implicit topics away.
    let event = also(created("p2"), &["user:ann"]);
    assert_eq!(relay.publish("acme", event).await.matched, Some(1));
    client.event().await;
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

/// Returns two frames that follow a handshake directly, and the answers to them.
fn early_frames(relay: &TestRelay) -> (Vec<u8>, [Value; 2]) {
    let subscribe = named("s", subscribe(&["project:p1"]));
    let ping = json!({"messageId": "p", "ping": {"timestamp": "5"}});
    let frames = [subscribe, ping]
        .map(|it| binary(&relay.envelope(it)))
        .concat();
    let mut subscribed = subscribed(&["project:p1"]);
    subscribed["requestMessageId"] = json!("s");
    (frames, [subscribed, json!({"clientTimestamp": "5"})])
}

async fn assert_answered(relay: &TestRelay, client: &mut RawClient, answers: [Value; 2]) {
    let [subscribed, mut pong] = answers;
    let mut confirmed = client.envelope(relay).await["subscriptionConfirmed"].take();
    let position = confirmed.as_object_mut().unwrap().remove("position");
    assert!(position.is_some());
    assert_eq!(confirmed, subscribed);
    let mut answer = client.envelope(relay).await["pong"].take();
    assert!(
        answer
            .as_object_mut()
            .unwrap()
            .remove("timestamp")
            .is_some()
    );
    // The position of the connection has not changed.
    pong["position"] = position.into();
    assert_eq!(answer, pong);
}

#[tokio::test]
async fn frames_in_the_segment_of_the_handshake_are_not_lost() {
    let relay = TestRelay::start();
    let (frames, answers) = early_frames(&relay);
    let request = handshake(&bearer(&token("acme", "ann")));
    let segment = [request.as_bytes(), &frames].concat();
    let mut client = RawClient::open_with(&relay, &segment).await;
    assert_answered(&relay, &mut client, answers).await;
    client.nothing_more(&relay).await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_frame_split_by_the_segment_of_the_handshake_is_not_lost() {
    let relay = TestRelay::start();
    let (frames, answers) = early_frames(&relay);
    let request = handshake(&bearer(&token("acme", "ann")));
    // In the first frame's header, in its payload, in the second's header.
    let first = 2 + 4 + relay.envelope(named("s", subscribe(&["project:p1"]))).len();
    for cut in [1, 3, first - 1, first + 1] {
        let segment = [request.as_bytes(), &frames[..cut]].concat();
        let mut client = RawClient::open_with(&relay, &segment).await;
        client.send(&frames[cut..]).await;
        assert_answered(&relay, &mut client, answers.clone()).await;
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn more_frames_after_a_handshake_than_an_outbox_holds_are_all_answered() {
    let relay = TestRelay::with(|it| it.limits.heartbeat_burst = NonZeroU32::MAX);
    let ping = binary(&relay.envelope(json!({"ping": {"timestamp": "5"}})));
    let pings = 3_000;
    let request = handshake(&bearer(&token("acme", "ann")));
    let bytes = [request.as_bytes(), &ping.repeat(pings)].concat();
    let mut client = RawClient::open_with(&relay, &bytes).await;
    for _ in 0..pings {
        assert!(client.envelope(&relay).await["pong"].is_object());
    }
    client.nothing_more(&relay).await;
    drop(client);
    assert!(relay.stop().await);
}
