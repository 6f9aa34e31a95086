//! Delivery to the connections that an event matches, and refused subscriptions and tenants.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_event_reaches_the_connections_of_its_topics_on_every_shard() {
    let fixture = HubFixture::new(2, WIDE);
    let a = fixture.connect(0, "acme", "ann");
    let b = fixture.connect(1, "acme", "bob");
    let c = fixture.connect(1, "acme", "cid");
    a.subscribe(&["project:1"]);
    b.subscribe(&["project:1", "sprint:1"]);
    c.subscribe(&["project:2"]);
    let published = fixture
        .publish("acme", vec![draft("m", &["project:1", "sprint:1"])])
        .await;
    assert!(published.acknowledged);
    assert_eq!(published.events[0].matched, Some(2));
    assert_eq!(published.events[0].position.offset, 1);
    assert_eq!(a.received(), [("m".to_owned(), 1)]);
    assert_eq!(b.received(), [("m".to_owned(), 1)]);
    assert_eq!(c.received(), []);
}

#[tokio::test(start_paused = true)]
async fn tenants_are_isolated_even_if_topics_and_users_have_the_same_names() {
    let fixture = HubFixture::new(2, WIDE);
    let a = fixture.connect(0, "acme", "ann");
    let b = fixture.connect(0, "other", "ann");
    let c = fixture.connect(1, "other", "ann");
    for client in [&a, &b, &c] {
        client.subscribe(&["project:1"]);
    }
    let topics = ["project:1", "user:ann", "tenant:*"];
    let published = fixture.publish("acme", vec![draft("m", &topics)]).await;
    assert_eq!(published.events[0].matched, Some(1));
    assert_eq!(a.received_ids(), ["m"]);
    assert_eq!((b.received_ids(), c.received_ids()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn implicit_topics_need_no_subscription() {
    let fixture = HubFixture::new(1, WIDE);
    let (a, b) = (
        fixture.connect(0, "acme", "ann"),
        fixture.connect(0, "acme", "bob"),
    );
    fixture
        .publish("acme", vec![draft("1", &["user:ann"])])
        .await;
    fixture
        .publish("acme", vec![draft("2", &["tenant:*"])])
        .await;
    assert_eq!(a.received_ids(), ["1", "2"]);
    assert_eq!(b.received_ids(), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_consecutive_and_each_event_has_its_own_count() {
    let fixture = HubFixture::new(2, WIDE);
    let (a, b) = (
        fixture.connect(0, "acme", "ann"),
        fixture.connect(1, "acme", "bob"),
    );
    a.subscribe(&["project:1"]);
    b.subscribe(&["project:1", "project:2"]);
    let batch = vec![
        draft("1", &["project:1"]),
        draft("2", &["project:2"]),
        draft("3", &["project:3"]),
    ];
    let published = fixture.publish("acme", batch).await;
    let counts: Vec<_> = published.events.iter().map(|event| event.matched).collect();
    assert_eq!(counts, [Some(2), Some(1), Some(0)]);
    assert_eq!(b.received(), [("1".to_owned(), 1), ("2".to_owned(), 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_starts_at_the_head_and_earlier_events_reach_only_older_topics() {
    let fixture = HubFixture::new(1, WIDE);
    let a = fixture.connect(0, "acme", "ann");
    assert_eq!(a.subscribe(&["project:1"]).offset, 0);
    let tenant = name("acme");
    // The inbox is not drained: the events are in the log and on their way.
    let mut sent = std::pin::pin!(async {
        for topic in ["project:1", "project:2"] {
            let mut drafts = submission(draft(topic, &[topic]));
            fixture.registry.get_or_create(&tenant).unwrap().append(
                &mut drafts,
                &fixture.publisher.inboxes,
                Instant::now(),
                true,
                HeldPermit::default(),
            );
        }
    });
    sent.as_mut().await;
    assert_eq!(a.received(), []);
    assert_eq!(a.subscribe(&["project:2"]).offset, 2);
    assert_eq!(a.received_ids(), ["project:1"]);
    fixture
        .publish("acme", vec![draft("m", &["project:2"])])
        .await;
    assert_eq!(a.received(), [("m".to_owned(), 3)]);
}

#[tokio::test(start_paused = true)]
async fn events_sent_before_a_shard_joined_again_are_not_delivered() {
    let fixture = HubFixture::new(1, WIDE);
    let a = fixture.connect(0, "acme", "ann");
    let tenant = name("acme");
    let mut drafts = submission(draft("old", &["tenant:*"]));
    fixture.registry.get_or_create(&tenant).unwrap().append(
        &mut drafts,
        &fixture.publisher.inboxes,
        Instant::now(),
        true,
        HeldPermit::default(),
    );
    drop(a);
    let b = fixture.connect(0, "acme", "bob");
    fixture
        .publish("acme", vec![draft("new", &["tenant:*"])])
        .await;
    assert_eq!(b.received(), [("new".to_owned(), 2)]);
}

#[tokio::test(start_paused = true)]
async fn events_of_a_forgotten_tenant_are_not_delivered_to_its_successor() {
    let limits = RegistryLimits {
        window: LogWindow {
            events: 0,
            ..WIDE.window
        },
        ..WIDE
    };
    let fixture = HubFixture::new(1, limits);
    let a = fixture.connect(0, "acme", "ann");
    let first = a.subscribe(&[]).epoch;
    let mut drafts = submission(draft("old", &["tenant:*"]));
    fixture
        .registry
        .get_or_create(&name("acme"))
        .unwrap()
        .append(
            &mut drafts,
            &fixture.publisher.inboxes,
            Instant::now(),
            true,
            HeldPermit::default(),
        );
    drop(a);
    assert!(fixture.registry.is_empty());
    let b = fixture.connect(0, "acme", "bob");
    // The log continues where it ended: the events that were sent are below its head.
    let position = b.subscribe(&[]);
    assert_eq!((position.epoch, position.offset), (first, 1));
    let published = fixture
        .publish("acme", vec![draft("new", &["tenant:*"])])
        .await;
    assert_eq!(published.events[0].position.offset, 2);
    assert_eq!(b.received(), [("new".to_owned(), 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_keep_up_is_closed_without_affecting_others() {
    let fixture = HubFixture::new(1, WIDE);
    let limits = OutboxLimits { frames: 2, ..ROOMY };
    let slow = fixture.connect_with(0, "acme", "ann", limits);
    let good = fixture.connect(0, "acme", "bob");
    let mut matched = Vec::new();
    for id in ["1", "2", "3", "4"] {
        let published = fixture
            .publish("acme", vec![draft(id, &["tenant:*"])])
            .await;
        matched.extend(published.events[0].matched);
    }
    assert_eq!(matched, [2, 2, 2, 1]);
    assert_eq!(slow.outbox.signals().ending(), Some(CloseReason::TooSlow));
    assert_eq!(good.received_ids(), ["1", "2", "3", "4"]);
    let tally = fixture.shards[0].tally();
    assert_eq!(tally.matched.get(), 7);
    assert_eq!(tally.dropped_slow.get(), 1);
    assert_eq!(tally.queued.get(), 6);
}

#[test]
fn a_subscribe_over_the_limit_of_topics_changes_nothing() {
    let fixture = HubFixture::new(1, WIDE);
    let a = fixture.connect(0, "acme", "ann");
    let topics: Vec<_> = ["a:1", "a:2", "a:2", "a:3"]
        .map(|topic| Topic::parse(topic).unwrap())
        .into();
    assert!(a.hub().subscribe(&topics[..3], 2, None).is_ok());
    assert!(a.hub().subscribe(&topics[..3], 2, None).is_ok());
    let refused = a.hub().subscribe(&topics[2..], 2, None);
    assert_eq!(
        refused.unwrap_err(),
        SubscribeError::TooManyTopics { topics_max: 2 }
    );
    assert_eq!(fixture.shards[0].tally().subscriptions.get(), 2);
}

#[test]
fn a_subscribe_for_which_there_is_no_memory_changes_nothing() {
    let limits = MemoryLimits {
        max: 4_640,
        window: 0,
    };
    let fixture = HubFixture::new(
        1,
        RegistryLimits {
            memory: limits,
            ..WIDE
        },
    );
    let held = || {
        fixture
            .registry
            .memory()
            .held_bytes(MemoryUse::Subscriptions)
    };
    let topics: Vec<_> = (0..20)
        .map(|n| Topic::new("board", &format!("{n:02}")).unwrap())
        .collect();
    let a = fixture.connect(0, "acme", "ann");
    // Subscriptions may take at most half of it, and a topic takes 208 bytes.
    assert!(a.hub().subscribe(&topics[..11], 100, None).is_ok());
    assert_eq!(held(), 11 * 208);
    let b = fixture.connect(0, "other", "bob");
    let refused = b.hub().subscribe(&topics[..1], 100, None);
    assert_eq!(
        refused.unwrap_err(),
        SubscribeError::NoMemory(MemoryExceeded)
    );
    assert_eq!(held(), 11 * 208);
    assert_eq!(fixture.shards[0].tally().subscriptions.get(), 11);
    // Topics that it already has take no more memory.
    assert!(a.hub().subscribe(&topics[..11], 100, None).is_ok());
    a.hub().unsubscribe(&topics[..2]);
    assert!(b.hub().subscribe(&topics[..1], 100, None).is_ok());
    assert_eq!(held(), 10 * 208);
    drop((a, b));
    assert_eq!(held(), 0);
}

#[test]
fn a_tenant_over_the_limit_is_refused_until_another_has_left() {
    let fixture = HubFixture::new(1, RegistryLimits { tenants: 1, ..WIDE });
    let a = fixture.connect(0, "acme", "ann");
    let outbox = Rc::new(Outbox::new(&OutboxPool::new(ROOMY)));
    let user = UserName::parse("bob").unwrap();
    let refused =
        fixture.shards[0].join_tenant(&name("other"), profile(user.clone()), Rc::clone(&outbox));
    assert_eq!(refused.err(), Some(TenantsFull));
    drop(a);
    assert!(
        fixture.shards[0]
            .join_tenant(&name("other"), profile(user), outbox)
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_sweep_forgets_a_tenant_when_its_events_are_too_old() {
    let fixture = HubFixture::new(1, WIDE);
    fixture.publish("acme", vec![draft("m", &["a:1"])]).await;
    fixture.registry.sweep(Instant::now());
    assert_eq!(fixture.registry.len(), 1);
    assert!(fixture.registry.memory().held_bytes(MemoryUse::Events) > 0);
    fixture.registry.sweep(Instant::now() + WIDE.window.age);
    assert!(fixture.registry.is_empty());
    assert_eq!(fixture.registry.memory().held_bytes(MemoryUse::Events), 0);
}
