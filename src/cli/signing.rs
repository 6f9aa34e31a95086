//! The flags for signing tokens.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::CommandFailure;
use crate::auth::{Algorithm, Secret, SigningKey, TokenRules, read_file};

/// The ids of the arguments that name a key file.
pub(super) const KEYS: [&str; 2] = ["secret_file", "private_key_file"];

/// The key that tokens are signed with, and the claims about their issuer.
#[derive(Debug, clap::Args)]
pub struct SigningArgs {
    /// The file with the secret shared with the relay, for HS256, HS384 and HS512.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// The file with the private key (PEM), for all other algorithms.
    #[arg(
        long,
        value_name = "FILE",
        requires = "algorithm",
        conflicts_with = "secret_file"
    )]
    pub private_key_file: Option<PathBuf>,
    /// The signing algorithm [default: HS256].
    #[arg(long, value_parser = algorithms())]
    pub algorithm: Option<Algorithm>,
    /// The key ID to put into the token's header (`kid`).
    #[arg(long)]
    pub kid: Option<String>,
    /// The issuer (claim `iss`).
    #[arg(long)]
    pub issuer: Option<String>,
    /// The audience (claim `aud`).
    #[arg(long)]
    pub audience: Option<String>,
}

impl SigningArgs {
    /// Returns the key; `None` if no file is named.
    pub(super) fn signing_key(&self) -> Result<Option<SigningKey>, CommandFailure> {
        let algorithm = self.algorithm.unwrap_or(Algorithm::HS256);
        let kid = self.kid.clone();
        let in_file =
            |path: &Path, error| CommandFailure::new(format!("{}: {error}", path.display()));
        let key = match (&self.secret_file, &self.private_key_file) {
            (Some(path), _) => {
                let secret = Secret::from_file(path).map_err(CommandFailure::new)?;
                SigningKey::from_secret(algorithm, kid, &secret)
                    .map_err(|error| in_file(path, error))
            }
            (None, Some(path)) => {
                let pem = read_file(path).map_err(CommandFailure::new)?;
                SigningKey::from_private_key_pem(algorithm, kid, &pem)
                    .map_err(|error| in_file(path, error))
            }
            (None, None) => return Ok(None),
        };
        key.map(Some)
    }

    /// Returns the rules for the claims, which have the relay's default names.
    pub(super) fn token_rules(&self) -> TokenRules {
        TokenRules {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            ..TokenRules::default()
        }
    }
}

fn algorithms() -> impl TypedValueParser<Value = Algorithm> {
    PossibleValuesParser::new(Algorithm::ALL.map(Algorithm::as_str))
        .try_map(|name| name.parse::<Algorithm>())
}
