//! Many connections that close at once: their topics are removed in parts.

use super::*;

/// The number of a tenant's topics that are removed from the index in a turn.
fn a_quantum() -> usize {
    Cost::SUBSCRIPTION.fits_into(QUANTUM)
}

/// Connects one user several times, each connection with a thousand topics of its own.
fn connect_many(fixture: &HubFixture, count: usize) -> Vec<HubClient> {
    let connect = |number| {
        let client = fixture.connect(0, "acme", "ann");
        let topics: Vec<_> = (0..1000).map(|it| format!("a:{number}.{it}")).collect();
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        client.subscribe(&topics);
        client
    };
    (0..count).map(connect).collect()
}

fn topics_of(fixture: &HubFixture) -> usize {
    let view = fixture.publisher.admin().view_tenant(&name("acme"));
    view.map_or(0, |view| view.topics)
}

#[tokio::test(start_paused = true)]
async fn topics_of_connections_that_leave_together_are_removed_in_parts() {
    let fixture = HubFixture::new(1, WIDE);
    let stays = fixture.connect(0, "acme", "bob");
    stays.subscribe(&["b:1"]);
    let many = connect_many(&fixture, 10);
    turn(&fixture.shards[0]);
    drop(many);
    let mut left = vec![topics_of(&fixture)];
    while left.last() != Some(&1) {
        turn(&fixture.shards[0]);
        left.push(topics_of(&fixture));
    }
    assert_eq!(left[0], 10_001 - a_quantum());
    let mut parts = left.windows(2).map(|two| two[0] - two[1]);
    assert!(parts.all(|part| part <= 2 * a_quantum()));
    assert_eq!(left.len(), 1 + (10_000 - a_quantum()).div_ceil(a_quantum()));
    fixture.publish("acme", vec![draft("m", &["b:1"])]).await;
    assert_eq!(stays.received_ids(), ["m"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_queued_or_counted_for_a_connection_that_has_left() {
    let fixture = HubFixture::new(1, WIDE);
    let many = connect_many(&fixture, 10);
    let outboxes: Vec<_> = many.iter().map(|it| Rc::clone(&it.outbox)).collect();
    outboxes[8].start_catch_up();
    drop(many);
    assert_eq!(fixture.shards[0].tally().subscriptions.get(), 0);
    // These topics are still in the index for the earlier connections.
    let back = fixture.connect(0, "acme", "ann");
    back.subscribe(&["a:9.999"]);
    let view = fixture
        .publisher
        .admin()
        .view_tenant(&name("acme"))
        .unwrap();
    assert_eq!((view.connections, view.users), (1, 1));
    assert!(view.topics > 5_000);
    let topics = ["a:8.999", "a:9.999", "user:ann", "tenant:*"];
    let acme = name("acme");
    let appended = fixture
        .publisher
        .append(&acme, vec![draft("m", &topics)])
        .await
        .unwrap();
    fixture.shards[0].deliver_pending();
    let published = appended.wait_acknowledged().await;
    assert_eq!(published.events[0].matched, Some(1));
    assert_eq!(back.received_ids(), ["m"]);
    for outbox in &outboxes {
        assert_eq!((outbox.queued_frames(), outbox.discard_queued()), (0, 0));
    }
    while topics_of(&fixture) > 1 {
        turn(&fixture.shards[0]);
    }
    fixture.publish("acme", vec![draft("n", &topics)]).await;
    assert_eq!(back.received_ids(), ["n"]);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_leaves_the_shard_with_the_last_topic_of_its_last_connection() {
    let fixture = HubFixture::new(1, WIDE);
    drop(connect_many(&fixture, 2));
    let mut turns = 0;
    while !fixture.shards[0].is_empty() {
        turn(&fixture.shards[0]);
        turns += 1;
    }
    assert_eq!(turns, (2_000 - a_quantum()).div_ceil(a_quantum()));
    assert!(fixture.registry.is_empty());
    // A few are removed at once.
    let few = fixture.connect(0, "acme", "ann");
    few.subscribe(&["a:1", "a:2"]);
    drop(few);
    assert!(fixture.shards[0].is_empty() && fixture.registry.is_empty());
}
