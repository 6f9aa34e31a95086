//! Errors of tokens and keys. The messages are for users and operators, the reasons are for
//! metrics; neither contains any part of a token or a secret.

use std::sync::Arc;

use sidewire_protocol::named_values;

use super::{Algorithm, TOKEN_BYTES_MAX};

/// An error in a token; the token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is no token.
    #[error("no token was presented")]
    Missing,
    /// The token has more than [`TOKEN_BYTES_MAX`] bytes.
    #[error("the token has more than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// The token is not a signed JWT in compact form (RFC 7515, 7.1).
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// Its `alg` is not the algorithm of any key that could verify it.
    #[error("the token's algorithm does not match its key")]
    ForbiddenAlgorithm,
    /// Its header has a `crit`, a list of extensions without which it must be refused.
    #[error("the token's header requires an extension (`crit`), but none is supported")]
    CriticalHeader,
    /// Its `kid` matches no key.
    #[error("the token's `kid` matches no key of this relay")]
    UnknownKey,
    /// Its signature was made with none of the keys.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Its `exp` is past.
    #[error("the token has expired")]
    Expired,
    /// Its `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Its `iss` is another issuer.
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// Its `aud` does not name this relay.
    #[error("the token is for another audience")]
    WrongAudience,
    /// A required claim is missing.
    #[error("the token lacks the claim `{claim}`")]
    MissingClaim {
        /// The claim's name, as in the relay's configuration.
        claim: Arc<str>,
    },
    /// A claim has a wrong type or an invalid value.
    #[error("the token's claim `{claim}` {problem}")]
    MalformedClaim {
        /// The claim's name, as in the relay's configuration.
        claim: Arc<str>,
        /// The problem, without the claim's value.
        problem: String,
    },
}

named_values! {
    impl TokenError {
        Missing = "missing",
        TooLong = "too_long",
        Malformed = "malformed",
        ForbiddenAlgorithm = "forbidden_algorithm",
        CriticalHeader = "critical_header",
        UnknownKey = "unknown_key",
        BadSignature = "bad_signature",
        Expired = "expired",
        NotYetValid = "not_yet_valid",
        WrongIssuer = "wrong_issuer",
        WrongAudience = "wrong_audience",
        MissingClaim = "missing_claim",
        MalformedClaim = "malformed_claim",
    }
}

/// An error in a key or key file. The caller adds the path of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret that is too easy to guess (RFC 7518, 3.2).
    #[error(
        "{algorithm} needs a secret of at least {bytes_min} bytes and this one has {bytes}; \
         `openssl rand -hex {bytes_min}` makes one"
    )]
    SecretTooShort {
        /// The algorithm that the key was given for.
        algorithm: Algorithm,
        /// Length of the secret in bytes.
        bytes: usize,
        /// Minimum length in bytes.
        bytes_min: usize,
    },
    /// A PEM file given as a secret. If it held a public key, anyone could sign tokens with it.
    #[error("this is a PEM file, and {algorithm} needs a secret; did you mean another algorithm?")]
    PemAsSecret {
        /// The algorithm that the key was given for.
        algorithm: Algorithm,
    },
    /// A secret for an algorithm that uses key pairs.
    #[error("{algorithm} needs {} in a PEM file or a JWKS, not a secret", .algorithm.key_kind())]
    SecretForKeyPair {
        /// The algorithm that the key was given for.
        algorithm: Algorithm,
    },
    /// A PEM file for an algorithm that uses secrets.
    #[error("{algorithm} needs a secret, not a PEM file")]
    PemForSecret {
        /// The algorithm that the key was given for.
        algorithm: Algorithm,
    },
    /// The file is not PEM.
    #[error("this is not a PEM file: it has no readable `-----BEGIN …-----` block")]
    NoPem,
    /// More than one key, so it is unclear which one was meant.
    #[error("this PEM file holds {0} blocks where one is expected; put each key in its own file")]
    PemBlocks(usize),
    /// A private key where the public one belongs.
    #[error(
        "this is a private key, and the relay only needs the public one: \
         `openssl pkey -in FILE -pubout` writes it"
    )]
    PrivateKey,
    /// A public key where the private one belongs.
    #[error("this is a public key, but signing needs the private one")]
    PublicKey,
    /// A private key that needs a passphrase.
    #[error("this private key is encrypted: `openssl pkey -in FILE` writes it in the clear")]
    EncryptedKey,
    /// A certificate where a public key belongs.
    #[error(
        "this is a certificate, and the relay needs the public key in it: \
         `openssl x509 -in FILE -noout -pubkey` writes it"
    )]
    Certificate,
    /// A PEM block that is not a key.
    #[error("this PEM file holds a block that is not a key")]
    PemKind,
    /// A key of another type or curve, or bytes that are not a key.
    #[error("this key cannot be used with {algorithm}, which needs {}", .algorithm.key_kind())]
    Rejected {
        /// The algorithm that the key was given for.
        algorithm: Algorithm,
    },
    /// An RSA key that is too weak, or too big for the library.
    #[error("this RSA key has {bits} bits; 2048 to 8192 are accepted")]
    RsaSize {
        /// Size of its modulus in bits.
        bits: usize,
    },
    /// A file that is not a JSON Web Key Set (RFC 7517, 5).
    #[error("this is not a JSON Web Key Set: line {line}, column {column}")]
    Jwks {
        /// Line of the syntax error, from 1.
        line: usize,
        /// Column of the syntax error, from 1.
        column: usize,
    },
    /// A key in a set that cannot be used.
    #[error("keys[{index}] {problem}")]
    Jwk {
        /// Index in `keys`, from 0.
        index: usize,
        /// The problem with the key.
        problem: JwkProblem,
    },
    /// A set without a usable key.
    #[error("this JSON Web Key Set holds no key for signatures")]
    EmptyJwks,
}

/// A problem with a JSON Web Key (RFC 7517; RFC 7518, 6; RFC 8037, 2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwkProblem {
    /// A parameter that the key's type needs is missing.
    #[error("lacks `{0}`")]
    Missing(&'static str),
    /// A parameter is not base64url without padding.
    #[error("has a `{0}` that is not base64url without padding")]
    Encoding(&'static str),
    /// A coordinate has the wrong length.
    #[error("has an `{0}` of the wrong length")]
    Length(&'static str),
    /// The type, curve or algorithm is not supported.
    #[error("has an unsupported `{0}`; remove the key from the file")]
    Unsupported(&'static str),
    /// The algorithm does not match the type and curve.
    #[error("has an `alg` that does not match its `kty` and `crv`")]
    Algorithm,
    /// The key itself is invalid.
    #[error("cannot be used: {0}")]
    Key(Box<KeyError>),
}
