//! Several tenants on one shard: each has its turn, whatever the others have waiting.

use std::{
    cell::RefCell,
    sync::Mutex,
    task::{Context, Wake, Waker},
};

use super::*;

/// So many connections of one event that it takes a slice for itself.
const MANY: usize = 1200;

/// Puts an event for everybody of the tenant into the inbox, where nobody takes it.
async fn post(bench: &Bench, tenant: &str, id: &str) {
    post_batch(bench, tenant, vec![draft(id, &["tenant:*"])]).await;
}

async fn post_batch(bench: &Bench, tenant: &str, drafts: Vec<Draft>) {
    let appended = bench.publisher.append(&name(tenant), drafts).await;
    drop(appended.unwrap());
}

fn batch(count: usize) -> Vec<Draft> {
    (0..count)
        .map(|number| draft(&number.to_string(), &["tenant:*"]))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_quiet_tenant_comes_before_the_rest_of_a_flood() {
    let bench = Bench::new(1, WIDE);
    let (loud, quiet) = (
        bench.connect(0, "loud", "ann"),
        bench.connect(0, "quiet", "bob"),
    );
    for _ in 0..200 {
        post(&bench, "loud", "m").await;
    }
    post(&bench, "quiet", "n").await;
    bench.shards[0].take_waiting();
    assert_eq!(quiet.received_ids(), ["n"]);
    // With both in it the turn is over when each has had a slice.
    assert_eq!(loud.received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_cut_where_it_has_had_its_slice_and_stays_whole_and_in_order() {
    let bench = Bench::new(1, WIDE);
    // One frame and it is full: what it takes of an item it takes whole.
    let limits = OutboxLimits { frames: 1, ..ROOMY };
    let loud: Vec<_> = (0..MANY)
        .map(|_| bench.connect_with(0, "loud", "ann", limits))
        .collect();
    let quiet = bench.connect(0, "quiet", "bob");
    let appended = bench.publisher.append(&name("loud"), batch(5)).await;
    let mut answer = std::pin::pin!(appended.unwrap().acknowledged());
    let mut context = Context::from_waker(Waker::noop());
    let mut quiet_had = Vec::new();
    for done in 1..=5_u64 {
        assert!(answer.as_mut().poll(&mut context).is_pending());
        // The quiet tenant's numbers come between those of the batch.
        post(&bench, "quiet", "n").await;
        bench.shards[0].take_waiting_of(&name("loud"));
        assert_eq!(bench.shards[0].tally().queued.get(), done * MANY as u64);
        bench.shards[0].take_waiting_of(&name("quiet"));
        quiet_had.extend(quiet.received());
        let written = u64::try_from(quiet_had.len()).unwrap();
        assert_eq!(written, done);
        bench.shards[0].tally().queued.sub(1);
    }
    let published = answer.await;
    for (event, offset) in published.events.iter().zip(1..) {
        assert_eq!(event.matched, Some(MANY as u64));
        assert_eq!(event.position.offset, offset);
    }
    let whole: Vec<_> = (0..5_u64).map(|it| (it.to_string(), it + 1)).collect();
    for client in &loud {
        assert_eq!(client.outbox.ending(), None);
        assert_eq!(client.received(), whole);
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_takes_the_rest_of_a_batch_and_nothing_of_others() {
    let bench = Bench::new(1, WIDE);
    let loud: Vec<_> = (0..MANY).map(|_| bench.connect(0, "loud", "ann")).collect();
    let quiet = bench.connect(0, "quiet", "bob");
    post_batch(&bench, "loud", batch(5)).await;
    post(&bench, "quiet", "n").await;
    bench.shards[0].take_waiting_of(&name("loud"));
    assert_eq!(bench.shards[0].tally().queued.get(), MANY as u64);
    assert_eq!(loud[0].subscribe(&["a:1"]).offset, 5);
    assert_eq!(loud[0].received().len(), 5);
    assert_eq!(quiet.received().len(), 0);
    bench.shards[0].take_waiting();
    assert_eq!(quiet.received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_given_back_when_its_item_is_delivered_and_not_before() {
    let inbox = InboxLimits {
        places: 10,
        places_per_tenant: 1,
    };
    let bench = Bench::new(1, RegistryLimits { inbox, ..WIDE });
    let _loud: Vec<_> = (0..MANY).map(|_| bench.connect(0, "loud", "ann")).collect();
    post_batch(&bench, "loud", batch(2)).await;
    let loud = name("loud");
    let mut next = std::pin::pin!(bench.publisher.append(&loud, batch(1)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(next.as_mut().poll(&mut context).is_pending());
    // Out of the inbox, and half delivered.
    bench.shards[0].take_waiting_of(&loud);
    assert!(next.as_mut().poll(&mut context).is_pending());
    bench.shards[0].take_waiting_of(&loud);
    assert!(next.as_mut().poll(&mut context).is_ready());
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_tenant_that_leaves_is_answered_and_gives_its_places_back() {
    let inbox = InboxLimits {
        places: 1,
        places_per_tenant: 1,
    };
    let bench = Bench::new(1, RegistryLimits { inbox, ..WIDE });
    let loud: Vec<_> = (0..MANY).map(|_| bench.connect(0, "loud", "ann")).collect();
    let appended = bench.publisher.append(&name("loud"), batch(3)).await;
    bench.shards[0].take_waiting_of(&name("loud"));
    drop(loud);
    assert!(appended.unwrap().acknowledged().await.acknowledged);
    let quiet = bench.connect(0, "quiet", "bob");
    post(&bench, "quiet", "n").await;
    bench.shards[0].take_waiting();
    assert_eq!(quiet.received().len(), 1);
}

/// Notes whose connections are woken, in order.
struct Woken {
    tenant: &'static str,
    order: Arc<Mutex<Vec<&'static str>>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.order.lock().unwrap().push(self.tenant);
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_woken_in_turn_over_the_tenants() {
    let bench = Bench::new(1, WIDE);
    let order = Arc::default();
    let connected = RefCell::new(Vec::new());
    let connect = |tenant: &'static str, count: usize| {
        for _ in 0..count {
            let client = bench.connect(0, tenant, "ann");
            let woken = Woken {
                tenant,
                order: Arc::clone(&order),
            };
            let waker = Waker::from(Arc::new(woken));
            client.outbox.register(&Context::from_waker(&waker));
            connected.borrow_mut().push(client);
        }
    };
    connect("loud", 100);
    connect("quiet", 2);
    connect("calm", 1);
    for tenant in ["loud", "quiet", "calm"] {
        post(&bench, tenant, "m").await;
    }
    let mut run = std::pin::pin!(bench.shards[0].run());
    let mut context = Context::from_waker(Waker::noop());
    assert!(run.as_mut().poll(&mut context).is_pending());
    let woken = std::mem::take(&mut *order.lock().unwrap());
    assert_eq!(
        woken[..6],
        ["loud", "quiet", "calm", "loud", "quiet", "loud"]
    );
    // As many of each as of one tenant alone.
    assert_eq!(woken.len(), 3 * 16);
    for _ in 0..20 {
        assert!(run.as_mut().poll(&mut context).is_pending());
    }
    let rest = order.lock().unwrap();
    assert!(rest.iter().all(|tenant| *tenant == "loud"));
    assert_eq!(woken.len() + rest.len(), 103);
}

proptest! {
    /// Items of several tenants, posted and delivered in slices in any order: each
    /// tenant's client has its tenant's events in their order, and the quiet one never
    /// waits for more than one turn.
    #[test]
    fn each_tenant_has_its_events_in_order_whatever_turns_are_taken(
        steps in prop::collection::vec((0..3_usize, 0..90_usize), 1..60),
    ) {
        const TENANTS: [&str; 3] = ["acme", "other", "third"];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let bench = Bench::new(1, WIDE);
            let limits = OutboxLimits { frames: 100_000, bytes: 1 << 30 };
            let clients = TENANTS.map(|tenant| bench.connect_with(0, tenant, "ann", limits));
            let mut posted = [0_u64; 3];
            for (tenant, count) in steps {
                match count {
                    0 => bench.shards[0].take_waiting_of(&name(TENANTS[tenant])),
                    1 => bench.shards[0].take_waiting(),
                    2 => assert_eq!(clients[tenant].subscribe(&["a:1"]).offset, posted[tenant]),
                    _ => {
                        post_batch(&bench, TENANTS[tenant], batch(count)).await;
                        posted[tenant] += count as u64;
                    }
                }
            }
            bench.shards[0].end_all(|| Ending::TooSlow);
            for (client, posted) in clients.iter().zip(posted) {
                let offsets: Vec<_> = client.received().into_iter().map(|(_, it)| it).collect();
                assert_eq!(offsets, (1..=posted).collect::<Vec<_>>());
            }
        });
    }
}
