//! Why a token or a key is refused. The texts are for users and operators, the
//! reasons for metrics; neither holds anything of a token or of a secret.

use std::sync::Arc;

use super::{Algorithm, TOKEN_BYTES_MAX};

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("no token was presented")]
    Missing,
    /// It has more than [`TOKEN_BYTES_MAX`] bytes.
    #[error("the token has more than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// It is not a signed JWT in compact form (RFC 7515, 7.1).
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// Its `alg` is not the algorithm of any key that it may be signed with.
    #[error("the token's algorithm is not one that its key is for")]
    ForbiddenAlgorithm,
    /// Its header has a `crit`, which means: refuse it, if you cannot do this.
    #[error("the token's header demands an extension (`crit`) and none is offered")]
    CriticalHeader,
    /// Its `kid` names no key.
    #[error("the token's `kid` names no key of this relay")]
    UnknownKey,
    /// No key made this signature.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Its `exp` is past.
    #[error("the token has expired")]
    Expired,
    /// Its `nbf` is to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Its `iss` is another.
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// Its `aud` does not name this relay.
    #[error("the token is for another audience")]
    WrongAudience,
    /// It lacks a claim that is needed.
    #[error("the token lacks the claim `{claim}`")]
    MissingClaim {
        /// The claim's name, as the relay's config has it.
        claim: Arc<str>,
    },
    /// A claim is not what it has to be.
    #[error("the token's claim `{claim}` {problem}")]
    MalformedClaim {
        /// The claim's name, as the relay's config has it.
        claim: Arc<str>,
        /// What is wrong with it, without its value.
        problem: String,
    },
}

impl TokenError {
    /// Everything that [`Self::reason`] can be.
    pub const REASONS: [&'static str; 13] = [
        "missing",
        "too_long",
        "malformed",
        "forbidden_algorithm",
        "critical_header",
        "unknown_key",
        "bad_signature",
        "expired",
        "not_yet_valid",
        "wrong_issuer",
        "wrong_audience",
        "missing_claim",
        "malformed_claim",
    ];

    /// The reason as a metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooLong => "too_long",
            Self::Malformed(_) => "malformed",
            Self::ForbiddenAlgorithm => "forbidden_algorithm",
            Self::CriticalHeader => "critical_header",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::MissingClaim { .. } => "missing_claim",
            Self::MalformedClaim { .. } => "malformed_claim",
        }
    }
}

/// Why something is no key for its purpose. The caller knows, and says, which
/// file it came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret that is too easy to guess (RFC 7518, 3.2).
    #[error(
        "{algorithm} needs a secret of at least {bytes_min} bytes and this one has {bytes}; \
         `openssl rand -hex {bytes_min}` makes one"
    )]
    SecretTooShort {
        /// The algorithm that it was to be for.
        algorithm: Algorithm,
        /// How many bytes it has.
        bytes: usize,
        /// How many it needs.
        bytes_min: usize,
    },
    /// A PEM file given as a secret: were it a public key, everybody could sign.
    #[error("this is a PEM file, and {algorithm} needs a secret; did you mean another algorithm?")]
    PemAsSecret {
        /// The algorithm that it was to be for.
        algorithm: Algorithm,
    },
    /// A secret for an algorithm that has key pairs.
    #[error("{algorithm} needs an {} in a PEM file or a JWKS, not a secret", .algorithm.key_kind())]
    SecretForKeyPair {
        /// The algorithm that it was to be for.
        algorithm: Algorithm,
    },
    /// A PEM file for an algorithm that has secrets.
    #[error("{algorithm} needs a secret, not a PEM file")]
    PemForSecret {
        /// The algorithm that it was to be for.
        algorithm: Algorithm,
    },
    /// No PEM at all.
    #[error("this is no PEM file: there is no `-----BEGIN …-----` block that can be read")]
    NoPem,
    /// More keys than one, and it cannot be told which was meant.
    #[error("this PEM file holds {0} blocks where one is expected; put each key in its own file")]
    PemBlocks(usize),
    /// A private key where the public one belongs.
    #[error(
        "this is a private key, and the relay only needs the public one: \
         `openssl pkey -in FILE -pubout` writes it"
    )]
    PrivateKey,
    /// A public key where the private one belongs.
    #[error("this is a public key, and to sign needs the private one")]
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
    /// A PEM block of another kind.
    #[error("this PEM file holds no key but a block of another kind")]
    PemKind,
    /// A key of another type or curve, or none.
    #[error("this is no {} as {algorithm} needs it", .algorithm.key_kind())]
    Rejected {
        /// The algorithm that it was to be for.
        algorithm: Algorithm,
    },
    /// An RSA key that is too weak, or too big for the library.
    #[error("this RSA key has {bits} bits; 2048 to 8192 are accepted")]
    RsaSize {
        /// How many bits its modulus has.
        bits: usize,
    },
    /// A file that is no JSON Web Key Set (RFC 7517, 5).
    #[error("this is no JSON Web Key Set: line {line}, column {column}")]
    Jwks {
        /// Where the parser gave up, from 1.
        line: usize,
        /// Where in the line, from 1.
        column: usize,
    },
    /// A key of a set that cannot be used.
    #[error("keys[{index}] {problem}")]
    Jwk {
        /// The place in `keys`, from 0.
        index: usize,
        /// What is wrong with it.
        problem: JwkProblem,
    },
    /// A set from which nothing is left.
    #[error("this JSON Web Key Set holds no key for signatures")]
    EmptyJwks,
}

/// What is wrong with a JSON Web Key (RFC 7517; RFC 7518, 6; RFC 8037, 2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwkProblem {
    /// A parameter that its type needs is not there.
    #[error("lacks `{0}`")]
    Missing(&'static str),
    /// A parameter is not base64url without padding.
    #[error("has a `{0}` that is not base64url without padding")]
    Encoding(&'static str),
    /// A coordinate has the wrong length.
    #[error("has an `{0}` of the wrong length")]
    Length(&'static str),
    /// The type or the curve is not offered.
    #[error("has a `{0}` that is not offered; take the key out of the file")]
    Unsupported(&'static str),
    /// The algorithm is not one for this type and curve.
    #[error("has an `alg` that is not one for its `kty` and `crv`")]
    Algorithm,
    /// The key itself is bad.
    #[error("cannot be used: {0}")]
    Key(Box<KeyError>),
}
