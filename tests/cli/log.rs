//! A log that cannot be written: a pipe that is never read, a full disk, a limit of file sizes.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, PipeReader, pipe},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sidewire_client::{Credential, EventPublisher, PublishEncoding, RelayConnection, RelayMessage};
use sidewire_testing::{
    http::{bearer, handshake, http},
    process::{PATIENCE, Process, Signal},
    relay::{Files, INGEST_KEY, Relay, TOPIC, event, log_line, subscribe, token},
};
use tokio::time::timeout;

const LOST: &str = "sidewire_log_lines_lost_total";

/// Longer than the relay takes to exit when nothing is queued, much shorter than a hang.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts a relay with a standard error that is a pipe that is read only up to the line with its
/// addresses.
fn relay_with_unread_log() -> (Relay, BufReader<PipeReader>) {
    let files = Files::with("", "level = \"debug\"");
    let (reader, writer) = pipe().unwrap();
    let process = Process::start_with(files.serve(), Stdio::null(), Stdio::piped(), writer);
    let mut log = BufReader::new(reader);
    let line = read_until(&mut log, "the relay is ready");
    (Relay::with_addresses(process, files, &line), log)
}

/// Reads the log up to the first line with this message.
fn read_until(log: &mut impl BufRead, message: &str) -> Value {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the log has ended");
        if let Some(found) = log_line(&line, message) {
            return found;
        }
    }
}

/// Makes the relay log more than fits into a pipe of 64 KiB.
fn flood(relay: &Relay) {
    let handshake = handshake(&bearer("a.b.c"));
    for _ in 0..1000 {
        let answer = http(relay.client, &handshake);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    for _ in 0..2000 {
        disconnect(relay, "nobody");
    }
}

/// Has a backend close the connections of this user.
fn disconnect(relay: &Relay, user: &str) {
    let delete = format!(
        "DELETE /v1/tenants/acme/users/{user}/connections HTTP/1.1\r\nHost: localhost\r\n\
         Authorization: Bearer {INGEST_KEY}\r\nConnection: close\r\n\r\n"
    );
    let answer = http(relay.ingest, &delete);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

async fn assert_events_are_delivered(relay: &Relay, client: &mut RelayConnection) {
    let publisher = EventPublisher::new(&relay.ingest_url(), Some(&Credential::new(INGEST_KEY)));
    publisher
        .unwrap()
        .post(
            "acme",
            event("a").to_string(),
            PublishEncoding::Json,
            &[],
            false,
        )
        .await
        .unwrap();
    let received = timeout(PATIENCE, client.receive()).await.unwrap().unwrap();
    assert!(matches!(received, RelayMessage::Event(_)), "{received:?}");
    let healthz = http(
        relay.ops,
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(healthz.starts_with("HTTP/1.1 200 "), "{healthz}");
}

fn assert_ends_in_time(relay: Relay) {
    let began = Instant::now();
    relay.process.signal(Signal::TERM);
    let ended = relay.process.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(began.elapsed() < END_TIMEOUT, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_unread_log_pipe_does_not_stop_the_relay() {
    let (relay, log) = relay_with_unread_log();
    let mut client = RelayConnection::open(&relay.options(&token("acme", "ann")))
        .await
        .unwrap();
    subscribe(&mut client, TOPIC).await;
    flood(&relay);
    assert_events_are_delivered(&relay, &mut client).await;
    drop(client);
    assert_ends_in_time(relay);
    drop(log);
}

#[tokio::test]
async fn a_second_signal_ends_a_relay_with_an_unread_log() {
    let (relay, log) = relay_with_unread_log();
    flood(&relay);
    let began = Instant::now();
    relay.process.signal(Signal::TERM);
    relay.process.signal(Signal::TERM);
    relay.process.end();
    assert!(began.elapsed() < END_TIMEOUT, "{:?}", began.elapsed());
    drop(log);
}

#[tokio::test]
async fn lost_lines_are_counted_and_reported_once_the_log_is_read_again() {
    let (relay, mut log) = relay_with_unread_log();
    // The queue takes 1 MiB in addition to what the pipe takes.
    while relay.metric(LOST) == 0.0 {
        flood(&relay);
    }
    let line = tokio::task::spawn_blocking(move || {
        let line = read_until(
            &mut log,
            "log lines were lost: standard error did not take them",
        );
        (line, log)
    });
    let (line, mut log) = timeout(PATIENCE, line).await.unwrap().unwrap();
    assert!(line["lost"].as_u64().unwrap() > 0, "{line}");
    assert_eq!(line["level"], json!("WARN"));
    // Keep reading what the relay still logs.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    assert_ends_in_time(relay);
}

#[test]
fn a_full_disk_does_not_stop_the_relay_and_lost_lines_are_counted() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_lost_lines_are_counted(full, |serve| serve);
}

#[test]
fn a_limit_of_file_sizes_does_not_stop_the_relay_and_lost_lines_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let log = File::create(directory.path().join("log")).unwrap();
    assert_lost_lines_are_counted(log, |serve| {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -f 0; exec \"$0\" \"$@\""]);
        limited.arg(serve.get_program()).args(serve.get_args());
        limited
    });
}

/// Starts a relay whose log cannot be written to this file. `started_by` makes the command from
/// the one that serves.
fn assert_lost_lines_are_counted(log: File, started_by: impl FnOnce(Command) -> Command) {
    let files = Files::with("", "level = \"debug\"");
    let notify = files.path("notify");
    let systemd = std::os::unix::net::UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = || {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    let ops = port();
    let config = std::fs::read_to_string(files.config()).unwrap();
    let listen = "[ops]\nlisten = \"127.0.0.1:0\"";
    assert!(config.contains(listen), "{config}");
    let fixed = format!("[ops]\nlisten = \"{ops}\"");
    files.write("sidewire.toml", &config.replace(listen, &fixed));
    let mut serve = started_by(files.serve());
    serve.env("NOTIFY_SOCKET", &notify);
    let process = Process::start_with(serve, Stdio::null(), Stdio::piped(), log);
    let mut state = [0; 256];
    let read = systemd.recv(&mut state).unwrap();
    assert!(state[..read].starts_with(b"READY=1"));
    let began = Instant::now();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let is_counted = |metrics: String| {
        let mut lines = metrics.lines().filter_map(|line| line.split_once(' '));
        lines.any(|(name, value)| name == LOST && value != "0")
    };
    while !is_counted(http(ops, request)) {
        assert!(began.elapsed() < PATIENCE, "nothing is counted as lost");
    }
    process.signal(Signal::TERM);
    assert_eq!(process.end().status.code(), Some(0));
}

#[tokio::test]
async fn a_disconnect_is_logged_at_info_only_if_it_closes_a_connection() {
    let relay = Relay::start();
    let client = RelayConnection::open(&relay.options(&token("acme", "ann")))
        .await
        .unwrap();
    disconnect(&relay, "nobody");
    disconnect(&relay, "ann");
    let message = "backend disconnected a user";
    let line = relay.process.stderr_has(|log| log_line(log, message));
    assert_eq!((&line["user"], &line["closed"]), (&json!("ann"), &json!(1)));
    drop(client);
    relay.process.signal(Signal::TERM);
    let log = relay.process.end().stderr;
    assert_eq!(log.matches(message).count(), 1, "{log}");
}

#[test]
fn refusals_are_logged_once_per_period_with_their_count() {
    const TIMES: u64 = 300;
    let relay = Relay::start();
    let handshake = handshake("");
    let call = "POST /v1/tenants/acme/events HTTP/1.1\r\nHost: localhost\r\n\
        Authorization: Bearer nobody's\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for _ in 0..TIMES {
        for (address, request) in [(relay.client, &*handshake), (relay.ingest, call)] {
            let answer = http(address, request);
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        }
    }
    relay.process.signal(Signal::TERM);
    let log = relay.process.end().stderr;
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for message in [
        "handshake refused: not authenticated",
        "call refused: not authenticated",
    ] {
        let first: Vec<_> = lines.iter().filter(|it| it["message"] == message).collect();
        let [first] = first[..] else {
            panic!("not logged once: {log}");
        };
        assert_eq!(
            (&first["level"], &first["status"]),
            (&json!("INFO"), &json!(401))
        );
        // The repeats are on several lines if the test takes longer than a period.
        let repeated = lines.iter().filter(|it| it["repeats"] == message);
        let repeated: u64 = repeated.map(|it| it["repeated"].as_u64().unwrap()).sum();
        assert_eq!(repeated, TIMES - 1, "{log}");
    }
}
