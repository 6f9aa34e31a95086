//! Clients that are slow to complete the handshake.

use std::time::Duration;

use sidewire_testing::http::{bearer, handshake};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    raw::RawClient,
    support::{TestRelay, token},
};

#[tokio::test]
async fn a_peer_that_takes_too_long_for_a_handshake_is_dropped() {
    let handshake_timeout = Duration::from_millis(500);
    let relay = TestRelay::with(|config| config.client.handshake_timeout = handshake_timeout);
    let address = relay.addresses.client;
    // It completes in time, after which the deadline no longer applies.
    let mut honest = relay.connect("acme", "ann").await;

    let silent = RawClient::silent(address).await;
    let mut halfway = RawClient::silent(address).await;
    halfway
        .send(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n")
        .await;
    tokio::join!(silent.ended(), halfway.ended(), drip(&relay));

    relay
        .metrics_where(|metrics| metrics["sidewire_handshakes_timed_out_total"] == 3.0)
        .await;
    let metrics = relay.metrics().await;
    assert_eq!(
        metrics["sidewire_connections_opened_total{transport=\"websocket\"}"],
        1.0
    );
    honest.subscribe(&["project:p1"]).await;
    honest.nothing_more().await;
    drop(honest);
    assert!(relay.stop().await);
}

/// Sends a valid handshake one byte at a time, so slowly that the relay closes the connection.
async fn drip(relay: &TestRelay) {
    let request = handshake(&bearer(&token("acme", "ann")));
    let mut client = RawClient::silent(relay.addresses.client).await;
    let mut pace = interval(Duration::from_millis(20));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for byte in request.bytes() {
        pace.tick().await;
        if client.try_send(&[byte]).await.is_err() {
            return;
        }
    }
    panic!("it came through");
}

#[tokio::test]
async fn a_peer_that_leaves_during_a_handshake_leaves_nothing_behind() {
    let relay = TestRelay::start();
    let request = handshake(&bearer(&token("acme", "ann")));
    for sent in [0, 1, 30, request.len() - 2] {
        let mut client = RawClient::silent(relay.addresses.client).await;
        client.send(&request.as_bytes()[..sent]).await;
        drop(client);
        let mut client = RawClient::silent(relay.addresses.client).await;
        client.send(&request.as_bytes()[..sent]).await;
        client.reset();
    }
    // The client leaves before it could read that it was admitted.
    let mut client = RawClient::silent(relay.addresses.client).await;
    client.send(request.as_bytes()).await;
    client.reset();
    relay.connect("acme", "ann").await.nothing_more().await;
    relay
        .metrics_where(|metrics| {
            metrics["sidewire_connections"] == 0.0 && metrics["sidewire_tenants"] == 0.0
        })
        .await;
    assert!(relay.stop().await);
}
