//! `[auth]`: how clients authenticate. Names the key files but never reads one, so nothing
//! here is secret.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{
    error::ConfigProblems,
    paths::PathResolver,
    reload::{live, restart},
    section::config_section,
    subscribe::SubscribeSection,
    values::{self, KIB, MIB},
};
use crate::auth::{Algorithm, JwksUrl};

config_section! {
    /// The `[auth]` section.
    pub struct AuthSection("auth") {
        /// The way in which clients authenticate; `jwt`.
        restart mode: AuthMode = AuthMode::Jwt;
        /// Required value of the claim `iss`; not checked if `None`, the default.
        live issuer: Option<String> = None;
        /// Value that the claim `aud` must equal or contain; not checked if `None`, the default.
        live audience: Option<String> = None;
        /// Tolerated clock difference between issuer and relay when `exp` and `nbf` are checked;
        /// 5 s.
        #[serde(deserialize_with = "values::duration")]
        live leeway: Duration = Duration::from_secs(5), check_duration_or_zero();
        /// True if a token must have the claim `exp`; default: `true`.
        live require_exp: bool = true;
        /// Name of the claim with the tenant; `tenant_id`.
        live tenant_claim: String = "tenant_id".to_owned();
        /// Name of the claim with the user; `user_id`.
        live user_claim: String = "user_id".to_owned();
        /// Name of the claim with the topics that a client may subscribe to; `topics`.
        live topics_claim: String = "topics".to_owned();
        /// Name of the claim with the topics that a client is subscribed to when it connects;
        /// `subscribe`.
        live subscribe_claim: String = "subscribe".to_owned();
        /// True if a connection is closed when a reload removes the key that verified its token;
        /// default: `false`.
        live close_on_key_removal: bool = false;
        /// Timeout for fetching a `jwks_url`; 5 s.
        #[serde(deserialize_with = "values::duration")]
        live jwks_timeout: Duration = Duration::from_secs(5), check_duration();
        /// Maximum size of a fetched key set; 256 KiB.
        #[serde(deserialize_with = "values::size")]
        live jwks_max: usize = 256 * KIB, check_size(1..=16 * MIB);
        /// Interval between fetches; 15 min.
        #[serde(deserialize_with = "values::duration")]
        live jwks_refresh: Duration = Duration::from_mins(15), check_duration();
        /// Minimum time between fetches caused by tokens with an unknown `kid`, and after a failed
        /// fetch; 30 s.
        #[serde(deserialize_with = "values::duration")]
        live jwks_cooldown: Duration = Duration::from_secs(30), check_duration();
        /// `[auth.subscribe]`: the backend that is asked whether a client may subscribe.
        live subscribe: SubscribeSection = SubscribeSection::default();
        /// `[[auth.keys]]`: the keys that verify tokens, in the order in which they are tried;
        /// none by default.
        live keys: Vec<AuthKey> = Vec::new();
    }
}

/// The way in which clients authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// With a JSON Web Token (RFC 7519).
    Jwt,
    /// No authentication: desktop mode, on loopback only.
    None,
}

/// An entry of `[[auth.keys]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawAuthKey")]
pub enum AuthKey {
    /// A secret that issuer and relay share.
    Secret {
        /// `secret_file`: the file with the raw bytes of the secret.
        file: PathBuf,
        /// The only algorithm that the secret is used with: HS256, HS384 or HS512.
        algorithm: Algorithm,
        /// `kid` of the tokens that it verifies; if `None`, it is tried for all tokens.
        kid: Option<String>,
    },
    /// The public half of the issuer's key.
    PublicKey {
        /// `public_key_file`: the file with the key as PEM.
        file: PathBuf,
        /// The only algorithm that the key is used with; not an HMAC.
        algorithm: Algorithm,
        /// `kid` of the tokens that it verifies; if `None`, it is tried for all tokens.
        kid: Option<String>,
    },
    /// A set of keys, each with its own algorithm and `kid`.
    Jwks {
        /// `jwks_file`: the file with a JSON Web Key Set (RFC 7517).
        file: PathBuf,
    },
    /// A set of keys that is fetched from its issuer.
    JwksUrl {
        /// `jwks_url`: the URL of the set; `https`, or `http` on loopback.
        url: JwksUrl,
    },
}

impl AuthSection {
    pub(super) fn check(&self, problems: &mut ConfigProblems) {
        self.check_bounds(problems);
        self.subscribe.check(problems);
        match self.mode {
            AuthMode::Jwt => self.check_jwt(problems),
            AuthMode::None => self.check_none(problems),
        }
    }

    pub(super) fn resolve_paths(&mut self, paths: &PathResolver, problems: &mut ConfigProblems) {
        for (index, key) in self.keys.iter_mut().enumerate() {
            let (name, file) = match key {
                AuthKey::Secret { file, .. } => ("secret_file", file),
                AuthKey::PublicKey { file, .. } => ("public_key_file", file),
                AuthKey::Jwks { file } => ("jwks_file", file),
                AuthKey::JwksUrl { .. } => continue,
            };
            paths.resolve(format!("auth.keys[{index}].{name}"), file, problems);
        }
        self.subscribe.resolve_paths(paths, problems);
    }

    fn check_jwt(&self, problems: &mut ConfigProblems) {
        if self.keys.is_empty() {
            problems.add_problem(
                "auth.keys",
                "there is none, but mode = \"jwt\" needs a key to verify tokens with",
                "add [[auth.keys]] with a secret_file, public_key_file, jwks_file or jwks_url",
            );
        }
        for (index, key) in self.keys.iter().enumerate() {
            let earlier = self.keys.iter().take(index);
            if let AuthKey::JwksUrl { url } = key
                && earlier.clone().any(|other| other == key)
            {
                problems.add_problem(
                    format!("auth.keys[{index}].jwks_url"),
                    format!("is {url}, which another key has already"),
                    "name each key set once",
                );
            }
        }
        let texts = [
            ("auth.issuer", self.issuer.as_ref()),
            ("auth.audience", self.audience.as_ref()),
            ("auth.tenant_claim", Some(&self.tenant_claim)),
            ("auth.user_claim", Some(&self.user_claim)),
            ("auth.topics_claim", Some(&self.topics_claim)),
            ("auth.subscribe_claim", Some(&self.subscribe_claim)),
        ];
        for (key, text) in texts {
            if text.is_some_and(String::is_empty) {
                problems.add_problem(key, "is empty", "give it a value or leave the key out");
            }
        }
    }

    /// Reports settings that would check a token, or what its user may do: with mode `none` there
    /// is one user, who may do everything.
    fn check_none(&self, problems: &mut ConfigProblems) {
        let given = [
            ("auth.keys", !self.keys.is_empty()),
            ("auth.issuer", self.issuer.is_some()),
            ("auth.audience", self.audience.is_some()),
            ("auth.subscribe.url", self.subscribe.url.is_some()),
        ];
        for (key, _) in given.into_iter().filter(|(_, given)| *given) {
            problems.add_problem(
                key,
                "has no effect, since mode = \"none\" has one user, who needs no token",
                "remove it, or set mode = \"jwt\"",
            );
        }
    }
}

/// An entry of `[[auth.keys]]` as it is in the file, not yet checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuthKey {
    secret_file: Option<PathBuf>,
    public_key_file: Option<PathBuf>,
    jwks_file: Option<PathBuf>,
    jwks_url: Option<JwksUrl>,
    algorithm: Option<Algorithm>,
    kid: Option<String>,
}

/// An error in an entry of `[[auth.keys]]`.
#[derive(Debug, thiserror::Error)]
enum AuthKeyError {
    #[error("needs exactly one of `secret_file`, `public_key_file`, `jwks_file` and `jwks_url`")]
    NotOneFile,
    #[error("needs an `algorithm`, such as {0}; a token cannot choose its own")]
    NoAlgorithm(&'static str),
    #[error("has a secret_file, which works only with HS256, HS384 or HS512")]
    NoHmac,
    #[error("has a public_key_file, which works only with RS…, PS…, ES… or EdDSA")]
    Hmac,
    #[error(
        "has a key set, whose keys have their own algorithm and kid; remove `algorithm` and `kid` here"
    )]
    NotOfSet,
    #[error("has an empty `kid`; leave it out to try the key for every token")]
    EmptyKid,
}

impl TryFrom<RawAuthKey> for AuthKey {
    type Error = AuthKeyError;

    fn try_from(raw: RawAuthKey) -> Result<Self, AuthKeyError> {
        let RawAuthKey { algorithm, kid, .. } = raw;
        if kid.as_ref().is_some_and(String::is_empty) {
            return Err(AuthKeyError::EmptyKid);
        }
        let set = match (raw.jwks_file, raw.jwks_url) {
            (Some(_), Some(_)) => return Err(AuthKeyError::NotOneFile),
            (Some(file), None) => Some(Self::Jwks { file }),
            (None, Some(url)) => Some(Self::JwksUrl { url }),
            (None, None) => None,
        };
        match (raw.secret_file, raw.public_key_file, set) {
            (Some(file), None, None) => {
                let algorithm = algorithm.ok_or(AuthKeyError::NoAlgorithm("\"HS256\""))?;
                if !algorithm.is_symmetric() {
                    return Err(AuthKeyError::NoHmac);
                }
                Ok(Self::Secret {
                    file,
                    algorithm,
                    kid,
                })
            }
            (None, Some(file), None) => {
                let algorithm = algorithm.ok_or(AuthKeyError::NoAlgorithm("\"ES256\""))?;
                if algorithm.is_symmetric() {
                    return Err(AuthKeyError::Hmac);
                }
                Ok(Self::PublicKey {
                    file,
                    algorithm,
                    kid,
                })
            }
            (None, None, Some(set)) if algorithm.is_none() && kid.is_none() => Ok(set),
            (None, None, Some(_)) => Err(AuthKeyError::NotOfSet),
            _ => Err(AuthKeyError::NotOneFile),
        }
    }
}
