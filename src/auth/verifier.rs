//! Verifies tokens: signed JWTs in compact form (RFC 7515, 7519), checked as RFC 8725
//! recommends. Knows no HTTP and fetches no keys.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};

use super::{
    Algorithm, Identity, KeyFingerprint, KeySet, TokenError, TokenRules, VerificationKey, claims,
    strict_json::{decode_base64url, parse_object},
};

/// Maximum size of a token in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Maximum number of keys that a token is tried with. Each try costs a signature check, while
/// a forged token costs its sender nothing.
const KEYS_TRIED_MAX: usize = 4;

/// Verifies tokens with a set of keys and rules.
#[derive(Debug, Clone)]
pub struct TokenVerifier {
    keys: Vec<VerificationKey>,
    /// Fetched sets; their keys are tried after `keys`.
    sets: Vec<Arc<KeySet>>,
    rules: TokenRules,
}

/// An error in creating a [`TokenVerifier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// There is no key, so no token could ever be accepted.
    #[error("there is no key to verify tokens with")]
    NoKeys,
    /// The rules name a claim with an empty name.
    #[error("the name of a claim is empty")]
    EmptyClaimName,
}

impl TokenVerifier {
    /// Creates a verifier that accepts tokens signed with one of the keys, under the rules.
    ///
    /// # Errors
    ///
    /// Fails if there is no key, or if a claim's name is empty.
    pub fn new(keys: Vec<VerificationKey>, rules: TokenRules) -> Result<Self, VerifierError> {
        Self::with_sets(keys, Vec::new(), rules)
    }

    /// Creates a verifier with additional key sets, which are fetched and may be empty so far.
    ///
    /// # Errors
    ///
    /// Fails if there is neither a key nor a set, or if a claim's name is empty.
    pub fn with_sets(
        keys: Vec<VerificationKey>,
        sets: Vec<Arc<KeySet>>,
        rules: TokenRules,
    ) -> Result<Self, VerifierError> {
        let names = [
            &rules.tenant_claim,
            &rules.user_claim,
            &rules.topics_claim,
            &rules.subscribe_claim,
        ];
        if keys.is_empty() && sets.is_empty() {
            Err(VerifierError::NoKeys)
        } else if names.into_iter().any(|name| name.is_empty()) {
            Err(VerifierError::EmptyClaimName)
        } else {
            Ok(Self { keys, sets, rules })
        }
    }

    /// Verifies the token and returns its identity. `now` is the time since the Unix epoch.
    ///
    /// A `kid` in the token's header selects the keys with that `kid`; if there are none, the
    /// keys without a `kid`. Without a `kid` in the header, all keys are selected. Of these,
    /// the first four for the token's `alg` are tried in order.
    ///
    /// # Errors
    ///
    /// Fails if the token is not authentic or violates a rule. Its claims are not read before
    /// its signature has been verified.
    pub fn verify(&self, token: &str, now: Duration) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let parts = TokenParts::split(token)?;
        let header = TokenHeader::parse(parts.header)?;
        if decode_base64url(parts.signature).is_none() {
            return Err(TokenError::Malformed(
                "its signature is not base64url without padding",
            ));
        }
        let fetched = self.fetched_keys();
        let keys = self.keys_for(&header, &fetched)?;
        let key = keys
            .iter()
            .find(|key| key.verify_signature(parts.signed.as_bytes(), parts.signature))
            .ok_or(TokenError::BadSignature)?;
        let claims = decode_base64url(parts.claims)
            .and_then(|json| parse_object(&json))
            .ok_or(TokenError::Malformed(
                "its claims are not a base64url-encoded JSON object with unique names",
            ))?;
        let identity = claims::identity_from_claims(&claims, &self.rules, now)?;
        Ok(Identity {
            key: Some(key.fingerprint()),
            ..identity
        })
    }

    pub(super) fn has_no_key(&self) -> bool {
        self.keys.is_empty() && self.sets.iter().all(|set| set.keys().is_none())
    }

    pub(super) fn has_key(&self, key: KeyFingerprint) -> bool {
        let fetched = self.fetched_keys();
        self.all_keys(&fetched)
            .any(|known| known.fingerprint() == key)
    }

    pub(super) fn key_sets(&self) -> &[Arc<KeySet>] {
        &self.sets
    }

    pub(super) fn adopt_key_sets(&mut self, others: &[Arc<KeySet>]) {
        for set in &mut self.sets {
            if let Some(same) = others.iter().find(|other| other.url() == set.url()) {
                *set = Arc::clone(same);
            }
        }
    }

    /// Returns the sets that may have the token's key after another fetch: all sets if no known
    /// key has the token's `kid`; for a token without a `kid`, the sets that have not been
    /// fetched yet.
    pub(super) fn key_sets_for(&self, token: &str) -> Vec<Arc<KeySet>> {
        if self.sets.is_empty() {
            return Vec::new();
        }
        let read = |token: &str| {
            let fits = token.len() <= TOKEN_BYTES_MAX;
            let parts = fits.then(|| TokenParts::split(token).ok())??;
            TokenHeader::parse(parts.header).ok()
        };
        let Some(header) = read(token) else {
            return Vec::new();
        };
        let fetched = self.fetched_keys();
        let is_known = header.kid.as_deref().map(|kid| {
            let mut keys = self.all_keys(&fetched);
            keys.any(|key| key.kid() == Some(kid))
        });
        let is_wanted = |set: &&Arc<KeySet>| match is_known {
            Some(is_known) => !is_known,
            None => set.keys().is_none(),
        };
        self.sets.iter().filter(is_wanted).cloned().collect()
    }

    /// Returns a snapshot of the keys of the sets.
    fn fetched_keys(&self) -> Vec<Arc<Vec<VerificationKey>>> {
        self.sets.iter().filter_map(|set| set.keys()).collect()
    }

    fn all_keys<'a>(
        &'a self,
        fetched: &'a [Arc<Vec<VerificationKey>>],
    ) -> impl Iterator<Item = &'a VerificationKey> {
        self.keys
            .iter()
            .chain(fetched.iter().flat_map(|keys| keys.iter()))
    }

    fn keys_for<'a>(
        &'a self,
        header: &TokenHeader,
        fetched: &'a [Arc<Vec<VerificationKey>>],
    ) -> Result<Vec<&'a VerificationKey>, TokenError> {
        let all: Vec<_> = self.all_keys(fetched).collect();
        let mut keys = match &header.kid {
            Some(kid) => keys_named(kid, &all)?,
            None => all,
        };
        keys.retain(|key| key.algorithm() == header.algorithm);
        keys.truncate(KEYS_TRIED_MAX);
        if keys.is_empty() {
            return Err(TokenError::ForbiddenAlgorithm);
        }
        Ok(keys)
    }
}

/// Returns the keys with that `kid`, or if there are none, those without a `kid`.
fn keys_named<'a>(
    kid: &str,
    all: &[&'a VerificationKey],
) -> Result<Vec<&'a VerificationKey>, TokenError> {
    [Some(kid), None]
        .into_iter()
        .map(|wanted| {
            let keys = all.iter().filter(|key| key.kid() == wanted);
            keys.copied().collect::<Vec<_>>()
        })
        .find(|keys| !keys.is_empty())
        .ok_or(TokenError::UnknownKey)
}

/// The three parts of a token, and the first two of them as they were signed.
struct TokenParts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    signed: &'a str,
}

impl<'a> TokenParts<'a> {
    fn split(token: &'a str) -> Result<Self, TokenError> {
        let not_three = TokenError::Malformed("it does not have three parts");
        let Some((signed, signature)) = token.rsplit_once('.') else {
            return Err(not_three);
        };
        match signed.split_once('.') {
            Some((header, claims)) if !claims.contains('.') => Ok(Self {
                header,
                claims,
                signature,
                signed,
            }),
            _ => Err(not_three),
        }
    }
}

/// The parameters of a token's header that the relay uses (RFC 7515, 4.1). Keys and URLs of
/// keys in the header (`jwk`, `jku`, `x5c`, `x5u`) are ignored.
struct TokenHeader {
    algorithm: Algorithm,
    kid: Option<String>,
}

impl TokenHeader {
    fn parse(encoded: &str) -> Result<Self, TokenError> {
        let mut header = decode_base64url(encoded)
            .and_then(|json| parse_object(&json))
            .ok_or(TokenError::Malformed(
                "its header is not a base64url-encoded JSON object with unique names",
            ))?;
        if header.contains_key("crit") {
            return Err(TokenError::CriticalHeader);
        }
        let algorithm = take_string(&mut header, "alg")?
            .ok_or(TokenError::Malformed("its header has no `alg`"))?;
        Ok(Self {
            algorithm: algorithm
                .parse()
                .map_err(|_| TokenError::ForbiddenAlgorithm)?,
            kid: take_string(&mut header, "kid")?,
        })
    }
}

fn take_string(
    header: &mut Map<String, Value>,
    name: &'static str,
) -> Result<Option<String>, TokenError> {
    match header.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenError::Malformed(
            "its header has an `alg` or a `kid` that is not a string",
        )),
    }
}
