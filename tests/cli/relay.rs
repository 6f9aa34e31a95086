//! A relay that runs as a separate process, with a config file.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use sidewire::auth::{Algorithm, NewToken, Secret, SigningKey, TokenRules};
use sidewire_client::{ClientOptions, RelayConnection, RelayMessage};
use sidewire_protocol::{TenantName, UserName, clock::Clock, random::RandomSource};
use tempfile::TempDir;

use crate::process::{PATIENCE, Process, sidewire};

/// A topic of [`event`].
pub(crate) const TOPIC: &str = "project:p1";

/// The signing secret and the ingest key of [`Files`].
pub(crate) const SECRET: &str = "CANARY-secret-0123456789abcdef-0123456789";
pub(crate) const INGEST_KEY: &str = "CANARY-ingest-key-0123456789";

/// A directory with a config file and the files that it names.
pub(crate) struct Files(pub(crate) TempDir);

impl Files {
    /// Writes the files with these lines in `[client]` and `[log]`; all ports are chosen by
    /// the kernel.
    pub(crate) fn with(client: &str, log: &str) -> Self {
        let files = Self(TempDir::new().unwrap());
        files.write("jwt.secret", SECRET);
        files.write("ingest.key", INGEST_KEY);
        files.write(
            "sidewire.toml",
            &format!(
                r#"[client]
listen = "127.0.0.1:0"
{client}
[[auth.keys]]
secret_file = "jwt.secret"
algorithm = "HS256"
[limits]
shards = 2
address_handshakes_per_minute = 4294967295
[ingest]
listen = "127.0.0.1:0"
[[ingest.keys]]
name = "tests"
key_file = "ingest.key"
[ops]
listen = "127.0.0.1:0"
[log]
{log}
"#
            ),
        );
        files
    }

    /// Writes the files with the defaults.
    pub(crate) fn new() -> Self {
        Self::with("", "")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Returns the path of the config file.
    pub(crate) fn config(&self) -> String {
        self.path("sidewire.toml").to_str().unwrap().to_owned()
    }

    /// Returns the command that serves with the config file.
    pub(crate) fn serve(&self) -> Command {
        sidewire(&["serve", "--config", &self.config()])
    }
}

/// `sidewire serve`, ready.
pub(crate) struct Relay {
    pub(crate) process: Process,
    pub(crate) files: Files,
    pub(crate) client: SocketAddr,
    pub(crate) ingest: SocketAddr,
    pub(crate) ops: SocketAddr,
}

impl Relay {
    pub(crate) fn start() -> Self {
        Self::serve(Files::new())
    }

    /// Serves with these files, and waits until the relay logs its addresses.
    pub(crate) fn serve(files: Files) -> Self {
        let serve = files.serve();
        Self::started(files, serve)
    }

    /// Starts the relay with this command.
    pub(crate) fn started(files: Files, serve: Command) -> Self {
        let process = Process::start(serve);
        let line = process.stderr_has(|log| log_line(log, "the relay is ready"));
        Self::with_addresses(process, files, &line)
    }

    /// Returns a running relay that listens on the addresses in this line of its log.
    pub(crate) fn with_addresses(process: Process, files: Files, line: &Value) -> Self {
        let address = |listener: &str| line[listener].as_str().unwrap().parse().unwrap();
        Self {
            client: address("client"),
            ingest: address("ingest"),
            ops: address("ops"),
            process,
            files,
        }
    }

    pub(crate) fn client_url(&self) -> String {
        format!("ws://{}/ws", self.client)
    }

    pub(crate) fn ingest_url(&self) -> String {
        format!("http://{}", self.ingest)
    }

    /// Returns the options of a client of this relay.
    pub(crate) fn options(&self, token: &str) -> ClientOptions {
        options(&self.client_url(), token)
    }

    /// Returns `sidewire publish` to this relay, for the tenant `acme`.
    pub(crate) fn publish(&self, args: &[&str]) -> Command {
        let url = self.ingest_url();
        let key = self.files.path("ingest.key");
        let mut command = sidewire(&["publish", "--tenant", "acme", "--url", &url]);
        command.arg("--key-file").arg(key).args(args);
        command
    }

    /// Returns `sidewire tail` of this relay, as the user `ann` of the tenant `acme`.
    pub(crate) fn tail(&self, args: &[&str]) -> Command {
        let token = self.files.write("token.jwt", &token("acme", "ann"));
        let url = self.client_url();
        let mut command = sidewire(&["tail", "--url", &url, "--token-file", &token]);
        command.args(args);
        command
    }

    /// Returns the value of a metric, given with its labels.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = http(self.ops, request);
        answer
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .find(|(name, _)| *name == series)
            .unwrap_or_else(|| panic!("no {series} in {answer}"))
            .1
            .parse()
            .unwrap()
    }
}

/// Returns an event with this title and the topic [`TOPIC`].
pub(crate) fn event(title: &str) -> Value {
    let item = json!({"id": "i1", "projectId": "p1", "title": title});
    json!({"workItemCreated": {"workItem": item, "userId": "ann"}})
}

/// Returns a token signed with [`SECRET`], valid for an hour.
pub(crate) fn token(tenant: &str, user: &str) -> String {
    let token = NewToken {
        tenant: TenantName::parse(tenant).unwrap(),
        user: UserName::parse(user).unwrap(),
        expires_at: Some(Clock::system().since_unix_epoch() + Duration::from_hours(1)),
        topics: None,
    };
    SigningKey::from_secret(Algorithm::HS256, None, &Secret::new(SECRET))
        .unwrap()
        .mint(&token, &TokenRules::default())
        .unwrap()
}

pub(crate) fn options(url: &str, token: &str) -> ClientOptions {
    ClientOptions::new(url, Arc::new(RandomSource::from_seed(1))).with_token(token)
}

/// Subscribes to a topic and waits for the confirmation.
pub(crate) async fn subscribe(client: &mut RelayConnection, topic: &str) {
    client.subscribe([topic]).await.unwrap();
    let received = client.receive().await.unwrap();
    assert!(
        matches!(&received, RelayMessage::SubscriptionConfirmed(confirmed) if confirmed.topics == [topic]),
        "{received:?}"
    );
}

/// Returns the first line of a JSON log with this message.
pub(crate) fn log_line(log: &str, message: &str) -> Option<Value> {
    log.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_default())
        .find(|line| line["message"] == message)
}

/// Sends a request and returns the answer, up to the end of the connection or, if it
/// becomes a WebSocket, of the head.
pub(crate) fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    while !(answer.starts_with(b"HTTP/1.1 101") && answer.ends_with(b"\r\n\r\n")) {
        match stream.read(&mut bytes).unwrap() {
            0 => break,
            read => answer.extend_from_slice(&bytes[..read]),
        }
    }
    String::from_utf8(answer).unwrap()
}
