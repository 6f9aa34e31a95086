//! A relay that restarts with `replay.keep_file`: clients resume across the restart, and backends
//! that repeat a call are recognized.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::json;
use sidewire_client::{
    Credential, EventPublisher, PublishEncoding, PublishedEvent, RelayConnection, RelayMessage,
};
use sidewire_testing::{
    http::{bearer, handshake},
    process::{Process, Signal, sidewire},
    relay::{Files, INGEST_KEY, Relay, TOPIC, event, log_line, token},
};

const SECTION: &str = "[replay]\nkeep_file = \"window\"";

async fn post(relay: &Relay, id: &str) -> PublishedEvent {
    let key = Credential::new(INGEST_KEY);
    let publisher = EventPublisher::new(&relay.ingest_url(), Some(&key)).unwrap();
    let mut event = event(id);
    event["messageId"] = json!(id);
    let body = event.to_string();
    let answer = publisher.post("acme", body, PublishEncoding::Json, &[], false);
    answer.await.unwrap().results.remove(0)
}

/// Resumes the topic after the event, and returns whether that was possible, and the offsets of
/// the replay.
async fn resume(relay: &Relay, after: &PublishedEvent) -> (bool, Vec<u64>) {
    let options = relay.options(&token("acme", "ann"));
    let mut client = RelayConnection::open(&options).await.unwrap();
    let from = Some(after.position.clone());
    client.subscribe_from([TOPIC], from).await.unwrap();
    let RelayMessage::SubscriptionConfirmed(confirmed) = client.receive().await.unwrap() else {
        panic!("it is not confirmed");
    };
    let mut offsets = Vec::new();
    for _ in 0..confirmed.replayed {
        let RelayMessage::Event(event) = client.receive().await.unwrap() else {
            panic!("the replay is cut");
        };
        offsets.push(event.position.unwrap().offset);
    }
    (confirmed.recovered, offsets)
}

fn stop(relay: Relay) -> Files {
    relay.process.signal(Signal::TERM);
    let Relay { process, files, .. } = relay;
    let ended = process.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let written = log_line(&ended.stderr, "wrote the window for the next start");
    assert!(written.is_some(), "{ended:?}");
    assert!(files.path("window").exists());
    files
}

#[tokio::test]
async fn clients_resume_across_a_restart_and_repeated_calls_are_recognized() {
    let relay = Relay::serve(Files::with("", SECTION));
    let found = |relay: &Relay, result: &str| {
        relay.metric(&format!(
            "sidewire_window_files_total{{result=\"{result}\"}}"
        ))
    };
    assert_eq!(found(&relay, "missing"), 1.0);
    let first = post(&relay, "one").await;
    let second = post(&relay, "two").await;

    let relay = Relay::serve(stop(relay));
    assert_eq!(found(&relay, "loaded"), 1.0);
    assert!(!relay.files.path("window").exists());
    let third = post(&relay, "three").await;
    assert_eq!(third.position.epoch, second.position.epoch);
    assert_eq!(resume(&relay, &first).await, (true, vec![2, 3]));
    let again = post(&relay, "two").await;
    assert!(again.duplicate);
    assert_eq!(again.position, second.position);

    // Also across the second one.
    let relay = Relay::serve(stop(relay));
    assert_eq!(resume(&relay, &first).await, (true, vec![2, 3]));

    // After a crash there is no file, and clients are told.
    relay.process.signal(Signal::KILL);
    let Relay { process, files, .. } = relay;
    process.end();
    let relay = Relay::serve(files);
    assert_eq!(found(&relay, "missing"), 1.0);
    assert_eq!(resume(&relay, &first).await, (false, vec![]));
    assert_ne!(
        post(&relay, "four").await.position.epoch,
        first.position.epoch
    );

    // A file that is damaged is set aside, and the relay starts without it.
    let files = stop(relay);
    let mut bytes = fs::read(files.path("window")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(files.path("window"), &bytes).unwrap();
    let relay = Relay::serve(files);
    assert_eq!(found(&relay, "rejected"), 1.0);
    let log = relay.process.stderr_has(|log| {
        log_line(
            log,
            "cannot use the window of the last run, so no client can resume from before this start",
        )
    });
    assert!(
        log["reason"].as_str().unwrap().starts_with("it is damaged"),
        "{log}"
    );
    assert_eq!(
        fs::read(relay.files.path("window.rejected")).unwrap(),
        bytes
    );
}

#[test]
fn a_file_that_could_not_be_written_or_is_none_of_the_relay_keeps_it_from_starting() {
    let section = |file: &str| format!("[replay]\nkeep_file = \"{file}\"");
    let files = Files::with("", &section("missing/window"));
    let ended = Process::run(files.serve());
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("(replay.keep_file): "), "{ended:?}");
    assert!(ended.stderr.contains("missing/window"), "{ended:?}");

    // A secret is not moved away because of a mistake in the config.
    let files = Files::with("", &section("jwt.secret"));
    let secret = fs::read(files.path("jwt.secret")).unwrap();
    for command in ["check", "serve"] {
        let ended = Process::run(sidewire(&[command, "--config", &files.config()]));
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let reason = "jwt.secret exists and is not a window file";
        assert!(ended.stderr.contains(reason), "{ended:?}");
    }
    assert_eq!(fs::read(files.path("jwt.secret")).unwrap(), secret);
}

/// A backend's call that is never completed.
fn stall(relay: &Relay) -> TcpStream {
    let mut call = TcpStream::connect(relay.ingest).unwrap();
    let head = format!(
        "POST /v1/tenants/acme/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {INGEST_KEY}\r\nContent-Length: 900\r\nExpect: 100-continue\r\n\r\n"
    );
    call.write_all(head.as_bytes()).unwrap();
    call.read_exact(&mut [0; 12]).unwrap();
    call
}

#[test]
fn no_window_is_written_while_a_call_is_under_way_and_the_log_says_so() {
    let relay = Relay::serve(Files::with("drain_timeout = \"1s\"", SECTION));
    let _stalled = stall(&relay);
    relay.process.signal(Signal::TERM);
    let Relay { process, files, .. } = relay;
    let ended = process.end();
    let skipped = log_line(
        &ended.stderr,
        "no window is written, because calls of backends are still under way, so no client can resume after the next start",
    );
    assert!(skipped.is_some(), "{ended:?}");
    assert!(!files.path("window").exists());
}

#[test]
fn a_client_that_does_not_read_does_not_keep_the_window_from_being_written() {
    let client = "drain_timeout = \"1s\"\nwrite_timeout = \"1h\"";
    let relay = Relay::serve(Files::with(client, SECTION));
    // It never answers the Close.
    let mut mute = TcpStream::connect(relay.client).unwrap();
    let handshake = handshake(&bearer(&token("acme", "ann")));
    mute.write_all(handshake.as_bytes()).unwrap();
    mute.read_exact(&mut [0; 12]).unwrap();
    stop(relay);
}
