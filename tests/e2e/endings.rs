//! The end of connections and of the relay, over real sockets.

use std::time::{Duration, Instant};

use sidewire_client::{OpenError, PublishEncoding, ReceiveError, RelayMessage};
use sidewire_testing::websocket::{BINARY, FIN, close, unmasked};
use tokio::task::JoinSet;

use crate::{
    raw::{RawClient, http},
    support::{TestRelay, token, token_with},
    vocabulary::{also, created, item_created},
};

/// Observations of one client in the drain test: offsets in order, and the code and reason
/// of the Close.
type Story = (Vec<u64>, u16, String);

async fn listen(relay: &TestRelay, stories: &mut JoinSet<Story>) {
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    stories.spawn(async move {
        let mut offsets = Vec::new();
        loop {
            match client.try_receive().await {
                Ok(RelayMessage::Event(event)) => offsets.push(event.position.unwrap().offset),
                Err(ReceiveError::Closed { code, reason }) => return (offsets, code, reason),
                other => panic!("{other:?}"),
            }
        }
    });
}

/// Publishes events one after another until the relay refuses them. Returns the offsets of
/// those that it has acknowledged.
async fn publish_until_refused(backend: sidewire_client::EventPublisher, clients: u64) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    loop {
        let body = created("p1").to_string();
        let Ok(answer) = backend
            .post("acme", body, PublishEncoding::Json, &[], false)
            .await
        else {
            return acknowledged;
        };
        match answer.status {
            200 => {
                let published = &answer.results[0];
                assert_eq!(published.matched, Some(clients));
                acknowledged.push(published.position.offset);
            }
            503 => return acknowledged,
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_loses_no_acknowledged_event_and_spreads_the_clients() {
    const CLIENTS: u64 = 200;
    let mut relay = TestRelay::with(|config| {
        config.client.drain_spread = Duration::from_secs(3);
    });
    let mut stories = JoinSet::new();
    for _ in 0..CLIENTS {
        listen(&relay, &mut stories).await;
    }
    // It reads and never answers the Close, so the drain lasts two seconds.
    let mut rude = RawClient::open_narrow(&relay, "acme", "ann").await;
    let mut backends = JoinSet::new();
    for _ in 0..4 {
        backends.spawn(publish_until_refused(relay.backend(), CLIENTS));
    }
    relay
        .metrics_where(|metrics| metrics["sidewire_events_ingested_total"] >= 50.0)
        .await;

    let drain = relay.begin_drain();
    assert_eq!(rude.frame().await.close_code(), 1001);
    let refused = relay.connect_with(token("acme", "bob")).await.err();
    match refused.expect("nobody is let in any more") {
        OpenError::Refused(problem) => assert_eq!(problem.status, 503),
        other => panic!("{other}"),
    }
    let ready = http(relay.addresses.ops, "GET /readyz HTTP/1.1\r\n", "", b"").await;
    assert_eq!(ready.status, 503);
    assert!(!drain.is_finished());
    assert!(drain.await.unwrap());

    let acknowledged: Vec<u64> = backends.join_all().await.concat();
    assert!(acknowledged.len() >= 50);
    let mut delays = Vec::new();
    for (offsets, code, reason) in stories.join_all().await {
        assert!(offsets.is_sorted_by(|a, b| a < b));
        for offset in &acknowledged {
            assert!(offsets.binary_search(offset).is_ok(), "{offset} is lost");
        }
        assert_eq!(code, 1001);
        let delay = reason.strip_prefix("retry_after_ms=").unwrap();
        delays.push(delay.parse::<u64>().unwrap());
    }
    assert_eq!(delays.len() as u64, CLIENTS);
    delays.sort_unstable();
    // 1 ms for each client, one that waited included, since that is less than 3 s.
    assert!(*delays.last().unwrap() <= CLIENTS + 1, "{delays:?}");
    // Of 200 delays within 200 ms, this many are hardly ever in the same third.
    assert!(delays[50] < 100 && delays[150] > 100, "{delays:?}");
}

#[tokio::test]
async fn a_client_that_does_not_read_delays_the_drain_until_its_deadline() {
    let mut relay = TestRelay::with(|config| {
        config.client.drain_timeout = Duration::from_secs(1);
        config.client.drain_spread = Duration::ZERO;
        config.client.send_buffer = 4096;
    });
    let silent = RawClient::open_narrow(&relay, "acme", "ann").await;
    let mut good = relay.connect("acme", "ann").await;
    let event = item_created("item-1", "p1", &"x".repeat(500_000));
    let event = also(event, &["tenant:*"]);
    relay.publish("acme", event).await;
    good.event().await;
    let begun = Instant::now();
    let drain = relay.begin_drain();
    assert_eq!(good.closed().await, (1001, "retry_after_ms=0".to_owned()));
    assert!(!drain.is_finished(), "the neighbour is not made to wait");
    assert!(!drain.await.unwrap());
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(silent);
}

#[tokio::test]
async fn a_silent_connection_during_a_drain_does_not_delay_it() {
    let mut relay = TestRelay::start();
    let mut rude = RawClient::open_narrow(&relay, "acme", "ann").await;
    let begun = Instant::now();
    let drain = relay.begin_drain();
    assert_eq!(rude.frame().await.close_code(), 1001);
    let _silent = tokio::net::TcpStream::connect(relay.addresses.client).await;
    assert!(drain.await.unwrap());
    // Waiting for it would take until the handshake's deadline, 10 seconds.
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn the_close_for_a_violation_reaches_a_client_that_keeps_sending() {
    let relay = TestRelay::start();
    for _ in 0..20 {
        let mut client = RawClient::open_narrow(&relay, "acme", "ann").await;
        // An unmasked frame, followed by a lot of data.
        client.send(&unmasked(FIN | BINARY, &[0])).await;
        let more = vec![0x55; 1 << 20];
        // The relay may read any part of it.
        let _sent = client.try_send(&more).await;
        assert_eq!(client.frame().await.close_code(), 1002);
        assert_eq!(client.receive().await.unwrap(), None);
        assert!(!client.was_reset());
    }
    let broken =
        "sidewire_connections_closed_total{transport=\"websocket\",reason=\"protocol_error\"}";
    relay.metrics_where(|metrics| metrics[broken] == 20.0).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_clients_close_is_answered_and_the_relay_ends_the_stream() {
    let relay = TestRelay::start();
    let mut client = RawClient::open_narrow(&relay, "acme", "ann").await;
    client.send(&close(1000)).await;
    assert_eq!(client.frame().await.close_code(), 1000);
    assert_eq!(client.receive().await.unwrap(), None);
    assert!(!client.was_reset());
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_token_expiry_is_announced_and_closes_the_connection() {
    let relay = TestRelay::with(|config| config.auth.leeway = Duration::ZERO);
    let brief = token_with("acme", "ann", Duration::from_secs(2), None);
    let mut client = relay.connect_with(brief).await.unwrap();
    assert_eq!(client.error().await.error_code, "AUTHENTICATION_FAILED");
    assert_eq!(client.closed().await, (4001, "token expired".to_owned()));
    assert!(relay.stop().await);
}
