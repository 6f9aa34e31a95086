//! `sidewire dev` as a new user sees it: the commands that it prints can be pasted, and it
//! leaves nothing behind.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use sidewire_client::RelayConnection;
use sidewire_testing::{
    http::{handshake, http},
    process::{Ended, PATIENCE, Process, Signal, is_on_path, sidewire},
    relay::{log_line, options, subscribe},
    websocket,
};
use tempfile::TempDir;

/// `sidewire dev` with its own directory for temporary files.
struct Dev {
    process: Process,
    guide: String,
    directory: TempDir,
}

fn command(directory: &TempDir, flags: &[&str]) -> Command {
    let ports = ["dev", "--client-port=0", "--ingest-port=0", "--ops-port=0"];
    let mut command = sidewire(&[&ports, flags].concat());
    command.env("TMPDIR", directory.path());
    command
}

impl Dev {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(flags: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let process = Process::start(command(&directory, flags));
        // The guide is printed in one piece, and ends with this command.
        let guide = process.stdout_has(|text| {
            let (_, last) = text.split_once(" token --tenant ")?;
            last.contains('\n').then(|| text.to_owned())
        });
        Self {
            process,
            guide,
            directory,
        }
    }

    /// Returns the only command of the guide that contains these words, as printed.
    fn printed(&self, words: &str) -> &str {
        let mut found = self.guide.lines().filter(|line| {
            let is_command = [env!("CARGO_BIN_EXE_sidewire"), "curl "]
                .iter()
                .any(|program| line.starts_with(program));
            is_command && line.contains(words)
        });
        let command = found.next().unwrap_or_else(|| panic!("{}", self.guide));
        assert_eq!(found.next(), None);
        command
    }

    /// Returns the text after a word in the guide, up to the end of the line.
    fn says(&self, word: &str) -> &str {
        let line = self.guide.lines().find_map(|line| {
            let rest = line.trim_start().strip_prefix(word)?;
            rest.starts_with("  ").then(|| rest.trim())
        });
        line.unwrap_or_else(|| panic!("no {word} in {}", self.guide))
    }

    /// Returns the directory of the keys, the only thing that `dev` has created.
    fn keys(&self) -> PathBuf {
        let made: Vec<_> = fs::read_dir(self.directory.path()).unwrap().collect();
        let [Ok(keys)] = &made[..] else {
            panic!("{made:?}");
        };
        keys.path()
    }

    fn end(self, signal: Signal) -> Ended {
        self.process.signal(signal);
        let ended = self.process.end();
        let left: Vec<_> = fs::read_dir(self.directory.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        ended
    }
}

/// Runs a command as printed.
fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]);
    shell
}

/// Sends the request of a printed curl command without curl, which may not be installed.
/// The shell splits the command into words.
fn request(curl: &str) -> String {
    let words = Process::run(shell(&format!(
        "curl() {{ printf '%s\\n' \"$@\"; }}; {curl}"
    )));
    assert!(words.status.success(), "{words:?}");
    let (mut headers, mut body, mut url) = (String::new(), "", "");
    let mut words = words.stdout.lines();
    while let Some(word) = words.next() {
        match word {
            "-sS" => {}
            "-H" => headers += &format!("{}\r\n", words.next().unwrap()),
            "-d" => body = words.next().unwrap(),
            word => url = word,
        }
    }
    let (authority, path) = url
        .strip_prefix("http://")
        .and_then(|url| url.split_once('/'))
        .unwrap();
    let method = if body.is_empty() { "GET" } else { "POST" };
    let length = body.len();
    http(
        authority.parse().unwrap(),
        &format!(
            "{method} /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        ),
    )
}

#[test]
fn the_commands_of_the_guide_work_as_printed() {
    let dev = Dev::start();
    let tail = Process::start(shell(dev.printed(" tail ")));
    tail.stderr_has(|log| log.contains("following").then_some(()));

    let inject = dev.printed("/events ");
    let answer = request(inject);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut injected = 1;
    if is_on_path("curl") {
        let curl = Process::run(shell(inject));
        assert!(curl.status.success(), "{curl:?}");
        let answer: Value = serde_json::from_str(&curl.stdout).unwrap();
        assert_eq!(answer["matched"], 1, "{answer}");
        injected += 1;
    }
    let events = tail.stdout_has(|text| {
        let is_all = text.matches('\n').count() == injected && text.ends_with('\n');
        is_all.then(|| text.to_owned())
    });
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.len(), injected);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["workItemCreated"]["userId"], "alice", "{event}");
        assert_eq!(event["position"]["offset"], (index + 1).to_string());
    }

    let metrics = request(dev.printed("/metrics"));
    let counted = format!("\nsidewire_events_matched_total {injected}\n");
    assert!(metrics.contains(&counted), "{metrics}");
    if is_on_path("curl") {
        let curl = Process::run(shell(dev.printed("/metrics")));
        assert!(curl.status.success(), "{curl:?}");
        assert!(curl.stdout.contains(&counted), "{curl:?}");
    }
    tail.signal(Signal::INT);
    assert!(dev.end(Signal::INT).status.success());
}

/// Does what the statements for a browser do, without a browser: the handshake with the
/// subprotocols, then the Subscribe. Returns the first frame of the relay.
fn in_a_browser(statements: &str) -> String {
    let part = |begin: &str, end: &str| {
        let (_, rest) = statements.split_once(begin).unwrap();
        rest.split_once(end).unwrap().0.to_owned()
    };
    let authority = part("new WebSocket(\"ws://", "/ws\"");
    let protocols: Vec<String> = serde_json::from_str(&part("/ws\", ", ");")).unwrap();
    let subscribe: String = serde_json::from_str(&part("ws.send(", ");")).unwrap();
    let head = handshake(&format!(
        "Origin: http://localhost\r\nSec-WebSocket-Protocol: {}\r\n",
        protocols.join(", ")
    ))
    .replace("Host: localhost", &format!("Host: {authority}"));
    let frame = websocket::text(&subscribe);
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&frame).unwrap();
    let mut answer = String::new();
    while !answer.ends_with('}') {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).unwrap();
        assert_ne!(read, 0, "{answer}");
        answer += &String::from_utf8_lossy(&bytes[..read]);
    }
    let (head, frame) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("sidewire.v1.json"), "{head}");
    frame.to_owned()
}

#[test]
fn the_statements_for_a_browser_follow_the_topic_as_json() {
    let dev = Dev::start();
    let statements = dev.guide.lines().find(|line| line.starts_with("ws = "));
    let frame = in_a_browser(statements.unwrap());
    assert!(frame.contains("\"subscriptionConfirmed\""), "{frame}");
    assert!(
        frame.contains("\"topics\":[\"project:project-1\"]"),
        "{frame}"
    );
    assert!(dev.end(Signal::INT).status.success());
}

/// Options for a schema file, relative to the directory of the tests.
const CHAT: [&str; 4] = [
    "--schema",
    "tests/cli/chat.proto",
    "--envelope",
    "chat.v1.Envelope",
];

#[test]
fn the_commands_of_the_guide_work_with_any_schema() {
    for (flags, payload) in [
        (&CHAT[..], "messagePosted"),
        (&["--bundled", "generic"], "event"),
    ] {
        let dev = Dev::start_with(flags);
        let mut tail = shell(dev.printed(" tail "));
        tail.current_dir("/");
        let tail = Process::start(tail);
        tail.stderr_has(|log| log.contains("following").then_some(()));
        let inject = dev.printed("/events");
        let answer = request(inject);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("\"matched\":1"), "{answer}");
        let event = tail.stdout_has(|text| text.ends_with('\n').then(|| text.to_owned()));
        let event: Value = serde_json::from_str(&event).unwrap();
        assert!(event[payload].is_object(), "{event}");
        // The signal ends the shell too, which hides how the command ended.
        tail.signal(Signal::INT);
        let summary = log_line(&tail.end().stderr, "summary").unwrap();
        assert_eq!(summary["events"], 1);

        let mut table = shell(dev.printed(" schema "));
        table.current_dir("/");
        let table = Process::run(table);
        assert!(table.status.success(), "{table:?}");
        assert!(table.stdout.starts_with("envelope "), "{table:?}");
        assert!(dev.end(Signal::INT).status.success());
    }
}

#[test]
fn the_warnings_of_the_schema_are_logged() {
    let dev = Dev::start_with(&CHAT);
    let warning = dev.process.stderr_has(|log| {
        log_line(
            log,
            "schema: the event room_closed relates to no topic: nothing in it is annotated",
        )
    });
    assert_eq!(warning["level"], "WARN");
    assert!(dev.end(Signal::INT).status.success());
}

#[test]
fn an_unusable_schema_is_reported_with_file_and_line() {
    let directory = TempDir::new().unwrap();
    let broken = directory.path().join("broken.proto");
    fs::write(
        &broken,
        "syntax = \"proto3\";\nmessage Envelope {\n  strin id = 1;\n}\n",
    )
    .unwrap();
    let flags = [
        "--schema",
        broken.to_str().unwrap(),
        "--envelope",
        "Envelope",
    ];
    let ended = Process::run(command(&directory, &flags));
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("broken.proto:3"), "{ended:?}");
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn the_printed_secret_mints_tokens_for_others() {
    let dev = Dev::start();
    let minted = Process::run(shell(dev.printed(" token ")));
    assert!(minted.status.success(), "{minted:?}");
    let token = minted.stdout.trim();
    let mut client = RelayConnection::open(&options(dev.says("clients"), token))
        .await
        .unwrap();
    subscribe(&mut client, "project:p1").await;

    let mut forged = token.to_owned();
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    let refused = RelayConnection::open(&options(dev.says("clients"), &forged)).await;
    assert!(refused.is_err());
    drop(client);
    assert!(dev.end(Signal::TERM).status.success());
}

#[test]
fn the_keys_are_private_and_removed_afterwards() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let dev = Dev::start();
        let keys = dev.keys();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&keys), 0o700);
        let files: Vec<_> = fs::read_dir(&keys).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), 4);
        for file in &files {
            assert_eq!(mode(&file.path()), 0o600, "{file:?}");
        }
        for word in ["signing secret", "ingest key"] {
            let printed = Path::new(dev.says(word));
            assert!(printed.starts_with(&keys), "{printed:?}");
            let secret = fs::read_to_string(printed).unwrap();
            assert!(!dev.guide.contains(secret.trim()), "{}", dev.guide);
        }
        let token = fs::read_to_string(keys.join("token.jwt")).unwrap();
        assert!(dev.guide.lines().any(|line| line == token.trim()));

        let ended = dev.end(signal);
        assert_eq!(ended.status.code(), Some(0), "{signal:?}: {ended:?}");
    }
}

#[test]
fn a_port_in_use_is_reported_with_its_flag() {
    for flag in ["--client-port", "--ingest-port", "--ops-port"] {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let directory = TempDir::new().unwrap();
        let ports = ["--client-port", "--ingest-port", "--ops-port"]
            .map(|it| format!("{it}={}", if it == flag { port } else { 0 }));
        let mut dev = sidewire(&["dev"]);
        dev.args(ports).env("TMPDIR", directory.path());
        let ended = Process::run(dev);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let expected =
            format!("port {port} is already in use; choose a different port with {flag},");
        assert!(ended.stderr.contains(&expected), "{ended:?}");
        assert_eq!(ended.stdout, "");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
