//! Tokens: signed JWTs in compact form (RFC 7515, 7519), checked as RFC 8725
//! advises. Knows no HTTP and asks nobody for keys.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{
    Algorithm, Identity, TokenError, TokenRules, VerificationKey, claims,
    strict_json::{base64url, object},
};

/// The most bytes that a token may have.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The keys and the rules that tokens are held against.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: Vec<VerificationKey>,
    rules: TokenRules,
}

/// Why keys and rules make no [`Verifier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// Nothing could ever be accepted.
    #[error("there is no key to verify tokens with")]
    NoKeys,
    /// A claim that no token has.
    #[error("the name of a claim is empty")]
    EmptyClaimName,
}

impl Verifier {
    /// Accepts what one of the keys has signed, under the rules.
    ///
    /// # Errors
    ///
    /// When there is no key, or a claim's name is empty.
    pub fn new(keys: Vec<VerificationKey>, rules: TokenRules) -> Result<Self, VerifierError> {
        let names = [&rules.tenant_claim, &rules.user_claim, &rules.topics_claim];
        if keys.is_empty() {
            Err(VerifierError::NoKeys)
        } else if names.into_iter().any(|name| name.is_empty()) {
            Err(VerifierError::EmptyClaimName)
        } else {
            Ok(Self { keys, rules })
        }
    }

    /// The identity that the token gives at `now`, the time since the Unix epoch.
    ///
    /// A `kid` in the token's header selects the keys of that name; if there is
    /// none, the keys without a name are tried in order. Without a `kid` all
    /// keys are. A key is only ever tried where the token's `alg` is its own.
    ///
    /// # Errors
    ///
    /// When the token is not authentic or breaks a rule. Nothing of its claims
    /// is looked at before its signature has been verified.
    pub fn verify(&self, token: &str, now: Duration) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let parts = Parts::split(token)?;
        let header = Header::read(parts.header)?;
        if base64url(parts.signature).is_none() {
            return Err(TokenError::Malformed(
                "its signature is not base64url without padding",
            ));
        }
        let keys = self.keys_for(&header)?;
        if !keys
            .iter()
            .any(|key| key.verifies(parts.signed.as_bytes(), parts.signature))
        {
            return Err(TokenError::BadSignature);
        }
        let claims = base64url(parts.claims)
            .and_then(|json| object(&json))
            .ok_or(TokenError::Malformed(
                "its claims are not the base64url of a JSON object with each name once",
            ))?;
        claims::identity(&claims, &self.rules, now)
    }

    fn keys_for(&self, header: &Header) -> Result<Vec<&VerificationKey>, TokenError> {
        let mut keys = match &header.kid {
            Some(kid) => self.keys_named(kid)?,
            None => self.keys.iter().collect(),
        };
        keys.retain(|key| key.algorithm() == header.algorithm);
        if keys.is_empty() {
            return Err(TokenError::ForbiddenAlgorithm);
        }
        Ok(keys)
    }

    fn keys_named(&self, kid: &str) -> Result<Vec<&VerificationKey>, TokenError> {
        [Some(kid), None]
            .into_iter()
            .map(|wanted| {
                let keys = self.keys.iter().filter(|key| key.kid() == wanted);
                keys.collect::<Vec<_>>()
            })
            .find(|keys| !keys.is_empty())
            .ok_or(TokenError::UnknownKey)
    }
}

/// The three parts of a token, and the first two as they were signed.
struct Parts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    signed: &'a str,
}

impl<'a> Parts<'a> {
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

/// What a token's header says and matters here (RFC 7515, 4.1). Keys and
/// addresses of keys in it (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.
struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
}

impl Header {
    fn read(encoded: &str) -> Result<Self, TokenError> {
        let mut header =
            base64url(encoded)
                .and_then(|json| object(&json))
                .ok_or(TokenError::Malformed(
                    "its header is not the base64url of a JSON object with each name once",
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
