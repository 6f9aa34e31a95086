//! The memory bounds of all tenants together, and what is remembered of forgotten tenants.

use super::*;
use crate::log::ReplayGap;
use crate::memory::{MemoryLimits, MemoryUse};

/// Returns the memory charged for an event of these tests.
async fn cost(fixture: &HubFixture) -> u64 {
    fixture
        .publish("measured", vec![draft("m", &["a:1"])])
        .await;
    fixture.registry.log_bytes()
}

fn drafts(count: usize) -> Vec<EventDraft> {
    (0..count).map(|_| draft("m", &["a:1"])).collect()
}

/// Returns the number of events in the tenant's log.
fn kept(fixture: &HubFixture, tenant: &str) -> u64 {
    let tenant = fixture.registry.get_or_create(&name(tenant)).unwrap();
    tenant.head().offset - tenant.tail().offset
}

#[tokio::test(start_paused = true)]
async fn a_flood_in_one_tenant_evicts_nothing_of_a_tenant_within_its_share() {
    let cost = cost(&HubFixture::new(1, WIDE)).await;
    let limits = RegistryLimits {
        log_bytes: 640 * cost,
        ..WIDE
    };
    let fixture = HubFixture::new(1, limits);
    fixture.publish("quiet", drafts(200)).await;
    fixture.publish("quieter", drafts(100)).await;
    for _ in 0..30 {
        fixture.publish("loud", drafts(50)).await;
        assert!(fixture.registry.log_bytes() <= limits.log_bytes);
    }
    assert_eq!(
        (kept(&fixture, "quiet"), kept(&fixture, "quieter")),
        (200, 100)
    );
    // The rest of 63/64, plus the events appended since the last eviction.
    assert!(
        (325..=340).contains(&kept(&fixture, "loud")),
        "{}",
        kept(&fixture, "loud")
    );
    // Two floods share what the quiet tenants leave.
    for _ in 0..30 {
        fixture.publish("loud", drafts(50)).await;
        fixture.publish("louder", drafts(50)).await;
    }
    assert_eq!(kept(&fixture, "quieter"), 100);
    for loud in ["loud", "louder", "quiet"] {
        assert!(
            kept(&fixture, loud) >= 160,
            "{loud}: {}",
            kept(&fixture, loud)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_missed_nothing_resumes_even_if_its_tenant_was_empty() {
    let fixture = HubFixture::new(1, WIDE);
    fixture.publish("acme", drafts(3)).await;
    let head = fixture.connect(0, "acme", "ann").subscribe(&[]);
    fixture.registry.sweep(Instant::now() + WIDE.window.age);
    assert_eq!(
        (fixture.registry.len(), fixture.registry.dormant_len()),
        (0, 1)
    );

    let back = fixture.connect(0, "acme", "ann");
    let resumed = resume(&back, head);
    assert!(
        (resumed.position, resumed.resumed) == (head, Some(Ok(0))),
        "{resumed:?}"
    );
    let missed = Position {
        offset: head.offset - 1,
        ..head
    };
    let refused = resume(&back, missed);
    assert_eq!(refused.resumed, Some(Err(ReplayGap::Evicted)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_missed_nothing_resumes_even_if_undelivered_events_are_evicted() {
    let window = LogWindow {
        events: 2,
        ..WIDE.window
    };
    let fixture = HubFixture::new(1, RegistryLimits { window, ..WIDE });
    let client = fixture.connect(0, "acme", "ann");
    client.subscribe(&["a:1"]);
    fixture.publish("acme", drafts(1)).await;
    assert_eq!(client.received().len(), 1);
    let had = client.hub().position().unwrap();
    // The shard does not run meanwhile.
    let tenant = name("acme");
    let appended = append(&fixture.publisher, &tenant, drafts(5));
    assert!(
        futures_util::future::poll_immediate(appended)
            .await
            .is_none()
    );
    let resumed = resume(&client, had);
    assert!(
        (resumed.position, resumed.resumed) == (had, Some(Ok(0))),
        "{resumed:?}"
    );
    turn(&fixture.shards[0]);
    assert_eq!(client.received().len(), 5);
    let missed = Position { offset: 0, ..had };
    let refused = resume(&client, missed);
    assert_eq!(refused.resumed, Some(Err(ReplayGap::Evicted)));
}

#[tokio::test(start_paused = true)]
async fn the_tenant_unused_for_longest_is_forgotten_and_returns_with_a_new_epoch() {
    let fixture = HubFixture::new(1, RegistryLimits { tenants: 2, ..WIDE });
    let epoch = |tenant: &str| fixture.connect(0, tenant, "ann").subscribe(&[]).epoch;
    let (first, second) = (epoch("first"), epoch("second"));
    assert_eq!(fixture.registry.dormant_len(), 2);
    assert_eq!(epoch("first"), first);
    epoch("third");
    assert_eq!(fixture.registry.dormant_len(), 2);
    assert_eq!(epoch("first"), first);
    assert_ne!(epoch("second"), second);
}

#[tokio::test(start_paused = true)]
async fn without_a_replay_window_positions_grow_and_every_resume_is_refused() {
    let window = LogWindow {
        events: 0,
        ..WIDE.window
    };
    let fixture = HubFixture::new(1, RegistryLimits { window, ..WIDE });
    let client = fixture.connect(0, "acme", "ann");
    client.subscribe(&["a:1"]);
    let published = fixture.publish("acme", drafts(2)).await;
    let head = published.events[1].position;
    assert_eq!(head.offset, 2);
    let refused = resume(&client, head);
    assert_eq!(
        (refused.position, refused.resumed),
        (head, Some(Err(ReplayGap::Disabled)))
    );
    assert_eq!(client.received().len(), 2);
    assert_eq!(fixture.registry.memory().held_bytes(MemoryUse::Events), 0);
}

#[tokio::test(start_paused = true)]
async fn when_memory_is_short_the_connection_that_holds_the_oldest_event_is_closed() {
    let cost = cost(&HubFixture::new(1, WIDE)).await;
    let window = LogWindow {
        events: 5,
        ..WIDE.window
    };
    let limits = RegistryLimits {
        window,
        memory: MemoryLimits {
            max: 100 * cost,
            window: 0,
        },
        ..WIDE
    };
    let fixture = HubFixture::new(2, limits);
    // On the shard that is asked last.
    let stalled = fixture.connect(1, "acme", "ann");
    let later = fixture.connect(0, "acme", "bob");
    let reading = fixture.connect(1, "acme", "cid");
    stalled.subscribe(&["a:1"]);
    reading.subscribe(&["a:1"]);
    for number in 0..30 {
        if number == 10 {
            later.subscribe(&["a:1"]);
        }
        // Leaves 100 events' worth of memory for events.
        let memory = fixture.registry.memory();
        memory.set_limits(MemoryLimits {
            max: 100 * cost + memory.held_bytes(MemoryUse::Subscriptions),
            window: 0,
        });
        publish_and_relieve(&fixture, 10).await;
        reading.received();
        assert!(fixture.registry.memory().held_bytes(MemoryUse::Events) <= 110 * cost);
    }
    // The connection with the oldest events was closed first, at a hundred events, and the other
    // once it held as many itself.
    assert_eq!(
        stalled.outbox.signals().ending(),
        Some(CloseReason::NoMemory)
    );
    assert_eq!(later.outbox.signals().ending(), Some(CloseReason::NoMemory));
    assert_eq!(reading.outbox.signals().ending(), None);
    // A bigger offset takes a byte more.
    assert_eq!(
        fixture.registry.memory().held_bytes(MemoryUse::Events),
        5 * (cost + 1)
    );
    let dropped = fixture
        .shards
        .iter()
        .map(|shard| shard.tally().dropped_slow.get());
    // Including the batch that exceeded the limit.
    assert_eq!(dropped.sum::<u64>(), 110 + 100);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_without_memory_waits_for_it_and_then_gives_up() {
    let limits = RegistryLimits {
        memory: MemoryLimits { max: 0, window: 0 },
        ..WIDE
    };
    let fixture = HubFixture::new(1, limits);
    fixture.publish("acme", drafts(1)).await;
    let began = Instant::now();
    let refused = append(&fixture.publisher, &name("acme"), drafts(1)).await;
    assert_eq!(refused, Err(AppendError::NoMemory));
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert_eq!(kept(&fixture, "acme"), 1);
}

#[tokio::test(start_paused = true)]
async fn evicted_events_that_wait_to_be_dropped_close_no_connection() {
    let cost = cost(&HubFixture::new(1, WIDE)).await + 2;
    let window = LogWindow {
        events: 1000,
        ..WIDE.window
    };
    let limits = RegistryLimits {
        window,
        memory: MemoryLimits {
            max: 2500 * cost,
            window: 0,
        },
        ..WIDE
    };
    let fixture = HubFixture::new(1, limits);
    let roomy = OutboxLimits {
        frames: 10_000,
        ..ROOMY
    };
    let stalled = fixture.connect_with(0, "acme", "ann", roomy);
    stalled.subscribe(&["a:1"]);
    fixture.publish("acme", drafts(10)).await;
    stalled.unsubscribe(&["a:1"]);
    fixture.publish("acme", drafts(990)).await;

    // The first evicts a thousand events, which with the other's batch exceed the limit.
    let first = fixture.publisher.append(&name("acme"), drafts(1000)).await;
    let mut first = pin!(first.unwrap().wait_acknowledged());
    let mut context = Context::from_waker(Waker::noop());
    assert!(first.as_mut().poll(&mut context).is_pending());
    let other = fixture.publisher.append(&name("other"), drafts(900)).await;
    assert!(fixture.registry.is_over_memory());
    assert!(first.as_mut().poll(&mut context).is_pending());
    assert!(!fixture.registry.is_over_memory());
    publish_and_relieve(&fixture, 1).await;
    assert_eq!(stalled.outbox.signals().ending(), None);
    assert_eq!(stalled.received().len(), 10);
    drop(other);
}

/// Publishes while the shards deliver and free memory.
async fn publish_and_relieve(fixture: &HubFixture, count: usize) {
    let relief = futures_util::future::join_all(fixture.shards.iter().map(|s| s.relieve_memory()));
    tokio::select! {
        biased;
        _ = relief => unreachable!("it never ends"),
        () = async {
            fixture.publish("acme", drafts(count)).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        } => {}
    }
}

fn resume(client: &HubClient, from: Position) -> SubscribeConfirmation {
    client
        .hub()
        .subscribe(&[], 10, Some(Ok(from)))
        .unwrap()
        .expect("nothing is to be replayed")
}

/// Returns `count` topics of 10 bytes each.
fn topics(count: usize) -> Vec<Topic> {
    (0..count)
        .map(|number| Topic::new("board", &format!("{number:04}")).unwrap())
        .collect()
}

fn reload(fixture: &HubFixture, max: u64) {
    let timeouts = PublishTimeouts {
        inbox: Duration::from_secs(2),
        ack: Duration::from_secs(5),
    };
    let memory = MemoryLimits { max, window: 0 };
    fixture.publisher.configure(timeouts, WIDE.tenants, memory);
}

async fn relieve(fixture: &HubFixture) {
    let relief = futures_util::future::join_all(fixture.shards.iter().map(|s| s.relieve_memory()));
    let timeout = tokio::time::timeout(Duration::from_secs(1), relief).await;
    assert!(timeout.is_err(), "it never ends");
}

#[tokio::test(start_paused = true)]
async fn a_lower_limit_closes_the_largest_subscriptions_until_it_is_met() {
    let fixture = HubFixture::new(2, WIDE);
    let clients: Vec<_> = [300, 100, 400, 100, 200, 100]
        .into_iter()
        .enumerate()
        .map(|(number, count)| {
            let client = fixture.connect(number % 2, "acme", "ann");
            client.hub().subscribe(&topics(count), 1000, None).unwrap();
            client
        })
        .collect();
    let held = || {
        fixture
            .registry
            .memory()
            .held_bytes(MemoryUse::Subscriptions)
    };
    // 1,200 topics of 210 bytes each; subscriptions may take at most half of the limit.
    assert_eq!(held(), 1200 * 210);
    reload(&fixture, 1_000_000);
    relieve(&fixture).await;
    assert!(
        clients
            .iter()
            .all(|client| client.outbox.signals().ending().is_none())
    );

    reload(&fixture, 210_000);
    relieve(&fixture).await;
    let closed: Vec<_> = clients
        .iter()
        .map(|it| it.outbox.signals().ending())
        .collect();
    let no_memory = Some(CloseReason::NoMemory);
    assert_eq!(closed, [no_memory, None, no_memory, None, None, None]);
    assert_eq!(held(), 500 * 210);
    // Among equals, no more are closed than necessary.
    reload(&fixture, 126_000);
    relieve(&fixture).await;
    assert_eq!(held(), 300 * 210);
    reload(&fixture, 84_000);
    relieve(&fixture).await;
    assert_eq!(held(), 200 * 210);
    // Closed connections do not release their memory twice.
    drop(clients);
    assert_eq!(held(), 0);
}

#[tokio::test(start_paused = true)]
async fn old_events_are_freed_first_then_begun_messages_then_subscriptions() {
    let cost = cost(&HubFixture::new(1, WIDE)).await;
    let window = LogWindow {
        events: 1,
        ..WIDE.window
    };
    let fixture = HubFixture::new(2, RegistryLimits { window, ..WIDE });
    let stalled = fixture.connect(0, "acme", "ann");
    stalled.subscribe(&["a:1"]);
    fixture.publish("acme", drafts(300)).await;
    let writing = fixture.connect(1, "acme", "bob");
    let _message = {
        let messages = fixture.shards[1].begun_messages();
        messages.reserve(&writing.outbox, 1).unwrap()
    };
    let subscribed = fixture.connect(0, "acme", "cid");
    subscribed.hub().subscribe(&topics(20), 100, None).unwrap();
    let memory = fixture.registry.memory();
    let others = || {
        MemoryUse::ALL
            .map(|what| memory.held_bytes(what))
            .iter()
            .sum::<u64>()
    };

    reload(&fixture, others() - cost);
    relieve(&fixture).await;
    let endings = || [&stalled, &writing, &subscribed].map(|it| it.outbox.signals().ending());
    let no_memory = Some(CloseReason::NoMemory);
    assert_eq!(endings(), [no_memory, None, None]);
    assert_eq!(memory.held_bytes(MemoryUse::Events), cost + 1);

    // 12,046 bytes are held or guaranteed, not counting events.
    reload(&fixture, 10_000);
    relieve(&fixture).await;
    assert_eq!(endings(), [no_memory, no_memory, None]);
    assert_eq!(memory.held_bytes(MemoryUse::BegunMessages), 0);

    reload(&fixture, 5_000);
    relieve(&fixture).await;
    assert_eq!(endings(), [no_memory; 3]);
}
