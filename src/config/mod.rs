//! The configuration file as types: what it may say, what holds where it says
//! nothing, and which of its words contradict each other. Does not know where
//! any of it is used, and opens no file but the one that it reads.

use std::{env, ffi::OsString, net::SocketAddr, path::Path};

use bytesize::ByteSize;
use serde::Deserialize;

mod auth;
mod client;
mod document;
mod error;
mod host_name;
mod ingest;
mod jwks_url;
mod limits;
mod listen;
mod log;
mod ops;
mod origin;
mod paths;
mod reload;
mod replay;
mod schema;
mod values;

#[cfg(test)]
mod example_tests;
#[cfg(test)]
mod tests;

pub use auth::{Auth, AuthKey, AuthMode};
pub use client::{Client, Tls};
pub use error::{ConfigError, Problem};
pub use host_name::{HostName, HostNameError};
pub use ingest::{Ingest, IngestKey};
pub use jwks_url::{JwksUrl, JwksUrlError};
pub use limits::{Limits, LimitsOverride};
pub use listen::{Listen, SocketMode};
pub use log::{Log, LogFormat};
pub use ops::Ops;
pub use origin::{Origin, OriginError};
pub use replay::Replay;
pub use schema::SchemaSection;

use crate::{bounded_file, memory::MemoryLimits};
use document::Document;
use error::Problems;
use paths::Paths;

/// The most bytes that a configuration file may have: more than ten thousand overrides.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Everything that an operator can decide. Read from a file it has passed
/// [`Config::check`] and its paths are absolute; made in code it has the file's
/// defaults, which lack only the keys that `auth.mode = "jwt"` needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[client]`: the listener of the WebSocket clients.
    pub client: Client,
    /// `[auth]`: how clients prove who they are.
    pub auth: Auth,
    /// `[schema]`: what the events are, and what they relate to.
    pub schema: SchemaSection,
    /// `[limits]`: what one event, connection or process may take up.
    pub limits: Limits,
    /// `[replay]`: how much of its past a tenant's log keeps.
    pub replay: Replay,
    /// `[ingest]`: the listener of the backends.
    pub ingest: Ingest,
    /// `[ops]`: the listener for metrics and health.
    pub ops: Ops,
    /// `[log]`: what the relay tells about itself.
    pub log: Log,
}

impl Config {
    /// How the memory of `limits.memory_max` is divided. The message ids have their part of
    /// it for themselves, `ingest.message_id_bytes_max`.
    #[must_use]
    pub fn memory_limits(&self) -> MemoryLimits {
        let ids = self.ingest.message_id_bytes_max;
        MemoryLimits {
            max: self.limits.memory_max.saturating_sub(ids) as u64,
            window: self.replay.process_bytes as u64,
        }
    }

    /// The configuration that the file holds.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no regular file or has more than 1 MiB, and as
    /// [`Config::parse`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |reason| ConfigError::Unreadable {
            path: path.to_owned(),
            reason,
        };
        let text = bounded_file::read_text(path, FILE_BYTES_MAX).map_err(unreadable)?;
        let absolute = std::path::absolute(path).map_err(unreadable)?;
        let base_dir = absolute.parent().unwrap_or(&absolute);
        let paths = Paths::new(base_dir.to_owned(), credentials_directory());
        Self::read(&Document::new(&text, Some(path)), &paths)
    }

    /// The configuration that the text says; its relative paths are taken from
    /// `base_dir`.
    ///
    /// # Errors
    ///
    /// When the text is no TOML, has a key or value that does not exist, or
    /// fails [`Config::check`].
    pub fn parse(text: &str, base_dir: &Path) -> Result<Self, ConfigError> {
        let base_dir = std::path::absolute(base_dir).unwrap_or_else(|_| base_dir.to_owned());
        let paths = Paths::new(base_dir, credentials_directory());
        Self::read(&Document::new(text, None), &paths)
    }

    /// Whether the values make sense together; every problem is reported.
    ///
    /// # Errors
    ///
    /// When they do not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let problems = self.problems();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.into_error())
        }
    }

    fn read(document: &Document<'_>, paths: &Paths) -> Result<Self, ConfigError> {
        let mut config: Self = document.deserialize()?;
        let mut problems = config.problems();
        config.client.resolve(paths, &mut problems);
        config.auth.resolve(paths, &mut problems);
        config.schema.resolve(paths, &mut problems);
        config.ops.resolve(paths, &mut problems);
        config.ingest.resolve(paths, &mut problems);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(document.locate(problems))
        }
    }

    fn problems(&self) -> Problems {
        let mut problems = Problems::default();
        self.client.check(&mut problems);
        self.auth.check(&mut problems);
        self.schema.check(&mut problems);
        self.limits.check(&self.replay, &self.ingest, &mut problems);
        self.replay.check(&mut problems);
        self.ingest.check(&mut problems);
        self.ops.check(&mut problems);
        self.log.check(&mut problems);
        self.check_open_door(&mut problems);
        self.check_key_sets(&mut problems);
        self.check_bodies(&mut problems);
        self.check_listeners(&mut problems);
        problems
    }

    fn check_open_door(&self, problems: &mut Problems) {
        let listen = self.client.listen;
        if self.auth.mode == AuthMode::None && !is_loopback(listen) {
            problems.refuse(
                "auth.mode",
                format!(
                    "\"none\" lets in whoever can connect, and client.listen is {listen}, which is not loopback"
                ),
                "set client.listen = \"127.0.0.1:3000\", or mode = \"jwt\" and a key",
            );
        }
    }

    /// Who waits for a key to be fetched waits within its handshake.
    fn check_key_sets(&self, problems: &mut Problems) {
        let fetches = |key: &AuthKey| matches!(key, AuthKey::JwksUrl { .. });
        if self.auth.keys.iter().any(fetches)
            && self.auth.jwks_timeout >= self.client.handshake_timeout
        {
            problems.refuse(
                "auth.jwks_timeout",
                "is not less than client.handshake_timeout, within which a client waits for a key to be fetched",
                "make the one shorter or the other longer",
            );
        }
    }

    /// A body that can never be admitted would be answered 503, and sent again, for ever.
    fn check_bodies(&self, problems: &mut Problems) {
        let most = self.memory_limits().body_max();
        for (key, bytes) in [
            ("ingest.body_max", self.ingest.body_max),
            ("ingest.batch_body_max", self.ingest.batch_body_max),
        ] {
            // Nothing may have more than 1 GiB, which is said elsewhere.
            if bytes as u64 > most && bytes <= values::GIB {
                problems.refuse(
                    key,
                    format!(
                        "is {}, and limits.memory_max has room for bodies of {}",
                        ByteSize(bytes as u64),
                        ByteSize(most)
                    ),
                    "make it smaller, or limits.memory_max larger",
                );
            }
        }
    }

    fn check_listeners(&self, problems: &mut Problems) {
        let defaults = Self::default();
        let client = (
            "client.listen",
            Listen::Tcp(self.client.listen),
            Listen::Tcp(defaults.client.listen),
        );
        let ingest = (
            "ingest.listen",
            self.ingest.listen.clone(),
            defaults.ingest.listen,
        );
        let ops = ("ops.listen", self.ops.listen.clone(), defaults.ops.listen);
        for (one, other) in [(&client, &ingest), (&client, &ops), (&ingest, &ops)] {
            if !overlap(&one.1, &other.1) {
                continue;
            }
            // The one that the file names is the one to point at.
            let (at, with) = if other.1 == other.2 {
                (one, other)
            } else {
                (other, one)
            };
            problems.refuse(
                at.0,
                format!("{} is taken by {}, {}", at.1, with.0, with.1),
                "give each listener a port of its own",
            );
        }
    }
}

/// Where systemd has put the credentials of the service (systemd.exec(5)).
fn credentials_directory() -> Option<OsString> {
    env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty())
}

/// Whether only this machine can connect to the address.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Whether the system would refuse to listen on both. Port 0 is a free one each
/// time; `[::]` takes IPv4 connections too.
fn overlap(one: &Listen, other: &Listen) -> bool {
    let covers = |wide: SocketAddr, narrow: SocketAddr| {
        wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    let (Some(one), Some(other)) = (one.tcp(), other.tcp()) else {
        return one == other;
    };
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || covers(one, other) || covers(other, one))
}
