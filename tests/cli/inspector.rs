//! The inspector of a relay as its user runs it: in `dev`, across a reload, and on an inherited
//! socket.

use std::{fs, net::SocketAddr};

use serde_json::{Value, json};
use sidewire_client::RelayConnection;
use sidewire_testing::{
    http::http,
    process::{Process, Signal, sidewire},
    relay::{Files, Relay, options},
};
use tempfile::TempDir;

use crate::reload::{edit, lines, reload};

const KEY: &str = "CANARY-key-of-the-inspector";
const NEW_KEY: &str = "CANARY-new-key-of-the-inspector";

/// Makes a data call of the inspector. Returns the status and the JSON.
fn call(ops: SocketAddr, key: &str, line: &str, body: Option<&Value>) -> (u16, Value) {
    let body = body.map(ToString::to_string).unwrap_or_default();
    let length = body.len();
    let answer = http(
        ops,
        &format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nAuthorization: Bearer {key}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ),
    );
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap())
}

fn status_of_overview(ops: SocketAddr, key: &str) -> u16 {
    call(ops, key, "GET /inspect/api/overview", None).0
}

/// Starts `sidewire dev`. Returns it with its guide.
fn start_dev(directory: &TempDir) -> (Process, String) {
    let ports = ["--client-port=0", "--ingest-port=0", "--ops-port=0"];
    let mut command = sidewire(&[&["dev", "--bundled", "generic"][..], &ports].concat());
    command.env("TMPDIR", directory.path());
    let process = Process::start(command);
    let guide = process.stdout_has(|text| {
        let (_, last) = text.split_once(" token --tenant ")?;
        last.contains('\n').then(|| text.to_owned())
    });
    (process, guide)
}

#[tokio::test]
async fn dev_prints_the_url_of_an_inspector_that_publishes_and_makes_tokens() {
    let directory = TempDir::new().unwrap();
    let (process, guide) = start_dev(&directory);
    let mut urls = guide.lines().filter(|line| line.contains("://"));
    let url = urls.next().unwrap().trim();
    let (address, key) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once("/inspect#key="))
        .unwrap();
    let ops: SocketAddr = address.parse().unwrap();
    assert_eq!(key.len(), 64);
    let (status, session) = call(ops, key, "GET /inspect/api/session", None);
    assert_eq!((status, &session["dev"]["user"]), (200, &json!("alice")));

    let wanted = json!({"tenant": "acme", "user": "zoe", "topics": ["room:1"]});
    let (status, made) = call(ops, key, "POST /inspect/api/token", Some(&wanted));
    assert_eq!(status, 200, "{made}");
    let client_url = session["dev"]["client_url"].as_str().unwrap();
    let options = options(client_url, made["token"].as_str().unwrap());
    let client = RelayConnection::open(&options).await.unwrap();
    let listing = "GET /inspect/api/tenants/acme/connections?user=zoe";
    let (_, listed) = call(ops, key, listing, None);
    assert_eq!(listed["connections"].as_array().unwrap().len(), 1);

    let publish = "POST /inspect/api/tenants/acme/publish?topic=user:zoe";
    let event = json!({"event": {"type": "made"}});
    let (status, receipt) = call(ops, key, publish, Some(&event));
    assert_eq!((status, &receipt["matched"]), (200, &json!(1)), "{receipt}");
    let (status, problem) = call(ops, key, publish, Some(&json!({})));
    assert_eq!(
        (status, &problem["code"]),
        (400, &json!("VALIDATION_ERROR"))
    );
    for (member, value) in [
        ("tenant", json!("")),
        ("user", json!("a\nb")),
        ("topics", json!(["no topic"])),
        ("more", json!(1)),
    ] {
        let mut bad = wanted.clone();
        bad[member] = value;
        let (status, problem) = call(ops, key, "POST /inspect/api/token", Some(&bad));
        assert_eq!(status, 400, "{bad}: {problem}");
    }
    drop(client);
    process.signal(Signal::INT);
    let ended = process.end();
    assert!(ended.status.success(), "{ended:?}");
    assert!(!ended.stderr.contains(key), "{ended:?}");
}

#[test]
fn a_reload_changes_the_key_and_a_restart_switches_the_inspector() {
    let on = "inspector = true\ninspector_key_file = \"inspector.key\"\n[log]";
    let relay = Relay::start();
    assert_eq!(status_of_overview(relay.ops, KEY), 404);
    relay.files.write("inspector.key", KEY);
    edit(&relay, &[("[log]", on)]);
    reload(&relay, 1);
    let (status, _) = call(relay.ops, KEY, "GET /inspect/api/overview", None);
    assert_eq!(status, 404);
    relay.process.signal(Signal::TERM);
    let ended = relay.process.end();
    let named = "this config key cannot change without a restart; the old value stays";
    let named = lines(&ended.stderr, named);
    assert_eq!(named.len(), 1);
    assert_eq!(named[0]["key"], "ops.inspector");

    let files = Files::new();
    files.write("inspector.key", KEY);
    let text = fs::read_to_string(files.config()).unwrap();
    files.write("sidewire.toml", &text.replace("[log]", on));
    let relay = Relay::serve(files);
    assert_eq!(status_of_overview(relay.ops, KEY), 200);
    relay.files.write("inspector.key", NEW_KEY);
    reload(&relay, 1);
    assert_eq!(status_of_overview(relay.ops, KEY), 401);
    assert_eq!(status_of_overview(relay.ops, NEW_KEY), 200);
    relay.process.signal(Signal::TERM);
    let ended = relay.process.end();
    assert!(!ended.stderr.contains("CANARY"), "{}", ended.stderr);
}
