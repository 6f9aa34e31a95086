//! Clients that reconnect and resume, again and again, through a proxy that breaks their
//! connections while backends publish.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use sidewire_client::RelayClient;
use sidewire_protocol::random::RandomSource;
use sidewire_testing::{
    relay::{Relay, token},
    setting,
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    backend::Backend,
    follower::{Follower, Tally},
    ledger::{EVERYBODY, Entry, Ledger, user_name},
    proxy::{FAULTS, Proxy},
    site::{assert_unharmed, files, impatient, publisher, seed},
};

const RECONNECTS: u64 = if cfg!(debug_assertions) { 250 } else { 500 };
const EVENTS_PER_RECONNECT: u64 = 100;
const TENANTS: [&str; 2] = ["acme", "globex"];
const BACKENDS_PER_TENANT: usize = 2;
const USERS: u32 = 10;

/// Small, so that even a short absence exceeds it.
const WINDOW_EVENTS: u64 = 2_000;

/// A test that takes longer is stuck.
const TIME_MAX: Duration = Duration::from_secs(60);
const TIME_PER_RECONNECT_MAX: Duration = Duration::from_millis(100);

/// Pause of one backend between two calls.
const PAUSE: Duration = Duration::from_millis(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_once_and_every_gap_is_reported_whatever_connections_suffer() {
    let seed = seed("resume");
    let reconnects = setting("SIDEWIRE_RECONNECTS").unwrap_or(RECONNECTS);
    let relay = Relay::serve(relay_files());
    let proxy = Proxy::start(relay.client, seed).await;
    let ledgers = TENANTS.map(|tenant| Arc::new(Ledger::new(tenant)));
    let backends = backends(&relay, &ledgers, seed).await;
    let began = Instant::now();

    let (over, is_over) = watch::channel(false);
    let followers: Vec<_> = followers(&proxy, &ledgers, seed, &is_over).collect();
    let all_posted = || ledgers.iter().map(|ledger| ledger.head()).sum::<u64>();
    // A client ends early only if it has found a fault.
    let is_enough = || {
        began.elapsed() > TIME_MAX + TIME_PER_RECONNECT_MAX * reconnects as u32
            || (proxy.broken() >= reconnects && all_posted() >= reconnects * EVENTS_PER_RECONNECT)
            || followers.iter().any(JoinHandle::is_finished)
    };
    let publishing = backends
        .into_iter()
        .map(|backend| backend.publish(PAUSE, is_enough));
    join_all(publishing).await;
    proxy.calm_down();
    over.send_replace(true);
    let mut tallies = Vec::new();
    for follower in followers {
        tallies.push(follower.await.unwrap().tally);
    }

    report(&proxy, &tallies, all_posted(), began.elapsed());
    assert!(proxy.broken() >= reconnects);
    assert_chaotic(&proxy, &tallies);
    assert_unharmed(relay).await;
}

/// A small window, so that clients can miss it, and small outboxes and buffers, so that a
/// stall soon fills them.
fn relay_files() -> sidewire_testing::relay::Files {
    files(
        "send_buffer = \"8KiB\"\nwrite_timeout = \"1s\"",
        // Clients change topics and are disconnected more often than a user may.
        "outbox_frames = 100\nuser_burst = 4294967295\ntenant_burst = 4294967295",
        &format!("[replay]\nevents = {WINDOW_EVENTS}\nage = \"1h\""),
    )
}

/// Returns the backends of all tenants. Each tenant already has an event, after which
/// everything is followed.
async fn backends(relay: &Relay, ledgers: &[Arc<Ledger>], seed: u64) -> Vec<Backend> {
    let next = Arc::new(AtomicU32::new(1));
    let mut backends = Vec::new();
    for ledger in ledgers {
        for place in 0..BACKENDS_PER_TENANT {
            let backend = Backend {
                ledger: Arc::clone(ledger),
                publisher: publisher(relay),
                random: RandomSource::from_seed(seed ^ backends.len() as u64),
                users: USERS,
                next: Arc::clone(&next),
            };
            if place == 0 {
                let first = Entry {
                    number: next.fetch_add(1, Ordering::Relaxed),
                    topics: 1 << EVERYBODY,
                };
                backend.post(&[first], false).await;
            }
            backends.push(backend);
        }
    }
    backends
}

fn followers(
    proxy: &Proxy,
    ledgers: &[Arc<Ledger>],
    seed: u64,
    is_over: &watch::Receiver<bool>,
) -> impl Iterator<Item = JoinHandle<Follower>> {
    let url = format!("ws://{}/ws", proxy.address);
    ledgers.iter().flat_map(move |ledger| {
        let url = url.clone();
        (0..USERS).map(move |user| {
            let token = token(&ledger.tenant, &user_name(user));
            let client = RelayClient::new(impatient(&url, &token, seed ^ u64::from(user)));
            let projects = 1 << (user % EVERYBODY) | 1 << ((user + 3) % EVERYBODY);
            let random = RandomSource::from_seed(!seed ^ u64::from(user));
            let ledger = Arc::clone(ledger);
            let follower = Follower::new(ledger, user, projects, WINDOW_EVENTS, random);
            tokio::spawn(follower.follow(client, is_over.clone()))
        })
    })
}

fn report(proxy: &Proxy, tallies: &[Tally], published: u64, took: Duration) {
    for fault in FAULTS {
        println!("{:>7} connections met {fault:?}", proxy.count(fault));
    }
    let sum = |part: fn(&Tally) -> u64| tallies.iter().map(part).sum::<u64>();
    println!(
        "{} connections were broken in {took:.1?} while {published} events were published",
        proxy.broken()
    );
    println!(
        "{} clients came back {} times, were given {} events and told of {} gaps, were away for \
         long {} times, dropped {} topics",
        tallies.len(),
        sum(|it| it.connections),
        sum(|it| it.given),
        sum(|it| it.gaps),
        sum(|it| it.absences),
        sum(|it| it.dropped_topics),
    );
    let seen = proxy.seen();
    println!(
        "on the wire: {} events, {} replays, {} closes with 4003",
        seen.events, seen.replays, seen.too_slow
    );
}

/// Asserts that nothing was out of order on the wire and that every planned fault has occurred.
fn assert_chaotic(proxy: &Proxy, tallies: &[Tally]) {
    for fault in FAULTS {
        assert!(proxy.count(fault) > 0, "{fault:?} has not occurred");
    }
    let seen = proxy.seen();
    assert!(seen.faults.is_empty(), "{:?}", seen.faults);
    assert!(seen.replays > 0 && seen.too_slow > 0, "{seen:?}");
    for part in [
        |it: &Tally| it.gaps,
        |it: &Tally| it.absences,
        |it: &Tally| it.dropped_topics,
    ] {
        assert!(tallies.iter().any(|tally| part(tally) > 0), "{tallies:?}");
    }
}
