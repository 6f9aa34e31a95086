//! `sidewire check`: tests a config file as the relay would read it, and compares its schema
//! with that of a running relay.

use std::{
    ffi::CString,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytesize::ByteSize;
use nix::{
    errno::Errno,
    unistd::{Uid, User, initgroups, setgid, setuid},
};
use sidewire_protocol::{
    clock::Clock,
    schema::{Schema, SchemaSource},
};

use super::{CommandFailure, write_result};
use crate::{
    config::{Config, ConfigError},
    relay::LiveSettings,
    setup::{self, RelaySetup},
};

/// The flags of `sidewire check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidewire check --config /etc/sidewire/sidewire.toml
  sidewire check --config /etc/sidewire/sidewire.toml --user sidewire
  sidewire check --config sidewire.toml --against /srv/deployed/sidewire.toml
  sidewire check --config sidewire.toml --against-descriptor-set deployed.binpb

Each error has the file, the line and a hint. Warnings about the schema, the certificate and the
files of secrets, and notes about the schema, go to standard output and do not change the exit
status.
With --against it also lists every change for which a running relay would refuse the new schema
on SIGHUP.
Exit status: 0 if the relay would start with the config and, with --against, would apply its schema
on SIGHUP; 1 if not.")]
pub struct CheckArgs {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The relay's user. All files are read as this user, with its groups, so that those
    /// that it may not read are reported. Needs root.
    #[arg(long, value_name = "USER", verbatim_doc_comment)]
    pub user: Option<String>,
    /// The config file of the running relay, to compare the schemas of both.
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// The schema of the running relay as a descriptor set, from protoc or buf.
    /// Its envelope has the same name as the one in --config.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "against",
        verbatim_doc_comment
    )]
    pub against_descriptor_set: Option<PathBuf>,
}

/// Reads the config file and every file that it names.
pub(super) fn run(args: &CheckArgs) -> Result<(), CommandFailure> {
    if let Some(user) = &args.user {
        become_user(user)
            .map_err(|reason| CommandFailure::new(format!("--user: {user:?} {reason}")))?;
    }
    let live = RelaySetup::load(&args.config)
        .map_err(|error| CommandFailure::config(&error))?
        .live;
    let running = running_schema(args, live.schema.envelope_name())?;
    let now = Clock::system().unix_seconds();
    let mut report = check_report(&live, &args.config, now).map_err(CommandFailure::new)?;
    let comparison = running.map(|(running, path)| compare_schemas(args, &live, running, path));
    if let Some(Ok(line)) = &comparison {
        report.push('\n');
        report.push_str(line);
    }
    write_result(&mut io::stdout(), &report)?;
    comparison
        .transpose()
        .map(drop)
        .map_err(CommandFailure::new)
}

/// Gives up the rights of root for those of a user and its groups.
///
/// # Errors
///
/// Says why not, in words that follow the user's name.
fn become_user(name: &str) -> Result<(), String> {
    let user = match User::from_name(name) {
        Ok(Some(user)) => user,
        Ok(None) => return Err("is not a user of this system".to_owned()),
        Err(error) => return Err(format!("cannot be looked up: {error}")),
    };
    if user.uid == Uid::effective() {
        return Ok(());
    }
    let changed = CString::new(name).map(|name| {
        initgroups(&name, user.gid)
            .and_then(|()| setgid(user.gid))
            .and_then(|()| setuid(user.uid))
    });
    match changed {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Errno::EPERM)) => Err("can be used by root only; use sudo".to_owned()),
        Ok(Err(error)) => Err(format!("cannot be used: {error}")),
        Err(error) => Err(format!("is not a name: {error}")),
    }
}

/// Returns the schema to compare with, and the file that names it. `envelope` is the full name
/// of the new schema's envelope.
fn running_schema<'a>(
    args: &'a CheckArgs,
    envelope: &str,
) -> Result<Option<(Schema, &'a Path)>, CommandFailure> {
    if let Some(path) = &args.against {
        let config = Config::load(path).map_err(|error| CommandFailure::config(&error))?;
        let schema = setup::load_schema(&config)
            .map_err(|error| CommandFailure::new(error.in_file(path)))?;
        return Ok(Some((schema, path)));
    }
    let Some(path) = &args.against_descriptor_set else {
        return Ok(None);
    };
    let source = SchemaSource::DescriptorSet {
        file: path.clone(),
        envelope: envelope.to_owned(),
    };
    let schema = super::schema_args::load_schema(&source)?;
    Ok(Some((schema, path)))
}

/// Says that a relay running with the schema of `path` would apply the new schema on SIGHUP.
///
/// # Errors
///
/// When that relay would refuse the new schema.
fn compare_schemas(
    args: &CheckArgs,
    new: &LiveSettings,
    running: Schema,
    path: &Path,
) -> Result<String, ConfigError> {
    let running = Arc::new(running);
    let schema = setup::compatible_schema(&running, Arc::clone(&new.schema), &new.config)
        .map_err(|error| error.in_file(&args.config))?;
    let shown = path.display();
    Ok(if Arc::ptr_eq(&schema, &running) {
        format!("{shown}: the schema is the same")
    } else {
        format!("{shown}: a relay that runs with its schema would apply the new one on SIGHUP")
    })
}

/// Lists the warnings about the schema, the files of secrets, the certificate and the directories
/// of sockets, the schema's notes and size, and the memory limits, and says that the relay would start. `now` is the time
/// in Unix seconds.
fn check_report(live: &LiveSettings, config: &Path, now: i64) -> Result<String, std::fmt::Error> {
    let schema = &live.schema;
    let mut report = String::new();
    for diagnostic in schema.diagnostics() {
        writeln!(report, "{diagnostic}")?;
    }
    let certificate = setup::certificate_warning(live, config, now);
    let secrets = setup::secret_file_warnings(&live.config, config);
    let sockets = setup::socket_directory_warnings(&live.config, config);
    for warning in certificate.into_iter().chain(secrets).chain(sockets) {
        writeln!(report, "{warning}")?;
    }
    let messages = schema.message_count();
    let plural = if messages == 1 { "" } else { "s" };
    let compiled = schema.compile_time().as_millis();
    writeln!(
        report,
        "schema: {messages} message{plural}, compiled in {compiled} ms"
    )?;
    let memory = live.config.memory_limits();
    writeln!(
        report,
        "memory: at most {}; the logs have {} of it, message ids {}, clients and backends at least {} each; begun messages, decoding and connections at least {} each",
        ByteSize(live.config.limits.memory_max as u64),
        ByteSize(memory.window),
        ByteSize(live.config.ingest.message_id_bytes_max as u64),
        ByteSize(memory.share()),
        ByteSize(memory.small_share()),
    )?;
    write!(
        report,
        "{}: the relay would start with it",
        config.display()
    )?;
    Ok(report)
}
