//! A quiet tenant beside one that exceeds its limits ten times over, and beside one whose
//! backends flood ingest. The quiet tenant must lose nothing and wait at most twice as
//! long.
//!
//! The figures mean something only if relay and load do not compete for a core. The relay
//! has one shard and the first core; everything else runs on the last core, and there the
//! flood runs only while the measuring thread does not (with merely a lower priority,
//! waiting for that core was most of what was measured). Quiet and loud phases alternate,
//! since the machine drifts, and medians over the rounds are compared. That nothing is lost
//! must hold however busy the machine is. The latency ratio is checked only if these tests
//! run alone and one by one (`SIDEWIRE_NOISY_SECONDS` says so), if the quiet phases agree
//! with each other, and if neither the relay nor the measuring thread has waited for a core
//! that other processes used: a busy thread waits there and an idle one does not, so such
//! waits would look like noise.

mod subscribes;

use std::{
    fs,
    future::pending,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use prost::Message as _;
use rustix::thread::{CpuSet, gettid, sched_setaffinity};
use rustls::ClientConfig;
use sidewire_client::{
    ClientOptions, Credential, EventPublisher, PublishEncoding, RelayConnection, RelayMessage,
};
use sidewire_testing::{
    process::PATIENCE,
    relay::{Files, INGEST_KEY, Relay, TOPIC, options, subscribe, token},
    setting,
};
use tokio::{
    runtime::Builder,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    backend::{Batch, envelope},
    site::{assert_unharmed, files, publisher},
};

const QUIET: &str = "quiet";
const LOUD: &str = "loud";

/// Number of clients of the quiet tenant, and the interval of its events.
pub(crate) const CLIENTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// The loud tenant sends ten times its limit of 1,000 messages a minute.
const SENDERS: usize = 10;
const SENDER_PAUSE: Duration = Duration::from_millis(60);

/// Load of the loud tenant's backends, which post as fast as they are answered: some post
/// one event per call and some post batches, for this many clients. The variables override
/// these numbers to explore other loads.
const SINGLE_BACKENDS: usize = 3;
const BATCH_BACKENDS: usize = 1;
const MANY_BATCH_BACKENDS: usize = 64;
const BATCH_EVENTS: usize = 100;
const BATCH: &str = "SIDEWIRE_NOISY_BATCH";
const TOPICS: &str = "SIDEWIRE_NOISY_TOPICS";
const BACKENDS: &str = "SIDEWIRE_NOISY_BACKENDS";
const CLIENTS_OF_LOUD: &str = "SIDEWIRE_NOISY_CLIENTS";
const LOUD_CLIENTS: usize = 100;

const ROUNDS: usize = 3;
const SECONDS: f64 = 0.5;

/// Maximum p99 of the quiet tenant beside the noise, as a multiple of its p99 alone.
const RATIO_MAX: f64 = 2.0;

/// Maximum ratio between the slowest and the fastest quiet phase. Above it the machine is
/// busy with something else, and the latency ratio means nothing.
const SPREAD_MAX: f64 = 1.5;

/// Maximum fraction of a noisy phase for which the relay and the measuring thread may be
/// kept off their cores.
const KEPT_OFF_MAX: f64 = 0.1;

#[tokio::test]
async fn a_tenant_over_its_limits_does_not_delay_another() {
    beside("ten times over its limits", over_limits).await;
}

#[tokio::test]
async fn a_tenant_with_flooding_backends_does_not_delay_another() {
    beside("flooding ingest", flooding).await;
}

#[tokio::test]
async fn many_flooding_backends_without_subscribers_do_not_delay_another_tenant() {
    beside(
        "flooding ingest with 64 backends for nobody",
        flooding_unheard,
    )
    .await;
}

/// Measures the quiet tenant alone and beside a loud one, in alternating phases.
async fn beside<F: Future<Output = ()>>(
    what: &str,
    loud: impl Fn(Target) -> F + Copy + Send + 'static,
) {
    let cores = thread::available_parallelism().unwrap().get();
    run_on(0);
    let relay = Relay::serve(one_shard());
    run_on(cores - 1);
    let mut quiet = Quiet::connect(&relay).await;
    let seconds: Option<f64> = setting("SIDEWIRE_NOISY_SECONDS");
    let is_other = [BATCH, TOPICS, BACKENDS, CLIENTS_OF_LOUD]
        .into_iter()
        .any(|name| setting::<usize>(name).is_some());
    let is_alone = seconds.is_some();
    let seconds = seconds.unwrap_or(SECONDS);
    let phase = Duration::from_secs_f64(seconds);
    let (mut alone, mut noisy) = (Vec::new(), Vec::new());
    let (mut noise, mut kept_off) = (Vec::new(), Vec::new());
    quiet.measure(phase / 2).await;
    for _ in 0..setting("SIDEWIRE_NOISY_ROUNDS").unwrap_or(ROUNDS) {
        alone.push(quiet.measure(phase).await);
        let target = Target::new(&relay);
        let flood = target.clone();
        let flooding = thread::spawn(move || {
            run_on(cores - 1);
            let_others_go_first();
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(loud(flood));
        });
        target.has_begun().await;
        let before = target.noise.load(Ordering::Relaxed);
        let waited_before = waited_for_core(&relay);
        noisy.push(quiet.measure(phase).await);
        kept_off.push((waited_for_core(&relay) - waited_before) / seconds);
        let made = target.noise.load(Ordering::Relaxed) - before;
        noise.push(made as f64 / seconds);
        target.is_over.store(true, Ordering::Relaxed);
        tokio::task::spawn_blocking(move || flooding.join().unwrap())
            .await
            .unwrap();
    }
    let p99 = [&alone, &noisy].map(|it| median(it, |it| it.p99));
    let p50 = [&alone, &noisy].map(|it| median(it, |it| it.p50));
    let ratio = p99[1].as_secs_f64() / p99[0].as_secs_f64();
    let spread = spread(&alone);
    let kept_off_mean = kept_off.iter().sum::<f64>() / kept_off.len() as f64;
    println!(
        "a quiet tenant beside one {what} ({:.0} calls or messages a second): p99 {:?} alone, {:?} \
         beside it, {ratio:.2} times; p50 {:?} and {:?}; quiet phases within {spread:.2} times; off its core for {:.0} %; {} \
         events, none lost",
        noise.iter().sum::<f64>() / noise.len() as f64,
        p99[0],
        p99[1],
        p50[0],
        p50[1],
        kept_off_mean * 100.0,
        quiet.posted,
    );
    let is_sound = spread <= SPREAD_MAX && kept_off_mean <= KEPT_OFF_MAX;
    if is_other {
        println!("not judged: the figure is for another flood");
    } else if is_alone && cores > 1 && is_sound {
        assert!(ratio <= RATIO_MAX, "{ratio}: {alone:?} {noisy:?}");
    } else {
        println!("the machine has too much else to do to judge by that");
    }
    drop(quiet);
    assert_unharmed(relay).await;
}

fn median(phases: &[Measured], of: fn(&Measured) -> Duration) -> Duration {
    let mut sorted: Vec<_> = phases.iter().map(of).collect();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// Returns the ratio between the p99 of the slowest phase and that of the fastest.
fn spread(phases: &[Measured]) -> f64 {
    let slowest = phases.iter().map(|it| it.p99).max().unwrap();
    let fastest = phases.iter().map(|it| it.p99).min().unwrap();
    slowest.as_secs_f64() / fastest.as_secs_f64()
}

fn one_shard() -> Files {
    one_shard_with("", "")
}

/// Returns the files of a relay with one shard, with these lines in `[limits]`, followed by `more`.
fn one_shard_with(limits: &str, more: &str) -> Files {
    let files = files("", limits, more);
    let config = fs::read_to_string(files.config()).unwrap();
    files.write("sidewire.toml", &config.replace("shards = 2", "shards = 1"));
    files
}

/// Returns for how many seconds since their start the relay's threads and this one have
/// been ready to run while others had their core (schedstat of proc(5)).
fn waited_for_core(relay: &Relay) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", relay.process.id())).unwrap();
    let tasks = tasks.map(|task| task.unwrap().path().join("schedstat"));
    let mine = PathBuf::from("/proc/thread-self/schedstat");
    let nanoseconds = tasks.chain([mine]).filter_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum()).as_secs_f64()
}

/// Pins this thread, and the processes and threads that it starts, to one core.
pub(crate) fn run_on(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).unwrap();
}

/// Makes this thread run only while no other wants its core (SCHED_IDLE of sched(7)).
pub(crate) fn let_others_go_first() {
    let thread = gettid().as_raw_nonzero().to_string();
    let chrt = Command::new("chrt")
        .args(["--idle", "--pid", "0", &thread])
        .status();
    assert!(chrt.unwrap().success());
}

#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// The clients and the backend of the quiet tenant.
#[derive(Debug)]
pub(crate) struct Quiet {
    clients: Vec<RelayConnection>,
    publisher: EventPublisher,
    posted: u64,
}

impl Quiet {
    async fn connect(relay: &Relay) -> Self {
        Self::connect_with(relay, None).await
    }

    /// Connects over TLS if `tls` is given, which is what the relay's certificate is
    /// checked against.
    pub(crate) async fn connect_with(relay: &Relay, tls: Option<Arc<ClientConfig>>) -> Self {
        let mut options = relay.options(&token(QUIET, "ann"));
        if let Some(tls) = tls {
            options.url = format!("wss://{}/ws", relay.client);
            options = options.with_tls(tls);
        }
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = RelayConnection::open(&options).await.unwrap();
            subscribe(&mut client, TOPIC).await;
            clients.push(client);
        }
        Self {
            clients,
            publisher: publisher(relay),
            posted: 0,
        }
    }

    /// Posts at the quiet tenant's rate and measures the time from the call to the last
    /// client. Each client must receive each event, in order.
    pub(crate) async fn measure(&mut self, phase: Duration) -> Measured {
        let mut pace = interval(PAUSE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (began, mut times) = (Instant::now(), Vec::new());
        while began.elapsed() < phase {
            pace.tick().await;
            self.posted += 1;
            let event = envelope(
                format!("quiet-{}", self.posted),
                vec![TOPIC.to_owned()],
                "x",
            );
            let posted = Instant::now();
            let (answer, ()) = tokio::join!(
                self.publisher.post(
                    QUIET,
                    event.encode_to_vec(),
                    PublishEncoding::Protobuf,
                    &[],
                    false
                ),
                all_have(&mut self.clients, self.posted),
            );
            assert_eq!(answer.unwrap().results[0].matched, Some(CLIENTS as u64));
            times.push(posted.elapsed());
        }
        times.sort_unstable();
        Measured {
            p50: times[times.len() / 2],
            p99: times[times.len() * 99 / 100],
        }
    }
}

async fn all_have(clients: &mut [RelayConnection], offset: u64) {
    for client in clients {
        let received = timeout(PATIENCE, client.receive())
            .await
            .expect("it is lost");
        match received.unwrap() {
            RelayMessage::Event(event) => assert_eq!(event.position.unwrap().offset, offset),
            other => panic!("{other:?}"),
        }
    }
}

/// Destination of a loud tenant's traffic, with a count of it.
#[derive(Clone)]
struct Target {
    options: ClientOptions,
    ingest_url: String,
    noise: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Target {
    fn new(relay: &Relay) -> Self {
        Self {
            options: options(&relay.client_url(), &token(LOUD, "eve")),
            ingest_url: relay.ingest_url(),
            noise: Arc::default(),
            is_over: Arc::default(),
        }
    }

    async fn has_begun(&self) {
        let begun = async {
            while self.noise.load(Ordering::Relaxed) < 10 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, begun).await.expect("there is no noise");
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn made_noise(&self) {
        self.noise.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs clients that exceed their limits, and reconnect when they are disconnected for it.
async fn over_limits(target: Target) {
    join_all((0..SENDERS).map(|_| send_on_and_on(&target))).await;
}

async fn send_on_and_on(target: &Target) {
    let mut pace = interval(SENDER_PAUSE);
    let mut number = 0_u64;
    while target.goes_on() {
        pace.tick().await;
        let Ok(mut client) = RelayConnection::open(&target.options).await else {
            continue;
        };
        while target.goes_on() {
            tokio::select! {
                received = client.receive_raw() => if received.is_err() { break },
                _ = pace.tick() => {
                    number += 1;
                    let sent = match number % 3 {
                        0 => client.subscribe([TOPIC]).await.map(drop),
                        1 => client.unsubscribe([TOPIC]).await.map(drop),
                        _ => client.send_raw(vec![0xff; 100]).await,
                    };
                    if sent.is_err() {
                        break;
                    }
                    target.made_noise();
                }
            }
        }
    }
}

/// Runs backends that post without a pause, and clients that read what they can.
async fn flooding(target: Target) {
    let batches = setting(BACKENDS).unwrap_or(BATCH_BACKENDS);
    let clients = setting(CLIENTS_OF_LOUD).unwrap_or(LOUD_CLIENTS);
    flood(&target, batches, clients).await;
}

/// Runs backends that are never held back by an inbox permit, since there are no clients.
async fn flooding_unheard(target: Target) {
    flood(&target, MANY_BATCH_BACKENDS, 0).await;
}

async fn flood(target: &Target, batches: usize, clients: usize) {
    let places = 0..batches + SINGLE_BACKENDS;
    let backends = join_all(places.map(|place| post_on_and_on(target, place < batches)));
    let clients = join_all((0..clients).map(|_| read_on_and_on(target)));
    // The clients may wait for events that never come, so end with the backends.
    tokio::select! {
        _ = backends => {}
        () = async { drop(clients.await); pending().await } => {}
    }
}

async fn post_on_and_on(target: &Target, is_batch: bool) {
    let key = Credential::new(INGEST_KEY);
    let backend = EventPublisher::new(&target.ingest_url, Some(&key)).unwrap();
    let more_topics = 1..setting(TOPICS).unwrap_or(1);
    let topics: Vec<_> = [TOPIC.to_owned()]
        .into_iter()
        .chain(more_topics.map(|number| format!("board:{number}")))
        .collect();
    let event = || envelope(String::new(), topics.clone(), "x");
    let body = if is_batch {
        let count = setting(BATCH).unwrap_or(BATCH_EVENTS);
        let messages = (0..count).map(|_| event()).collect();
        Batch { messages }.encode_to_vec()
    } else {
        event().encode_to_vec()
    };
    while target.goes_on() {
        // Do not wait before the next call, whether this one was refused or not.
        drop(
            backend
                .post(LOUD, body.clone(), PublishEncoding::Protobuf, &[], is_batch)
                .await,
        );
        target.made_noise();
    }
}

async fn read_on_and_on(target: &Target) {
    while target.goes_on() {
        let Ok(mut client) = RelayConnection::open(&target.options).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        if client.subscribe([TOPIC]).await.is_ok() {
            while target.goes_on() && client.receive_raw().await.is_ok() {}
        }
    }
}
