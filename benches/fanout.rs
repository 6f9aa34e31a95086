//! One event to a thousand clients, again and again: how many deliveries a second
//! the relay makes, and what each costs it in CPU time. The relay is a process of
//! its own with one shard, on loopback; nothing may be lost or out of order.
//!
//! `cargo bench --bench fanout -- [CLIENTS] [EVENTS]`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark may fail loudly, and its result is what it prints"
)]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use sidewire::{
    auth::{Algorithm, NewToken, Secret, SigningKey, TokenRules},
    client::{ClientOptions, Connection, Encoding, Publisher, Received},
    clock::Clock,
    protocol::{TenantName, UserName},
    random::Random,
};
use tokio::sync::mpsc;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const TOPIC: &str = "project:bench";

/// At most so many events that some client has not received yet: full load.
const OUTSTANDING_MAX: u64 = 64;

/// Events before the clock starts.
const WARM_UP: u64 = 200;

fn main() {
    let numbers: Vec<u64> = env::args().filter_map(|word| word.parse().ok()).collect();
    let clients = numbers.first().copied().unwrap_or(1000);
    let events = numbers.get(1).copied().unwrap_or(5000);
    raise_descriptor_limit();
    let relay = Relay::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(&relay, clients, events));
    relay.stop();
}

async fn run(relay: &Relay, clients: u64, events: u64) {
    let (progress, mut received) = mpsc::channel(1024);
    for number in 0..clients {
        let connection = relay.connect(number).await;
        tokio::spawn(follow(connection, WARM_UP + events, progress.clone()));
    }
    drop(progress);
    let url = format!("http://127.0.0.1:{}", relay.ingest_port);
    let backend = Publisher::new(&url, None).unwrap();

    let mut delivered = Delivered {
        clients,
        counts: vec![0; usize::try_from(WARM_UP + events).unwrap()],
        complete: 0,
    };
    let (mut begun, mut cpu) = (Instant::now(), Duration::ZERO);
    for sent in 0..WARM_UP + events {
        if sent == WARM_UP {
            delivered.up_to(sent, &mut received).await;
            (begun, cpu) = (Instant::now(), relay.cpu_time());
        }
        delivered
            .up_to((sent + 1).saturating_sub(OUTSTANDING_MAX), &mut received)
            .await;
        let answer = backend
            .post("bench", event(), Encoding::Json, &[], false)
            .await
            .unwrap();
        assert_eq!(answer.results[0].matched, Some(clients));
    }
    delivered.up_to(WARM_UP + events, &mut received).await;
    let (wall, cpu) = (begun.elapsed(), relay.cpu_time() - cpu);
    let deliveries = clients * events;
    println!(
        "{clients} clients, {events} events of about {} bytes: {:.0} deliveries/s, {:.2} µs of the relay's CPU time a delivery, none lost",
        event().len(),
        deliveries as f64 / wall.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / deliveries as f64,
    );
}

/// How far the slowest client is.
struct Delivered {
    clients: u64,
    /// By event: how many clients have it.
    counts: Vec<u64>,
    complete: u64,
}

impl Delivered {
    /// Waits until every client has the first `events` events.
    async fn up_to(&mut self, events: u64, received: &mut mpsc::Receiver<u64>) {
        while self.complete < events {
            let offset = received.recv().await.expect("the clients are connected");
            self.counts[usize::try_from(offset - 1).unwrap()] += 1;
            while self.counts.get(usize::try_from(self.complete).unwrap()) == Some(&self.clients) {
                self.complete += 1;
            }
        }
    }
}

/// Receives all events and insists on their order.
async fn follow(mut connection: Connection, events: u64, progress: mpsc::Sender<u64>) {
    for expected in 1..=events {
        match connection.receive().await.unwrap() {
            Received::Event(event) => {
                let offset = event.position.unwrap().offset;
                assert_eq!(offset, expected, "lost or out of order");
                progress.send(offset).await.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

/// An envelope of about 200 bytes.
fn event() -> String {
    let padding = "x".repeat(100);
    format!(
        r#"{{"workItemCreated":{{"workItem":{{"projectId":"bench","title":"{padding}"}},"userId":"ann"}}}}"#
    )
}

fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .unwrap();
}

/// A relay in a process of its own.
struct Relay {
    process: Child,
    client_port: u16,
    ingest_port: u16,
    _files: tempfile::TempDir,
}

impl Relay {
    fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        fs::write(files.path().join("jwt.secret"), SECRET).unwrap();
        let [client_port, ingest_port, ops_port] = free_ports();
        let config = files.path().join("sidewire.toml");
        fs::write(
            &config,
            format!(
                r#"
client.listen = "127.0.0.1:{client_port}"
auth.keys = [{{ secret_file = "jwt.secret", algorithm = "HS256" }}]
limits.shards = 1
ingest.listen = "127.0.0.1:{ingest_port}"
ops.listen = "127.0.0.1:{ops_port}"
log.format = "json"
"#
            ),
        )
        .unwrap();
        let process = serve(&config);
        Self {
            process,
            client_port,
            ingest_port,
            _files: files,
        }
    }

    async fn connect(&self, number: u64) -> Connection {
        let token = NewToken {
            tenant: TenantName::parse("bench").unwrap(),
            user: UserName::parse(&format!("user-{number}")).unwrap(),
            expires_at: Some(Clock::system().since_unix_epoch() + Duration::from_hours(1)),
            topics: None,
        };
        let token = SigningKey::from_secret(Algorithm::HS256, None, &Secret::new(SECRET))
            .unwrap()
            .mint(&token, &TokenRules::default())
            .unwrap();
        let url = format!("ws://127.0.0.1:{}/ws", self.client_port);
        let options =
            ClientOptions::new(url, Arc::new(Random::from_seed(number))).with_token(token);
        let mut connection = Connection::open(&options).await.unwrap();
        connection.subscribe([TOPIC]).await.unwrap();
        match connection.receive().await.unwrap() {
            Received::SubscriptionConfirmed(_) => connection,
            other => panic!("{other:?}"),
        }
    }

    /// User and system time of the whole process so far, in ticks of 10 ms.
    fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: u64 = [11, 12]
            .map(|at: usize| fields[at].parse::<u64>().unwrap())
            .iter()
            .sum();
        Duration::from_millis(ticks * 10)
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

/// Starts the relay and waits until it says that it takes connections.
fn serve(config: &Path) -> Child {
    let mut process = Command::new(env!("CARGO_BIN_EXE_sidewire"))
        .arg("serve")
        .arg("--config")
        .arg(config)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    assert!(line.contains("takes connections"), "{line}");
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::stderr()));
    process
}

fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
