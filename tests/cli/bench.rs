//! `sidewire bench` against a running relay: its output, and how it ends.

use std::{fs, process::Command};

use serde_json::Value;
use sidewire_testing::{
    process::{Ended, Process, sidewire},
    relay::{Files, Relay},
};

/// Returns a short `sidewire bench` run against this relay.
fn bench(relay: &Relay, scenario: &str, args: &[&str]) -> Command {
    let (url, ingest_url) = (relay.client_url(), relay.ingest_url());
    let mut command = sidewire(&["bench", scenario, "--url", &url]);
    command.args(["--ingest-url", &ingest_url]);
    command
        .arg("--secret-file")
        .arg(relay.files.path("jwt.secret"));
    command
        .arg("--key-file")
        .arg(relay.files.path("ingest.key"));
    command.args(args);
    command
}

const BRIEF: [&str; 6] = [
    "--connections",
    "10",
    "--warmup",
    "50ms",
    "--duration",
    "200ms",
];

#[test]
fn with_json_bench_prints_one_object_and_nothing_else() {
    let relay = Relay::start();
    let pid = relay.process.id().to_string();
    let args = [&BRIEF[..], &["--json", "--server-pid", &pid]].concat();
    let ended = Process::run(bench(&relay, "throughput", &args));
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.stdout.matches('\n').count(), 1);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["scenario"], "throughput");
    for fault in ["lost", "duplicated", "reordered", "refused"] {
        assert_eq!(report[fault], 0, "{fault}");
    }
    for (part, figure) in [
        ("latency_us", "p999"),
        ("last_latency_us", "p50"),
        ("answer_latency_us", "max"),
        ("generator", "cpu_share"),
        ("server", "cpu_us_per_delivery"),
    ] {
        assert!(report[part][figure].as_f64().unwrap() > 0.0, "{report}");
    }
    assert_eq!(report["server"]["memory_bytes_per_connection"], Value::Null);
    assert_eq!(report["connections"], 10);
}

#[test]
fn without_json_bench_prints_a_table() {
    let relay = Relay::start();
    let ended = Process::run(bench(&relay, "latency", &BRIEF));
    assert!(ended.status.success(), "{ended:?}");
    let Ended { stdout, .. } = ended;
    for name in [
        "scenario",
        "connections",
        "events",
        "deliveries",
        "POST to frame",
        "generator",
    ] {
        let line = stdout.lines().find(|line| line.starts_with(name));
        assert!(line.is_some_and(|line| line.len() > 28), "{stdout}");
    }
    assert!(
        stdout.ends_with("nothing lost, duplicated, out of order or refused\n"),
        "{stdout}"
    );
    assert!(!stdout.contains('\r'));
}

#[test]
fn rejected_credentials_have_their_own_exit_status() {
    let relay = Relay::start();
    let wrong = relay
        .files
        .write("wrong", "CANARY-of-another-relay-0123456789abcdef");
    for flag in ["--secret-file", "--key-file"] {
        let mut command = sidewire(&["bench", "latency", "--url", &relay.client_url()]);
        command
            .args(["--ingest-url", &relay.ingest_url()])
            .args(BRIEF);
        for (name, file) in [
            ("--secret-file", "jwt.secret"),
            ("--key-file", "ingest.key"),
        ] {
            let file = relay.files.path(file);
            command.arg(name);
            command.arg(if name == flag {
                wrong.as_ref()
            } else {
                file.as_path()
            });
        }
        let ended = Process::run(command);
        assert_eq!(ended.status.code(), Some(3), "{ended:?}");
        assert!(ended.stderr.contains(flag), "{ended:?}");
        assert!(!ended.stderr.contains("CANARY"), "{ended:?}");
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn events_are_made_for_any_schema_and_one_without_topics_is_refused() {
    let files = Files::new();
    let config = fs::read_to_string(files.config()).unwrap();
    let chat = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/chat.proto");
    let section = format!("[schema]\nfiles = [{chat:?}]\nenvelope = \"chat.v1.Envelope\"\n");
    files.write("sidewire.toml", &format!("{config}{section}"));
    let config = files.config();
    let relay = Relay::serve(files);
    let args = [&BRIEF[..], &["--json", "--config", &config]].concat();
    let ended = Process::run(bench(&relay, "throughput", &args));
    assert!(ended.status.success(), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(report["deliveries"].as_u64().unwrap() > 0, "{report}");

    let text = fs::read_to_string(chat).unwrap();
    let bare = text.replace("[(sidewire.v1.topic) = \"room\"]", "");
    let bare = bare.replace("[(sidewire.v1.topic) = \"file\"]", "");
    let bare = bare.replace("repeated string room_ids = 1 ;", "");
    let bare = relay.files.write(
        "bare.proto",
        &bare.replace("repeated string room_ids = 1;", ""),
    );
    let args = ["--schema", &bare, "--envelope", "chat.v1.Envelope"];
    let ended = Process::run(bench(&relay, "ingest", &args));
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("no event to measure with"),
        "{ended:?}"
    );
}

#[test]
fn a_limit_of_the_target_is_reported_beforehand_and_a_refusal_is_a_failure() {
    let relay = Relay::start();
    let args = ["--batch", "1001", "--duration", "100ms", "--warmup", "0s"];
    let ended = Process::run(bench(&relay, "ingest", &args));
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("ingest.batch_events_max"),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("posting was refused with 400"),
        "{ended:?}"
    );
    assert_eq!(ended.stdout, "");
}

#[test]
fn an_unreachable_relay_is_a_failure() {
    let command = sidewire(&["bench", "idle", "--url", "ws://127.0.0.1:1/ws"]);
    let ended = Process::run(command);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("no client could be subscribed"),
        "{ended:?}"
    );
}
