//! `sidewire keys`: makes the secrets that a config file names and that do not exist yet.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use sidewire_protocol::random::RandomSource;

use super::{
    CommandFailure,
    secret_file::{random_hex, write_for_group},
    write_result,
};
use crate::{
    config::{AuthKey, Config},
    setup,
};

/// The flags of `sidewire keys`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidewire keys --config sidewire.toml
  sidewire keys --config /etc/sidewire/sidewire.toml --group sidewire

The command makes each secret_file of [[auth.keys]], each key_file of [[ingest.keys]] and the
key_file of [auth.subscribe] that does not exist: 32 random bytes as 64 hexadecimal digits, without
a newline. It never changes a file that exists. Other files, such as public keys, come from
elsewhere.

Only the owner can read a new file, or with --group the owner and the members of the group.

Exit status: 0 if every secret exists in the end; 1 if not.")]
pub struct KeysArgs {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The group that may read the new files, by name or number.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

/// Makes the missing secrets, and prints one line for each secret.
pub(super) fn run(args: &KeysArgs) -> Result<(), CommandFailure> {
    let config = Config::load(&args.config).map_err(|error| CommandFailure::config(&error))?;
    let group = args.group.as_deref().map(group_id).transpose()?;
    let random = RandomSource::from_system().map_err(CommandFailure::new)?;
    let files = secret_files(&config);
    if files.is_empty() {
        let shown = args.config.display();
        return write_result(&mut io::stdout(), &format!("{shown} names no secrets")).map(drop);
    }
    for file in files {
        let outcome = make_secret(file, &random_hex(&random), group)?;
        let line = format!("{}: {outcome}", file.display());
        if !write_result(&mut io::stdout(), &line)? {
            break;
        }
    }
    Ok(())
}

fn group_id(group: &str) -> Result<u32, CommandFailure> {
    setup::group_id(group)
        .map_err(|reason| CommandFailure::new(format!("--group: {group:?} {reason}")))
}

/// Returns the files whose content the operator may choose freely.
fn secret_files(config: &Config) -> Vec<&Path> {
    let auth = config.auth.keys.iter().filter_map(|key| match key {
        AuthKey::Secret { file, .. } => Some(file),
        AuthKey::PublicKey { .. } | AuthKey::Jwks { .. } | AuthKey::JwksUrl { .. } => None,
    });
    let subscribe = config.auth.subscribe.key_file.iter();
    let ingest = config.ingest.keys.iter().map(|key| &key.key_file);
    let mut files = Vec::new();
    for file in auth.chain(subscribe).chain(ingest) {
        // Two entries may name the same file.
        if !files.contains(&file.as_path()) {
            files.push(file.as_path());
        }
    }
    files
}

/// Makes one secret, unless its file exists. Returns what happened.
fn make_secret(
    path: &Path,
    secret: &str,
    group: Option<u32>,
) -> Result<&'static str, CommandFailure> {
    let failure =
        |error: io::Error| CommandFailure::new(format!("cannot write {}: {error}", path.display()));
    match write_for_group(path, secret, group) {
        Ok(()) => Ok("created"),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // A link to a file that is missing exists too, but not to those who read it.
            fs::metadata(path).map_err(failure)?;
            Ok("exists and is unchanged")
        }
        Err(error) => Err(failure(error)),
    }
}
