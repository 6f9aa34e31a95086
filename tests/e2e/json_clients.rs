//! JSON clients over real sockets, beside binary ones, connecting as browsers do.

use std::time::Duration;

use serde_json::{Value, json};
use sidewire_client::PublishEncoding;
use sidewire_testing::{
    http::handshake,
    websocket::{CLOSE, FIN, TEXT, frame},
};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{
    json_client::{JsonClient, browsers_request},
    raw::RawClient,
    support::{TestRelay, token, token_with},
    vocabulary::{TestSchema, created, item_created, subscribe, subscribed, topics, topics_of},
};

/// The largest JSON frame that a shard decodes itself.
const READ_AT_ONCE_MAX: usize = 16 * 1024;

const RENDERED_FOR_DELIVERY: &str = "sidewire_events_rendered_total{purpose=\"delivery\"}";
const RENDERED_FOR_REPLAY: &str = "sidewire_events_rendered_total{purpose=\"replay\"}";

async fn all_gone(relay: &TestRelay) {
    relay
        .metrics_where(|metrics| metrics["sidewire_connections"] == 0.0)
        .await;
}

/// Returns a Subscribe of `len` bytes.
fn padded(topic: &str, len: usize) -> Message {
    let text = json!({"subscribe": {"topics": [topic]}}).to_string();
    let padding = " ".repeat(len - text.len());
    Message::text(text + &padding)
}

#[tokio::test]
async fn an_event_reaches_json_and_binary_clients_and_is_rendered_once_for_both_shards() {
    let relay = TestRelay::start();
    let mut binary = relay.connect_binary("acme", "ann").await;
    binary.subscribe(&["project:p1"]).await;
    // The acceptor assigns each connection to the shard with the fewest, so both shards
    // have some.
    let mut clients = Vec::new();
    for user in ["bob", "eve", "joe", "kim"] {
        let mut client = JsonClient::open(&relay, "acme", user).await;
        let confirmed = client.subscribe(topics(&["project:p1"])).await;
        assert_eq!(topics_of(&confirmed), subscribed(&["project:p1"]));
        clients.push(client);
    }
    for count in 1..=3 {
        let published = relay.publish("acme", created("p1")).await;
        assert_eq!(published.matched, Some(5));
        let event = binary.event().await;
        let mut expected = relay.json(&event.envelope);
        expected["position"]["offset"] = json!(count.to_string());
        for client in &mut clients {
            assert_eq!(client.event().await, expected);
        }
        assert_eq!(
            relay.metrics().await[RENDERED_FOR_DELIVERY],
            f64::from(count)
        );
    }
    let metrics = relay.metrics().await;
    assert_eq!(metrics["sidewire_json_connections"], 4.0);
    assert_eq!(metrics[RENDERED_FOR_REPLAY], 0.0);
    drop(clients);
    relay
        .metrics_where(|metrics| metrics["sidewire_json_connections"] == 0.0)
        .await;
    relay.publish("acme", created("p1")).await;
    binary.event().await;
    assert_eq!(relay.metrics().await[RENDERED_FOR_DELIVERY], 3.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_first_subprotocol_that_the_relay_speaks_is_chosen() {
    let relay = TestRelay::start();
    let bearer = format!("bearer.{}", token("acme", "ann"));
    for (offer, chosen) in [
        (format!("sidewire.v1.json, {bearer}"), "sidewire.v1.json"),
        (
            format!("{bearer}, x, sidewire.v1.json, sidewire.v1.protobuf"),
            "sidewire.v1.json",
        ),
        (
            format!("sidewire.v1.protobuf, sidewire.v1.json, {bearer}"),
            "sidewire.v1.protobuf",
        ),
    ] {
        let request = browsers_request(&relay, &offer);
        let (_client, response) = JsonClient::ask(&relay, request).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], chosen);
    }
    for offer in [bearer.clone(), format!("sidewire.v2.json, {bearer}")] {
        match JsonClient::ask(&relay, browsers_request(&relay, &offer)).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), 400),
            other => panic!("{:?}", other.map(|(_, response)| response)),
        }
    }
    all_gone(&relay).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_json_client_resumes_after_a_cut_without_gaps_or_duplicates() {
    let relay = TestRelay::start();
    let mut client = JsonClient::open(&relay, "acme", "ann").await;
    client.subscribe(json!({"topics": ["project:p1"]})).await;
    relay.publish("acme", created("p1")).await;
    let had = client.event().await["position"].clone();
    // A Pong advances the position for a quiet topic.
    relay.publish("acme", created("p2")).await;
    let stands_at = client.nothing_more().await["position"].clone();
    assert_eq!(stands_at["epoch"], had["epoch"]);
    assert_eq!(stands_at["offset"], "2");
    drop(client);
    for _ in 0..3 {
        relay.publish("acme", created("p1")).await;
    }
    let mut client = JsonClient::open(&relay, "acme", "ann").await;
    let resume = json!({"topics": ["project:p1"], "resumeFrom": stands_at});
    let confirmed = client.subscribe(resume).await;
    assert_eq!(confirmed["recovered"], true);
    assert_eq!(confirmed["replayed"], "3");
    for offset in ["3", "4", "5"] {
        assert_eq!(client.event().await["position"]["offset"], offset);
    }
    relay.publish("acme", created("p1")).await;
    assert_eq!(client.event().await["position"]["offset"], "6");
    let metrics = relay.metrics().await;
    assert_eq!(metrics[RENDERED_FOR_REPLAY], 3.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_bytes_of_json_are_counted_until_they_are_written() {
    let relay = TestRelay::with(|config| config.replay.enabled = false);
    let mut client = JsonClient::open(&relay, "acme", "ann").await;
    client.subscribe(json!({"topics": ["project:p1"]})).await;
    let events: Vec<_> = (0..300).map(|_| created("p1")).collect();
    let batch = json!({"messages": events}).to_string();
    let answer = relay
        .backend()
        .post("acme", batch, PublishEncoding::Json, &[], true)
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    for offset in 1..=300 {
        let event = client.event().await;
        assert_eq!(event["position"]["offset"], offset.to_string());
    }
    relay
        .metrics_where(|metrics| metrics["sidewire_events_bytes"] == metrics["sidewire_log_bytes"])
        .await;
    assert_eq!(relay.metrics().await[RENDERED_FOR_DELIVERY], 300.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn large_events_and_large_frames_are_handled() {
    let relay = TestRelay::start();
    let mut client = JsonClient::open(&relay, "acme", "ann").await;
    for (number, len) in [
        READ_AT_ONCE_MAX / 2,
        READ_AT_ONCE_MAX,
        READ_AT_ONCE_MAX + 1,
        64 * 1024,
    ]
    .into_iter()
    .enumerate()
    {
        let topic = format!("board:{number}");
        client.send(padded(&topic, len)).await;
        let envelope = client.envelope().await;
        assert_eq!(envelope["subscriptionConfirmed"]["topics"], json!([topic]));
    }
    let event = item_created("i", "p1", &"\u{1}".repeat(100_000));
    client.subscribe(json!({"topics": ["project:p1"]})).await;
    relay.publish("acme", event.clone()).await;
    let member = TestSchema::under_test().created_member();
    assert_eq!(client.event().await[member], event[member]);
    client.send(padded("board:1", 64 * 1024 + 1)).await;
    assert_eq!(client.closed(|_| ()).await.0, 1009);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn unreadable_json_is_refused_with_the_path_of_the_field() {
    let relay = TestRelay::start();
    let mut client = JsonClient::open(&relay, "acme", "ann").await;
    let deep = "{\"subscribe\":".repeat(3_000);
    let many: Vec<_> = (0..1_001).map(|n| format!("a:{n}")).collect();
    for (json, field) in [
        (
            json!({"subscribe": {"topics": [1]}}).to_string(),
            "subscribe.topics[0]",
        ),
        (json!({"subscribe": {"colour": 1}}).to_string(), "subscribe"),
        (
            json!({"subscribe": {"topics": ["a:1", "nonsense"]}}).to_string(),
            "subscribe.topics[1]",
        ),
        (
            subscribe(&["project:"]).to_string(),
            TestSchema::under_test().project_path(),
        ),
        (
            json!({"subscribe": {"topics": many}}).to_string(),
            "subscribe",
        ),
        (
            created("p1").to_string(),
            TestSchema::under_test().created_name(),
        ),
    ] {
        client.send(Message::text(json)).await;
        let error = client.refused().await;
        assert_eq!(error["errorCode"], "VALIDATION_ERROR", "{error}");
        assert_eq!(error["fieldName"], field, "{error}");
    }
    for json in [
        String::new(),
        "{".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        deep,
        "[".repeat(60_000),
        r#"{"subscribe": {}, "subscribe": {}}"#.to_owned(),
        r#"{"subscribe": {"projectIds": [], "project_ids": []}}"#.to_owned(),
        r#"{"subscribe": {}, "unsubscribe": {}}"#.to_owned(),
        r#"{"subscribe": {}} {}"#.to_owned(),
    ] {
        client.send(Message::text(json.clone())).await;
        let error = client.refused().await;
        assert_eq!(error["errorCode"], "VALIDATION_ERROR", "{json}: {error}");
    }
    client.nothing_more().await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn frames_of_the_wrong_kind_close_the_connection() {
    let relay = TestRelay::start();
    let offer = format!(
        "Sec-WebSocket-Protocol: sidewire.v1.json, bearer.{}\r\n",
        token("acme", "ann")
    );
    for (message, code) in [
        (frame(FIN | 2, b""), 1003),
        (frame(FIN | TEXT, b"{\"\xff\":1}"), 1007),
        (frame(FIN | TEXT, b"\xed\xa0\x80"), 1007),
    ] {
        let mut client = RawClient::open_with(&relay, handshake(&offer).as_bytes()).await;
        client.send(&message).await;
        assert_eq!(client.closed().await.0, code, "{message:02x?}");
    }
    let mut client = RawClient::open(&relay, "acme", "ann").await;
    client.send(&frame(FIN | TEXT, b"{}")).await;
    let close = client.frame().await;
    assert_eq!(
        (close.opcode, &close.payload[..2]),
        (CLOSE, &[0x03, 0xeb][..])
    );
    drop(client);
    all_gone(&relay).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_expired_token_is_reported_in_json_and_closes_with_4001() {
    let relay = TestRelay::with(|config| config.auth.leeway = Duration::ZERO);
    let token = token_with("acme", "ann", Duration::from_secs(2), None);
    let mut client = JsonClient::open_with(&relay, &token).await;
    client.subscribe(json!({"topics": ["project:p1"]})).await;
    let mut told = Vec::new();
    let (code, reason) = client.closed(|envelope| told.push(envelope)).await;
    assert_eq!((code, reason.as_str()), (4001, "token expired"));
    let codes: Vec<&Value> = told.iter().map(|it| &it["error"]["errorCode"]).collect();
    assert_eq!(codes, ["AUTHENTICATION_FAILED"]);
    all_gone(&relay).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_drain_closes_json_clients_with_1001_after_queued_frames() {
    let mut relay = TestRelay::with(|config| config.client.drain_spread = Duration::ZERO);
    let mut client = JsonClient::open(&relay, "acme", "ann").await;
    client.subscribe(json!({"topics": ["project:p1"]})).await;
    relay.publish("acme", created("p1")).await;
    let draining = relay.begin_drain();
    let mut told = Vec::new();
    let (code, reason) = client.closed(|envelope| told.push(envelope)).await;
    assert_eq!((code, reason.as_str()), (1001, "retry_after_ms=0"));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["position"]["offset"], "1");
    drop(client);
    assert!(draining.await.unwrap());
}
