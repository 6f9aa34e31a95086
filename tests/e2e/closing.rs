//! Clients that leave, and that no state of theirs remains.

use serde_json::json;
use sidewire_testing::websocket::{BINARY, CLOSE, FIN, binary, frame};

use crate::{
    raw::{RawClient, close_payload},
    support::TestRelay,
    vocabulary::{created, subscribe},
};

/// Waits until no state of any client remains.
async fn assert_all_gone(relay: &TestRelay) {
    relay
        .metrics_where(|metrics| {
            metrics["sidewire_connections"] == 0.0
                && metrics["sidewire_subscriptions"] == 0.0
                && metrics["sidewire_tenants"] == 0.0
        })
        .await;
}

/// Waits until this many connections have ended for this reason.
async fn assert_counted(relay: &TestRelay, reason: &str, count: usize) {
    let name =
        format!("sidewire_connections_closed_total{{transport=\"websocket\",reason=\"{reason}\"}}");
    relay
        .metrics_where(|metrics| metrics[&name] == count as f64)
        .await;
}

#[tokio::test]
async fn a_close_is_answered_with_the_same_code_and_the_socket_is_closed() {
    let relay = TestRelay::start();
    let cases = [
        (&close_payload(1000, b"bye")[..], 1000),
        (&close_payload(1000, b""), 1000),
        (&close_payload(1001, b"leaving the page"), 1001),
        (&close_payload(4999, b""), 4999),
        (b"", 1005),
    ];
    for (payload, code) in cases {
        let mut client = RawClient::open(&relay, "acme", "ann").await;
        client.say(&relay, subscribe(&["project:p1"])).await;
        client.envelope(&relay).await;
        client.send(&frame(FIN | CLOSE, payload)).await;
        let close = client.frame().await;
        assert_eq!(close.opcode, CLOSE);
        let answered = close.payload.first_chunk();
        assert_eq!(
            answered.map_or(1005, |code| u16::from_be_bytes(*code)),
            code
        );
        client.ended().await;
    }
    assert_all_gone(&relay).await;
    assert_counted(&relay, "client", cases.len()).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn messages_before_a_close_are_answered_and_those_after_it_are_not() {
    let relay = TestRelay::start();
    let mut client = RawClient::open(&relay, "acme", "ann").await;
    let ping = binary(&relay.envelope(json!({"ping": {"timestamp": "5"}})));
    client.send(&ping).await;
    assert!(client.envelope(&relay).await["pong"].is_object());
    let close = frame(FIN | CLOSE, &close_payload(1000, b""));
    client.send(&[close, ping.repeat(3)].concat()).await;
    let answer = client.frame().await;
    assert_eq!(
        (answer.opcode, answer.payload),
        (CLOSE, close_payload(1000, b""))
    );
    drop(client);
    assert_all_gone(&relay).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_that_disappears_leaves_nothing_behind() {
    let relay = TestRelay::start();
    for tenant in ["acme", "other"] {
        for leave in [drop as fn(RawClient), RawClient::reset] {
            let mut client = RawClient::open(&relay, tenant, "ann").await;
            let subscribe = subscribe(&["project:p1", "project:p2", "a:1"]);
            client.say(&relay, subscribe).await;
            client.envelope(&relay).await;
            let metrics = relay.metrics().await;
            assert_eq!(metrics["sidewire_connections"], 1.0);
            assert_eq!(metrics["sidewire_subscriptions"], 3.0);
            assert_eq!(metrics["sidewire_tenants"], 1.0);
            // In the middle of a frame.
            client
                .send(&frame(FIN | BINARY, b"not all of this")[..9])
                .await;
            leave(client);
            assert_all_gone(&relay).await;
        }
    }
    assert_counted(&relay, "lost", 4).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_that_leaves_does_not_affect_the_others() {
    let relay = TestRelay::start();
    let mut stays = relay.connect("acme", "ann").await;
    stays.subscribe(&["project:p1", "project:p2"]).await;
    for round in 0..20 {
        let mut leaves = relay.connect("acme", "ann").await;
        leaves.subscribe(&["project:p1"]).await;
        drop(leaves);
        relay
            .metrics_where(|metrics| metrics["sidewire_connections"] == 1.0)
            .await;
        let published = relay.publish("acme", created("p1")).await;
        assert_eq!(published.matched, Some(1), "{round}");
        assert_eq!(stays.event().await.message_id, published.message_id);
    }
    assert_eq!(relay.metrics().await["sidewire_subscriptions"], 2.0);
    stays.nothing_more().await;
    drop(stays);
    assert!(relay.stop().await);
}
