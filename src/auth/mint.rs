//! Creates tokens for `sidewire token`, `sidewire dev` and tests. The relay itself only
//! verifies tokens.

use std::{fmt, time::Duration};

use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};
use sidewire_protocol::{TenantName, Topic, UserName};

use super::{
    Algorithm, Grant, KeyError, Secret, TOKEN_BYTES_MAX, TokenRules, algorithm::KeyRequirements,
    key::check_secret, pem_file,
};

/// A key that signs tokens with one algorithm.
pub struct SigningKey {
    kid: Option<String>,
    algorithm: Algorithm,
    key: EncodingKey,
}

/// The contents of a new token, in addition to the claims that the rules require.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The tenant.
    pub tenant: TenantName,
    /// The user.
    pub user: UserName,
    /// `exp`, as time since the Unix epoch; fractions of a second are dropped.
    pub expires_at: Option<Duration>,
    /// The granted topics, exact or `kind:*`; `None` grants everything.
    pub topics: Option<Vec<Topic>>,
    /// The topics to subscribe to when the client connects, exact or `kind:*`; `None` leaves out
    /// the claim.
    pub subscribe: Option<Vec<Topic>>,
}

/// An error in creating a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The token would need two different values for one claim.
    #[error("the claim `{claim}` would need two different values")]
    ClaimTwice {
        /// The claim's name.
        claim: String,
    },
    /// The rules require `exp`, and the token has none.
    #[error("the relay requires tokens to expire, but this token would not")]
    NoExpiry,
    /// The token is so large that the relay would refuse it.
    #[error("the token would have more than {TOKEN_BYTES_MAX} bytes; grant whole kinds instead")]
    TooLong,
    /// The token subscribes to a topic that it may not subscribe to, so the relay would refuse it.
    #[error("the token cannot subscribe to {topic}, which {reason}")]
    NotGranted {
        /// The topic.
        topic: Topic,
        /// The reason why it may not.
        reason: &'static str,
    },
    /// The library failed to sign the token.
    #[error("signing failed")]
    Signing,
}

impl SigningKey {
    /// Creates a key from a shared secret, for HS256, HS384 or HS512.
    ///
    /// # Errors
    ///
    /// Fails as [`VerificationKey::from_secret`](super::VerificationKey::from_secret) does.
    pub fn from_secret(
        algorithm: Algorithm,
        kid: Option<String>,
        secret: &Secret,
    ) -> Result<Self, KeyError> {
        check_secret(algorithm, secret)?;
        Ok(Self {
            kid,
            algorithm,
            key: EncodingKey::from_secret(secret.as_bytes()),
        })
    }

    /// Reads an unencrypted private key from the bytes of a PEM file: PKCS#8 (`BEGIN PRIVATE
    /// KEY`), or the older formats of OpenSSL (`BEGIN RSA PRIVATE KEY`, `BEGIN EC PRIVATE
    /// KEY`).
    ///
    /// # Errors
    ///
    /// Fails unless the file holds exactly one private key that fits the algorithm.
    pub fn from_private_key_pem(
        algorithm: Algorithm,
        kid: Option<String>,
        pem: &[u8],
    ) -> Result<Self, KeyError> {
        if algorithm.is_symmetric() {
            return Err(KeyError::PemForSecret { algorithm });
        }
        Ok(Self {
            kid,
            algorithm,
            key: library_key(algorithm, pem)?,
        })
    }

    /// Creates a token that is accepted by a relay with these rules and the secret or public
    /// key that belongs to this key.
    ///
    /// # Errors
    ///
    /// Fails if the rules contradict the token or each other, if the token is too large, or if
    /// signing fails.
    pub fn mint(&self, token: &NewToken, rules: &TokenRules) -> Result<String, MintError> {
        if rules.require_exp && token.expires_at.is_none() {
            return Err(MintError::NoExpiry);
        }
        check_subscriptions(token)?;
        let mut header = Header::new(self.algorithm.library_algorithm());
        header.kid.clone_from(&self.kid);
        let token = jsonwebtoken::encode(&header, &build_claims(token, rules)?, &self.key)
            .map_err(|_| MintError::Signing)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(MintError::TooLong);
        }
        Ok(token)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Converts the key to the library's format: PKCS#1 for RSA, PKCS#8 for the others.
fn library_key(algorithm: Algorithm, file: &[u8]) -> Result<EncodingKey, KeyError> {
    let der = pem_file::private_key(file)?;
    let key = match algorithm.key_requirements() {
        KeyRequirements::Hmac { .. } => None,
        KeyRequirements::Rsa => EncodingKey::from_rsa_pem(file)
            .ok()
            .filter(|key| RsaKeyPair::from_der(key.as_bytes()).is_ok()),
        KeyRequirements::Ec { signing, .. } => EcdsaKeyPair::from_private_key_der(signing, &der)
            .ok()
            .and_then(|pair| pair.to_pkcs8v1().ok())
            .map(|pkcs8| EncodingKey::from_ec_der(pkcs8.as_ref())),
        KeyRequirements::Ed => Ed25519KeyPair::from_pkcs8(&der)
            .is_ok()
            .then(|| EncodingKey::from_ed_der(&der)),
    };
    key.ok_or(KeyError::Rejected { algorithm })
}

/// Checks that the token may subscribe to each topic that it subscribes to.
fn check_subscriptions(token: &NewToken) -> Result<(), MintError> {
    let topics = token.topics.clone();
    let grant = topics.map_or(Grant::Everything, Grant::from_topics);
    let refused = token.subscribe.iter().flatten().find_map(|topic| {
        let reason = grant.refusal_reason(topic)?;
        let topic = topic.clone();
        Some(MintError::NotGranted { topic, reason })
    });
    refused.map_or(Ok(()), Err)
}

fn topic_texts(topics: &[Topic]) -> Value {
    topics.iter().map(Topic::as_str).collect()
}

fn build_claims(token: &NewToken, rules: &TokenRules) -> Result<Map<String, Value>, MintError> {
    let expires_at = token.expires_at.map(|end| end.as_secs());
    let topics = token.topics.as_deref().map(topic_texts);
    let subscribe = token.subscribe.as_deref().map(topic_texts);
    let wanted: [(&str, Option<Value>); 7] = [
        (&rules.tenant_claim, Some(token.tenant.as_str().into())),
        (&rules.user_claim, Some(token.user.as_str().into())),
        ("exp", expires_at.map(Value::from)),
        ("iss", rules.issuer.clone().map(Value::from)),
        ("aud", rules.audience.clone().map(Value::from)),
        (&rules.topics_claim, topics),
        (&rules.subscribe_claim, subscribe),
    ];
    let mut claims = Map::new();
    for (name, value) in wanted {
        let Some(value) = value else { continue };
        let old = claims.insert(name.to_owned(), value.clone());
        if old.is_some_and(|old| old != value) {
            let claim = name.to_owned();
            return Err(MintError::ClaimTwice { claim });
        }
    }
    Ok(claims)
}
