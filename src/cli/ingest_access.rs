//! How commands reach the ingest listener: its address, and the key that it asks for.

use std::path::{Path, PathBuf};

use sidewire_client::{AdminClient, CallFailure, Credential};

use super::{CommandFailure, credential_of, listener_urls, plain_text::plain_text};
use crate::config::Config;

/// The environment variable that holds the ingest key when no file is named.
const KEY_VARIABLE: &str = "SIDEWIRE_INGEST_KEY";

/// The flags of commands that make administrative calls.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AdminArgs {
    /// The config file of the relay, for the addresses of its listeners.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// The URL of the relay's ingest listener, or unix:PATH for a Unix socket.
    /// Defaults to the listener in --config, or http://127.0.0.1:3001 without --config.
    #[arg(long, global = true, verbatim_doc_comment)]
    pub url: Option<String>,
    /// The file with the ingest key.
    /// Defaults to the environment variable SIDEWIRE_INGEST_KEY, or no key if that is unset.
    #[arg(long, value_name = "FILE", global = true, verbatim_doc_comment)]
    pub key_file: Option<PathBuf>,
}

impl AdminArgs {
    /// Returns the configuration in the file, or the defaults.
    pub(super) fn load_config(&self) -> Result<Config, CommandFailure> {
        match &self.config {
            Some(path) => Config::load(path).map_err(|error| CommandFailure::config(&error)),
            None => Ok(Config::default()),
        }
    }

    /// Returns a client for the ingest listener of the flags, or of the configuration.
    pub(super) fn client(&self, config: &Config) -> Result<AdminClient, CommandFailure> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => listener_urls::ingest_url(config)?,
        };
        let key = ingest_key(self.key_file.as_deref())?;
        AdminClient::new(&url, key.as_ref()).map_err(call_failure)
    }
}

/// Returns the ingest key in the file, or in the environment if no file is named.
pub(super) fn ingest_key(file: Option<&Path>) -> Result<Option<Credential>, CommandFailure> {
    credential_of(file, KEY_VARIABLE)
}

/// Returns the failure of a command whose call to the relay has failed.
pub(super) fn call_failure(error: CallFailure) -> CommandFailure {
    match &error {
        CallFailure::Refused(problem) if problem.status == 401 => {
            CommandFailure::unauthorized(plain_text(&format!(
                "{error}. Pass the ingest key with --key-file or in {KEY_VARIABLE}"
            )))
        }
        // The answer may come from any server.
        _ => CommandFailure::new(plain_text(&error.to_string())),
    }
}
