//! Sends the largest item of every kind, legal or refused, again and again from one
//! connection and from many, beside a quiet tenant with 20 clients and 200 events a second.
//! Whatever the item is, no turn of the shard is long, the quiet tenant is not delayed, the
//! process stays within `limits.memory_max`, and `/readyz` says that the relay is ready.
//!
//! The entry points are those of the routers and of the schema; a test fails if one has no
//! row. Each row expects the answer that its entry point gives to a legal or a refused
//! item. A legal row is at the bound: the same item with one more unit is refused.
//!
//! ```text
//! cargo test --release -p sidewire --test chaos largest                   # some seconds each
//! SIDEWIRE_LARGEST_SECONDS=3 cargo test --release -p sidewire --test chaos largest -- --nocapture --test-threads=1
//! ```
//!
//! `SIDEWIRE_LARGEST_SECONDS` is the duration of each row. If it is set, there are 100
//! connections instead of 10, and the promised budget is enforced. `SIDEWIRE_LARGEST_ROWS`
//! selects the rows whose entry point or name contains a text. The relay has one shard and
//! the first core; everything else runs on the last core. Short runs check CPU time and
//! memory too, with tolerance for a busy machine and a debug build; they only print wall
//! times.

mod attack;
mod items;
mod rows;
mod watch;

use std::{
    collections::BTreeSet,
    env, fs,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use sidewire::tls;
use sidewire_client::{PublishEncoding, RelayConnection};
use sidewire_testing::{
    process::PATIENCE,
    relay::{Files, INGEST_KEY, Relay, options, token},
    setting,
};
use tokio::{
    runtime::Builder,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    attack::{Attack, Lane, Outcome, PROXY, Target},
    items::{BATCH_EVENTS, CONNECTION_TOPICS, EVENT_TOPICS, SUBSCRIBE_TOPICS},
    rows::{FILLED, Fixture, LARGE_EVENTS, LARGE_TOPIC, LogEnd, Row, World},
    watch::{Turns, Watch},
};

use crate::{
    noisy::{CLIENTS, Measured, Quiet, let_others_go_first, run_on},
    site::{assert_unharmed, files, publisher},
};

const MIB: u64 = 1 << 20;

/// The relay's memory limit, and how much more the process may use.
const MEMORY_MAX: u64 = 640 * MIB;
const MEMORY_BEYOND: u64 = 128 * MIB;

/// Memory that the process may keep after the run compared with its start, and the time it
/// has to get there.
const MEMORY_KEPT: u64 = 64 * MIB;
const MEMORY_BACK: Duration = Duration::from_secs(30);

/// The relay's promises for a turn of its shard, and for the quiet tenant's p99.
const TURN_MAX: Duration = Duration::from_millis(5);
const P99_MAX: Duration = Duration::from_millis(5);

/// Bound of the p99 when handshakes have RSA 4096 signatures.
const TLS_P99_MAX: Duration = Duration::from_millis(10);

/// Bound in a short run, on a machine that is busy with other work.
const SHORT_TURN_MAX: Duration = if cfg!(debug_assertions) {
    Duration::from_millis(100)
} else {
    Duration::from_millis(25)
};

/// Maximum duration of the first round with many connections on a busy machine.
const FIRST_PATIENCE: Duration = Duration::from_mins(1);

const SHORT: Duration = Duration::from_millis(250);
const SHORT_CONNECTIONS: usize = 10;
const CONNECTIONS: usize = 100;

/// Parameters of a run.
struct Size {
    phase: Duration,
    connections: usize,
    /// True if the promised budget is enforced.
    is_full: bool,
}

impl Size {
    fn of_environment() -> Self {
        match setting("SIDEWIRE_LARGEST_SECONDS") {
            Some(seconds) => Self {
                phase: Duration::from_secs_f64(seconds),
                connections: CONNECTIONS,
                is_full: true,
            },
            None => Self {
                phase: SHORT,
                connections: SHORT_CONNECTIONS,
                is_full: false,
            },
        }
    }
}

impl Size {
    /// Returns the number of connections for each line of a row. A debug build is too slow
    /// for both lines.
    fn connections(&self) -> Vec<usize> {
        if self.is_full || !cfg!(debug_assertions) {
            vec![1, self.connections]
        } else {
            vec![self.connections]
        }
    }
}

#[test]
fn every_entry_point_has_a_legal_and_a_refused_item() {
    let (_, config) = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
    let mut rows = rows::rows(&World::new());
    rows.extend(rows::tls_rows(&config));
    let covered = |is_legal| -> BTreeSet<_> {
        let rows = rows.iter().filter(|row| row.is_legal == is_legal);
        rows.flat_map(|row| row.entries.iter().cloned()).collect()
    };
    let entry_points = rows::entry_points();
    assert_eq!(covered(false), entry_points);
    let refused = rows::refused_entry_points();
    let legal = entry_points.difference(&refused);
    assert_eq!(covered(true), legal.cloned().collect());
}

#[tokio::test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
async fn the_largest_item_of_every_kind_does_not_delay_others() {
    let world = World::new();
    let mut site = Site::start(plain_files(), None).await;
    let failed = site.run(rows::rows(&world), P99_MAX).await;
    site.finish(failed).await;
}

#[tokio::test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
async fn tls_handshakes_do_not_delay_others() {
    let (files, config) = tls_files();
    let rows = rows::tls_rows(&config);
    let mut site = Site::start(files, Some(config)).await;
    let failed = site.run(rows, TLS_P99_MAX).await;
    site.finish(failed).await;
}

/// A relay with a quiet tenant, and the relay's memory at the start.
struct Site {
    relay: Relay,
    quiet: Quiet,
    size: Size,
    cores: usize,
    resident: u64,
}

impl Site {
    async fn start(files: Files, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        let cores = thread::available_parallelism().unwrap().get();
        run_on(0);
        let relay = Relay::serve(files);
        run_on(cores - 1);
        let mut quiet = Quiet::connect_with(&relay, tls).await;
        quiet.measure(SHORT).await;
        let resident = crate::kernel::resident(relay.process.id());
        println!("{}", Line::HEAD);
        Self {
            relay,
            quiet,
            size: Size::of_environment(),
            cores,
            resident,
        }
    }

    /// Fills the log of [`FILLED`] for a row. Returns the end of the log before that.
    async fn fill_log(&self, fixture: Fixture) -> LogEnd {
        const EVENTS: usize = 3000;
        let end = self.post(items::event_with_topics(1), &[], false).await;
        match fixture {
            Fixture::FilledLog => {
                let event = items::event_with_topics(EVENT_TOPICS);
                for _ in 0..EVENTS / BATCH_EVENTS {
                    let batch = items::batch((0..BATCH_EVENTS).map(|_| event.clone()));
                    self.post(batch, &[], true).await;
                }
            }
            Fixture::LargeLog => {
                for _ in 0..LARGE_EVENTS {
                    let event = items::ambiguous_event(items::BODY_BYTES);
                    self.post(event, &[LARGE_TOPIC], false).await;
                }
            }
            Fixture::Nothing | Fixture::Subscribers => {}
        }
        end
    }

    /// Posts to [`FILLED`]. Returns the position of the first event.
    async fn post(&self, body: Vec<u8>, topics: &[&str], is_batch: bool) -> LogEnd {
        let posted = publisher(&self.relay)
            .post(FILLED, body, PublishEncoding::Protobuf, topics, is_batch)
            .await;
        let position = posted.unwrap().results.remove(0).position;
        LogEnd {
            epoch: position.epoch,
            offset: position.offset,
        }
    }

    /// Connects clients of [`FILLED`] with the maximum number of topics.
    async fn subscribers(&self) -> Vec<RelayConnection> {
        let mut clients = Vec::new();
        for index in 0..self.size.connections {
            let token = token(FILLED, &format!("subscriber-{index}"));
            let options = options(&self.relay.client_url(), &token);
            let mut client = RelayConnection::open(&options).await.unwrap();
            for part in 0..CONNECTION_TOPICS / SUBSCRIBE_TOPICS {
                let topics = (0..SUBSCRIBE_TOPICS).map(|it| format!("k:{index}-{part}-{it}"));
                client.subscribe(topics).await.unwrap();
                client.receive().await.unwrap();
            }
            clients.push(client);
        }
        clients
    }

    /// Plays all rows. Returns the failures.
    async fn run(&mut self, rows: Vec<Row>, p99_max: Duration) -> Vec<String> {
        let picked = env::var("SIDEWIRE_LARGEST_ROWS").unwrap_or_default();
        let mut failed = Vec::new();
        for mut row in rows {
            let is_picked = |text: &str| text.contains(&picked);
            if !is_picked(row.name) && !row.entries.iter().any(|it| is_picked(it)) {
                continue;
            }
            if let Some(beyond) = &row.beyond {
                let answer = self.one_more(beyond).await;
                if answer != Ok(Outcome::Expected) {
                    failed.push(format!("{}: with one more: {answer:?}", title(&row)));
                }
            }
            if matches!(row.fixture, Fixture::FilledLog | Fixture::LargeLog) {
                let end = self.fill_log(row.fixture).await;
                if let Some(resumed) = &row.resumed {
                    row.attack = resumed(&end);
                }
            }
            let subscribers = match row.fixture {
                Fixture::Subscribers => self.subscribers().await,
                _ => Vec::new(),
            };
            for connections in self.size.connections() {
                let line = self.play(&row, connections, subscribers.len()).await;
                println!("{line}");
                let faults = self.judge(&line, p99_max);
                failed.extend(faults.iter().map(|it| format!("{}: {it}", line.title)));
            }
            drop(subscribers);
            self.only_these_stay(CLIENTS).await;
        }
        failed
    }

    /// Returns the outcome of an item with one more unit than allowed. Retries while memory
    /// of the row before is still held.
    async fn one_more(&self, beyond: &Attack) -> Result<Outcome, String> {
        let target = Target::new(&self.relay, INGEST_KEY);
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = Lane::default().round(beyond, &target).await;
            if answer != Ok(Outcome::Limited) || Instant::now() > end {
                return answer;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn play(&mut self, row: &Row, connections: usize, subscribers: usize) -> Line {
        let watch = Watch::begin(&self.relay);
        let before = Turns::of(&self.relay);
        let flood = Flood::begin(row, connections, &self.relay, self.place());
        flood.has_begun().await;
        let rounds = flood.rounds.load(Ordering::Relaxed);
        let began = Instant::now();
        let quiet = self.quiet.measure(self.size.phase).await;
        let rounds = flood.rounds.load(Ordering::Relaxed) - rounds;
        let rate = rounds as f64 / began.elapsed().as_secs_f64();
        let fault = flood.end().await;
        // Waiting for them to leave is part of the test.
        self.only_these_stay(CLIENTS + subscribers).await;
        let turns = Turns::of(&self.relay).since(&before);
        let seen = watch.end();
        Line {
            title: title(row),
            connections,
            rate,
            quiet,
            turns,
            resident: seen.resident,
            not_ready: seen.not_ready,
            fault,
        }
    }

    /// Returns where the attackers run. If the budget is enforced, they yield to the quiet
    /// tenant.
    fn place(&self) -> Place {
        Place {
            core: self.cores - 1,
            is_yielding: self.size.is_full,
        }
    }

    async fn only_these_stay(&self, clients: usize) {
        let gone = async {
            while self.relay.metric("sidewire_connections") > clients as f64 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, gone).await.expect("connections stay");
    }

    /// Returns the violations in a line.
    fn judge(&self, line: &Line, p99_max: Duration) -> Vec<String> {
        let mut faults = Vec::from_iter(line.fault.clone());
        if let Some(answer) = &line.not_ready {
            faults.push(format!("not ready: {answer}"));
        }
        if line.resident > MEMORY_MAX + MEMORY_BEYOND {
            faults.push(format!("{} MiB", line.resident / MIB));
        }
        let turn_max = if self.size.is_full {
            TURN_MAX
        } else {
            SHORT_TURN_MAX
        };
        let long = line.turns.cpu_longer_than(turn_max);
        if long > 0 {
            faults.push(format!("{long} turns of more than {turn_max:?}"));
        }
        if self.size.is_full && line.quiet.p99 > p99_max {
            faults.push(format!("the quiet tenant waits: p99 {:?}", line.quiet.p99));
        }
        faults
    }

    /// Checks that the memory returns to its level at the start, and that the relay exits
    /// successfully.
    async fn finish(self, mut failed: Vec<String>) {
        drop(self.quiet);
        let process = self.relay.process.id();
        if self.size.is_full {
            let end = Instant::now() + MEMORY_BACK;
            let allowed = self.resident + MEMORY_KEPT;
            while crate::kernel::resident(process) > allowed && Instant::now() < end {
                sleep(Duration::from_millis(100)).await;
            }
            let kept = crate::kernel::resident(process);
            let (kept_mib, began_mib) = (kept / MIB, self.resident / MIB);
            println!("resident: {began_mib} MiB in the beginning, {kept_mib} MiB in the end");
            if kept > allowed {
                failed.push(format!("{kept_mib} MiB stay of {began_mib} MiB"));
            }
        }
        assert_unharmed(self.relay).await;
        assert!(failed.is_empty(), "{failed:#?}");
    }
}

/// Returns the entry point and the name of the item.
fn title(row: &Row) -> String {
    let more = match row.entries.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let verdict = if row.is_legal { "legal" } else { "refused" };
    format!("{}{more}: {}, {verdict}", row.entries[0], row.name)
}

/// A line of the table.
struct Line {
    title: String,
    connections: usize,
    /// Rounds per second.
    rate: f64,
    quiet: Measured,
    turns: Turns,
    resident: u64,
    not_ready: Option<String>,
    fault: Option<String>,
}

impl Line {
    const HEAD: &str = "| input | connections | a second | quiet p50 | p99 | longest turn, CPU | wall | resident |\n\
                        |---|---|---|---|---|---|---|---|";
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
        write!(
            f,
            "| {} | {} | {:.0} | {} | {} | {} | {} | {} MiB |",
            self.title,
            self.connections,
            self.rate,
            milliseconds(self.quiet.p50),
            milliseconds(self.quiet.p99),
            self.turns.longest_cpu(),
            self.turns.longest_stall(),
            self.resident / MIB,
        )
    }
}

/// The core of the attackers, and whether they run only while it is idle.
struct Place {
    core: usize,
    is_yielding: bool,
}

/// Attackers on a thread of their own.
struct Flood {
    rounds: Arc<AtomicU64>,
    fault: Arc<Mutex<Option<String>>>,
    is_over: CancellationToken,
    thread: JoinHandle<()>,
}

impl Flood {
    fn begin(row: &Row, connections: usize, relay: &Relay, place: Place) -> Self {
        let rounds = Arc::<AtomicU64>::default();
        let fault = Arc::<Mutex<Option<String>>>::default();
        let is_over = CancellationToken::new();
        let target = Target::new(relay, INGEST_KEY);
        let (attack, listener) = (row.attack.clone(), row.listener.clone());
        let (counted, told, over) = (rounds.clone(), fault.clone(), is_over.clone());
        let thread = thread::spawn(move || {
            run_on(place.core);
            if place.is_yielding {
                let_others_go_first();
            }
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let lanes = (0..connections).map(|_| go_on(&attack, &target, &counted, &told));
                let listening = async {
                    match &listener {
                        Some(listener) => listener.listen(&target).await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    _ = join_all(lanes) => {}
                    never = listening => match never {},
                    () = over.cancelled() => {}
                }
            });
        });
        Self {
            rounds,
            fault,
            is_over,
            thread,
        }
    }

    /// Waits until the first item was answered as expected.
    async fn has_begun(&self) {
        let end = Instant::now() + FIRST_PATIENCE;
        while self.rounds.load(Ordering::Relaxed) == 0
            && self.fault.lock().unwrap().is_none()
            && Instant::now() < end
        {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Stops the attackers. Returns a description of a failure.
    async fn end(self) -> Option<String> {
        self.is_over.cancel();
        let thread = self.thread;
        tokio::task::spawn_blocking(move || thread.join().unwrap())
            .await
            .unwrap();
        let fault = self.fault.lock().unwrap().take();
        let never = || "it was never answered as it is to be".to_owned();
        fault.or_else(|| (self.rounds.load(Ordering::Relaxed) == 0).then(never))
    }
}

/// Repeats the attack on one connection until something is wrong.
async fn go_on(
    attack: &Attack,
    target: &Target,
    rounds: &AtomicU64,
    fault: &Mutex<Option<String>>,
) {
    let mut lane = Lane::default();
    loop {
        match lane.round(attack, target).await {
            Ok(Outcome::Expected) => {
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            // An attacker does not wait as long as the relay asks it to.
            Ok(Outcome::Limited) => sleep(Duration::from_millis(1)).await,
            Err(error) => {
                fault.lock().unwrap().get_or_insert(error);
                return;
            }
        }
    }
}

/// Returns a config with one shard, a memory limit that can be reached, a log with a short
/// age, and keys each of which is tried.
fn configured(client: &str, more: &str) -> Files {
    let limits = format!("memory_max = \"{}MiB\"", MEMORY_MAX / MIB);
    let more = format!("{more}\n[replay]\nprocess_bytes = \"64MiB\"\nage = \"10s\"\n");
    // The quiet clients do not answer pings between measurements.
    let client = format!(
        "ping_interval = \"30min\"\nidle_timeout = \"1h\"\nhandshake_timeout = \"2s\"\n{client}"
    );
    let files = files(&client, &limits, &more);
    let config = fs::read_to_string(files.config()).unwrap();
    let config = config.replace("shards = 2", "shards = 1");
    let ids = "message_id_bytes_max = \"16MiB\"\nmessage_id_age = \"10s\"\n[[ingest.keys]]";
    files.write("sidewire.toml", &config.replace("[[ingest.keys]]", ids));
    files
}

fn plain_files() -> Files {
    let keys = (0..4).map(|index| {
        format!("[[auth.keys]]\npublic_key_file = \"p384-{index}.pem\"\nalgorithm = \"ES384\"\n")
    });
    let client = format!("trusted_proxies = [\"{PROXY}\"]\nproxy_protocol = true");
    let files = configured(&client, &keys.collect::<String>());
    for index in 0..4 {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        files.write(&format!("p384-{index}.pem"), &key.public_key_pem());
    }
    files
}

/// Returns the files of a relay with TLS, and the config of a client that trusts it.
fn tls_files() -> (Files, Arc<rustls::ClientConfig>) {
    let ((certificate, key), config) = certificate(&rcgen::PKCS_RSA_SHA256);
    let files = configured(
        "",
        "[client.tls]\ncert_file = \"tls.crt\"\nkey_file = \"tls.key\"",
    );
    files.write("tls.crt", &certificate);
    files.write("tls.key", &key);
    (files, config)
}

/// Returns a certificate for `localhost` with its key, both as PEM, and the config of a
/// client that trusts it.
fn certificate(
    algorithm: &'static rcgen::SignatureAlgorithm,
) -> ((String, String), Arc<rustls::ClientConfig>) {
    let key = if algorithm == &rcgen::PKCS_RSA_SHA256 {
        rcgen::KeyPair::generate_rsa_for(algorithm, rcgen::RsaKeySize::_4096)
    } else {
        rcgen::KeyPair::generate_for(algorithm)
    };
    let key = key.unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().pem();
    let config = tls::client_config(Some(certificate.as_bytes())).unwrap();
    ((certificate, key.serialize_pem()), config)
}
