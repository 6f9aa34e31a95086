//! `sidewire ctl` and `sidewire top`: what an operator sees of a running relay, and the lines of its
//! log about one client.

use std::{collections::BTreeSet, process::Command};

use serde_json::{Value, json};
use sidewire_testing::{
    process::{Ended, Process, Signal, sidewire},
    relay::{Files, Relay, TOPIC, log_line, token},
};

/// Returns `ctl` with these words, for this relay.
fn ctl(relay: &Relay, words: &[&str]) -> Command {
    with_key(relay, "ctl", words)
}

fn with_key(relay: &Relay, command: &str, words: &[&str]) -> Command {
    let mut ctl = sidewire(&[command]);
    ctl.args(words).args(["--url", &relay.ingest_url()]);
    ctl.arg("--key-file").arg(relay.files.path("ingest.key"));
    ctl
}

/// Returns what the command has printed.
fn printed(command: Command) -> String {
    let ended = Process::run(command);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    ended.stdout
}

/// Starts `tail` as this user and waits until it is subscribed.
fn follow(relay: &Relay, user: &str) -> Process {
    let name = format!("{user}.jwt");
    let file = relay.files.write(&name, &token("acme", user));
    let mut tail = sidewire(&["tail", "--url", &relay.client_url(), TOPIC]);
    tail.args(["--token-file", &file]);
    let tail = Process::start(tail);
    tail.stderr_has(|log| log.contains("following").then_some(()));
    tail
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn an_operator_sees_a_tenant_its_connections_and_disconnects_a_user() {
    let relay = Relay::start();
    let (ann, bob) = (follow(&relay, "ann"), follow(&relay, "bob"));
    let tenant = printed(ctl(&relay, &["tenant", "acme"]));
    let lines: Vec<_> = tenant.lines().map(words).collect();
    assert_eq!(lines[0], ["connections", "2"]);
    assert_eq!(lines[1], ["users", "2"]);
    assert_eq!(lines[2], ["topics", "1"]);
    assert_eq!(lines[3][..2], ["log", "head"]);
    let tenant = printed(ctl(&relay, &["tenant", "acme", "--json"]));
    let tenant: Value = serde_json::from_str(&tenant).unwrap();
    assert_eq!(tenant["tenant"], "acme");
    assert_eq!(tenant["connections"], 2);
    assert_eq!(tenant["log"]["tail"]["offset"], "0");

    let table = printed(ctl(&relay, &["connections", "acme"]));
    let headings = table.lines().next().unwrap();
    assert!(headings.starts_with("ID"), "{table}");
    let users: BTreeSet<_> = table.lines().skip(1).map(|line| words(line)[1]).collect();
    assert_eq!(users, BTreeSet::from(["ann", "bob"]));
    let filter = [
        "connections",
        "acme",
        "--json",
        "--user=ann",
        "--topic",
        TOPIC,
    ];
    let lines = printed(ctl(&relay, &filter));
    let connection: Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(connection["user"], "ann");
    assert_eq!(connection["topics"], 1);
    let first = Process::run(ctl(&relay, &["connections", "acme", "--limit=1"]));
    assert_eq!(first.stdout.lines().count(), 2);
    assert!(first.stderr.contains("raise --limit"), "{first:?}");

    let disconnect = ["disconnect", "acme", "ann"];
    assert_eq!(
        printed(ctl(&relay, &disconnect)),
        "closed 1 connection of ann\n"
    );
    assert_eq!(
        printed(ctl(&relay, &disconnect)),
        "closed 0 connections of ann\n"
    );
    assert_ne!(ann.end().status.code(), Some(0));
    let revoke = ["revoke", "acme", "bob", TOPIC, "--json"];
    assert_eq!(printed(ctl(&relay, &revoke)), "{\"revoked\":1}\n");
    bob.signal(Signal::TERM);
    bob.end();
}

#[test]
fn an_operator_sees_who_is_present() {
    let relay = Relay::start();
    let nobody = printed(ctl(&relay, &["presence", "acme", TOPIC]));
    assert_eq!(nobody.lines().count(), 1, "{nobody}");
    let online = json!({"userPresence": {"projectId": "p1", "status": "PRESENCE_STATUS_ONLINE"}});
    let file = relay.files.write("bob.jwt", &token("acme", "bob"));
    let mut send = sidewire(&["publish", "--as-client", "--url", &relay.client_url()]);
    send.args(["--token-file", &file, &online.to_string()]);
    printed(send);
    // The user lingers for 5 s after the command.
    let table = printed(ctl(&relay, &["presence", "acme", TOPIC]));
    let row = words(table.lines().nth(1).unwrap());
    assert_eq!(row[..3], [TOPIC, "bob", "1"], "{table}");
    let listing = printed(ctl(&relay, &["presence", "acme", TOPIC, "--json"]));
    let listing: Value = serde_json::from_str(&listing).unwrap();
    assert_eq!(listing["topics"][0]["users"][0]["user"], "bob");
}

#[test]
fn a_failed_call_says_why_and_has_an_exit_status() {
    let relay = Relay::start();
    let mut no_key = sidewire(&["ctl", "tenant", "acme", "--url", &relay.ingest_url()]);
    no_key.env_remove("SIDEWIRE_INGEST_KEY");
    for (command, status, reason) in [
        (no_key, 3, "--key-file"),
        (
            ctl(&relay, &["tenant", "nobody"]),
            1,
            "neither a connection nor",
        ),
        (
            ctl(&relay, &["connections", "acme", "--limit=0"]),
            2,
            "--limit",
        ),
        (ctl(&relay, &["disconnect", "acme", ""]), 2, "USER"),
    ] {
        let ended = Process::run(command);
        assert_eq!(ended.status.code(), Some(status), "{ended:?}");
        assert!(ended.stderr.contains(reason), "{ended:?}");
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn one_look_of_top_has_rates_tenants_and_connections() {
    let relay = Relay::start();
    let tail = follow(&relay, "ann");
    let ops = format!("http://{}", relay.ops);
    let look = ["--once", "--interval=100ms", "--ops-url", &ops];
    let seen = printed(with_key(&relay, "top", &look));
    assert!(seen.starts_with("sidewire 0.1.0, up for "), "{seen}");
    assert!(
        seen.contains("connections 1   JSON 0   blocked 0"),
        "{seen}"
    );
    assert!(seen.contains("events in 0.0/s"), "{seen}");
    let row = |begins: &str| {
        let line = seen.lines().find(|line| line.starts_with(begins)).unwrap();
        words(line)
    };
    assert_eq!(row("acme "), ["acme", "1", "1", "1", "0.0/s"]);
    assert!(seen.contains("Slowest connections of acme"), "{seen}");
    let connections = seen.lines().last().unwrap();
    assert_eq!(words(connections)[1..3], ["ann", "127.0.0.1"], "{seen}");
    tail.signal(Signal::TERM);
    tail.end();
}

#[test]
fn top_without_a_terminal_or_a_relay_says_what_to_do() {
    let relay = Relay::start();
    let ops = format!("http://{}", relay.ops);
    let no_terminal = Process::run(with_key(&relay, "top", &["--ops-url", &ops]));
    assert_eq!(no_terminal.status.code(), Some(1));
    assert!(no_terminal.stderr.contains("--once"), "{no_terminal:?}");
    let nowhere = ["--once", "--ops-url", "unix:/nowhere"];
    let no_relay = Process::run(with_key(&relay, "top", &nowhere));
    assert_eq!(no_relay.status.code(), Some(1));
    assert!(no_relay.stderr.contains("cannot connect"), "{no_relay:?}");
}

/// Returns the lines with this message.
fn lines_of(ended: &Ended, message: &str) -> Vec<Value> {
    let lines = ended.stderr.lines();
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["message"] == message).collect()
}

#[test]
fn the_log_lines_of_one_client_have_the_id_under_which_it_is_listed() {
    let relay = Relay::start();
    let tail = follow(&relay, "ann");
    let listed = printed(ctl(&relay, &["connections", "acme", "--json"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    tail.signal(Signal::TERM);
    tail.end();
    let relay = relay.process;
    relay.stderr_has(|log| log_line(log, "client disconnected"));
    relay.signal(Signal::TERM);
    let ended = relay.end();
    let [connected] = &lines_of(&ended, "client connected")[..] else {
        panic!("{ended:?}");
    };
    let [disconnected] = &lines_of(&ended, "client disconnected")[..] else {
        panic!("{ended:?}");
    };
    for line in [connected, disconnected] {
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["connection"], listed["id"]);
        assert_eq!(
            (&line["tenant"], &line["user"]),
            (&json!("acme"), &json!("ann"))
        );
    }
    assert_eq!(connected["address"], "127.0.0.1");
    assert_eq!(connected["encoding"], "protobuf");
    assert_eq!(disconnected["reason"], "client");
    assert!(disconnected["duration_ms"].is_u64(), "{disconnected}");
}

#[test]
fn the_log_line_of_a_refused_call_has_its_request_id_and_no_key_twice() {
    let relay = Relay::serve(Files::with("", "level = \"debug\""));
    let request = "GET /v1/tenants/acme HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: job-7\r\n\
        Connection: close\r\n\r\n";
    let answer = sidewire_testing::http::http(relay.ingest, request);
    assert!(answer.contains("x-request-id: job-7\r\n"), "{answer}");
    printed(ctl(&relay, &["connections", "acme"]));
    relay.process.signal(Signal::TERM);
    let ended = relay.process.end();
    let refused = lines_of(&ended, "call refused: not authenticated");
    assert_eq!(refused[0]["request_id"], "job-7");
    for line in ended.stderr.lines() {
        let keys: Vec<_> = line.match_indices("\"target\":").collect();
        assert_eq!(keys.len(), 1, "{line}");
    }
}
