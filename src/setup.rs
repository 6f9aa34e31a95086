//! Loads everything that a configuration names: reads key files and compiles the schema. The
//! result is ready to run. Opens no socket.

mod certificate;
mod keys;
mod secret_files;
mod socket_directories;

use std::{
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(crate) use self::{
    certificate::{certificate_warning, log_certificate_problem},
    secret_files::secret_file_warnings,
    socket_directories::socket_directory_warnings,
};

use rustls::ServerConfig;
use sidewire_protocol::schema::{BreakingChange, Schema, SchemaError};

use crate::{
    auth::{IngestKeyError, KeyError, KeyFileError, SharedKeyError, VerifierError, read_file},
    backend::BackendKeyError,
    config::{self, Config, ConfigError, ListenAddress},
    inspector::DevAccess,
    relay::LiveSettings,
    tls::{self, ChainValidity, TlsError},
    window_file,
};

/// A configuration with everything that it names loaded.
#[derive(Debug)]
pub struct RelaySetup {
    /// The parts that a reload may change, including the configuration itself.
    pub live: LiveSettings,
    /// The group ids of the Unix sockets.
    pub socket_groups: SocketGroups,
    /// What `sidewire dev` hands to the inspector; `None` for any other relay.
    pub dev: Option<DevAccess>,
}

/// The group ids of the Unix sockets; `None` for the relay's own group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketGroups {
    /// Group id of `ingest.socket_group`.
    pub ingest: Option<u32>,
    /// Group id of `ops.socket_group`.
    pub ops: Option<u32>,
}

/// An error in loading what a configuration names.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file, group or schema that the configuration names cannot be used.
    #[error("{key}: {fault}")]
    Unusable {
        /// The configuration key that names it.
        key: String,
        /// The problem.
        fault: SetupFault,
    },
}

/// A problem with a file, group or schema that a configuration names.
#[derive(Debug, thiserror::Error)]
pub enum SetupFault {
    /// Another kind of file exists at the path of a Unix socket.
    #[error("the file at {} is not a socket", .0.display())]
    NoSocket(PathBuf),
    /// Something that is not a regular file exists at the path of a file that the relay writes.
    #[error("{} exists and is not a regular file", .0.display())]
    NoFile(PathBuf),
    /// Another kind of file exists at the path of the window.
    #[error("{} exists and is not a window file", .0.display())]
    NoWindow(PathBuf),
    /// A key file cannot be read.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// A file holds no usable key.
    #[error("{}: {source}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// The problem.
        source: KeyError,
    },
    /// The keys of clients cannot be used together.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    /// An ingest key cannot be used.
    #[error(transparent)]
    IngestKey(#[from] IngestKeyError),
    /// The key of the inspector cannot be used.
    #[error("the key in {} {source}", file.display())]
    InspectorKey {
        /// The file.
        file: PathBuf,
        /// The problem.
        source: SharedKeyError,
    },
    /// The key of a backend cannot be used.
    #[error("{}: {source}", file.display())]
    BackendKey {
        /// The file.
        file: PathBuf,
        /// The problem.
        source: BackendKeyError,
    },
    /// The schema cannot be used.
    #[error("the schema cannot be used, {}:\n{error}", error_count_text(error))]
    Schema {
        /// The errors in the schema.
        error: SchemaError,
    },
    /// The new schema would break connected clients or events in the log.
    #[error("the new schema would break connected clients or events in the log\n{}", indented_lines(.0))]
    BreakingChanges(Vec<BreakingChange>),
    /// A certificate or its key cannot be used.
    #[error("{} {source}", file.display())]
    Tls {
        /// The file.
        file: PathBuf,
        /// The problem.
        source: TlsError,
    },
    /// The group does not exist or cannot be looked up.
    #[error("{group:?} {reason}")]
    Group {
        /// Name or number of the group.
        group: String,
        /// The problem.
        reason: String,
    },
}

fn error_count_text(error: &SchemaError) -> String {
    match error.error_count() {
        1 => "1 error".to_owned(),
        count => format!("{count} errors"),
    }
}

fn indented_lines(changes: &[BreakingChange]) -> String {
    let lines = changes.iter().map(|change| format!("  {change}"));
    lines.collect::<Vec<_>>().join("\n")
}

impl SetupFault {
    /// Returns advice on how to fix the problem, if the message itself gives none.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File(_) => Some(
                "a relative path starts at the directory of this file, and the relay's user must be allowed to read the file",
            ),
            Self::Key { .. } | Self::Verifier(_) => {
                Some("config.example.toml shows the kinds of [[auth.keys]] and what each needs")
            }
            Self::IngestKey(_) => Some(
                "each of [[ingest.keys]] needs its own key of 16 or more visible ASCII characters",
            ),
            Self::InspectorKey { .. } => {
                Some("a file with one line, which people paste into the page")
            }
            Self::BackendKey { .. } => {
                Some("a file with one line, which is sent after \"Authorization: Bearer \"")
            }
            Self::Tls { .. } => Some(
                "cert_file is PEM with the certificate first, followed by its intermediates; key_file is PEM with its private key",
            ),
            Self::Group { .. } => Some("give the name or number of a group, as in /etc/group"),
            Self::NoSocket(_) | Self::NoFile(_) | Self::NoWindow(_) => {
                Some("use another path, or remove the file")
            }
            Self::Schema { .. } => None,
            Self::BreakingChanges(_) => Some(
                "undo these changes, or apply them with a restart, after which clients that know the old schema may misread events",
            ),
        }
    }
}

impl RelaySetup {
    /// Loads the configuration file and everything that it names.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is invalid, or names something that cannot be used.
    /// The error has the line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::new(Config::load(path)?).map_err(|error| error.in_file(path))
    }

    /// Loads everything that the configuration names.
    ///
    /// # Errors
    ///
    /// Fails if the configuration contradicts itself, or names something that cannot be used.
    pub fn new(config: Config) -> Result<Self, SetupError> {
        config.check()?;
        check_socket_path("ingest.listen", &config.ingest.listen)?;
        check_socket_path("ops.listen", &config.ops.listen)?;
        check_window_path(config.replay.keep_file.as_deref())?;
        Ok(Self {
            socket_groups: SocketGroups {
                ingest: resolve_group(
                    "ingest.socket_group",
                    config.ingest.socket_group.as_deref(),
                )?,
                ops: resolve_group("ops.socket_group", config.ops.socket_group.as_deref())?,
            },
            live: {
                let schema = Arc::new(load_schema(&config)?);
                load_live(config, schema)?
            },
            dev: None,
        })
    }
}

/// Checks that no other kind of file exists at the path of a Unix socket. Its directory may be
/// missing, since systemd may create it when it starts the relay.
fn check_socket_path(key: &str, listen: &ListenAddress) -> Result<(), SetupError> {
    match listen {
        ListenAddress::Unix(path)
            if std::fs::symlink_metadata(path)
                .is_ok_and(|found| !found.file_type().is_socket()) =>
        {
            Err(SetupError::new(key, SetupFault::NoSocket(path.clone())))
        }
        _ => Ok(()),
    }
}

/// Checks that nothing else is where the relay keeps its window. The directory may be missing,
/// since systemd may create it when it starts the relay.
fn check_window_path(path: Option<&Path>) -> Result<(), SetupError> {
    let refuse = |fault| Err(SetupError::new("replay.keep_file", fault));
    match path {
        Some(path) if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) => {
            refuse(SetupFault::NoFile(path.to_owned()))
        }
        Some(path) if window_file::is_another_file(path) => {
            refuse(SetupFault::NoWindow(path.to_owned()))
        }
        _ => Ok(()),
    }
}

impl SetupError {
    fn new(key: impl Into<String>, fault: impl Into<SetupFault>) -> Self {
        Self::Unusable {
            key: key.into(),
            fault: fault.into(),
        }
    }

    /// Converts the error into one with the file and the line of the key.
    pub(crate) fn in_file(self, path: &Path) -> ConfigError {
        match self {
            Self::Config(error) => error,
            Self::Unusable { key, fault } => {
                ConfigError::refused_at(path, &key, &fault, fault.hint())
            }
        }
    }
}

/// Loads the parts that a reload may change, with a schema that is already loaded.
///
/// # Errors
///
/// Fails if something that the configuration names cannot be used.
pub fn load_live(config: Config, schema: Arc<Schema>) -> Result<LiveSettings, SetupError> {
    let tls = config.client.tls.as_ref().map(server_tls).transpose()?;
    let (tls, certificate) = tls.unzip();
    Ok(LiveSettings {
        schema,
        authenticator: keys::build_authenticator(&config)?,
        ingest_keys: keys::ingest_keys(&config.ingest)?,
        subscribe_backend: keys::subscribe_backend(&config)?,
        inspector_key: keys::inspector_key(&config)?,
        tls,
        certificate: certificate.flatten(),
        config,
    })
}

/// Returns the schema to use after a reload that has loaded `new`: `running` if both have the
/// same revision, else `new`.
///
/// # Errors
///
/// Fails if the new schema would break connected clients or events in the log; the error lists
/// all breaking changes.
pub fn compatible_schema(
    running: &Arc<Schema>,
    new: Arc<Schema>,
    config: &Config,
) -> Result<Arc<Schema>, SetupError> {
    if new.revision() == running.revision() {
        return Ok(Arc::clone(running));
    }
    let changes = running.breaking_changes(&new);
    if changes.is_empty() {
        return Ok(new);
    }
    let key = config.schema.blamed_key();
    Err(SetupError::new(key, SetupFault::BreakingChanges(changes)))
}

/// Loads and compiles the schema that the configuration names.
///
/// # Errors
///
/// Fails if the schema cannot be used; the error lists everything that is wrong with it.
pub fn load_schema(config: &Config) -> Result<Schema, SetupError> {
    let section = &config.schema;
    let load = section.source().load();
    load.map_err(|error| SetupError::new(section.blamed_key(), SetupFault::Schema { error }))
}

/// The TLS configuration of the client listener, and the validity of its certificate.
type ServerTls = (Arc<ServerConfig>, Option<ChainValidity>);

/// Loads the certificate and the key of the client listener.
fn server_tls(files: &config::TlsFiles) -> Result<ServerTls, SetupError> {
    let config::TlsFiles {
        cert_file,
        key_file,
    } = files;
    let chain = tls_file("client.tls.cert_file", cert_file, tls::parse_certificates)?;
    let key = tls_file("client.tls.key_file", key_file, tls::parse_private_key)?;
    let validity = ChainValidity::of(&chain);
    let made = tls::server_config(chain, key).map(|made| (made, validity));
    made.map_err(|source| {
        let (key, file) = match source {
            TlsError::Unusable(rustls::Error::InvalidCertificate(_)) => {
                ("client.tls.cert_file", cert_file)
            }
            _ => ("client.tls.key_file", key_file),
        };
        let file = file.clone();
        SetupError::new(key, SetupFault::Tls { file, source })
    })
}

fn tls_file<T>(
    key: &str,
    file: &Path,
    read: impl FnOnce(&[u8]) -> Result<T, TlsError>,
) -> Result<T, SetupError> {
    let bytes = read_file(file).map_err(|error| SetupError::new(key, error))?;
    read(&bytes).map_err(|source| {
        let file = file.to_owned();
        SetupError::new(key, SetupFault::Tls { file, source })
    })
}

/// Returns the id of the group that a key of the configuration names.
fn resolve_group(key: &str, group: Option<&str>) -> Result<Option<u32>, SetupError> {
    let Some(group) = group else {
        return Ok(None);
    };
    group_id(group).map(Some).map_err(|reason| {
        let group = group.to_owned();
        SetupError::new(key, SetupFault::Group { group, reason })
    })
}

/// Returns the id of a group that is given by name or number.
///
/// # Errors
///
/// Says why there is no such group, in words that follow its name.
pub(crate) fn group_id(group: &str) -> Result<u32, String> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        Ok(None) => Err("is not a group of this system".to_owned()),
        Err(error) => Err(format!("cannot be looked up: {error}")),
    }
}
