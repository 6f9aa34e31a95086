//! Authentication and authorization: turns tokens and keys into an identity and its grant.
//! Knows no HTTP, no connection and no config file; `now` is always passed in.
//!
//! A [`TokenVerifier`] has the keys and the [`TokenRules`] and turns a client's JWT into an
//! [`Identity`]. An [`Authenticator`] is either a verifier or desktop mode. A [`KeySet`] has
//! the keys fetched last from an issuer; it tells when a fetch is due but does not fetch.
//! Backends authenticate with [`IngestKeys`], people who use the inspector with a [`SharedKey`]. [`SigningKey::mint`] creates tokens for the
//! command line.
//!
//! The library jsonwebtoken only verifies and makes signatures. The relay itself checks keys
//! when they are read, and claims after the signature. jsonwebtoken is built with aws-lc-rs
//! as its only cryptography provider, so none has to be installed at run time.
//!
//! Invariants: an algorithm belongs to a key and is never taken from a token; no error and no
//! `Debug` output contains a secret, a token or a claim's value.

mod algorithm;
mod authenticator;
mod claims;
mod error;
mod identity;
mod ingest_keys;
mod jwks;
mod jwks_url;
mod key;
mod key_set;
mod mint;
mod pem_file;
mod secret;
mod shared_key;
mod strict_json;
mod verifier;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use authenticator::{Authenticator, Credentials, DESKTOP_NAME};
pub(crate) use claims::check_user_name;
pub use claims::{EXPIRY_AHEAD_MAX, TokenRules};
pub use error::{JwkProblem, KeyError, TokenError};
pub use identity::{Grant, Identity};
pub use ingest_keys::{IngestKey, IngestKeyError, IngestKeys};
pub use jwks_url::{JwksUrl, JwksUrlError};
pub use key::{KeyFingerprint, VerificationKey};
pub use key_set::KeySet;
pub use mint::{MintError, NewToken, SigningKey};
pub use secret::{KeyFileError, Secret, read_file};
pub use shared_key::{SHARED_KEY_BYTES_MIN, SharedKey, SharedKeyError};
pub use verifier::{TOKEN_BYTES_MAX, TokenVerifier, VerifierError};

#[cfg(test)]
mod tests;
