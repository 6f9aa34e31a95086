//! Replays share the reading of logs fairly, however many there are.

use super::{
    wakes::{Order, note_when_woken},
    *,
};
use crate::scheduler::FLOWS_PER_TURN;

/// A connection that is catching up.
struct Reader {
    client: HubClient,
    is_confirmed: bool,
}

impl Reader {
    /// Creates a connection that has missed all events of its tenant, none of which match it, and
    /// that waits to read them.
    fn new(fixture: &HubFixture, tenant: &str) -> Self {
        let client = fixture.connect(0, tenant, "ann");
        client.hub().member.deliver_all();
        let topics = [Topic::parse("a:1").unwrap()];
        let start = Position {
            offset: 0,
            ..client.hub().member.delivered_up_to()
        };
        let subscribed = client.hub().subscribe(&topics, 1, Some(Ok(start)));
        assert_eq!(subscribed, Ok(None), "it has missed something");
        Self {
            client,
            is_confirmed: false,
        }
    }

    fn go_on(&mut self) -> Option<SubscribeProgress> {
        if self.is_confirmed {
            return None;
        }
        let progress = self.client.hub().continue_subscribe(1);
        self.is_confirmed = matches!(progress, Some(SubscribeProgress::Answer(_)));
        progress
    }
}

/// Runs a turn of the shard. Returns the readers that read something in it, in order.
fn read_in_turn(fixture: &HubFixture, readers: &mut [Reader]) -> Vec<usize> {
    turn(&fixture.shards[0]);
    let mut order = Vec::new();
    loop {
        let before = order.len();
        for (index, reader) in readers.iter_mut().enumerate() {
            if reader.go_on().is_some() {
                order.push(index);
            }
        }
        if order.len() == before {
            return order;
        }
    }
}

/// Publishes `events` events of `topics` topics each, to which no connection subscribes.
async fn miss(fixture: &HubFixture, tenant: &str, events: usize, topics: usize) {
    let topics: Vec<_> = (0..topics).map(|number| format!("b:{number}")).collect();
    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
    fixture
        .publish(tenant, vec![draft("m", &topics); events])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_reads_a_fixed_amount_of_a_log_however_many_connections_catch_up() {
    let fixture = HubFixture::new(1, WIDE);
    miss(&fixture, "loud", 2000, 1).await;
    let mut readers: Vec<_> = (0..100).map(|_| Reader::new(&fixture, "loud")).collect();
    let turns: Vec<_> = (0..50)
        .map(|_| read_in_turn(&fixture, &mut readers))
        .collect();
    // A slice of 256 events, and the rest of the quantum.
    assert!(turns.iter().all(|order| order.len() == 2));
    let slices = turns.concat();
    // Each reader gets a slice before any gets its second.
    let round: Vec<_> = (0..100).collect();
    assert_eq!(slices[..100], round);
    assert_eq!(slices[100..], round[..slices.len() - 100]);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_tenants_that_read_their_logs_in_a_turn_is_bounded() {
    let fixture = HubFixture::new(1, WIDE);
    let mut readers = Vec::new();
    let tenants = ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9"];
    for tenant in tenants {
        miss(&fixture, tenant, 1000, 100).await;
    }
    for tenant in tenants {
        readers.extend((0..2).map(|_| Reader::new(&fixture, tenant)));
    }
    // With events of 100 topics, a slice is a quantum.
    let turns: Vec<_> = (0..3)
        .map(|_| read_in_turn(&fixture, &mut readers))
        .collect();
    assert!(turns.iter().all(|order| order.len() == FLOWS_PER_TURN));
    // Each tenant has been served before any is served a third time.
    let served = turns.concat().into_iter().map(|reader| reader / 2);
    let mut times = [0; 10];
    for tenant in served {
        times[tenant] += 1;
        assert!(
            times[tenant] <= 2 || times.iter().all(|it| *it > 0),
            "{turns:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_connection_reads_a_slice_of_its_log_in_every_turn() {
    let fixture = HubFixture::new(1, WIDE);
    miss(&fixture, "acme", 1000, 100).await;
    let mut reader = [Reader::new(&fixture, "acme")];
    let mut turns = 0;
    while !reader[0].is_confirmed {
        assert!(!read_in_turn(&fixture, &mut reader).is_empty());
        turns += 1;
    }
    let event = Cost::TOPIC + Cost::STEP.times(100);
    let least = 1000_usize.div_ceil(1 + event.fits_into(QUANTUM));
    assert!((least..=least + 1).contains(&turns), "{turns}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_leaves_or_reads_nothing_does_not_block_other_replays() {
    let fixture = HubFixture::new(1, WIDE);
    miss(&fixture, "acme", 1000, 100).await;
    let mut readers: Vec<_> = (0..4).map(|_| Reader::new(&fixture, "acme")).collect();
    // The first uses the quantum, and the others wait.
    assert_eq!(readers[0].go_on(), Some(SubscribeProgress::More));
    assert!(
        readers[1..]
            .iter_mut()
            .all(|reader| reader.go_on().is_none())
    );
    let order = Order::default();
    note_when_woken(&readers[3].client, "last", &order);
    // The second's outbox is half full, and the third leaves.
    for _ in 0..ROOMY.frames / 2 {
        readers[1].client.outbox.push_reply(Box::new([0; 2]));
    }
    assert_eq!(readers[1].go_on(), None);
    drop(readers.remove(2));
    turn(&fixture.shards[0]);
    assert_eq!(*order.lock().unwrap(), ["last"]);
    assert_eq!(readers[2].go_on(), Some(SubscribeProgress::More));
    // It continues when there is room.
    readers[1].client.outbox.discard_queued();
    assert_eq!(readers[1].go_on(), None);
    assert_eq!(read_in_turn(&fixture, &mut readers), [1]);
}
