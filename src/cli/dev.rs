//! `sidewire dev`: a relay for trying things out. It generates what an operator would
//! configure, and prints commands to paste.

use std::{
    fs::{self, DirBuilder},
    io,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use sidewire_protocol::{
    EnvelopeEncoding, TenantName, UserName, clock::Clock, random::RandomSource, schema::Schema,
};
use tokio::signal::unix::SignalKind;

use super::{
    CommandFailure,
    runtime::{ENDING, SignalListener, build_runtime},
    schema_args::{self, SchemaArgs},
    secret_file::{random_hex, write_private},
    serve::until_stopped,
    write_result,
};
use crate::{
    auth::{Algorithm, NewToken, Secret, SigningKey, TokenRules},
    config::{AuthKey, Config, IngestKeyEntry, ListenAddress},
    inspector::DevAccess,
    server::{ListenAddresses, ListenerName, RelayServer, StartError},
    setup::RelaySetup,
    telemetry,
};

/// Characters that are percent-encoded in a query. `:` is not, so that topics stay readable.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// The tenant and user of the printed token.
const TENANT: &str = "acme";
const USER: &str = "alice";

/// The lifetime of the printed token.
const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// The flags of `sidewire dev`: the relay's ports on the loopback address, and its schema.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidewire dev
  sidewire dev --schema chat.proto --envelope chat.v1.Envelope
  sidewire dev --bundled generic
  sidewire dev --client-port 4000 --ingest-port 4001 --ops-port 4002

The relay listens on the loopback address only. It generates a signing secret, an ingest key and
a key for the inspector, and deletes them when it stops. It prints the URL of the inspector, a page
that shows what the relay does, and commands to paste into other terminals.")]
pub struct DevArgs {
    /// The schema.
    #[command(flatten)]
    pub schema: SchemaArgs,
    /// The port for clients (0: any free port).
    #[arg(long, value_name = "PORT", default_value_t = 3000)]
    pub client_port: u16,
    /// The port for backends (0: any free port).
    #[arg(long, value_name = "PORT", default_value_t = 3001)]
    pub ingest_port: u16,
    /// The port for metrics, health and the inspector (0: any free port).
    #[arg(long, value_name = "PORT", default_value_t = 3002)]
    pub ops_port: u16,
}

/// Runs until a signal comes.
pub(super) fn run(args: &DevArgs) -> Result<(), CommandFailure> {
    build_runtime()?.block_on(async {
        // Before any file exists, so that no signal leaves files behind. Closing the terminal
        // sends a SIGHUP.
        let signals = SignalListener::listen(&[&ENDING[..], &[SignalKind::hangup()]].concat())?;
        let files = DevFiles::make()?;
        let config = dev_config(args, &files);
        telemetry::init_logging(&config.log)
            .map(drop)
            .map_err(CommandFailure::new)?;
        let mut setup = RelaySetup::new(config).map_err(CommandFailure::new)?;
        let example = DevExample::from_args(&args.schema, &setup.live.schema)?;
        setup.dev = Some(files.inspector_access(&example)?);
        let server = RelayServer::start(setup).map_err(|error| start_failure(&error))?;
        let guide = guide_text(server.addresses(), &files, &example)?;
        write_result(&mut io::stdout(), &guide)?;
        until_stopped(server, signals, None).await
    })
}

fn dev_config(args: &DevArgs, files: &DevFiles) -> Config {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut config = Config {
        schema: args.schema.section(),
        ..Config::default()
    };
    config.client.listen = loopback(args.client_port);
    config.ingest.listen = loopback(args.ingest_port).into();
    config.ops.listen = loopback(args.ops_port).into();
    config.ops.inspector = true;
    config.ops.inspector_key_file = Some(files.inspector_key());
    // All clients connect from this machine, including those of a benchmark.
    config.limits.address_handshakes_per_minute = NonZeroU32::MAX;
    config.auth.keys = vec![AuthKey::Secret {
        file: files.secret(),
        algorithm: Algorithm::HS256,
        kid: None,
    }];
    config.ingest.keys = vec![IngestKeyEntry {
        name: "dev".to_owned(),
        key_file: files.ingest_key(),
        tenants: None,
        burst: None,
        period: None,
    }];
    config
}

fn start_failure(error: &StartError) -> CommandFailure {
    let StartError::Listen {
        listener,
        address,
        source,
    } = error
    else {
        return CommandFailure::new(error);
    };
    let flag = match listener {
        ListenerName::Client => "--client-port",
        ListenerName::Ingest => "--ingest-port",
        ListenerName::Ops => "--ops-port",
    };
    let why = if source.kind() == io::ErrorKind::AddrInUse {
        let port = address.tcp_address().map_or(0, |address| address.port());
        format!("port {port} is already in use")
    } else {
        format!("cannot listen on {address}: {source}")
    };
    CommandFailure::new(format!(
        "{why}; choose a different port with {flag}, or any free one with {flag} 0"
    ))
}

/// An event to try the schema with, for use in shell commands.
struct DevExample {
    /// The topic to follow; `None` if the event is delivered without a subscription.
    topic: Option<String>,
    /// The topic that the call must name, if the event names none.
    topic_in_call: Option<String>,
    event: String,
    /// The flags of other commands that name the schema.
    flags: String,
}

impl DevExample {
    fn from_args(args: &SchemaArgs, schema: &Schema) -> Result<Self, CommandFailure> {
        let flags = args.to_words().into_iter();
        let flags = flags
            .map(|word| format!(" {}", shell_word(&word)))
            .collect();
        if let Some(bundled) = schema_args::find_bundled(&args.source())? {
            let topic = bundled.sample_topic;
            return Ok(Self {
                topic_in_call: bundled.topic_in_call.then(|| topic.clone()),
                topic: Some(topic),
                event: bundled.sample_event,
                flags,
            });
        }
        let sample = schema.best_sample();
        let sample = sample.ok_or_else(|| CommandFailure::new("the schema has no event"))?;
        Ok(Self {
            topic: sample.topic_to_follow().map(ToString::to_string),
            topic_in_call: sample.topic_in_call.as_ref().map(ToString::to_string),
            event: sample.event.to_string(),
            flags,
        })
    }
}

/// Returns the URL of the call that posts an event, quoted as one shell word if needed.
fn events_url(ingest: &ListenAddress, topic_in_call: Option<&str>) -> String {
    let url = format!("http://{ingest}/v1/tenants/{TENANT}/events");
    match topic_in_call {
        Some(topic) => shell_word(&format!(
            "{url}?topic={}",
            utf8_percent_encode(topic, IN_QUERY)
        )),
        None => url,
    }
}

/// Returns the JavaScript that follows a topic as JSON, for the console of a browser or node.
fn browser_statement(client: SocketAddr, jwt: &str, topic: Option<&str>) -> String {
    let topics: Vec<_> = topic.into_iter().collect();
    let subscribe = json!({"subscribe": {"topics": topics}}).to_string();
    let (protocols, subscribe) = (
        json!([
            EnvelopeEncoding::Json.subprotocol(),
            format!("bearer.{}", jwt.trim())
        ]),
        json!(subscribe),
    );
    format!(
        "ws = new WebSocket(\"ws://{client}/ws\", {protocols}); \
         ws.onopen = () => ws.send({subscribe}); \
         ws.onmessage = (message) => console.log(message.data)"
    )
}

/// Returns the text with the commands to paste.
fn guide_text(
    addresses: &ListenAddresses,
    files: &DevFiles,
    example: &DevExample,
) -> Result<String, CommandFailure> {
    let ListenAddresses {
        client,
        ingest,
        ops,
    } = addresses;
    let sidewire = program_word()?;
    let path = |path: &Path| shell_word(&path.display().to_string());
    let (secret, key, token) = (
        path(&files.secret()),
        path(&files.ingest_key()),
        path(&files.token()),
    );
    let read = |path: &Path| fs::read_to_string(path).map_err(CommandFailure::new);
    let (jwt, inspector_key) = (read(&files.token())?, read(&files.inspector_key())?);
    let inspector_key = inspector_key.trim();
    let topic = example.topic.as_deref();
    let events_of = topic.map_or_else(|| format!("user {USER}"), str::to_owned);
    let topic_word = topic.map(|topic| format!(" {}", shell_word(topic)));
    let topic_word = topic_word.unwrap_or_default();
    let url = events_url(ingest, example.topic_in_call.as_deref());
    let event = always_quoted(&example.event);
    let browser = browser_statement(*client, &jwt, topic);
    let flags = &example.flags;
    Ok(format!(
        "Sidewire is running, for this machine only. ctrl-c stops it and deletes its keys.

Look into it with a browser, and publish events:

  http://{ops}/inspect#key={inspector_key}

  clients    ws://{client}/ws
  backends   http://{ingest}
  metrics    http://{ops}/metrics

  signing secret   {secret}
  ingest key       {key}
  token of user {USER} of tenant {TENANT}, also in {token}
{jwt}

In a second terminal, follow the events of {events_of}:

{sidewire} tail --url ws://{client}/ws --token-file {token}{flags}{topic_word}

Or in the console of a browser, as JSON:

{browser}

In a third terminal, post an event:

curl -sS {url} -H \"Authorization: Bearer $(cat {key})\" -H 'Content-Type: application/json' -d {event}

See the events of the schema and their topics:

{sidewire} schema{flags}

See the metrics of the relay:

curl -sS http://{ops}/metrics

Make a token for a different user or tenant:

{sidewire} token --tenant {TENANT} --user bob --secret-file {secret}
"
    ))
}

/// Returns this program as a word of a shell command.
fn program_word() -> Result<String, CommandFailure> {
    let program = std::env::current_exe().map_err(CommandFailure::new)?;
    Ok(shell_word(&program.display().to_string()))
}

/// Quotes the text as one word of a shell command, if needed.
fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        always_quoted(text)
    }
}

fn always_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The secret, the key and the token, in files that only this user can read. Dropping this
/// deletes them.
struct DevFiles(PathBuf);

impl DevFiles {
    fn make() -> Result<Self, CommandFailure> {
        let random = RandomSource::from_system().map_err(CommandFailure::new)?;
        let clock = Clock::system();
        let name = format!("sidewire-dev-{}", random.uuid_v7(&clock).simple());
        let files = Self(std::env::temp_dir().join(name));
        let refused =
            |error| CommandFailure::new(format!("cannot write {}: {error}", files.0.display()));
        DirBuilder::new()
            .mode(0o700)
            .create(&files.0)
            .map_err(refused)?;
        let secret = random_hex(&random);
        write_private(&files.secret(), &secret).map_err(refused)?;
        write_private(&files.ingest_key(), &random_hex(&random)).map_err(refused)?;
        write_private(&files.inspector_key(), &random_hex(&random)).map_err(refused)?;
        let token = mint_token(&secret, &clock)?;
        write_private(&files.token(), &token).map_err(refused)?;
        Ok(files)
    }

    fn secret(&self) -> PathBuf {
        self.0.join("jwt.secret")
    }

    fn ingest_key(&self) -> PathBuf {
        self.0.join("ingest.key")
    }

    fn inspector_key(&self) -> PathBuf {
        self.0.join("inspector.key")
    }

    /// Returns what lets the inspector publish events and make tokens.
    fn inspector_access(&self, example: &DevExample) -> Result<DevAccess, CommandFailure> {
        let secret = |path: &Path| Secret::from_file(path).map_err(CommandFailure::new);
        Ok(DevAccess {
            signing: signing_key(&secret(&self.secret())?)?,
            ingest_key: secret(&self.ingest_key())?,
            program: program_word()?,
            schema_flags: example.flags.clone(),
            tenant: TENANT,
            user: USER,
            topic: example.topic.clone(),
        })
    }

    fn token(&self) -> PathBuf {
        self.0.join("token.jwt")
    }
}

impl Drop for DevFiles {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, directory = %self.0.display(), "cannot delete the keys");
        }
    }
}

fn mint_token(secret: &str, clock: &Clock) -> Result<String, CommandFailure> {
    let token = NewToken {
        tenant: TenantName::parse(TENANT).map_err(CommandFailure::new)?,
        user: UserName::parse(USER).map_err(CommandFailure::new)?,
        expires_at: Some(clock.since_unix_epoch().saturating_add(TOKEN_LIFETIME)),
        topics: None,
        subscribe: None,
    };
    signing_key(&Secret::new(secret.as_bytes()))?
        .mint(&token, &TokenRules::default())
        .map_err(CommandFailure::new)
}

fn signing_key(secret: &Secret) -> Result<SigningKey, CommandFailure> {
    SigningKey::from_secret(Algorithm::HS256, None, secret).map_err(CommandFailure::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_quoted_as_one_shell_word() {
        assert_eq!(shell_word("/tmp/a-b_c.d"), "/tmp/a-b_c.d");
        assert_eq!(shell_word("/tmp/a b"), "'/tmp/a b'");
        assert_eq!(shell_word("/tmp/it's"), r"'/tmp/it'\''s'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn a_port_in_use_is_reported_with_the_flag_that_changes_it() {
        let error = StartError::Listen {
            listener: ListenerName::Ingest,
            address: SocketAddr::from(([127, 0, 0, 1], 3001)).into(),
            source: io::ErrorKind::AddrInUse.into(),
        };
        let failure = start_failure(&error).to_string();
        assert!(failure.contains("port 3001 is already in use"), "{failure}");
        assert!(failure.contains("--ingest-port"), "{failure}");
    }

    #[test]
    fn the_files_are_private_and_removed_when_the_relay_ends() {
        use std::os::unix::fs::PermissionsExt;
        let files = DevFiles::make().unwrap();
        let directory = files.0.clone();
        for path in [
            files.secret(),
            files.ingest_key(),
            files.inspector_key(),
            files.token(),
        ] {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        assert_ne!(
            fs::read(files.secret()).unwrap(),
            fs::read(files.ingest_key()).unwrap()
        );
        drop(files);
        assert!(!directory.exists());
    }
}
