//! A relay that runs as a separate process, with a config file.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use serde_json::{Value, json};
use sidewire_client::{ClientOptions, RelayConnection, RelayMessage};
use sidewire_protocol::random::RandomSource;
use tempfile::TempDir;

use crate::{
    http::http,
    process::{Process, sidewire},
    token,
};

/// A topic of [`event`].
pub const TOPIC: &str = "project:p1";

/// The signing secret of [`Files`].
pub const SECRET: &str = "CANARY-secret-0123456789abcdef-0123456789";
/// The ingest key of [`Files`].
pub const INGEST_KEY: &str = "CANARY-ingest-key-0123456789";

/// Lines of the config file, by section, and the listeners for clients, ingest and ops.
#[derive(Debug, Clone, Copy)]
pub struct ConfigLines<'a> {
    /// Addresses of the listeners.
    pub listeners: [&'a str; 3],
    /// Lines in `[client]`.
    pub client: &'a str,
    /// Lines in `[limits]`.
    pub limits: &'a str,
    /// Lines in `[log]`, and sections after it.
    pub log: &'a str,
}

impl Default for ConfigLines<'_> {
    /// No lines; the kernel chooses all ports.
    fn default() -> Self {
        Self {
            listeners: ["127.0.0.1:0"; 3],
            client: "",
            limits: "",
            log: "",
        }
    }
}

/// A directory with a config file and the files that it names, closed to other users.
pub struct Files(pub TempDir);

impl Files {
    /// Writes the files with the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::with("", "")
    }

    /// Writes the files with these lines in `[client]` and `[log]`.
    #[must_use]
    pub fn with(client: &str, log: &str) -> Self {
        Self::configured(ConfigLines {
            client,
            log,
            ..ConfigLines::default()
        })
    }

    /// Writes the files with these lines in the config file.
    #[must_use]
    pub fn configured(lines: ConfigLines<'_>) -> Self {
        let private = Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().permissions(private).tempdir();
        let files = Self(directory.unwrap());
        files.write("jwt.secret", SECRET);
        files.write("ingest.key", INGEST_KEY);
        files.configure(lines);
        files
    }

    /// Writes the config file anew, with these lines.
    pub fn configure(&self, lines: ConfigLines<'_>) {
        let [client_at, ingest_at, ops_at] = lines.listeners;
        let ConfigLines {
            client,
            limits,
            log,
            ..
        } = lines;
        self.write(
            "sidewire.toml",
            &format!(
                r#"[client]
listen = "{client_at}"
{client}
[[auth.keys]]
secret_file = "jwt.secret"
algorithm = "HS256"
[limits]
shards = 2
address_handshakes_per_minute = 4294967295
{limits}
[ingest]
listen = "{ingest_at}"
[[ingest.keys]]
name = "tests"
key_file = "ingest.key"
[ops]
listen = "{ops_at}"
[log]
{log}
"#
            ),
        );
    }

    /// Returns the path of a file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Returns the path of the config file.
    #[must_use]
    pub fn config(&self) -> String {
        self.path("sidewire.toml").to_str().unwrap().to_owned()
    }

    /// Returns the command that serves with the config file.
    #[must_use]
    pub fn serve(&self) -> Command {
        sidewire(&["serve", "--config", &self.config()])
    }
}

/// `sidewire serve`, ready.
pub struct Relay {
    /// The process.
    pub process: Process,
    /// Its files.
    pub files: Files,
    /// The address for clients.
    pub client: SocketAddr,
    /// The address for backends.
    pub ingest: SocketAddr,
    /// The address for operators.
    pub ops: SocketAddr,
}

impl Relay {
    /// Serves with the default files.
    #[must_use]
    pub fn start() -> Self {
        Self::serve(Files::new())
    }

    /// Serves with these files, and waits until the relay logs its addresses.
    #[must_use]
    pub fn serve(files: Files) -> Self {
        let serve = files.serve();
        Self::started(files, serve)
    }

    /// Starts the relay with this command.
    #[must_use]
    pub fn started(files: Files, serve: Command) -> Self {
        let process = Process::start(serve);
        let line = process.stderr_has(|log| log_line(log, "the relay is ready"));
        Self::with_addresses(process, files, &line)
    }

    /// Returns a running relay that listens on the addresses in this line of its log.
    #[must_use]
    pub fn with_addresses(process: Process, files: Files, line: &Value) -> Self {
        let address = |listener: &str| line[listener].as_str().unwrap().parse().unwrap();
        Self {
            client: address("client"),
            ingest: address("ingest"),
            ops: address("ops"),
            process,
            files,
        }
    }

    /// Returns the URL for clients.
    #[must_use]
    pub fn client_url(&self) -> String {
        format!("ws://{}/ws", self.client)
    }

    /// Returns the URL for backends.
    #[must_use]
    pub fn ingest_url(&self) -> String {
        format!("http://{}", self.ingest)
    }

    /// Returns the options of a client of this relay.
    #[must_use]
    pub fn options(&self, token: &str) -> ClientOptions {
        options(&self.client_url(), token)
    }

    /// Returns `sidewire publish` to this relay, for the tenant `acme`.
    #[must_use]
    pub fn publish(&self, args: &[&str]) -> Command {
        let url = self.ingest_url();
        let key = self.files.path("ingest.key");
        let mut command = sidewire(&["publish", "--tenant", "acme", "--url", &url]);
        command.arg("--key-file").arg(key).args(args);
        command
    }

    /// Returns `sidewire tail` of this relay, as the user `ann` of the tenant `acme`.
    #[must_use]
    pub fn tail(&self, args: &[&str]) -> Command {
        let token = self.files.write("token.jwt", &token("acme", "ann"));
        let url = self.client_url();
        let mut command = sidewire(&["tail", "--url", &url, "--token-file", &token]);
        command.args(args);
        command
    }

    /// Returns the value of a metric, given with its labels.
    #[must_use]
    pub fn metric(&self, series: &str) -> f64 {
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
#[must_use]
pub fn event(title: &str) -> Value {
    let item = json!({"id": "i1", "projectId": "p1", "title": title});
    json!({"workItemCreated": {"workItem": item, "userId": "ann"}})
}

/// Returns a token signed with [`SECRET`], valid for an hour.
#[must_use]
pub fn token(tenant: &str, user: &str) -> String {
    token::hour_long(SECRET, tenant, user)
}

/// Returns the options of a client with this token.
#[must_use]
pub fn options(url: &str, token: &str) -> ClientOptions {
    ClientOptions::new(url, Arc::new(RandomSource::from_seed(1))).with_token(token)
}

/// Subscribes to a topic and waits for the confirmation.
pub async fn subscribe(client: &mut RelayConnection, topic: &str) {
    client.subscribe([topic]).await.unwrap();
    let received = client.receive().await.unwrap();
    assert!(
        matches!(&received, RelayMessage::SubscriptionConfirmed(confirmed) if confirmed.topics == [topic]),
        "{received:?}"
    );
}

/// Returns the first line of a JSON log with this message.
#[must_use]
pub fn log_line(log: &str, message: &str) -> Option<Value> {
    log.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_default())
        .find(|line| line["message"] == message)
}
