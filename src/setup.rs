//! From a configuration to what it names: key files are read, the schema is
//! compiled. What comes out can be run. Opens no socket.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use crate::{
    auth::{
        Authenticator, FileError, IngestKey, IngestKeyError, IngestKeys, KeyError, Secret,
        TokenRules, VerificationKey, Verifier, VerifierError, read_file,
    },
    config::{Auth, AuthKey, AuthMode, Config, ConfigError, Ingest},
    schema::{Schema, SchemaError},
};

/// A configuration with everything that it names.
#[derive(Debug)]
pub struct Setup {
    /// What the operator decided.
    pub config: Config,
    /// The messages of the application.
    pub schema: Arc<Schema>,
    /// The way in for clients.
    pub authenticator: Authenticator,
    /// The keys of backends.
    pub ingest_keys: IngestKeys,
}

/// Why a configuration cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file cannot be read.
    #[error("{key}: {source}")]
    File {
        /// The key of the configuration that names it.
        key: String,
        /// What is the matter.
        source: FileError,
    },
    /// A file holds no key that could be used.
    #[error("{key}: {}: {source}", file.display())]
    Key {
        /// The key of the configuration that names it.
        key: String,
        /// The file.
        file: PathBuf,
        /// What is the matter.
        source: KeyError,
    },
    /// The keys cannot be used together.
    #[error("auth.keys: {0}")]
    Verifier(#[from] VerifierError),
    /// An ingest key cannot be used.
    #[error("ingest.keys: {0}")]
    IngestKey(#[from] IngestKeyError),
    /// The schema cannot be used.
    #[error("the schema: {0}")]
    Schema(#[from] SchemaError),
}

impl Setup {
    /// Reads what the configuration names.
    ///
    /// # Errors
    ///
    /// When it contradicts itself, or something that it names cannot be used.
    pub fn new(config: Config) -> Result<Self, SetupError> {
        config.check()?;
        Ok(Self {
            schema: Arc::new(Schema::bundled()?),
            authenticator: authenticator(&config.auth)?,
            ingest_keys: ingest_keys(&config.ingest)?,
            config,
        })
    }
}

fn authenticator(auth: &Auth) -> Result<Authenticator, SetupError> {
    match auth.mode {
        AuthMode::None => Ok(Authenticator::Open),
        AuthMode::Jwt => {
            let mut keys = Vec::new();
            for (index, key) in auth.keys.iter().enumerate() {
                keys.extend(verification_keys(index, key)?);
            }
            Ok(Authenticator::Tokens(Verifier::new(keys, rules(auth))?))
        }
    }
}

fn verification_keys(index: usize, key: &AuthKey) -> Result<Vec<VerificationKey>, SetupError> {
    let place = |name: &str| format!("auth.keys[{index}].{name}");
    match key {
        AuthKey::Secret {
            file,
            algorithm,
            kid,
        } => {
            let secret = Secret::read(file).map_err(in_file(place("secret_file")))?;
            VerificationKey::from_secret(*algorithm, kid.clone(), &secret)
                .map(|key| vec![key])
                .map_err(no_key(place("secret_file"), file))
        }
        AuthKey::PublicKey {
            file,
            algorithm,
            kid,
        } => {
            let pem = read_file(file).map_err(in_file(place("public_key_file")))?;
            VerificationKey::from_public_key_pem(*algorithm, kid.clone(), &pem)
                .map(|key| vec![key])
                .map_err(no_key(place("public_key_file"), file))
        }
        AuthKey::Jwks { file } => {
            let json = read_file(file).map_err(in_file(place("jwks_file")))?;
            VerificationKey::from_jwks(&json).map_err(no_key(place("jwks_file"), file))
        }
    }
}

fn in_file(key: String) -> impl FnOnce(FileError) -> SetupError {
    move |source| SetupError::File { key, source }
}

fn no_key(key: String, file: &std::path::Path) -> impl FnOnce(KeyError) -> SetupError {
    let file = file.to_owned();
    move |source| SetupError::Key { key, file, source }
}

fn rules(auth: &Auth) -> TokenRules {
    TokenRules {
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
        leeway: auth.leeway,
        require_exp: auth.require_exp,
        tenant_claim: auth.tenant_claim.as_str().into(),
        user_claim: auth.user_claim.as_str().into(),
        topics_claim: auth.topics_claim.as_str().into(),
    }
}

fn ingest_keys(ingest: &Ingest) -> Result<IngestKeys, SetupError> {
    let mut keys = Vec::new();
    for (index, key) in ingest.keys.iter().enumerate() {
        let secret = Secret::read(&key.key_file)
            .map_err(in_file(format!("ingest.keys[{index}].key_file")))?;
        let tenants = key
            .tenants
            .as_ref()
            .map(|tenants| tenants.iter().cloned().collect::<HashSet<_>>());
        keys.push(IngestKey::new(key.name.clone(), &secret, tenants)?);
    }
    Ok(IngestKeys::new(keys)?)
}
