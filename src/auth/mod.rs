//! Who may do what: tokens and keys become an identity and its grant. Knows no
//! HTTP, no connection and no config file; `now` is always passed in.
//!
//! A [`KeySet`] has what was fetched last from an issuer; it says when a fetch is due
//! and fetches nothing.
//!
//! A client's JWT goes through a [`Verifier`], which holds the keys and the
//! [`TokenRules`], and comes out as an [`Identity`]; [`Authenticator`] is that,
//! or desktop mode. Backends have [`IngestKeys`]. [`SigningKey::mint`] makes
//! tokens for the command line.
//!
//! The library jsonwebtoken verifies and makes signatures, and nothing else is
//! left to it: keys are checked when they are read, claims after the signature.
//! It is built with one provider of cryptography, aws-lc-rs, and so needs no
//! other to be installed.
//!
//! Invariants: an algorithm belongs to a key and is never taken from a token;
//! no error and no `Debug` output holds a secret, a token or a claim's value.

mod algorithm;
mod authenticator;
mod claims;
mod error;
mod identity;
mod ingest_keys;
mod jwks;
mod key;
mod key_set;
mod mint;
mod pem_file;
mod secret;
mod strict_json;
mod verifier;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use authenticator::{Authenticator, Credentials, DESKTOP_NAME};
pub(crate) use claims::check_user;
pub use claims::{EXPIRY_AHEAD_MAX, TokenRules};
pub use error::{JwkProblem, KeyError, TokenError};
pub use identity::{Grant, Identity};
pub use ingest_keys::{INGEST_KEY_BYTES_MIN, IngestKey, IngestKeyError, IngestKeys};
pub use key::{KeyFingerprint, VerificationKey};
pub use key_set::KeySet;
pub use mint::{MintError, NewToken, SigningKey};
pub use secret::{FileError, Secret, read_file};
pub use verifier::{TOKEN_BYTES_MAX, Verifier, VerifierError};

#[cfg(test)]
mod tests;
