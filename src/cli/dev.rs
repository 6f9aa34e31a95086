//! `sidewire dev`: a relay to try things with. Makes up what an operator would
//! configure, and prints commands to paste.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::signal::unix::SignalKind;

use super::{
    Failure,
    runtime::{ENDING, Signals, runtime},
    sample,
    serve::until_stopped,
    write_result,
};
use crate::{
    auth::{Algorithm, NewToken, Secret, SigningKey, TokenRules},
    clock::Clock,
    config::{AuthKey, Config, IngestKey},
    ops,
    protocol::{TenantName, UserName},
    random::Random,
    server::{Addresses, ListenerName, Server, StartError},
    setup::Setup,
};

/// Who the printed token is for.
const TENANT: &str = "acme";
const USER: &str = "alice";

/// How long the printed token is valid.
const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// Where the relay listens, always on the loopback address.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidewire dev
  sidewire dev --client-port 4000 --ingest-port 4001 --ops-port 4002

On the loopback address, with the bundled schema and with a signing secret and an ingest key that
are thrown away at the end. It prints commands to paste into other terminals.")]
pub struct Args {
    /// The port for clients (0: any that is free).
    #[arg(long, value_name = "PORT", default_value_t = 3000)]
    pub client_port: u16,
    /// The port for backends (0: any that is free).
    #[arg(long, value_name = "PORT", default_value_t = 3001)]
    pub ingest_port: u16,
    /// The port for metrics and health (0: any that is free).
    #[arg(long, value_name = "PORT", default_value_t = 3002)]
    pub ops_port: u16,
}

/// Runs until a signal comes.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    runtime()?.block_on(async {
        // Before there are files, which no signal may leave behind; the closing of
        // the terminal is one too.
        let signals = Signals::listen(&[&ENDING[..], &[SignalKind::hangup()]].concat())?;
        let files = Files::make()?;
        let config = config(args, &files);
        ops::init_logging(&config.log)
            .map(drop)
            .map_err(Failure::new)?;
        let setup = Setup::new(config).map_err(Failure::new)?;
        let server = Server::start(setup).map_err(|error| start_failure(&error))?;
        let guide = guide(server.addresses(), &files)?;
        write_result(&mut io::stdout(), &guide)?;
        until_stopped(server, signals, None).await
    })
}

fn config(args: &Args, files: &Files) -> Config {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut config = Config::default();
    config.client.listen = loopback(args.client_port);
    config.ingest.listen = loopback(args.ingest_port).into();
    config.ops.listen = loopback(args.ops_port).into();
    config.auth.keys = vec![AuthKey::Secret {
        file: files.secret(),
        algorithm: Algorithm::HS256,
        kid: None,
    }];
    config.ingest.keys = vec![IngestKey {
        name: "dev".to_owned(),
        key_file: files.ingest_key(),
        tenants: None,
        burst: None,
        period: None,
    }];
    config
}

fn start_failure(error: &StartError) -> Failure {
    let StartError::Listen {
        listener,
        address,
        source,
    } = error
    else {
        return Failure::new(error);
    };
    let flag = match listener {
        ListenerName::Client => "--client-port",
        ListenerName::Ingest => "--ingest-port",
        ListenerName::Ops => "--ops-port",
    };
    let why = if source.kind() == io::ErrorKind::AddrInUse {
        let port = address.tcp().map_or(0, |address| address.port());
        format!("port {port} is taken")
    } else {
        format!("cannot listen on {address}: {source}")
    };
    Failure::new(format!(
        "{why}; {flag} changes it ({flag} 0 takes any that is free)"
    ))
}

/// What the newcomer is told.
fn guide(addresses: &Addresses, files: &Files) -> Result<String, Failure> {
    let Addresses {
        client,
        ingest,
        ops,
    } = addresses;
    let sidewire = std::env::current_exe().map_err(Failure::new)?;
    let sidewire = quoted(&sidewire);
    let (secret, key, token) = (
        quoted(&files.secret()),
        quoted(&files.ingest_key()),
        quoted(&files.token()),
    );
    let sample = sample();
    let (topic, event) = (sample.sample_topic, sample.sample_event);
    let jwt = fs::read_to_string(files.token()).map_err(Failure::new)?;
    Ok(format!(
        "Sidewire runs, for this machine only. ctrl-c ends it and throws its keys away.

  clients    ws://{client}/ws
  backends   http://{ingest}
  metrics    http://{ops}/metrics

  signing secret   {secret}
  ingest key       {key}
  token of user {USER} of tenant {TENANT}, also in {token}
{jwt}

In a second terminal, follow the events of {topic}:

{sidewire} tail --url ws://{client}/ws --token-file {token} {topic}

In a third one, inject an event:

curl -sS http://{ingest}/v1/tenants/{TENANT}/events -H \"Authorization: Bearer $(cat {key})\" -H 'Content-Type: application/json' -d '{event}'

See what the relay has counted:

curl -sS http://{ops}/metrics

A token for another user or tenant:

{sidewire} token --tenant {TENANT} --user bob --secret-file {secret}
"
    ))
}

/// The path as one word of a shell command.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    if text.bytes().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The secret, the key and the token, in files that only this user can read and
/// that are gone when this is dropped.
struct Files(PathBuf);

impl Files {
    fn make() -> Result<Self, Failure> {
        let random = Random::from_system().map_err(Failure::new)?;
        let clock = Clock::system();
        let name = format!("sidewire-dev-{}", random.uuid_v7(&clock).simple());
        let files = Self(std::env::temp_dir().join(name));
        let refused = |error| Failure::new(format!("cannot write {}: {error}", files.0.display()));
        DirBuilder::new()
            .mode(0o700)
            .create(&files.0)
            .map_err(refused)?;
        let secret = hex(&random);
        write_private(&files.secret(), &secret).map_err(refused)?;
        write_private(&files.ingest_key(), &hex(&random)).map_err(refused)?;
        let token = token(&secret, &clock)?;
        write_private(&files.token(), &token).map_err(refused)?;
        Ok(files)
    }

    fn secret(&self) -> PathBuf {
        self.0.join("jwt.secret")
    }

    fn ingest_key(&self) -> PathBuf {
        self.0.join("ingest.key")
    }

    fn token(&self) -> PathBuf {
        self.0.join("token.jwt")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, directory = %self.0.display(), "the keys could not be removed");
        }
    }
}

fn token(secret: &str, clock: &Clock) -> Result<String, Failure> {
    let token = NewToken {
        tenant: TenantName::parse(TENANT).map_err(Failure::new)?,
        user: UserName::parse(USER).map_err(Failure::new)?,
        expires_at: Some(clock.since_unix_epoch().saturating_add(TOKEN_LIFETIME)),
        topics: None,
    };
    let secret = Secret::new(secret.as_bytes());
    SigningKey::from_secret(Algorithm::HS256, None, &secret)
        .map_err(Failure::new)?
        .mint(&token, &TokenRules::default())
        .map_err(Failure::new)
}

/// 256 random bits.
fn hex(random: &Random) -> String {
    let mut bytes = [0; 32];
    random.fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_for_the_shell() {
        assert_eq!(quoted(Path::new("/tmp/a-b_c.d")), "/tmp/a-b_c.d");
        assert_eq!(quoted(Path::new("/tmp/a b")), "'/tmp/a b'");
        assert_eq!(quoted(Path::new("/tmp/it's")), r"'/tmp/it'\''s'");
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_the_flag_that_changes_it() {
        let error = StartError::Listen {
            listener: ListenerName::Ingest,
            address: SocketAddr::from(([127, 0, 0, 1], 3001)).into(),
            source: io::ErrorKind::AddrInUse.into(),
        };
        let failure = start_failure(&error).to_string();
        assert!(failure.contains("port 3001 is taken"), "{failure}");
        assert!(failure.contains("--ingest-port"), "{failure}");
    }

    #[test]
    fn the_files_are_private_and_gone_when_the_relay_ends() {
        use std::os::unix::fs::PermissionsExt;
        let files = Files::make().unwrap();
        let directory = files.0.clone();
        for path in [files.secret(), files.ingest_key(), files.token()] {
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
