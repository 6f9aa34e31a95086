//! Many clients that resume at once, beside one that must not be affected.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use sidewire_client::{EventPublisher, PublishEncoding};
use tokio::sync::oneshot;

use crate::{client::TestClient, support::TestRelay, vocabulary::created};

const RESUMING: usize = 100;
const EVENTS: u64 = 10_000;
const BATCH: u64 = 1_000;

/// Maximum delay of an event for the other clients. With ten other processes on two cores
/// it measured 23 ms in the median and 102 ms at most; the rest is a safety margin.
const DELAY_MAX: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_resumes_of_ten_thousand_events_do_not_delay_others() {
    let relay = TestRelay::with(|config| {
        config.limits.shards = 1;
        // Room for what is published beside the replays.
        config.replay.events = 100_000;
    });
    let mut beside = relay.connect_binary("acme", "beside").await;
    let start = beside
        .subscribe(&["project:beside"])
        .await
        .position
        .unwrap();
    publish_window(&relay.backend()).await;
    let mut resuming = Vec::new();
    for _ in 0..RESUMING {
        resuming.push(relay.connect_binary("acme", "resuming").await);
    }

    let (all_resumed, stop) = oneshot::channel();
    let delays = tokio::spawn(measure_delays(relay.backend(), beside, stop));
    let replays = resuming.into_iter().map(|mut client| {
        let start = start.clone();
        tokio::spawn(async move {
            let confirmed = client.resume(&["project:p1"], &start).await;
            assert_eq!((confirmed.recovered, confirmed.replayed), (true, EVENTS));
            let first = start.offset + 1;
            for offset in first..first + EVENTS {
                assert_eq!(client.event().await.position.unwrap().offset, offset);
            }
        })
    });
    for outcome in join_all(replays.collect::<Vec<_>>()).await {
        outcome.unwrap();
    }
    all_resumed.send(()).unwrap();
    let (mut delays, beside) = delays.await.unwrap();
    delays.sort_unstable();
    let max = delays[delays.len() - 1];
    assert!(delays.len() > 10, "too few to say anything: {delays:?}");
    assert!(max < DELAY_MAX, "{delays:?}");
    drop(beside);
    assert!(relay.stop().await);
}

async fn publish_window(backend: &EventPublisher) {
    let messages = vec![created("p1"); usize::try_from(BATCH).unwrap()];
    let batch = json!({ "messages": messages }).to_string();
    for _ in 0..EVENTS / BATCH {
        let answer = backend
            .post("acme", batch.clone(), PublishEncoding::Json, &[], true)
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
    }
}

/// Repeatedly posts an event and measures the time until its client receives it.
async fn measure_delays(
    backend: EventPublisher,
    mut beside: TestClient,
    mut stop: oneshot::Receiver<()>,
) -> (Vec<Duration>, TestClient) {
    let event = created("beside").to_string();
    let mut delays = Vec::new();
    while stop.try_recv().is_err() {
        let began = Instant::now();
        let post = backend.post("acme", event.clone(), PublishEncoding::Json, &[], false);
        let (answer, _) = tokio::join!(post, beside.event());
        answer.unwrap();
        delays.push(began.elapsed());
    }
    (delays, beside)
}
