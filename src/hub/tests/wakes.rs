//! Waking connections to write: how many in a turn, and which first.

use std::{cell::RefCell, sync::Mutex, task::Wake};

use super::{
    turns::{batch, post, post_batch},
    *,
};
use crate::outbox::FRAMES_PER_WRITE_MAX;

/// Number of a tenant's connections with one frame to write that are woken in a turn.
pub(super) const WOKEN: usize = 20;

/// Returns the cost of waking a connection with a full write pending.
fn full_write() -> Cost {
    Cost::CALL + Cost::FRAME.times(FRAMES_PER_WRITE_MAX - 1)
}

/// The connections that have been woken, in order.
pub(super) type Order = Arc<Mutex<Vec<&'static str>>>;

/// A waker that records its wake-ups.
struct Woken {
    who: &'static str,
    order: Order,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.order.lock().unwrap().push(self.who);
    }
}

pub(super) fn note_when_woken(client: &HubClient, who: &'static str, order: &Order) {
    let order = Arc::clone(order);
    let waker = Waker::from(Arc::new(Woken { who, order }));
    client
        .outbox
        .signals()
        .register_waker(&Context::from_waker(&waker));
}

/// Connections that record when they are woken, and never write.
#[derive(Default)]
pub(super) struct Sleepers {
    pub(super) order: Order,
    pub(super) connected: RefCell<Vec<HubClient>>,
}

impl Sleepers {
    pub(super) fn connect(&self, fixture: &HubFixture, tenant: &'static str, count: usize) {
        for _ in 0..count {
            let client = fixture.connect(0, tenant, "ann");
            note_when_woken(&client, tenant, &self.order);
            self.connected.borrow_mut().push(client);
        }
    }

    pub(super) fn take_woken(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.order.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_woken_a_quantum_per_tenant_and_those_of_new_tenants_first() {
    let fixture = HubFixture::new(1, WIDE);
    let sleepers = Sleepers::default();
    for (tenant, count) in [("loud", 100), ("other", 50)] {
        sleepers.connect(&fixture, tenant, count);
        post(&fixture, tenant, "m").await;
    }
    turn(&fixture.shards[0]);
    let both = [["loud"; WOKEN], ["other"; WOKEN]].concat();
    assert_eq!(sleepers.take_woken(), both);
    sleepers.connect(&fixture, "quiet", 10);
    post(&fixture, "quiet", "m").await;
    turn(&fixture.shards[0]);
    assert_eq!(
        sleepers.take_woken(),
        [["quiet"; 10].to_vec(), both].concat()
    );
    for _ in 0..20 {
        turn(&fixture.shards[0]);
    }
    let rest = sleepers.take_woken();
    let of = |tenant| rest.iter().filter(|it| **it == tenant).count();
    assert_eq!((of("loud"), of("other")), (100 - 2 * WOKEN, 50 - 2 * WOKEN));
}

#[tokio::test(start_paused = true)]
async fn no_more_connections_of_a_lone_tenant_are_woken_in_a_turn() {
    let fixture = HubFixture::new(1, WIDE);
    let sleepers = Sleepers::default();
    sleepers.connect(&fixture, "loud", 2 * WOKEN + 1);
    post(&fixture, "loud", "m").await;
    for expected in [WOKEN, WOKEN, 1] {
        turn(&fixture.shards[0]);
        assert_eq!(sleepers.take_woken().len(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn fewer_connections_are_woken_in_a_turn_when_they_have_many_frames_to_write() {
    let fixture = HubFixture::new(1, WIDE);
    let sleepers = Sleepers::default();
    sleepers.connect(&fixture, "loud", 100);
    post_batch(&fixture, "loud", batch(FRAMES_PER_WRITE_MAX)).await;
    while sleepers.connected.borrow()[99].outbox.queued_frames() < FRAMES_PER_WRITE_MAX {
        fixture.shards[0].deliver_pending();
    }
    for _ in 0..10 {
        turn(&fixture.shards[0]);
        let woken = sleepers.take_woken().len();
        assert!(
            (1..=1 + full_write().fits_into(QUANTUM)).contains(&woken),
            "{woken}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_with_a_full_write_waiting_gets_its_next_slice_once_that_starts() {
    let fixture = HubFixture::new(1, WIDE);
    let sleepers = Sleepers::default();
    sleepers.connect(&fixture, "loud", 48);
    let quiet = fixture.connect(0, "quiet", "bob");
    post_batch(&fixture, "loud", batch(100)).await;
    for _ in 0..20 {
        fixture.shards[0].deliver_pending();
        fixture.shards[0].deliver_one_slice(&name("loud"));
    }
    let queued = |place: usize| sleepers.connected.borrow()[place].outbox.queued_frames();
    assert_eq!(
        (queued(0), queued(47)),
        (FRAMES_PER_WRITE_MAX, FRAMES_PER_WRITE_MAX)
    );
    // Other tenants are still served.
    post(&fixture, "quiet", "n").await;
    fixture.shards[0].deliver_pending();
    assert_eq!(quiet.received().len(), 1);
    assert_eq!(queued(0), FRAMES_PER_WRITE_MAX);
    for _ in 0..48_usize.div_ceil(full_write().fits_into(QUANTUM)) {
        turn(&fixture.shards[0]);
    }
    assert_eq!((queued(0), queued(47)), (100, 100));
}

#[tokio::test(start_paused = true)]
async fn an_outbox_is_not_filled_before_its_connection_is_woken_to_write() {
    let fixture = HubFixture::new(1, WIDE);
    let limits = OutboxLimits {
        frames: 10,
        ..ROOMY
    };
    let client = fixture.connect_with(0, "acme", "ann", limits);
    for number in 0..20 {
        post(&fixture, "acme", &number.to_string()).await;
    }
    for _ in 0..20 {
        fixture.shards[0].deliver_pending();
    }
    assert_eq!(client.outbox.queued_frames(), 5);
    assert_eq!(client.outbox.signals().ending(), None);
}

#[tokio::test(start_paused = true)]
async fn a_connection_woken_late_is_not_flooded_by_events_that_others_do_not_match() {
    let fixture = HubFixture::new(1, WIDE);
    let sleepers = Sleepers::default();
    // One event is for all; the first connections in the queue match none of the events after it.
    sleepers.connect(&fixture, "loud", 500);
    let late = fixture.connect(0, "loud", "bob");
    late.subscribe(&["project:p"]);
    post(&fixture, "loud", "m").await;
    for _ in 0..3 {
        let drafts = (0..1000).map(|number| draft(&format!("p{number}"), &["project:p"]));
        post_batch(&fixture, "loud", drafts.collect()).await;
    }
    note_when_woken(&late, "late", &sleepers.order);
    while !sleepers.take_woken().contains(&"late") {
        turn(&fixture.shards[0]);
        assert!(late.outbox.queued_frames() <= FRAMES_PER_WRITE_MAX);
    }
    assert_eq!(late.outbox.signals().ending(), None);
}

#[tokio::test(start_paused = true)]
async fn connections_that_wait_to_subscribe_are_woken_a_few_at_a_time() {
    let fixture = HubFixture::new(1, WIDE);
    let sleepers = Sleepers::default();
    sleepers.connect(&fixture, "loud", 200);
    // More events than a slice delivers.
    post_batch(&fixture, "loud", batch(40)).await;
    let connected = sleepers.connected.borrow();
    let head = Some(40);
    assert!(
        connected
            .iter()
            .all(|client| client.hub().member.await_head() == head)
    );
    fixture.shards[0].deliver_pending();
    assert!(connected[0].hub().member.has_reached(40));
    let mut told = vec![sleepers.take_woken().len()];
    while told.iter().sum::<usize>() < 200 {
        fixture.shards[0].deliver_pending();
        told.push(sleepers.take_woken().len());
    }
    // One turn pays off what the first slice took beyond its quantum.
    assert!(told.iter().all(|told| *told <= WOKEN), "{told:?}");
    assert!(told.len() <= 200 / WOKEN + 2, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_not_ready_to_be_served_does_not_delay_others() {
    let fixture = HubFixture::new(1, WIDE);
    let sleepers = Sleepers::default();
    sleepers.connect(&fixture, "full", 1);
    let (one, other) = (
        fixture.connect(0, "one", "ann"),
        fixture.connect(0, "other", "ann"),
    );
    post_batch(&fixture, "full", batch(100)).await;
    fixture.shards[0].deliver_pending();
    for tenant in ["one", "one", "other", "other"] {
        post(&fixture, tenant, "m").await;
    }
    fixture.shards[0].deliver_pending();
    assert_eq!((one.received().len(), other.received().len()), (2, 2));
    assert_eq!(
        sleepers.connected.borrow()[0].outbox.queued_frames(),
        FRAMES_PER_WRITE_MAX
    );
}
