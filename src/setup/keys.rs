//! Reads the keys that a configuration names: those of clients, of backends and of the inspector.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use super::{SetupError, SetupFault};
use crate::{
    auth::{
        Authenticator, IngestKey, IngestKeys, KeySet, Secret, SharedKey, TokenRules, TokenVerifier,
        VerificationKey, read_file,
    },
    backend::BackendTarget,
    config::{self, AuthKey, AuthMode, Config, IngestSection},
};

/// Returns what authenticates clients, with the keys read.
pub(super) fn build_authenticator(config: &Config) -> Result<Authenticator, SetupError> {
    let auth = &config.auth;
    match auth.mode {
        AuthMode::None => Ok(Authenticator::Open),
        AuthMode::Jwt => {
            let (mut keys, mut sets) = (Vec::new(), Vec::new());
            for (index, key) in auth.keys.iter().enumerate() {
                let name = match key {
                    AuthKey::Secret { .. } => "secret_file",
                    AuthKey::PublicKey { .. } => "public_key_file",
                    AuthKey::Jwks { .. } => "jwks_file",
                    AuthKey::JwksUrl { .. } => "jwks_url",
                };
                if let AuthKey::JwksUrl { url } = key {
                    sets.push(Arc::new(KeySet::new(url.clone())));
                }
                let at_key = |fault| SetupError::new(format!("auth.keys[{index}].{name}"), fault);
                keys.extend(verification_keys(key).map_err(at_key)?);
            }
            TokenVerifier::with_sets(keys, sets, token_rules(config))
                .map(Authenticator::Tokens)
                .map_err(|error| SetupError::new("auth.keys", error))
        }
    }
}

/// Returns the backend that is asked about subscriptions, with its key read.
pub(super) fn subscribe_backend(config: &Config) -> Result<Option<Arc<BackendTarget>>, SetupError> {
    let subscribe = &config.auth.subscribe;
    let Some(url) = subscribe.url.clone() else {
        return Ok(None);
    };
    let at_key = |fault| SetupError::new("auth.subscribe.key_file", fault);
    let (key, file) = match &subscribe.key_file {
        Some(file) => {
            let key = Secret::from_file(file).map_err(|error| at_key(error.into()))?;
            (Some(key), file.clone())
        }
        None => (None, PathBuf::new()),
    };
    let target = BackendTarget::new(url, key.as_ref());
    let target = target.map_err(|source| at_key(SetupFault::BackendKey { file, source }))?;
    Ok(Some(Arc::new(target)))
}

fn verification_keys(key: &AuthKey) -> Result<Vec<VerificationKey>, SetupFault> {
    let (file, keys) = match key {
        AuthKey::Secret {
            file,
            algorithm,
            kid,
        } => {
            let secret = Secret::from_file(file)?;
            let key = VerificationKey::from_secret(*algorithm, kid.clone(), &secret);
            (file, key.map(|key| vec![key]))
        }
        AuthKey::PublicKey {
            file,
            algorithm,
            kid,
        } => {
            let pem = read_file(file)?;
            let key = VerificationKey::from_public_key_pem(*algorithm, kid.clone(), &pem);
            (file, key.map(|key| vec![key]))
        }
        AuthKey::Jwks { file } => (file, VerificationKey::from_jwks(&read_file(file)?)),
        // Fetched once the relay is running.
        AuthKey::JwksUrl { .. } => return Ok(Vec::new()),
    };
    keys.map_err(|source| SetupFault::Key {
        file: file.clone(),
        source,
    })
}

fn token_rules(config: &Config) -> TokenRules {
    let (auth, limits) = (&config.auth, &config.limits);
    TokenRules {
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
        leeway: auth.leeway,
        require_exp: auth.require_exp,
        tenant_claim: auth.tenant_claim.as_str().into(),
        user_claim: auth.user_claim.as_str().into(),
        topics_claim: auth.topics_claim.as_str().into(),
        subscribe_claim: auth.subscribe_claim.as_str().into(),
        subscribe_topics_max: limits
            .topics_per_subscribe
            .min(limits.topics_per_connection),
    }
}

/// Returns the keys of backends.
pub(super) fn ingest_keys(ingest: &IngestSection) -> Result<IngestKeys, SetupError> {
    let mut keys = Vec::new();
    for (index, key) in ingest.keys.iter().enumerate() {
        let at_key = |fault| SetupError::new(format!("ingest.keys[{index}].key_file"), fault);
        keys.push(ingest_key(key).map_err(at_key)?);
    }
    IngestKeys::new(keys).map_err(|error| SetupError::new("ingest.keys", error))
}

fn ingest_key(key: &config::IngestKeyEntry) -> Result<IngestKey, SetupFault> {
    let secret = Secret::from_file(&key.key_file)?;
    let tenants = key
        .tenants
        .as_ref()
        .map(|tenants| tenants.iter().cloned().collect::<HashSet<_>>());
    Ok(IngestKey::new(key.name.clone(), &secret, tenants)?)
}

/// Returns the key of the inspector.
pub(super) fn inspector_key(config: &Config) -> Result<Option<SharedKey>, SetupError> {
    let Some(file) = &config.ops.inspector_key_file else {
        return Ok(None);
    };
    let at_key = |fault| SetupError::new("ops.inspector_key_file", fault);
    let secret = Secret::from_file(file).map_err(|error| at_key(error.into()))?;
    let key = SharedKey::new(&secret).map_err(|source| {
        let file = file.clone();
        at_key(SetupFault::InspectorKey { file, source })
    });
    key.map(Some)
}
