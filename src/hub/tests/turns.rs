//! Several tenants on one shard: each is served, whatever the others' backlogs.

use super::{
    admin::asked,
    wakes::{Order, Sleepers, WOKEN, note_when_woken},
    *,
};
use crate::{memory::MemoryUse, outbox::FRAMES_PER_WRITE_MAX};

/// Number of connections at which one event for all of them costs a quantum.
const MANY: usize = 4_300;

/// Publishes an event for the whole tenant, which stays in the inbox.
pub(super) async fn post(fixture: &HubFixture, tenant: &str, id: &str) {
    post_batch(fixture, tenant, vec![draft(id, &["tenant:*"])]).await;
}

pub(super) async fn post_batch(fixture: &HubFixture, tenant: &str, drafts: Vec<EventDraft>) {
    let appended = fixture.publisher.append(&name(tenant), drafts).await;
    drop(appended.unwrap());
}

pub(super) fn batch(count: usize) -> Vec<EventDraft> {
    (0..count)
        .map(|number| draft(&number.to_string(), &["tenant:*"]))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_quiet_tenant_is_delivered_before_the_rest_of_a_flood() {
    let fixture = HubFixture::new(1, WIDE);
    let (loud, quiet) = (
        fixture.connect(0, "loud", "ann"),
        fixture.connect(0, "quiet", "bob"),
    );
    for _ in 0..200 {
        post(&fixture, "loud", "m").await;
    }
    post(&fixture, "quiet", "n").await;
    fixture.shards[0].deliver_pending();
    assert_eq!(quiet.received_ids(), ["n"]);
    // With both tenants active, the turn ends when each has had a quantum, or a full write.
    assert_eq!(loud.received().len(), FRAMES_PER_WRITE_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_split_into_slices_stays_whole_and_in_order() {
    let fixture = HubFixture::new(1, WIDE);
    // One more frame fills it, but an item is taken whole.
    let limits = OutboxLimits { frames: 2, ..ROOMY };
    let loud: Vec<_> = (0..MANY)
        .map(|_| fixture.connect_with(0, "loud", "ann", limits))
        .collect();
    // All have been woken and none has written yet, so no delivery is deferred for them.
    fixture
        .publish("loud", vec![draft("m", &["tenant:*"])])
        .await;
    for _ in 0..MANY.div_ceil(WOKEN) {
        turn(&fixture.shards[0]);
    }
    let quiet = fixture.connect(0, "quiet", "bob");
    let appended = fixture.publisher.append(&name("loud"), batch(5)).await;
    let mut answer = std::pin::pin!(appended.unwrap().wait_acknowledged());
    let mut context = Context::from_waker(Waker::noop());
    let mut quiet_had = Vec::new();
    for done in 1..=5_u64 {
        assert!(answer.as_mut().poll(&mut context).is_pending());
        // The quiet tenant's event numbers fall between those of the batch.
        post(&fixture, "quiet", "n").await;
        fixture.shards[0].deliver_one_slice(&name("loud"));
        assert_eq!(
            fixture.shards[0].tally().queued.get(),
            (1 + done) * MANY as u64
        );
        fixture.shards[0].deliver_one_slice(&name("quiet"));
        quiet_had.extend(quiet.received());
        let written = u64::try_from(quiet_had.len()).unwrap();
        assert_eq!(written, done);
        fixture.shards[0].tally().queued.sub(1);
    }
    let published = answer.await;
    for (event, offset) in published.events.iter().zip(2..) {
        assert_eq!(event.matched, Some(MANY as u64));
        assert_eq!(event.position.offset, offset);
    }
    let batch = (0..5_u64).map(|it| (it.to_string(), it + 2));
    let whole: Vec<_> = std::iter::once(("m".to_owned(), 1)).chain(batch).collect();
    for client in &loud {
        assert_eq!(client.outbox.signals().ending(), None);
        assert_eq!(client.received(), whole);
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_waits_for_the_backlog_of_its_tenant_and_is_then_woken() {
    let fixture = HubFixture::new(1, WIDE);
    let loud: Vec<_> = (0..MANY)
        .map(|_| fixture.connect(0, "loud", "ann"))
        .collect();
    let quiet = fixture.connect(0, "quiet", "bob");
    post_batch(&fixture, "loud", batch(5)).await;
    post(&fixture, "quiet", "n").await;
    let order = Order::default();
    let has_reached = |offset| loud[0].hub().member.has_reached(offset);
    note_when_woken(&loud[0], "loud", &order);
    assert_eq!(loud[0].hub().member.await_head(), Some(5));
    // One slice is delivered at once, and no more.
    assert_eq!(fixture.shards[0].tally().queued.get(), MANY as u64);
    for _ in 1..5 {
        assert!(!has_reached(5));
        assert_eq!(order.lock().unwrap().len(), 0);
        fixture.shards[0].deliver_one_slice(&name("loud"));
    }
    assert!(has_reached(5));
    assert_eq!(order.lock().unwrap().len(), 1);
    // It waits neither for later events nor for other tenants' events.
    assert_eq!(loud[0].subscribe(&["a:1"]).offset, 5);
    assert_eq!(loud[0].hub().member.await_head(), None);
    assert_eq!(quiet.received().len(), 0);
    fixture.shards[0].deliver_pending();
    assert_eq!(quiet.received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_released_when_its_item_is_delivered_and_not_before() {
    let inbox = InboxLimits {
        places: 10,
        places_per_tenant: 1,
    };
    let fixture = HubFixture::new(1, RegistryLimits { inbox, ..WIDE });
    let _loud: Vec<_> = (0..MANY)
        .map(|_| fixture.connect(0, "loud", "ann"))
        .collect();
    post_batch(&fixture, "loud", batch(2)).await;
    let loud = name("loud");
    let mut next = std::pin::pin!(fixture.publisher.append(&loud, batch(1)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(next.as_mut().poll(&mut context).is_pending());
    // The item has left the inbox and is half delivered.
    fixture.shards[0].deliver_one_slice(&loud);
    assert!(next.as_mut().poll(&mut context).is_pending());
    fixture.shards[0].deliver_one_slice(&loud);
    assert!(next.as_mut().poll(&mut context).is_ready());
}

#[tokio::test(start_paused = true)]
async fn queued_items_of_a_tenant_that_leaves_are_answered_and_release_their_permits() {
    let inbox = InboxLimits {
        places: 1,
        places_per_tenant: 1,
    };
    let fixture = HubFixture::new(1, RegistryLimits { inbox, ..WIDE });
    let loud: Vec<_> = (0..MANY)
        .map(|_| fixture.connect(0, "loud", "ann"))
        .collect();
    let appended = fixture.publisher.append(&name("loud"), batch(3)).await;
    fixture.shards[0].deliver_one_slice(&name("loud"));
    drop(loud);
    assert!(appended.unwrap().wait_acknowledged().await.acknowledged);
    let quiet = fixture.connect(0, "quiet", "bob");
    post(&fixture, "quiet", "n").await;
    fixture.shards[0].deliver_pending();
    assert_eq!(quiet.received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slice_is_charged_for_the_topics_of_an_event_and_their_subscribers() {
    let fixture = HubFixture::new(1, WIDE);
    let client = fixture.connect(0, "acme", "ann");
    let topics: Vec<_> = (0..100).map(|n| format!("a:{n}")).collect();
    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
    let slice = || {
        let before = client.hub().member.delivered_up_to().offset;
        fixture.shards[0].deliver_one_slice(&name("acme"));
        client.hub().member.delivered_up_to().offset - before
    };
    let batch = vec![draft("m", &topics); 60];
    post_batch(&fixture, "acme", batch.clone()).await;
    let not_matched = Cost::FRAME + Cost::STEP.times(100);
    let events_in = |cost: Cost| u64::try_from(1 + cost.fits_into(QUANTUM)).unwrap();
    assert_eq!(slice(), events_in(not_matched));
    client.subscribe(&topics);
    post_batch(&fixture, "acme", batch).await;
    let matched = events_in(not_matched + Cost::STEP.times(100));
    assert_eq!(slice(), matched);
    assert_eq!(client.received().len() as u64, matched);
}

#[tokio::test(start_paused = true)]
async fn many_connections_of_a_user_are_closed_a_quantum_at_a_time() {
    let fixture = HubFixture::new(1, WIDE);
    let sleepers = Sleepers::default();
    sleepers.connect(&fixture, "acme", 1000);
    let quiet = fixture.connect(0, "quiet", "bob");
    note_when_woken(&quiet, "quiet", &sleepers.order);
    let admin = fixture.publisher.admin();
    let (acme, ann) = (name("acme"), UserName::parse("ann").unwrap());
    let ended = asked(
        &fixture,
        &[0],
        admin.disconnect_user(&acme, &ann, false, Duration::from_secs(1)),
    )
    .await;
    assert_eq!(ended, Ok(1000));
    let of_acme = sleepers.take_woken().len();
    assert!(of_acme < 1000, "the rest is woken in later turns");
    post(&fixture, "quiet", "m").await;
    let mut woken = of_acme;
    while woken < 1000 {
        turn(&fixture.shards[0]);
        let now = sleepers.take_woken();
        assert!(!now.is_empty() && now.len() <= WOKEN + 1, "{}", now.len());
        woken += now.iter().filter(|who| **who != "quiet").count();
    }
    let connected = sleepers.connected.borrow();
    let endings = connected
        .iter()
        .map(|client| client.outbox.signals().ending());
    assert!(
        endings
            .into_iter()
            .all(|it| it == Some(CloseReason::Disconnected))
    );
}

proptest! {
    /// Items of several tenants are posted and delivered in slices, in any order: each tenant's
    /// client receives its tenant's events in order.
    #[test]
    fn each_tenant_gets_its_events_in_order_however_slices_interleave(
        steps in prop::collection::vec((0..3_usize, 0..90_usize), 1..60),
    ) {
        const TENANTS: [&str; 3] = ["acme", "other", "third"];
        simulate(async {
            let fixture = HubFixture::new(1, WIDE);
            let limits = OutboxLimits { frames: 100_000, bytes: 1 << 30 };
            let clients = TENANTS.map(|tenant| fixture.connect_with(0, tenant, "ann", limits));
            let mut posted = [0_u64; 3];
            for (tenant, count) in steps {
                match count {
                    0 => drop(fixture.shards[0].deliver_one_slice(&name(TENANTS[tenant]))),
                    1 => fixture.shards[0].deliver_pending(),
                    2 => assert_eq!(clients[tenant].subscribe(&["a:1"]).offset, posted[tenant]),
                    _ => {
                        post_batch(&fixture, TENANTS[tenant], batch(count)).await;
                        posted[tenant] += count as u64;
                    }
                }
            }
            fixture.shards[0].end_all(|| CloseReason::TooSlow);
            for (client, posted) in clients.iter().zip(posted) {
                let offsets: Vec<_> = client.received().into_iter().map(|(_, it)| it).collect();
                assert_eq!(offsets, (1..=posted).collect::<Vec<_>>());
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn events_evicted_by_a_batch_are_dropped_in_parts_without_delaying_others() {
    let window = LogWindow {
        events: 100,
        ..WIDE.window
    };
    let fixture = HubFixture::new(1, RegistryLimits { window, ..WIDE });
    let topics: Vec<_> = (0..100).map(|n| format!("a:{n}")).collect();
    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
    let batch = || vec![draft("m", &topics); 100];
    fixture.publish("acme", batch()).await;
    let bytes = || fixture.registry.memory().held_bytes(MemoryUse::Events);
    let window_bytes = bytes();

    let appended = fixture.publisher.append(&name("acme"), batch()).await;
    let mut answer = pin!(appended.unwrap().wait_acknowledged());
    let mut left = vec![bytes() - fixture.registry.log_bytes()];
    let mut context = Context::from_waker(Waker::noop());
    while answer.as_mut().poll(&mut context).is_pending() {
        left.push(bytes() - fixture.registry.log_bytes());
    }
    let cost = Cost::EVENT + Cost::TOPIC.times(100);
    let a_part = 1 + cost.fits_into(QUANTUM);
    let event = left[0] / 100;
    assert_eq!(left[0], window_bytes);
    let dropped: Vec<_> = left
        .windows(2)
        .map(|two| (two[0] - two[1]) / event)
        .collect();
    let whole = vec![a_part as u64; 100_usize.div_ceil(a_part) - 1];
    assert_eq!(dropped, whole);
    assert_eq!(bytes(), fixture.registry.log_bytes());
}
