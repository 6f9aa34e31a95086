//! `sidewire publish` and `sidewire tail` with a running relay.

use std::{
    fs,
    io::{Write, pipe},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use sidewire_protocol::schema::Schema;
use sidewire_testing::{
    process::{Ended, Process, Signal, sidewire},
    relay::{Files, INGEST_KEY, Relay, TOPIC, event, token},
};

/// The other topic of an event.
const ITEM: &str = "work_item:i1";

/// Publishes and returns the relay's answer.
fn publish(command: Command) -> Value {
    answer(&Process::run(command))
}

fn answer(published: &Ended) -> Value {
    assert!(published.status.success(), "{published:?}");
    assert_eq!(published.stdout.matches('\n').count(), 1, "{published:?}");
    serde_json::from_str(&published.stdout).unwrap()
}

/// Starts `sidewire tail` and waits until it is subscribed.
fn follow(command: Command) -> Process {
    let tail = Process::start(command);
    tail.stderr_has(|log| log.contains("following").then_some(()));
    tail
}

/// Waits for `count` events and returns the titles in their lines.
fn titles(tail: &Process, count: usize) -> Vec<String> {
    let lines = tail.stdout_has(|text| {
        let is_all = text.matches('\n').count() >= count && text.ends_with('\n');
        is_all.then(|| text.to_owned())
    });
    let title = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let title = &event["workItemCreated"]["workItem"]["title"];
        title.as_str().unwrap().to_owned()
    };
    lines.lines().map(title).collect()
}

#[test]
fn events_published_in_each_way_are_followed_in_each_format() {
    let relay = Relay::start();
    let lines = follow(relay.tail(&[TOPIC]));
    let indented = follow(relay.tail(&["--format", "pretty", TOPIC]));

    let by_argument = publish(relay.publish(&[&event("argument").to_string()]));
    assert_eq!(by_argument["matched"], 2);
    assert_eq!(by_argument["position"]["offset"], "1");
    assert_eq!(by_argument["topics"], json!([ITEM, TOPIC]));

    let file = relay.files.write("event.json", &event("file").to_string());
    assert_eq!(publish(relay.publish(&["--file", &file]))["matched"], 2);

    let (stdin, mut writer) = pipe().unwrap();
    write!(writer, "{}", event("stdin")).unwrap();
    drop(writer);
    let published = Process::start_with(
        relay.publish(&["--topic", "project:p2", "-"]),
        stdin,
        Stdio::piped(),
        Stdio::piped(),
    );
    assert_eq!(
        answer(&published.end())["topics"],
        json!([ITEM, TOPIC, "project:p2"])
    );

    let batch = json!({"messages": [event("first"), event("second")]});
    let results = publish(relay.publish(&["--batch", &batch.to_string()]));
    assert_eq!(results["results"].as_array().unwrap().len(), 2);

    let expected = ["argument", "file", "stdin", "first", "second"];
    assert_eq!(titles(&lines, 5), expected);
    indented.stdout_has(|text| {
        let is_last = text.contains("\"title\": \"second\"") && text.ends_with("}\n");
        is_last.then_some(())
    });
    for tail in [lines, indented] {
        tail.signal(Signal::INT);
        let ended = tail.end();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let events = serde_json::Deserializer::from_str(&ended.stdout).into_iter::<Value>();
        assert_eq!(events.map(Result::unwrap).count(), 5);
    }
}

/// Returns the bytes of an envelope with this title.
fn envelope(title: &str) -> Vec<u8> {
    let json = event(title).to_string();
    let schema = Schema::bundled().unwrap();
    schema.envelope_from_json(json.as_bytes()).unwrap()
}

#[test]
fn binary_events_are_published_from_a_file_and_from_standard_input() {
    let relay = Relay::start();
    let tail = follow(relay.tail(&[TOPIC]));
    let file = relay.files.path("event.bin");
    fs::write(&file, envelope("file")).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(publish(relay.publish(&["--file", file]))["matched"], 1);
    assert_eq!(
        publish(relay.publish(&["--binary", "--file", file]))["topics"],
        json!([ITEM, TOPIC])
    );

    let batch: Vec<u8> = ["first", "second"]
        .iter()
        .flat_map(|title| {
            let envelope = envelope(title);
            [
                &[0x0a, u8::try_from(envelope.len()).unwrap()][..],
                &envelope,
            ]
            .concat()
        })
        .collect();
    let (stdin, mut writer) = pipe().unwrap();
    writer.write_all(&batch).unwrap();
    drop(writer);
    let published = Process::start_with(
        relay.publish(&["--batch", "--binary", "-"]),
        stdin,
        Stdio::piped(),
        Stdio::piped(),
    );
    let results = answer(&published.end());
    assert_eq!(results["results"].as_array().unwrap().len(), 2);
    assert_eq!(titles(&tail, 4), ["file", "file", "first", "second"]);
}

#[test]
fn json_that_is_declared_as_binary_is_refused() {
    let relay = Relay::start();
    let refused = Process::run(relay.publish(&["--binary", &event("x").to_string()]));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("VALIDATION_ERROR"), "{refused:?}");
}

#[test]
fn a_config_with_port_zero_is_refused_and_the_url_flag_is_named() {
    let files = Files::new();
    let config = files.config();
    for args in [
        &["tail", "--config", &config, TOPIC][..],
        &["publish", "--config", &config, "--tenant=acme", "{}"],
    ] {
        let ended = Process::run(sidewire(args));
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains(".listen has port 0"), "{ended:?}");
        assert!(ended.stderr.contains("--url"), "{ended:?}");
    }
}

#[test]
fn a_bad_token_or_key_has_its_own_exit_status_and_a_hint() {
    let relay = Relay::start();
    let bad = relay.files.write("bad", "no.good.token");
    let (client_url, ingest_url) = (relay.client_url(), relay.ingest_url());
    let tail = sidewire(&["tail", "--url", &client_url, "--token-file", &bad, TOPIC]);
    let publish = sidewire(&[
        "publish",
        "--tenant=acme",
        "--url",
        &ingest_url,
        "--key-file",
        &bad,
        "{}",
    ]);
    for (command, says) in [
        (tail, ["sidewire token", "--token-file", "SIDEWIRE_TOKEN"]),
        (publish, ["ingest key", "--key-file", "SIDEWIRE_INGEST_KEY"]),
    ] {
        let ended = Process::run(command);
        assert_eq!(ended.status.code(), Some(3), "{ended:?}");
        assert!(ended.stdout.is_empty());
        for part in says {
            assert!(ended.stderr.contains(part), "{part}: {ended:?}");
        }
    }
}

#[test]
fn credentials_may_come_from_the_environment() {
    let relay = Relay::start();
    let mut tail = sidewire(&["tail", "--url", &relay.client_url(), TOPIC]);
    tail.env("SIDEWIRE_TOKEN", token("acme", "ann"));
    let tail = follow(tail);
    let mut publish = sidewire(&["publish", "--tenant=acme", "--url", &relay.ingest_url()]);
    publish
        .arg(event("hello").to_string())
        .env("SIDEWIRE_INGEST_KEY", INGEST_KEY);
    assert!(Process::run(publish).status.success());
    assert_eq!(titles(&tail, 1), ["hello"]);
}

#[test]
fn a_refusal_by_the_relay_is_reported_with_the_field() {
    let relay = Relay::start();
    let refused = Process::run(relay.publish(&[r#"{"workItemCreated": {"nonsense": 1}}"#]));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("nonsense"), "{refused:?}");
    assert!(refused.stderr.contains("VALIDATION_ERROR"), "{refused:?}");

    let refused = Process::run(relay.tail(&["user:bob"]));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("AUTHORIZATION_FAILED"),
        "{refused:?}"
    );
}

#[test]
fn a_tail_ends_quietly_when_its_reader_goes_away() {
    let relay = Relay::start();
    let (reader, writer) = pipe().unwrap();
    let tail = Process::start_with(relay.tail(&[TOPIC]), Stdio::null(), writer, Stdio::piped());
    tail.stderr_has(|log| log.contains("following").then_some(()));
    drop(reader);
    publish(relay.publish(&[&event("unread").to_string()]));
    let ended = tail.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("sidewire: "), "{ended:?}");
    assert!(!ended.stderr.contains("panic"), "{ended:?}");
}

#[test]
fn a_tail_reconnects_when_the_relay_goes_away_and_says_so() {
    let relay = Relay::start();
    let tail = follow(relay.tail(&[TOPIC]));
    relay.process.signal(Signal::TERM);
    assert!(relay.process.end().status.success());
    tail.stderr_has(|log| log.contains("retry_ms").then_some(()));
    tail.signal(Signal::INT);
    let ended = tail.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("1001 \\\"retry_after_ms="),
        "{ended:?}"
    );
}

#[test]
fn a_tail_starts_after_a_position_and_continues_live() {
    let relay = Relay::start();
    let published = publish(relay.publish(&[&event("seen").to_string()]));
    for title in ["missed", "missed too"] {
        publish(relay.publish(&[&event(title).to_string()]));
    }
    let position = &published["position"];
    let (epoch, offset) = (&position["epoch"], &position["offset"]);
    let since = format!("{}:{}", epoch.as_str().unwrap(), offset.as_str().unwrap());
    let tail = follow(relay.tail(&["--since", &since, TOPIC]));
    publish(relay.publish(&[&event("live").to_string()]));
    assert_eq!(titles(&tail, 3), ["missed", "missed too", "live"]);
    tail.signal(Signal::INT);
    let ended = tail.end();
    assert!(!ended.stderr.contains("missing"), "{ended:?}");
}

#[test]
fn a_tail_reports_missing_events_and_continues_live() {
    let relay = Relay::start();
    publish(relay.publish(&[&event("lost").to_string()]));
    let since = format!("{}:1", "0f".repeat(16));
    let tail = follow(relay.tail(&["--since", &since, TOPIC]));
    tail.stderr_has(|log| log.contains("events are missing here").then_some(()));
    publish(relay.publish(&[&event("live").to_string()]));
    assert_eq!(titles(&tail, 1), ["live"]);
    tail.signal(Signal::INT);
    let ended = tail.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains(&since), "{ended:?}");
}
