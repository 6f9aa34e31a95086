//! Silent clients, and the pings that show whether they are alive.

use std::time::Duration;

use sidewire_testing::websocket::{CLOSE, PING};
use tokio::time::Instant;

use crate::{raw::RawClient, support::TestRelay};

/// Long enough for a busy machine to answer.
const INTERVAL: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_client_without_a_sign_of_life_is_pinged_and_closed_with_4004_and_others_stay() {
    let relay = TestRelay::with(|config| {
        config.client.ping_interval = INTERVAL;
        config.client.idle_timeout = IDLE;
    });
    // Its library answers pings as long as the test reads from it.
    let mut alive = relay.connect("acme", "ann").await;
    let began = Instant::now();
    let mut silent = RawClient::open(&relay, "acme", "bob").await;
    let is_given_up = async move {
        let mut pings = 0;
        let close = loop {
            let frame = silent.frame().await;
            match frame.opcode {
                PING => pings += 1,
                CLOSE => break frame,
                _ => panic!("{frame:?}"),
            }
        };
        assert_eq!(close.payload[..2], 4004_u16.to_be_bytes());
        assert_eq!(&close.payload[2..], b"no frame within the idle timeout");
        assert!((1..=3).contains(&pings), "{pings}");
        assert!(began.elapsed() >= IDLE);
    };
    tokio::select! {
        biased;
        () = is_given_up => {}
        heard = alive.receive() => panic!("{heard:?}"),
    }
    relay
        .metrics_where(|metrics| {
            metrics["sidewire_connections_closed_total{transport=\"websocket\",reason=\"idle\"}"]
                == 1.0
        })
        .await;
    alive.nothing_more().await;
    drop(alive);
    assert!(relay.stop().await);
}
