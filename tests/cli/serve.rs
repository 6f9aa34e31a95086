//! `sidewire serve` from its start to its end.

use std::{
    io::{Write, pipe},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sidewire_client::{
    Credential, EventPublisher, PublishEncoding, ReceiveError, RelayConnection, RelayMessage,
    RelayStream,
};
use sidewire_testing::{
    process::{PATIENCE, Process, Signal},
    relay::{Files, INGEST_KEY, Relay, TOPIC, event, log_line, subscribe, token},
};
use tokio::{net::TcpSocket, time::timeout};

/// More than a connection's kernel buffers take, less than its outbox takes.
const EVENTS: usize = 60;
const EVENT_BYTES: usize = 16 * 1024;

/// Connects a client with small buffers: most of what is sent to it has to wait.
async fn slow_client(relay: &Relay) -> RelayConnection {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(relay.client).await.unwrap();
    let options = relay.options(&token("acme", "ann"));
    let mut client = RelayConnection::open_over(RelayStream::Tcp(stream), &options)
        .await
        .unwrap();
    subscribe(&mut client, TOPIC).await;
    client
}

/// Publishes a batch for [`TOPIC`]; the relay queues a slow client's part of it.
async fn publish_much(relay: &Relay) {
    let publisher = EventPublisher::new(&relay.ingest_url(), Some(&Credential::new(INGEST_KEY)));
    let events: Vec<_> = (0..EVENTS)
        .map(|_| event(&"x".repeat(EVENT_BYTES)))
        .collect();
    let batch = json!({ "messages": events }).to_string();
    let answer = publisher
        .unwrap()
        .post("acme", batch, PublishEncoding::Json, &[], true)
        .await
        .unwrap();
    assert_eq!(answer.results.len(), EVENTS);
    assert!(answer.results.iter().all(|it| it.matched == Some(1)));
    assert!(relay.metric("sidewire_events_queued") > 0.0);
}

/// Reads to the end. Returns the number of events, and the code and reason of the Close.
async fn read_all(client: &mut RelayConnection) -> (usize, u16, String) {
    let mut events = 0;
    loop {
        match timeout(PATIENCE, client.receive()).await.unwrap() {
            Ok(RelayMessage::Event(_)) => events += 1,
            Err(ReceiveError::Closed { code, reason }) => return (events, code, reason),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_signal_ends_the_relay_once_queued_frames_are_written() {
    for signal in [Signal::TERM, Signal::INT] {
        let relay = Relay::start();
        let mut client = slow_client(&relay).await;
        publish_much(&relay).await;
        relay.process.signal(signal);
        relay
            .process
            .stderr_has(|log| log_line(log, "shutting down: writing what is queued first"));

        let (events, code, reason) = read_all(&mut client).await;
        assert_eq!((events, code), (EVENTS, 1001), "{reason}");
        let delay = reason.strip_prefix("retry_after_ms=").unwrap();
        // A lone client need not wait.
        assert!(delay.parse::<u64>().unwrap() <= 1, "{delay}");
        let ended = relay.process.end();
        assert_eq!(ended.status.code(), Some(0), "{signal:?}: {ended:?}");
        assert!(
            log_line(&ended.stderr, "every connection has ended").is_some(),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_relay_at_once() {
    let client = "write_timeout = \"1h\"\ndrain_timeout = \"1h\"";
    let relay = Relay::serve(Files::with(client, ""));
    let client = slow_client(&relay).await;
    publish_much(&relay).await;
    relay.process.signal(Signal::TERM);
    relay
        .process
        .stderr_has(|log| log_line(log, "shutting down: writing what is queued first"));
    relay.process.signal(Signal::INT);
    let ended = relay.process.end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .ends_with("sidewire: stopped at once by a second signal\n")
    );
    drop(client);
}

#[test]
fn a_silent_connection_does_not_delay_the_end() {
    let client = "handshake_timeout = \"1h\"\ndrain_timeout = \"1h\"";
    let relay = Relay::serve(Files::with(client, ""));
    let silent = TcpStream::connect(relay.client).unwrap();
    // A second request is accepted after it.
    let answer =
        sidewire_testing::http::http(relay.client, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    relay.process.signal(Signal::TERM);
    let ended = relay.process.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    drop(silent);
}

#[tokio::test]
async fn a_call_that_hangs_does_not_keep_clients_from_getting_a_close() {
    let relay = Relay::serve(Files::with(
        "drain_timeout = \"2s\"\ndrain_spread = \"1s\"",
        "",
    ));
    let mut client = RelayConnection::open(&relay.options(&token("acme", "ann")))
        .await
        .unwrap();
    subscribe(&mut client, TOPIC).await;
    let mut call = TcpStream::connect(relay.ingest).unwrap();
    write!(
        call,
        "POST /v1/tenants/acme/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {INGEST_KEY}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    )
    .unwrap();
    // Now the relay waits for the body.
    let mut go_on = [0; 12];
    std::io::Read::read_exact(&mut call, &mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100");

    relay.process.signal(Signal::TERM);
    let (_, code, _) = read_all(&mut client).await;
    assert_eq!(code, 1001);
    let ended = relay.process.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let late = "client.drain_timeout passed before every backend call and connection had ended";
    assert!(log_line(&ended.stderr, late).is_some(), "{ended:?}");
}

#[test]
fn systemd_is_notified_when_the_relay_is_ready_and_when_it_stops() {
    let files = Files::new();
    let path = files.path("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut bytes = [0; 256];
        let read = systemd.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..read].to_vec()).unwrap()
    };
    let mut serve = files.serve();
    serve.env("NOTIFY_SOCKET", &path);
    let process = Process::start(serve);
    assert!(hear().lines().any(|line| line == "READY=1"));
    // Also wait for the log line, which names the addresses.
    process.stderr_has(|log| log_line(log, "the relay is ready"));
    process.signal(Signal::TERM);
    assert!(hear().lines().any(|line| line == "STOPPING=1"));
    assert!(process.end().status.success());
}

#[test]
fn the_log_is_on_standard_error_and_in_json_off_a_terminal() {
    let relay = Relay::start();
    relay.process.signal(Signal::TERM);
    let ended = relay.process.end();
    assert_eq!(ended.stdout, "");
    let lines: Vec<Value> = ended
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.len() >= 3, "{lines:?}");
    for line in lines {
        for key in ["timestamp", "level", "message", "target"] {
            assert!(line[key].is_string(), "{line}");
        }
    }
}

#[test]
fn the_log_is_human_readable_if_the_config_says_so() {
    let files = Files::with("", "format = \"pretty\"");
    let process = Process::start(files.serve());
    process.stderr_has(|log| {
        log.contains("INFO sidewire::cli::serve: the relay")
            .then_some(())
    });
    process.signal(Signal::TERM);
    let ended = process.end();
    assert!(!ended.stderr.contains('\x1b'), "no colours in a file");
}

#[test]
fn the_relay_continues_when_its_log_is_no_longer_read() {
    let files = Files::with("", "level = \"trace\"");
    let path = files.path("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut serve = files.serve();
    serve.env("NOTIFY_SOCKET", &path);
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let process = Process::start_with(serve, Stdio::null(), Stdio::piped(), writer);
    let mut state = [0; 256];
    let read = systemd.recv(&mut state).unwrap();
    assert!(state[..read].starts_with(b"READY=1"));
    let began = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.end().status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10));
}
