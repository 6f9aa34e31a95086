//! JSON connections: when JSON is rendered, how often, and how it is counted.

use std::future::poll_fn;

use sidewire_protocol::MessageId;
use tokio::task::LocalSet;

use super::*;
use crate::{
    event::{EventDraftParts, NoJson, tests::schema},
    memory::{MemoryLimits, MemoryUse},
};

/// Returns an event with this many control characters in its text; each takes one byte, and six
/// as JSON.
fn growing(characters: usize) -> EventDraft {
    let text = "\u{1}".repeat(characters);
    let item = serde_json::json!({"workItem": {"id": "i", "description": text}});
    let json = serde_json::json!({"workItemCreated": item}).to_string();
    let schema = schema();
    EventDraft::new(EventDraftParts {
        kept: &[&schema.envelope_from_json(json.as_bytes()).unwrap()],
        message_id: MessageId::parse("grows").unwrap(),
        append_message_id: true,
        append_timestamp: None,
        topics: Arc::new([Topic::parse("tenant:*").unwrap()]),
        schema,
    })
}

fn json_client(fixture: &HubFixture, shard: ShardId) -> HubClient {
    fixture.connect_speaking(EnvelopeEncoding::Json, shard, "acme", "ann", ROOMY)
}

fn delivered(fixture: &HubFixture) -> u64 {
    let tallies = fixture.shards.iter().map(|shard| shard.tally());
    tallies.map(|tally| tally.json_delivered.get()).sum()
}

/// Writes all that is queued. Returns the number of bytes and of frames.
fn written(client: &HubClient) -> (usize, u64) {
    let (mut bytes, mut frames) = (0, 0);
    while !client.outbox.is_empty() {
        let written = client
            .outbox
            .with_next_write(|slices| slices.iter().map(|slice| slice.len()).sum());
        bytes += written;
        frames += client.outbox.advance_written(written).frames;
    }
    (bytes, frames)
}

#[tokio::test(start_paused = true)]
async fn json_is_rendered_once_for_all_shards_and_freed_when_it_is_written() {
    let fixture = HubFixture::new(2, WIDE);
    let clients: Vec<_> = [0, 0, 1, 1]
        .map(|shard| json_client(&fixture, shard))
        .into_iter()
        .chain([fixture.connect(1, "acme", "bob")])
        .collect();
    let published = fixture.publish("acme", vec![growing(1000)]).await;
    assert_eq!(published.events[0].matched, Some(5));
    assert_eq!(delivered(&fixture), 1);
    let with_json = fixture.registry.memory().held_bytes(MemoryUse::Events);
    let log = fixture.registry.log_bytes();
    assert!((log + 6000..log + 6500).contains(&with_json), "{with_json}");
    let sizes = clients.iter().map(written);
    let sizes: Vec<_> = sizes
        .map(|(bytes, frames)| (bytes > 6000, frames))
        .collect();
    assert_eq!(sizes[..4], [(true, 1); 4]);
    assert_eq!(sizes[4], (false, 1));
    assert_eq!(fixture.registry.memory().held_bytes(MemoryUse::Events), log);

    // An event rendered before the append is not rendered again.
    let mut draft = growing(1000);
    draft.render_json().unwrap();
    fixture.publish("acme", vec![draft]).await;
    assert_eq!(delivered(&fixture), 1);
    assert_eq!(clients[0].received(), [("grows".to_owned(), 2)]);
}

#[tokio::test(start_paused = true)]
async fn json_is_rendered_only_for_tenants_with_a_json_connection() {
    let fixture = HubFixture::new(2, WIDE);
    let other = fixture.connect_speaking(EnvelopeEncoding::Json, 0, "other", "ann", ROOMY);
    let binary = fixture.connect(0, "acme", "ann");
    assert!(fixture.publisher.has_json_connection(&name("other")));
    assert!(!fixture.publisher.has_json_connection(&name("acme")));
    fixture.publish("acme", vec![growing(10)]).await;
    assert_eq!((delivered(&fixture), written(&binary).1), (0, 1));
    let json = json_client(&fixture, 1);
    assert!(fixture.publisher.has_json_connection(&name("acme")));
    drop((other, json));
    assert!(!fixture.publisher.has_json_connection(&name("other")));
    assert!(!fixture.publisher.has_json_connection(&name("acme")));
}

#[tokio::test(start_paused = true)]
async fn when_memory_is_short_stalled_json_is_freed_while_the_log_keeps_its_events() {
    let fixture = HubFixture::new(2, WIDE);
    let stalled = json_client(&fixture, 1);
    let binary = fixture.connect(1, "acme", "bob");
    for _ in 0..20 {
        fixture.publish("acme", vec![growing(1000)]).await;
    }
    // Each event takes 1 kB in the log, and 6 kB as JSON.
    assert!(fixture.registry.memory().held_bytes(MemoryUse::Events) > 120_000);
    fixture.registry.memory().set_limits(MemoryLimits {
        max: 100_000,
        window: 0,
    });
    let relief = futures_util::future::join_all(fixture.shards.iter().map(|s| s.relieve_memory()));
    tokio::select! {
        biased;
        _ = relief => unreachable!("it never ends"),
        published = fixture.publish("acme", vec![growing(1000)]) => {
            assert_eq!(published.events[0].matched, Some(1));
        }
    }
    assert_eq!(
        stalled.outbox.signals().ending(),
        Some(CloseReason::NoMemory)
    );
    assert_eq!(binary.outbox.signals().ending(), None);
    assert_eq!(
        fixture.registry.memory().held_bytes(MemoryUse::Events),
        fixture.registry.log_bytes()
    );
    let tally = fixture.shards[1].tally();
    assert_eq!(tally.dropped_slow.get(), 20);
    assert_eq!((tally.matched.get(), tally.queued.get()), (41, 21));
    assert_eq!(written(&binary).1, 21);
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_memory_for_its_json_closes_only_json_connections() {
    let limits = RegistryLimits {
        memory: MemoryLimits {
            max: 100_000,
            window: 0,
        },
        ..WIDE
    };
    let fixture = HubFixture::new(1, limits);
    let (json, binary) = (json_client(&fixture, 0), fixture.connect(0, "acme", "bob"));
    let batch = (0..50).map(|_| growing(1000)).collect();
    let published = fixture.publish("acme", batch).await;
    assert_eq!(json.outbox.signals().ending(), Some(CloseReason::NoMemory));
    // All of it would take 300 kB. Events that did not fit are dropped with the rest.
    assert!(fixture.registry.memory().held_bytes(MemoryUse::Events) < 110_000);
    let matched: u64 = published.events.iter().map(|it| it.matched.unwrap()).sum();
    let tally = fixture.shards[0].tally();
    assert_eq!(json.outbox.discard_all() + 50, matched);
    assert_eq!(tally.matched.get(), matched);
    assert_eq!(written(&binary).1, 50);
    assert_eq!(
        fixture.registry.memory().held_bytes(MemoryUse::Events),
        fixture.registry.log_bytes()
    );
}

/// Returns the number of events that the confirmation of a resume announces.
fn replayed_events(confirmed: SubscribeProgress) -> u64 {
    let SubscribeProgress::Answer(Ok(confirmation)) = confirmed else {
        panic!("{confirmed:?}");
    };
    confirmation.resumed.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_slice_of_a_replay_renders_a_quantum_of_json_and_counts_its_cost() {
    let fixture = HubFixture::new(1, WIDE);
    let batch = (0..40).map(|_| growing(1000)).collect();
    let first = fixture.publish("acme", batch).await.events[0].position;
    let client = json_client(&fixture, 0);
    let start = Position { offset: 0, ..first };
    let resumed = client.hub().subscribe(&[], 10, Some(Ok(start)));
    assert_eq!(resumed, Ok(None), "there is something to replay");
    let confirmed = client.hub().run_step(&mut all());
    assert_eq!(replayed_events(confirmed), 40);
    let tally = fixture.shards[0].tally();
    let mut slices = Vec::new();
    loop {
        let before = tally.json_replayed.get();
        let mut quantum = ReadSlice::new(QUANTUM);
        let progress = client.hub().run_step(&mut quantum);
        slices.push(tally.json_replayed.get() - before);
        assert_eq!(tally.queued.get(), tally.replayed.get());
        if progress == SubscribeProgress::Live {
            break;
        }
        assert_eq!(progress, SubscribeProgress::More);
    }
    // Three times 6 kB are the first sum of more than 16 kB.
    assert_eq!(slices, [vec![3; 13], vec![1]].concat());
    assert_eq!(written(&client).1, 40);
    assert_eq!(
        fixture.registry.memory().held_bytes(MemoryUse::Events),
        fixture.registry.log_bytes()
    );
}

#[tokio::test(start_paused = true)]
async fn a_replay_without_memory_for_its_json_ends_the_connection() {
    let fixture = HubFixture::new(1, WIDE);
    let first = fixture.publish("acme", vec![growing(10)]).await.events[0].position;
    let client = json_client(&fixture, 0);
    let start = Position { offset: 0, ..first };
    let resumed = client.hub().subscribe(&[], 10, Some(Ok(start)));
    assert_eq!(resumed, Ok(None), "there is something to replay");
    let confirmed = client.hub().run_step(&mut all());
    assert_eq!(replayed_events(confirmed), 1);
    fixture
        .registry
        .memory()
        .set_limits(MemoryLimits { max: 1, window: 0 });
    let progress = client.hub().run_step(&mut all());
    assert_eq!(progress, SubscribeProgress::NoJson(NoJson::NoMemory));
    assert_eq!(fixture.shards[0].tally().queued.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn delivery_pauses_when_a_full_write_of_json_waits() {
    let fixture = HubFixture::new(1, WIDE);
    let client = json_client(&fixture, 0);
    // 24 kB each: with 22 of them half of the outbox is full.
    let acme = name("acme");
    for _ in 0..30 {
        let appended = fixture.publisher.append(&acme, vec![growing(4_000)]);
        drop(appended.await.unwrap());
    }
    for _ in 0..80 {
        fixture.shards[0].deliver_pending();
    }
    assert_eq!(written(&client).1, 22);
    assert_eq!(client.outbox.signals().ending(), None);
}

/// Returns the offsets of the JSON events queued for the connection.
fn json_offsets(client: &HubClient) -> Vec<u64> {
    let mut bytes = Vec::new();
    while !client.outbox.is_empty() {
        let written = client.outbox.with_next_write(|slices| {
            slices
                .iter()
                .for_each(|slice| bytes.extend_from_slice(slice));
            slices.iter().map(|slice| slice.len()).sum()
        });
        client.outbox.advance_written(written);
    }
    let text = String::from_utf8_lossy(&bytes);
    let offsets = text.split(r#""offset":""#).skip(1);
    let offsets = offsets.map(|rest| rest.split('"').next().unwrap().parse().unwrap());
    offsets.collect()
}

/// Runs a test where tasks can be spawned.
async fn with_tasks(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn rendering_a_large_event_delays_only_its_own_tenant() {
    with_tasks(async {
        let fixture = HubFixture::new(2, WIDE);
        let clients = [0, 1].map(|shard| json_client(&fixture, shard));
        let (binary, other) = (
            fixture.connect(0, "acme", "bob"),
            fixture.connect(0, "other", "ann"),
        );
        let drafts = vec![growing(10), growing(33_000), growing(10)];
        let appended = fixture
            .publisher
            .append(&name("acme"), drafts)
            .await
            .unwrap();
        let (loud, quiet) = (vec![growing(10)], vec![growing(10)]);
        drop(fixture.publisher.append(&name("acme"), loud).await.unwrap());
        drop(
            fixture
                .publisher
                .append(&name("other"), quiet)
                .await
                .unwrap(),
        );
        for _ in 0..20 {
            turn(&fixture.shards[0]);
        }
        assert_eq!(clients[0].hub().position().unwrap().offset, 1);
        assert_eq!(binary.received().len(), 1);
        assert_eq!(other.received().len(), 1);
        assert!(
            fixture.shards[0].is_idle(),
            "nothing is to be done meanwhile"
        );

        let last = fixture.publish("acme", vec![growing(10)]).await;
        let published = appended.wait_acknowledged().await;
        let matched: Vec<_> = published.events.iter().map(|it| it.matched).collect();
        assert_eq!(matched, [Some(3); 3]);
        assert_eq!(last.events[0].matched, Some(3));
        assert_eq!(delivered(&fixture), 5, "once for both shards");
        let offsets: Vec<_> = binary
            .received()
            .iter()
            .map(|(_, offset)| *offset)
            .collect();
        assert_eq!(offsets, [2, 3, 4, 5]);
        for client in &clients {
            assert_eq!(json_offsets(client), [1, 2, 3, 4, 5]);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_large_event_is_delivered_at_once_when_all_connections_are_closed() {
    with_tasks(async {
        let fixture = HubFixture::new(1, WIDE);
        let (acme, client) = (name("acme"), json_client(&fixture, 0));
        for characters in [33_000, 10] {
            let appended = fixture.publisher.append(&acme, vec![growing(characters)]);
            drop(appended.await.unwrap());
        }
        fixture.shards[0].deliver_pending();
        assert_eq!(client.outbox.queued_frames(), 0);
        fixture.shards[0].end_all(|| CloseReason::Disconnected);
        assert_eq!(client.outbox.queued_frames(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_memory_to_render_a_large_event_json_connections_are_closed_after_a_while() {
    with_tasks(async {
        let fixture = HubFixture::new(1, WIDE);
        let (json, binary) = (json_client(&fixture, 0), fixture.connect(0, "acme", "bob"));
        fixture
            .registry
            .memory()
            .set_limits(MemoryLimits { max: 1, window: 0 });
        let began = Instant::now();
        let published = fixture.publish("acme", vec![growing(33_000)]).await;
        assert!(
            began.elapsed() >= Duration::from_millis(200),
            "memory may come free"
        );
        assert_eq!(published.events[0].matched, Some(2));
        assert_eq!(json.outbox.signals().ending(), Some(CloseReason::NoMemory));
        assert_eq!(binary.received().len(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn large_events_of_a_replay_are_offloaded_and_rendered_once_for_all_resumes() {
    with_tasks(async {
        let fixture = HubFixture::new(1, WIDE);
        let sizes = [10, 33_000, 10, 5_000];
        let drafts = sizes.map(growing).into();
        let first = fixture.publish("acme", drafts).await.events[0].position;
        let start = Position { offset: 0, ..first };
        let clients = [(); 3].map(|()| json_client(&fixture, 0));
        let resume = async |client: &HubClient| {
            let resumed = client.hub().subscribe(&[], 10, Some(Ok(start)));
            assert_eq!(resumed, Ok(None), "there is something to replay");
            let confirmed = client.hub().run_step(&mut all());
            assert_eq!(replayed_events(confirmed), 4);
            let mut queued = Vec::new();
            loop {
                let progress = client.hub().run_step(&mut all());
                queued.push(client.outbox.queued_frames());
                if progress == SubscribeProgress::Live {
                    return queued;
                }
                assert_eq!(progress, SubscribeProgress::More);
                {
                    let mut hub = client.hub();
                    let (catch_up, member) = hub.catch_up();
                    assert!(!catch_up.can_continue(member), "it is rendered yet");
                }
                poll_fn(|context| client.hub().catch_up().0.poll_rendered(context)).await;
            }
        };
        let [first, second, third] = &clients;
        let both = tokio::join!(resume(first), resume(second));
        assert_eq!(both, (vec![1, 3, 4], vec![1, 3, 4]));
        // It reuses the frames that the others have not written yet.
        assert_eq!(resume(third).await, [1, 3, 4]);
        let json_replayed = fixture.shards[0].tally().json_replayed.get();
        assert_eq!(json_replayed, 3 * 2 + 2, "large ones once for all");
        for client in &clients {
            assert_eq!(json_offsets(client), [1, 2, 3, 4]);
        }
    })
    .await;
}
