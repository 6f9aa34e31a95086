//! All subscribers see the same order.

use std::time::Duration;

use sidewire_client::{EventPublisher, PublishEncoding};
use tokio::{task::JoinSet, time::timeout};

use crate::vocabulary::{created, named};
use crate::{client::TestClient, support::TestRelay};

const PUBLISHERS: usize = 8;

/// The size of a run.
#[derive(Clone, Copy)]
struct Size {
    events_per_publisher: usize,
    subscribers: usize,
}

impl Size {
    /// Returns a small size unless `SIDEWIRE_FULL_SIZE` is set, which is for releases.
    fn chosen() -> Self {
        let (events_per_publisher, subscribers) = match std::env::var_os("SIDEWIRE_FULL_SIZE") {
            None => (625, 20),
            Some(_) => (12_500, 100),
        };
        Self {
            events_per_publisher,
            subscribers,
        }
    }

    fn events(self) -> usize {
        PUBLISHERS * self.events_per_publisher
    }
}

/// The offset and the message_id of each event that one subscriber received.
type Sequence = Vec<(u64, String)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_subscribers_get_the_events_of_several_backends_in_the_same_order() {
    let size = Size::chosen();
    let events = size.events();
    let relay = TestRelay::with(|config| {
        // Not under test here: a subscriber may fall behind by all events.
        config.limits.outbox_frames = 2 * events;
        config.limits.outbox_bytes = 256 * 1024 * 1024;
        config.limits.memory_max = 4 << 30;
    });
    let mut subscribers = JoinSet::new();
    for _ in 0..size.subscribers {
        // Each connection goes to the shard with the fewest, so both shards have half of them.
        let mut client = relay.connect("acme", "ann").await;
        client.subscribe(&["project:p1"]).await;
        subscribers.spawn(receive_all(client, events));
    }
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(relay.backend(), publisher, size));
    }

    let rush = async {
        let posted = publishers.join_all().await;
        (posted, subscribers.join_all().await)
    };
    let (posted, mut sequences) = timeout(Duration::from_secs(600), rush).await.unwrap();
    let first = sequences.pop().unwrap();
    let offsets: Vec<_> = first.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, Vec::from_iter(1..=events as u64));
    for sequence in sequences {
        assert!(sequence == first, "two subscribers saw different orders");
    }
    // Each event is at the offset that its backend was told, and events that a backend
    // posted one after another keep their order.
    for answers in posted {
        assert_eq!(answers.len(), size.events_per_publisher);
        assert!(answers.is_sorted());
        for (offset, message_id) in answers {
            assert_eq!(first[offset as usize - 1], (offset, message_id));
        }
    }
    assert!(relay.stop().await);
}

async fn receive_all(mut client: TestClient, events: usize) -> Sequence {
    let mut sequence = Vec::with_capacity(events);
    for _ in 0..events {
        let event = client.event().await;
        sequence.push((event.position.unwrap().offset, event.message_id));
    }
    client.nothing_more().await;
    sequence
}

async fn publish(backend: EventPublisher, publisher: usize, size: Size) -> Sequence {
    let mut answers = Vec::new();
    for event in 0..size.events_per_publisher {
        let body = named(&format!("{publisher}-{event}"), created("p1"));
        let answer = backend
            .post("acme", body.to_string(), PublishEncoding::Json, &[], false)
            .await
            .unwrap();
        let published = &answer.results[0];
        assert_eq!(published.matched, Some(size.subscribers as u64));
        answers.push((published.position.offset, published.message_id.clone()));
    }
    answers
}
