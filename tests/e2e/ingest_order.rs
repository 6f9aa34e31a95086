//! One order for all.

use std::time::Duration;

use serde_json::json;
use sidewire::client::Encoding;
use tokio::{task::JoinSet, time::timeout};

use crate::support::{TestClient, TestRelay};

const PUBLISHERS: usize = 8;
const EVENTS_PER_PUBLISHER: usize = 625;
const EVENTS: usize = PUBLISHERS * EVENTS_PER_PUBLISHER;
const SUBSCRIBERS: usize = 20;

/// What one subscriber saw: the offset and the message_id of each event.
type Sequence = Vec<(u64, String)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_subscribers_get_what_several_backends_post_in_the_same_order() {
    let relay = TestRelay::with(|config| {
        // Not what is looked at here: a subscriber may fall behind by everything.
        config.limits.outbox_frames = 2 * EVENTS;
        config.limits.outbox_bytes = 64 * 1024 * 1024;
    });
    let mut subscribers = JoinSet::new();
    for _ in 0..SUBSCRIBERS {
        // Each goes to the shard with the fewest: both have half of them.
        let mut client = relay.connect("acme", "ann").await;
        client.subscribe(&["project:p1"]).await;
        subscribers.spawn(receive_all(client));
    }
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(relay.backend(), publisher));
    }

    let rush = async {
        let posted = publishers.join_all().await;
        (posted, subscribers.join_all().await)
    };
    let (posted, mut sequences) = timeout(Duration::from_secs(60), rush).await.unwrap();
    let first = sequences.pop().unwrap();
    let offsets: Vec<_> = first.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, Vec::from_iter(1..=EVENTS as u64));
    for sequence in sequences {
        assert!(sequence == first, "two subscribers saw different orders");
    }
    // What a backend was told is where its event stands, and what it posted one
    // after the other stands so.
    for answers in posted {
        assert_eq!(answers.len(), EVENTS_PER_PUBLISHER);
        assert!(answers.is_sorted());
        for (offset, message_id) in answers {
            assert_eq!(first[offset as usize - 1], (offset, message_id));
        }
    }
    assert!(relay.stop().await);
}

async fn receive_all(mut client: TestClient) -> Sequence {
    let mut sequence = Vec::with_capacity(EVENTS);
    for _ in 0..EVENTS {
        let event = client.event().await;
        sequence.push((event.position.unwrap().offset, event.message_id));
    }
    client.nothing_more().await;
    sequence
}

async fn publish(backend: sidewire::client::Publisher, publisher: usize) -> Sequence {
    let mut answers = Vec::with_capacity(EVENTS_PER_PUBLISHER);
    for event in 0..EVENTS_PER_PUBLISHER {
        let body = json!({
            "messageId": format!("{publisher}-{event}"),
            "workItemCreated": {"workItem": {"id": "w1", "projectId": "p1"}},
        });
        let answer = backend
            .post("acme", body.to_string(), Encoding::Json, &[], false)
            .await
            .unwrap();
        let published = &answer.results[0];
        assert_eq!(published.matched, Some(SUBSCRIBERS as u64));
        answers.push((published.position.offset, published.message_id.clone()));
    }
    answers
}
