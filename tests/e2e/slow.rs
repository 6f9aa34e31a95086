//! Clients that do not read, over real sockets.

use std::{
    io,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use sidewire_testing::websocket::{BINARY, binary};

use crate::raw::RawClient;
use crate::support::{PATIENCE, TestRelay};
use crate::vocabulary::{also, item_created};

const REFUSALS_MAX: NonZeroU32 = NonZeroU32::new(10_000).unwrap();

const WRITE_TIMEOUT: Duration = Duration::from_millis(700);

fn relay() -> TestRelay {
    TestRelay::with(|config| {
        config.client.write_timeout = WRITE_TIMEOUT;
        config.client.send_buffer = 4096;
        config.limits.outbox_frames = 50;
        // The flooding client should be held up by what it does not read, not by a rate limit.
        config.limits.user_burst = NonZeroU32::MAX;
        config.limits.tenant_burst = NonZeroU32::MAX;
        config.limits.refusals_per_minute = REFUSALS_MAX;
    })
}

fn event() -> serde_json::Value {
    also(item_created("w", "p", &"x".repeat(8000)), &["tenant:*"])
}

/// Reads until the connection is reset. Returns the number of whole frames before that.
async fn frames_before_reset(client: &mut RawClient) -> usize {
    let mut frames = 0;
    loop {
        match client.receive().await {
            Ok(Some(frame)) => {
                assert_eq!(frame.opcode, BINARY);
                frames += 1;
            }
            // The last frame may be cut short.
            Ok(None) | Err(_) => {
                assert!(client.was_reset());
                return frames;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_reset_and_others_lose_nothing() {
    let relay = relay();
    let mut silent = RawClient::open_narrow(&relay, "acme", "ann").await;
    let mut good = relay.connect("acme", "ann").await;
    for offset in 1..=120 {
        relay.publish("acme", event()).await;
        assert_eq!(good.event().await.position.unwrap().offset, offset);
    }
    let dropped = "sidewire_events_dropped_total{reason=\"too_slow\"}";
    relay.metrics_where(|metrics| metrics[dropped] > 0.0).await;
    let begun = Instant::now();
    relay
        .metrics_where(|metrics| {
            metrics["sidewire_connections_closed_total{transport=\"websocket\",reason=\"too_slow\"}"] == 1.0
        })
        .await;
    assert!(begun.elapsed() < WRITE_TIMEOUT + PATIENCE / 4);
    assert!(frames_before_reset(&mut silent).await < 70);
    good.nothing_more().await;
    let metrics = relay.metrics().await;
    assert_eq!(metrics["sidewire_connections"], 1.0);
    drop(good);
    assert!(relay.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_floods_and_reads_nothing_is_reset() {
    let relay = relay();
    let mut flooder = RawClient::open_narrow(&relay, "acme", "ann").await;
    let mut sent = 0_u64;
    let error = loop {
        // Undecodable messages: each is answered with an ErrorResponse.
        let frames = binary(&[0xff]).repeat(1000);
        match flooder.try_send(&frames).await {
            Ok(()) => sent += 1000,
            Err(error) => break error,
        }
        assert!(sent < 10_000_000, "it is read without end");
    };
    assert!(
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ),
        "{error}"
    );
    relay
        .metrics_where(|metrics| {
            metrics["sidewire_connections_closed_total{transport=\"websocket\",reason=\"reset\"}"]
                == 1.0
        })
        .await;
    assert!(relay.stop().await);
}
