//! Clients that never read, beside others that do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use prost::Message as _;
use sidewire_client::{
    ClientEvent, ClientOptions, EventPublisher, PublishEncoding, RelayClient, RelayConnection,
};
use sidewire_testing::{
    relay::{Relay, TOPIC, subscribe, token},
    setting,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    backend::envelope,
    kernel::{of_sockets, resident},
    ledger::number_in,
    site::{assert_unharmed, files, impatient, publisher},
};

const MIB: u64 = 1024 * 1024;
const KERNEL_BYTES_MAX: u64 = 300 * 1024;
const RESIDENT_GROWTH_MAX: u64 = 64 * MIB;

/// Pause of each backend between two calls: 1,000 events a second in all.
const PAUSE: Duration = Duration::from_millis(4);
const BACKENDS: u64 = 4;
const EVENTS_PER_SECOND: u64 = 1_000;
const EVENT_BYTES: usize = 1024;

/// The relay's default; an outbox with this many frames is full.
const OUTBOX_FRAMES: u64 = 1_000;

/// In the gate the relay's timeout is shorter, and the machine may be busy.
const SECONDS: u64 = 5;
const SECONDS_FULL: u64 = 20;
const TOLERANCE: Duration = Duration::from_secs(1);

/// The size of a run, and how soon stalled clients must be disconnected.
struct Scale {
    stalled: usize,
    reading: usize,
    events: u64,
    write_timeout: Duration,
}

impl Scale {
    fn wanted() -> Self {
        let stalled = setting("SIDEWIRE_STALLED").unwrap_or(100);
        let seconds = setting("SIDEWIRE_SECONDS").unwrap_or(SECONDS);
        let is_full = seconds >= SECONDS_FULL;
        Self {
            stalled,
            reading: (stalled / 10).max(20),
            events: seconds * EVENTS_PER_SECOND,
            write_timeout: Duration::from_secs(if is_full { 10 } else { 2 }),
        }
    }
}

/// External measurements, in bytes, from the time when the outboxes can be full.
#[derive(Debug, Default)]
struct Watched {
    resident_max: u64,
    kernel_max: u64,
    cut_after: Option<Duration>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_read_are_cut_off_without_affecting_others() {
    let scale = Scale::wanted();
    let timeout_ms = scale.write_timeout.as_millis();
    let relay = Relay::serve(files(
        &format!("write_timeout = \"{timeout_ms}ms\""),
        "",
        "",
    ));
    let stalled = stalled(&relay, scale.stalled).await;
    let (reading, posted) = (reading(&relay, &scale).await, watch::channel(0).0);
    let baseline = resident(relay.process.id());

    let publishing = publish(&relay, &posted, scale.events);
    let watching = watch_closely(&relay, &scale, &posted);
    let ((), mut watched) = tokio::join!(publishing, watching);
    let mut disconnections = 0;
    for client in reading {
        disconnections += client.await.unwrap();
    }
    drop(stalled);

    watched.resident_max = watched.resident_max.saturating_sub(baseline);
    println!(
        "{} that never read beside {} that do, {} events: cut {:?} after their outboxes could be \
         full, resident {} KiB + {} KiB, kernel {} KiB a socket at most, {disconnections} \
         disconnections of those that read",
        scale.stalled,
        scale.reading,
        scale.events,
        watched.cut_after,
        baseline / 1024,
        watched.resident_max / 1024,
        watched.kernel_max / 1024,
    );
    let cut_after = watched.cut_after.expect("they were never cut");
    assert!(cut_after <= scale.write_timeout + TOLERANCE);
    assert!(watched.resident_max <= RESIDENT_GROWTH_MAX);
    assert!(watched.kernel_max > 0 && watched.kernel_max <= KERNEL_BYTES_MAX);
    assert_unharmed(relay).await;
}

/// Connects clients that subscribe and then leave their data in the kernel's buffers.
async fn stalled(relay: &Relay, count: usize) -> Vec<RelayConnection> {
    let options = relay.options(&token("acme", "stalled"));
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = RelayConnection::open(&options).await.unwrap();
        subscribe(&mut client, TOPIC).await;
        clients.push(client);
    }
    clients
}

/// Starts clients that read everything. Each task returns how often its client was disconnected.
async fn reading(relay: &Relay, scale: &Scale) -> Vec<JoinHandle<u64>> {
    let ready = Arc::new(AtomicU64::new(0));
    let (all_ready, mut is_ready) = watch::channel(());
    let mut clients = Vec::new();
    for place in 0..scale.reading {
        let mut options = impatient(&relay.client_url(), &token("acme", "reading"), place as u64);
        options.dead_after = Duration::from_secs(30);
        let (ready, all_ready) = (Arc::clone(&ready), all_ready.clone());
        let (reading, events) = (scale.reading as u64, scale.events);
        clients.push(tokio::spawn(read_all(options, events, move || {
            if ready.fetch_add(1, Ordering::Relaxed) + 1 == reading {
                all_ready.send_replace(());
            }
        })));
    }
    is_ready.changed().await.unwrap();
    clients
}

/// Receives all events, each once and in order.
async fn read_all(options: ClientOptions, events: u64, subscribed: impl FnOnce()) -> u64 {
    let mut client = RelayClient::new(options);
    client.subscribe([TOPIC]);
    let (mut subscribed, mut disconnections) = (Some(subscribed), 0);
    let (mut last, mut seen) = (0, vec![false; events as usize]);
    while last < events {
        let next = timeout(Duration::from_secs(30), client.next_event()).await;
        match next
            .unwrap_or_else(|_| panic!("{} never came", last + 1))
            .unwrap()
        {
            ClientEvent::Event(event) => {
                last += 1;
                assert_eq!(event.position.unwrap().offset, last);
                let place = number_in(&event.message_id) as usize;
                assert!(!std::mem::replace(&mut seen[place], true));
            }
            ClientEvent::Subscribed(_) => {
                if let Some(subscribed) = subscribed.take() {
                    subscribed();
                }
            }
            ClientEvent::Connected => {}
            ClientEvent::Disconnected { .. } => disconnections += 1,
            other => panic!("{other:?}"),
        }
    }
    disconnections
}

async fn publish(relay: &Relay, posted: &watch::Sender<u64>, events: u64) {
    let publishers = (0..BACKENDS).map(|_| publisher(relay));
    let publishers: Vec<_> = publishers.collect();
    let publishing = (0..BACKENDS)
        .zip(&publishers)
        .map(|(first, publisher)| publish_some(publisher, posted, first, events));
    join_all(publishing).await;
}

async fn publish_some(
    publisher: &EventPublisher,
    posted: &watch::Sender<u64>,
    first: u64,
    events: u64,
) {
    let title = "x".repeat(EVENT_BYTES);
    let mut pace = interval(PAUSE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in (first..events).step_by(BACKENDS as usize) {
        pace.tick().await;
        let event = envelope(format!("event-{number}"), vec![TOPIC.to_owned()], &title);
        let body = event.encode_to_vec();
        let answer = publisher.post("acme", body, PublishEncoding::Protobuf, &[], false);
        assert_eq!(answer.await.unwrap().results.len(), 1);
        posted.send_modify(|posted| *posted += 1);
    }
}

/// Samples the relay until all events are posted and every client that does not read is
/// disconnected.
async fn watch_closely(relay: &Relay, scale: &Scale, posted: &watch::Sender<u64>) -> Watched {
    let mut looks = interval(Duration::from_millis(100));
    let mut watched = Watched::default();
    let (mut full_at, mut kernel_looks) = (None, 0_u64);
    while *posted.borrow() < scale.events || watched.cut_after.is_none() {
        looks.tick().await;
        if *posted.borrow() >= OUTBOX_FRAMES {
            full_at.get_or_insert_with(Instant::now);
        }
        let process = resident(relay.process.id());
        watched.resident_max = watched.resident_max.max(process);
        kernel_looks += 1;
        if kernel_looks % 5 == 0 {
            let sockets = of_sockets(relay.client);
            assert!(sockets.len() > scale.reading);
            watched.kernel_max = watched.kernel_max.max(sockets.into_iter().max().unwrap());
        }
        if relay.metric("sidewire_connections") as usize <= scale.reading {
            watched.cut_after = watched.cut_after.or(full_at.map(|it| it.elapsed()));
        }
        let is_late = |it: &Instant| it.elapsed() > scale.write_timeout * 3;
        assert!(watched.cut_after.is_some() || !full_at.as_ref().is_some_and(is_late));
    }
    watched
}
