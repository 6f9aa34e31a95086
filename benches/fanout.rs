//! One event to a thousand clients, again and again: how many deliveries a second
//! the relay makes, and what each costs it in CPU time. The relay is a process of
//! its own with one shard, on loopback, pinned to one core, the clients to another; nothing may be lost or out of order.
//!
//! `cargo bench --bench fanout -- [CLIENTS] [EVENTS]`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
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
    time::{Duration, Instant},
};

use bytes::BytesMut;
use prost::Message;
use rustix::{
    process::{Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};
use sidewire::{
    auth::{Algorithm, NewToken, Secret, SigningKey, TokenRules},
    client::{Control, Encoding, Envelope, Publisher},
    clock::Clock,
    protocol::{TenantName, UserName, wire},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

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
    pin_to(0);
    let relay = Relay::start();
    pin_to(1);
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

/// Reads until all events are there and insists on their order. It looks at no
/// more of a frame than its length and its last field, so that the relay is the
/// one with the work.
async fn follow(mut stream: TcpStream, events: u64, progress: mpsc::Sender<u64>) {
    let (mut bytes, mut expected) = (BytesMut::with_capacity(64 * 1024), 1);
    while expected <= events {
        while let Some(frame) = next_frame(&mut bytes) {
            assert_eq!(offset_of(&frame), expected, "lost or out of order");
            progress.send(expected).await.unwrap();
            expected += 1;
        }
        if expected <= events {
            bytes.reserve(16 * 1024);
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
    }
}

/// A server's binary frame (RFC 6455, 5.2), if it is there whole.
fn next_frame(bytes: &mut BytesMut) -> Option<BytesMut> {
    let (header, len) = match *bytes.first_chunk::<2>()? {
        [0x82, 126] => {
            let [_, _, high, low] = *bytes.first_chunk::<4>()?;
            (4, usize::from(u16::from_be_bytes([high, low])))
        }
        [0x82, len @ ..=125] => (2, usize::from(len)),
        other => panic!("an unexpected frame: {other:x?}"),
    };
    (bytes.len() >= header + len).then(|| bytes.split_to(header + len))
}

/// The position stands last: its tag and length, the tag, length and 32 bytes of
/// the epoch, the offset's tag, and the offset, a varint of 1 to 10 bytes.
fn offset_of(frame: &[u8]) -> u64 {
    let is_tag = |at: &usize| {
        frame[*at] == 0x10 && frame[at - 36] == 0x4a && frame[at - 34..at - 32] == [0x0a, 32]
    };
    let last = frame.len() - 1;
    let tag = (last - 10..last).rev().find(is_tag).unwrap();
    prost::decode_length_delimiter(&frame[tag + 1..]).unwrap() as u64
}

/// An envelope of about 200 bytes.
fn event() -> String {
    let padding = "x".repeat(100);
    format!(
        r#"{{"workItemCreated":{{"workItem":{{"projectId":"bench","title":"{padding}"}},"userId":"ann"}}}}"#
    )
}

/// A Subscribe, masked with zeros as a client's frame must be.
fn subscribe() -> Vec<u8> {
    let envelope = Envelope {
        control: Some(Control::Subscribe(wire::Subscribe {
            topics: vec![TOPIC.to_owned()],
            resume_from: None,
        })),
        ..Envelope::default()
    }
    .encode_to_vec();
    let len = u8::try_from(envelope.len()).unwrap();
    assert!(len <= 125);
    [&[0x82, 0x80 | len, 0, 0, 0, 0][..], &envelope].concat()
}

/// Keeps this thread, and the processes that it starts from now on, on one core.
fn pin_to(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).unwrap();
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

    /// A client that has subscribed, as the stream that its events come from.
    async fn connect(&self, number: u64) -> TcpStream {
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
        let mut stream = TcpStream::connect(("127.0.0.1", self.client_port))
            .await
            .unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.write_all(&subscribe()).await.unwrap();
        let mut bytes = BytesMut::new();
        loop {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "refused");
            let head = bytes.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(mut rest) = head.map(|end| bytes.clone().split_off(end + 4))
                && let Some(_confirmed) = next_frame(&mut rest)
            {
                assert!(rest.is_empty());
                return stream;
            }
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
