//! Output of `sidewire tail`: filters, ends, formats, several users.

use serde_json::{Value, json};
use sidewire_protocol::clock::Clock;
use sidewire_testing::{
    process::{Ended, Process, Signal, sidewire},
    relay::{Relay, SECRET, TOPIC, event, log_line, token},
    token::signed,
};

/// Starts `tail` of a relay and waits until it is subscribed.
fn follow(relay: &Relay, args: &[&str]) -> Process {
    let tail = Process::start(relay.tail(args));
    tail.stderr_has(|log| log.contains("following").then_some(()));
    tail
}

fn publish(relay: &Relay, event: &Value) {
    let published = Process::run(relay.publish(&[&event.to_string()]));
    assert!(published.status.success(), "{published:?}");
}

fn typing(is_typing: bool) -> Value {
    json!({"userTyping": {"projectId": "p1", "userId": "bob", "isTyping": is_typing}})
}

fn lines(ended: &Ended) -> Vec<Value> {
    let lines = ended.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn events_are_filtered_by_payload_and_by_fields_and_counted() {
    let relay = Relay::start();
    let typed = follow(&relay, &["--payload", "user_typing", "--count=2", TOPIC]);
    let titled = [
        "--where",
        "work_item_created.work_item.title=wanted",
        "--where",
        "workItemCreated.userId=ann",
        "--count=1",
        TOPIC,
    ];
    let titled = follow(&relay, &titled);
    let silent = ["--where", "user_typing.is_typing=false", "--count=1", TOPIC];
    let silent = follow(&relay, &silent);
    for event in [
        event("other"),
        typing(true),
        event("wanted"),
        typing(false),
        event("late"),
    ] {
        publish(&relay, &event);
    }
    let typed = typed.end();
    assert_eq!(typed.status.code(), Some(0), "{typed:?}");
    let typed: Vec<_> = lines(&typed)
        .iter()
        .map(|event| event["userTyping"]["isTyping"] == true)
        .collect();
    assert_eq!(typed, [true, false]);
    let titled = lines(&titled.end());
    assert_eq!(titled.len(), 1);
    assert_eq!(titled[0]["workItemCreated"]["workItem"]["title"], "wanted");
    let silent = silent.end();
    assert_eq!(lines(&silent)[0]["position"]["offset"], "4", "{silent:?}");
    let summary = log_line(&silent.stderr, "summary").unwrap();
    assert_eq!(summary["events"], 4, "{summary}");
    assert_eq!(summary["printed"], 1);
    assert_eq!(summary["gaps"], 0);
    assert!(summary["bytes"].as_u64().unwrap() > 100);
    assert!(summary["events_per_s"].as_f64().is_some());
}

#[test]
fn tail_ends_after_its_time_and_too_few_events_have_an_exit_status() {
    let relay = Relay::start();
    let ended = Process::run(relay.tail(&["--for", "200ms", TOPIC]));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "");
    assert!(log_line(&ended.stderr, "summary").is_some(), "{ended:?}");

    let ended = Process::run(relay.tail(&["--for=200ms", "--count=3", TOPIC]));
    assert_eq!(ended.status.code(), Some(4), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("timed out after receiving 0 of 3 events"),
        "{ended:?}"
    );
}

#[test]
fn an_event_in_hex_can_be_routed() {
    let relay = Relay::start();
    let tail = follow(&relay, &["--format=hex", "--count=1", TOPIC]);
    publish(&relay, &event("bytes"));
    let ended = tail.end();
    let digits = ended.stdout.trim_end().as_bytes();
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    assert!(bytes.windows(5).any(|it| it == b"bytes"), "{ended:?}");
}

#[test]
fn several_users_are_followed_on_a_connection_each() {
    let relay = Relay::start();
    let bob = relay.files.write("bob.jwt", &token("acme", "bob"));
    let flags = ["--token-file", &bob, "--count=3", TOPIC];
    let tail = Process::start(relay.tail(&flags));
    tail.stderr_has(|log| (log.matches("following").count() == 2).then_some(()));
    let hex = Process::start(relay.tail(&[&["--format=hex"][..], &flags[..2], &[TOPIC]].concat()));
    hex.stderr_has(|log| (log.matches("following").count() == 2).then_some(()));

    publish(&relay, &event("for both"));
    hex.stdout_has(|text| (text.matches('\n').count() == 2).then_some(()));
    let for_bob = [
        "--topic",
        "user:bob",
        &typing(true).to_string().replace("p1", "p2"),
    ];
    assert!(Process::run(relay.publish(&for_bob)).status.success());

    let ended = tail.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let mut got: Vec<_> = lines(&ended)
        .iter()
        .map(|line| {
            let offset = line["event"]["position"]["offset"].as_str().unwrap();
            (line["user"].as_str().unwrap().to_owned(), offset.to_owned())
        })
        .collect();
    got.sort();
    let expected = [("ann", "1"), ("bob", "1"), ("bob", "2")];
    let expected = expected.map(|(user, offset)| (user.to_owned(), offset.to_owned()));
    assert_eq!(got, expected);
    let bobs = log_line(&ended.stderr, "summary of a user").unwrap();
    assert_eq!(bobs["user"], "ann", "{ended:?}");
    assert_eq!(log_line(&ended.stderr, "summary").unwrap()["events"], 3);

    hex.signal(Signal::INT);
    let mut users: Vec<_> = hex.end().stdout.lines().map(str::to_owned).collect();
    users.sort();
    let users: Vec<_> = users
        .iter()
        .map(|it| it.split_once('\t').unwrap().0)
        .collect();
    assert_eq!(users.get(..2), Some(&["ann", "bob"][..]));
}

#[test]
fn a_filter_that_can_never_match_is_refused_from_the_start() {
    let relay = Relay::start();
    for (flags, says) in [
        (
            ["--payload", "work_item_make"],
            "the schema has no event `work_item_make`; did you mean `",
        ),
        (
            ["--where", "userTyping.isTypin=true"],
            "did you mean `is_typing`?",
        ),
        (
            ["--where", "userTyping.isTyping=maybe"],
            "it is true or false",
        ),
    ] {
        let ended = Process::run(relay.tail(&flags));
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains(says), "{ended:?}");
    }
}

/// Returns a token of ann that expires in this many seconds and grants these topics.
fn expiring(seconds: i64, topics: &[&str]) -> String {
    let exp = Clock::system().unix_seconds() + seconds;
    let claims = json!({"exp": exp, "tenant_id": "acme", "user_id": "ann", "topics": topics});
    signed(SECRET.as_bytes(), r#"{"alg":"HS256"}"#, claims.to_string())
}

/// Starts `tail` with a token that expires soon.
fn follow_briefly(relay: &Relay, file: &str) -> (Process, String) {
    let path = relay.files.write(file, &expiring(2, &[TOPIC]));
    let url = relay.client_url();
    let flags = ["tail", "--url", &url, "--token-file", &path, TOPIC];
    let tail = Process::start(sidewire(&flags));
    tail.stderr_has(|log| log.contains("following").then_some(()));
    (tail, path)
}

#[test]
fn a_token_file_is_read_again_before_its_token_expires() {
    let relay = Relay::start();
    let (expired, _) = follow_briefly(&relay, "expired.jwt");
    let (renewed, _) = follow_briefly(&relay, "renewed.jwt");
    let count = |log: &str, what: &str| log.matches(what).count();
    // The second one is read 5 s after the first, and then used for as long as the test lasts.
    for (renewals, seconds, topic) in [(1, 4, TOPIC), (2, 600, "project:other")] {
        let newer = expiring(seconds, &[topic]);
        relay.files.write("renewed.jwt", &newer);
        renewed.stderr_has(|log| (count(log, "token renewed") == renewals).then_some(()));
    }
    renewed.stderr_has(|log| log.contains("has ended these subscriptions").then_some(()));

    let expired = expired.end();
    assert_eq!(expired.status.code(), Some(3), "{expired:?}");
    assert!(expired.stderr.contains("it has expired"), "{expired:?}");
    assert_eq!(count(&expired.stderr, "token renewed"), 0, "{expired:?}");

    publish(&relay, &event("not for ann any more"));
    let for_ann = ["--topic", "user:ann", &typing(true).to_string()];
    assert!(Process::run(relay.publish(&for_ann)).status.success());
    let line = renewed.stdout_has(|text| text.contains('\n').then(|| text.to_owned()));
    assert!(line.contains("userTyping"), "{line}");
    renewed.signal(Signal::INT);
    let renewed = renewed.end();
    assert_eq!(renewed.status.code(), Some(0), "{renewed:?}");
    assert_eq!(count(&renewed.stderr, "\"connected\""), 1, "{renewed:?}");
    let lost = log_line(&renewed.stderr, "the relay has ended these subscriptions").unwrap();
    assert_eq!(lost["topics"], TOPIC, "{renewed:?}");
}
