//! The configuration file as types: keys, defaults, and checks of the values against each
//! other. Knows nothing about where the values are used, and opens no file other than the
//! configuration itself.

use std::{env, ffi::OsString, net::SocketAddr, path::Path};

use bytesize::ByteSize;
use serde::Deserialize;

mod auth;
mod backend_url;
mod client;
mod document;
mod error;
mod host_name;
mod ingest;
mod limits;
mod listen;
mod log;
mod ops;
mod origin;
mod paths;
mod presence;
mod reload;
mod replay;
mod schema;
mod section;
mod source_lines;
mod subscribe;
mod values;

#[cfg(test)]
mod example_tests;
#[cfg(test)]
mod tests;

pub use auth::{AuthKey, AuthMode, AuthSection};
pub use backend_url::{BackendUrl, BackendUrlError};
pub use client::{ClientSection, TlsFiles};
pub use error::{ConfigError, ConfigProblem, ConfigWarning};
pub use host_name::{HostName, HostNameError};
pub use ingest::{IngestKeyEntry, IngestSection};
pub use limits::{LimitsOverride, LimitsSection};
pub use listen::{ListenAddress, SocketMode};
pub use log::{LogFormat, LogSection};
pub use ops::OpsSection;
pub use origin::{OriginError, WebOrigin};
pub use presence::PresenceSection;
pub use replay::ReplaySection;
pub use schema::SchemaSection;
pub use subscribe::{ANSWER_AGE_MAX, SubscribeSection};

use crate::{bounded_file, memory::MemoryLimits};
use document::ConfigText;
use error::ConfigProblems;
use paths::PathResolver;

/// Maximum size of a configuration file in bytes: enough for more than 10,000 overrides.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// The configuration of a relay. When loaded from a file, it has passed [`Config::check`]
/// and its paths are absolute. `Config::default()` has the file's defaults, which lack only
/// the keys that `auth.mode = "jwt"` needs. In the docs of the sections, the value after a
/// semicolon is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[client]`: the listener for WebSocket clients.
    pub client: ClientSection,
    /// `[auth]`: how clients authenticate.
    pub auth: AuthSection,
    /// `[schema]`: the schema of the events, with their topics.
    pub schema: SchemaSection,
    /// `[limits]`: limits per event, per connection and per process.
    pub limits: LimitsSection,
    /// `[presence]`: what is remembered of the presence messages of clients.
    pub presence: PresenceSection,
    /// `[replay]`: how many events a tenant's log keeps for replay.
    pub replay: ReplaySection,
    /// `[ingest]`: the listener for backends.
    pub ingest: IngestSection,
    /// `[ops]`: the listener for metrics and health.
    pub ops: OpsSection,
    /// `[log]`: level and format of the log.
    pub log: LogSection,
}

impl Config {
    /// Returns how `limits.memory_max` is divided. The part for message ids,
    /// `ingest.message_id_bytes_max`, is subtracted first.
    #[must_use]
    pub fn memory_limits(&self) -> MemoryLimits {
        let ids = self.ingest.message_id_bytes_max;
        MemoryLimits {
            max: self.limits.memory_max.saturating_sub(ids) as u64,
            window: self.replay.process_bytes as u64,
        }
    }

    /// Loads the configuration from a file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is not a regular file or has more than 1 MiB, and as
    /// [`Config::parse`] does.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |reason| ConfigError::Unreadable {
            path: path.to_owned(),
            reason,
        };
        let text = bounded_file::read_text(path, FILE_BYTES_MAX).map_err(unreadable)?;
        let absolute = std::path::absolute(path).map_err(unreadable)?;
        let base_dir = absolute.parent().unwrap_or(&absolute);
        let paths = PathResolver::new(base_dir.to_owned(), credentials_directory());
        Self::from_text(&ConfigText::new(&text, Some(path)), &paths)
    }

    /// Parses a configuration. Relative paths in it are resolved against `base_dir`.
    ///
    /// # Errors
    ///
    /// Fails if the text is not TOML, has an unknown key or an invalid value, or fails
    /// [`Config::check`].
    pub fn parse(text: &str, base_dir: &Path) -> Result<Self, ConfigError> {
        let base_dir = std::path::absolute(base_dir).unwrap_or_else(|_| base_dir.to_owned());
        let paths = PathResolver::new(base_dir, credentials_directory());
        Self::from_text(&ConfigText::new(text, None), &paths)
    }

    /// Checks the values, also against each other.
    ///
    /// # Errors
    ///
    /// Reports every problem found.
    pub fn check(&self) -> Result<(), ConfigError> {
        let problems = self.collect_problems();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.into_error())
        }
    }

    fn from_text(document: &ConfigText<'_>, paths: &PathResolver) -> Result<Self, ConfigError> {
        let mut config: Self = document.deserialize()?;
        let mut problems = config.collect_problems();
        config.client.resolve_paths(paths, &mut problems);
        config.auth.resolve_paths(paths, &mut problems);
        config.schema.resolve_paths(paths, &mut problems);
        config.ops.resolve_paths(paths, &mut problems);
        config.ingest.resolve_paths(paths, &mut problems);
        config.replay.resolve_paths(paths, &mut problems);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(document.locate_problems(problems))
        }
    }

    fn collect_problems(&self) -> ConfigProblems {
        let mut problems = ConfigProblems::default();
        self.client.check(&mut problems);
        self.auth.check(&mut problems);
        self.schema.check(&mut problems);
        self.limits.check(&self.replay, &self.ingest, &mut problems);
        self.presence.check(&mut problems);
        self.replay.check(&mut problems);
        self.ingest.check(&mut problems);
        self.ops.check(&mut problems);
        self.log.check(&mut problems);
        self.check_open_access(&mut problems);
        self.check_key_sets(&mut problems);
        self.check_bodies(&mut problems);
        self.check_listeners(&mut problems);
        problems
    }

    fn check_open_access(&self, problems: &mut ConfigProblems) {
        let listen = self.client.listen;
        if self.auth.mode == AuthMode::None && !is_loopback(listen) {
            problems.add_problem(
                "auth.mode",
                format!(
                    "\"none\" lets anyone connect, but client.listen is {listen}, which is not a loopback address"
                ),
                "set client.listen = \"127.0.0.1:3000\", or mode = \"jwt\" with a key",
            );
        }
    }

    /// A client that waits for a key to be fetched waits during its handshake.
    fn check_key_sets(&self, problems: &mut ConfigProblems) {
        let fetches = |key: &AuthKey| matches!(key, AuthKey::JwksUrl { .. });
        if self.auth.keys.iter().any(fetches)
            && self.auth.jwks_timeout >= self.client.handshake_timeout
        {
            problems.add_problem(
                "auth.jwks_timeout",
                "is not less than client.handshake_timeout, but a client waits for the fetch during its handshake",
                "decrease auth.jwks_timeout, or increase client.handshake_timeout",
            );
        }
    }

    /// A body that can never be admitted would be answered with 503 and retried forever.
    fn check_bodies(&self, problems: &mut ConfigProblems) {
        let most = self.memory_limits().body_max();
        for (key, bytes) in [
            ("ingest.body_max", self.ingest.body_max),
            ("ingest.batch_body_max", self.ingest.batch_body_max),
        ] {
            // Sizes over 1 GiB are reported by `check_size`.
            if bytes as u64 > most && bytes <= values::GIB {
                problems.add_problem(
                    key,
                    format!(
                        "is {}, but limits.memory_max has room only for bodies of up to {}",
                        ByteSize(bytes as u64),
                        ByteSize(most)
                    ),
                    "decrease it, or increase limits.memory_max",
                );
            }
        }
    }

    fn check_listeners(&self, problems: &mut ConfigProblems) {
        let defaults = Self::default();
        let client = (
            "client.listen",
            ListenAddress::Tcp(self.client.listen),
            ListenAddress::Tcp(defaults.client.listen),
        );
        let ingest = (
            "ingest.listen",
            self.ingest.listen.clone(),
            defaults.ingest.listen,
        );
        let ops = ("ops.listen", self.ops.listen.clone(), defaults.ops.listen);
        for (one, other) in [(&client, &ingest), (&client, &ops), (&ingest, &ops)] {
            if !listeners_overlap(&one.1, &other.1) {
                continue;
            }
            // Report the key that the file sets: the other one has its default.
            let (at, with) = if other.1 == other.2 {
                (one, other)
            } else {
                (other, one)
            };
            problems.add_problem(
                at.0,
                format!("{} is already used by {} ({})", at.1, with.0, with.1),
                "give each listener its own port",
            );
        }
    }
}

/// Returns the directory in which systemd puts the service's credentials (systemd.exec(5)).
fn credentials_directory() -> Option<OsString> {
    env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty())
}

/// Returns true if only this machine can connect to the address.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Returns true if the system would refuse to listen on both. Port 0 never collides, since
/// the system picks a free port; `[::]` accepts IPv4 connections too.
fn listeners_overlap(one: &ListenAddress, other: &ListenAddress) -> bool {
    let covers = |wide: SocketAddr, narrow: SocketAddr| {
        wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    let (Some(one), Some(other)) = (one.tcp_address(), other.tcp_address()) else {
        return one == other;
    };
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || covers(one, other) || covers(other, one))
}
