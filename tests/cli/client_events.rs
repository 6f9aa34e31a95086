//! `sidewire publish --as-client`, and what `sidewire tail` prints of it.

use std::process::Command;

use serde_json::{Value, json};
use sidewire_testing::{
    process::{Ended, Process, sidewire},
    relay::{ConfigLines, Files, Relay, TOPIC, token},
};

/// Returns `publish --as-client` as a user of the tenant `acme`.
fn send(relay: &Relay, user: &str, event: &Value) -> Command {
    let file = format!("{user}.jwt");
    let token = relay.files.write(&file, &token("acme", user));
    let mut command = sidewire(&["publish", "--as-client", "--url", &relay.client_url()]);
    command.args(["--token-file", &token, &event.to_string()]);
    command
}

/// Starts `tail` as ann and waits until it is subscribed.
fn follow(relay: &Relay, args: &[&str]) -> Process {
    let tail = Process::start(relay.tail(args));
    tail.stderr_has(|log| log.contains("following").then_some(()));
    tail
}

fn json_lines(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let lines = ended.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn an_event_of_a_client_reaches_another_one_with_its_true_sender() {
    let relay = Relay::start();
    let tail = follow(&relay, &["--count=1", TOPIC]);
    let typing = json!({"userTyping": {"projectId": "p1", "userId": "ann", "isTyping": true}});
    let sent = json_lines(&Process::run(send(&relay, "bob", &typing)));
    assert_eq!(sent[0]["topics"], json!([TOPIC]));
    let received = &json_lines(&tail.end())[0];
    assert_eq!(received["messageId"], sent[0]["message_id"]);
    assert_eq!(received["userTyping"]["userId"], "bob");
    assert_eq!(received.get("position"), None, "{received}");
}

#[test]
fn presence_is_told_when_it_begins_and_when_its_client_has_gone() {
    let files = Files::configured(ConfigLines {
        // Long enough for the relay to show the user before it is told that the user has gone.
        log: "[presence]\nlinger = \"500ms\"",
        ..ConfigLines::default()
    });
    let relay = Relay::serve(files);
    let tail = follow(&relay, &["--presence", "--count=2", TOPIC]);
    let online = json!({"userPresence": {"projectId": "p1", "status": "PRESENCE_STATUS_ONLINE"}});
    json_lines(&Process::run(send(&relay, "bob", &online)));
    let told = json_lines(&tail.end());
    for (line, is_present) in told.iter().zip([true, false]) {
        let presence = json!({"user": "bob", "present": is_present, "topics": [TOPIC]});
        assert_eq!(line["presence"], presence);
        assert_eq!(line["event"]["userPresence"]["userId"], "bob");
    }
}

#[test]
fn a_refused_event_of_a_client_is_reported() {
    let relay = Relay::start();
    let created = json!({"workItemCreated": {"workItem": {"projectId": "p1"}}});
    let refused = Process::run(send(&relay, "bob", &created));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(refused.stdout, "");
    assert!(refused.stderr.contains("VALIDATION_ERROR"), "{refused:?}");
}
