//! The twelve signature algorithms and their requirements for keys. Knows no keys.

use std::{fmt, str::FromStr};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm,
};
use serde::Deserialize;
use sidewire_protocol::named_values;

named_values! {
    /// A signature algorithm of JSON Web Algorithms (RFC 7518, 3.1; RFC 8037, 3.1).
    /// `none` is not included.
    #[derive(Hash, Deserialize)]
    #[expect(missing_docs, reason = "the names are those of the RFCs")]
    pub enum Algorithm {
        HS256 = "HS256",
        HS384 = "HS384",
        HS512 = "HS512",
        RS256 = "RS256",
        RS384 = "RS384",
        RS512 = "RS512",
        PS256 = "PS256",
        PS384 = "PS384",
        PS512 = "PS512",
        ES256 = "ES256",
        ES384 = "ES384",
        /// Ed25519; Ed448 is not supported.
        EdDSA = "EdDSA",
    }
}

/// An error in parsing an [`Algorithm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA"
)]
pub struct UnknownAlgorithm;

impl Algorithm {
    /// Returns true if the algorithm signs and verifies with the same secret.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        matches!(self.key_requirements(), KeyRequirements::Hmac { .. })
    }

    /// Returns the algorithm as the type of the library jsonwebtoken.
    pub(super) fn library_algorithm(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::HS256 => jsonwebtoken::Algorithm::HS256,
            Self::HS384 => jsonwebtoken::Algorithm::HS384,
            Self::HS512 => jsonwebtoken::Algorithm::HS512,
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS384 => jsonwebtoken::Algorithm::RS384,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::PS384 => jsonwebtoken::Algorithm::PS384,
            Self::PS512 => jsonwebtoken::Algorithm::PS512,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }

    /// Returns the requirements for its keys.
    pub(super) fn key_requirements(self) -> KeyRequirements {
        match self {
            Self::HS256 => KeyRequirements::Hmac {
                secret_bytes_min: 32,
            },
            Self::HS384 => KeyRequirements::Hmac {
                secret_bytes_min: 48,
            },
            Self::HS512 => KeyRequirements::Hmac {
                secret_bytes_min: 64,
            },
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => {
                KeyRequirements::Rsa
            }
            Self::ES256 => KeyRequirements::Ec {
                verification: &ECDSA_P256_SHA256_FIXED,
                signing: &ECDSA_P256_SHA256_FIXED_SIGNING,
                coordinate_bytes: 32,
            },
            Self::ES384 => KeyRequirements::Ec {
                verification: &ECDSA_P384_SHA384_FIXED,
                signing: &ECDSA_P384_SHA384_FIXED_SIGNING,
                coordinate_bytes: 48,
            },
            Self::EdDSA => KeyRequirements::Ed,
        }
    }

    /// Describes a key of the algorithm, with its article, for error messages.
    pub(super) fn key_kind(self) -> &'static str {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => "a secret",
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => {
                "an RSA key"
            }
            Self::ES256 => "an elliptic-curve key on P-256",
            Self::ES384 => "an elliptic-curve key on P-384",
            Self::EdDSA => "an Ed25519 key",
        }
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or(UnknownAlgorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The requirements of an algorithm for its keys.
pub(super) enum KeyRequirements {
    Hmac {
        /// Minimum length in bytes: that of the hash (RFC 7518, 3.2).
        secret_bytes_min: usize,
    },
    Rsa,
    Ec {
        verification: &'static EcdsaVerificationAlgorithm,
        signing: &'static EcdsaSigningAlgorithm,
        coordinate_bytes: usize,
    },
    Ed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_algorithm_reads_back_its_name_and_no_other_spelling() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
            assert!(
                algorithm
                    .as_str()
                    .to_lowercase()
                    .parse::<Algorithm>()
                    .is_err()
            );
        }
        for text in [
            "", "none", "None", "NONE", "ES512", "ES256K", " HS256", "HS256 ",
        ] {
            assert_eq!(text.parse::<Algorithm>(), Err(UnknownAlgorithm), "{text:?}");
        }
    }
}
