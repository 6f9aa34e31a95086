//! Keys that verify signatures, each bound to one algorithm. Knows nothing about tokens.

use std::{fmt, num::NonZeroU64};

use aws_lc_rs::{
    digest::{Context, SHA256},
    signature::{ED25519, ParsedPublicKey, RsaSubjectPublicKey, VerificationAlgorithm},
};
use jsonwebtoken::DecodingKey;

use super::{Algorithm, KeyError, Secret, algorithm::KeyRequirements, jwks, pem_file};

/// Accepted sizes of an RSA key's modulus, in bits (RFC 7518, 3.3).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Identifies a key without revealing it: the first 64 bits of a SHA-256 over the algorithm,
/// the `kid` and the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyFingerprint(NonZeroU64);

impl fmt::Debug for KeyFingerprint {
    /// Hides the number, since it would allow guessing a weak secret offline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFingerprint").finish_non_exhaustive()
    }
}

impl KeyFingerprint {
    fn compute(algorithm: Algorithm, kid: Option<&str>, material: &[u8]) -> Self {
        let mut hash = Context::new(&SHA256);
        // The length keeps a `kid` and key material from being split differently.
        let kid_len = kid.map_or(u64::MAX, |kid| kid.len() as u64);
        hash.update(algorithm.as_str().as_bytes());
        hash.update(&kid_len.to_be_bytes());
        hash.update(kid.unwrap_or_default().as_bytes());
        hash.update(material);
        let digest = hash.finish();
        let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
        Self(NonZeroU64::new(u64::from_be_bytes(first)).unwrap_or(NonZeroU64::MIN))
    }
}

/// A key that verifies signatures of one algorithm. Its strength, type and curve were checked
/// when it was created.
#[derive(Clone)]
pub struct VerificationKey {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    fingerprint: KeyFingerprint,
}

impl VerificationKey {
    /// Creates a key from a shared secret, for HS256, HS384 or HS512.
    ///
    /// # Errors
    ///
    /// Fails if the secret has fewer bytes than the algorithm's hash (RFC 7518, 3.2) or is a
    /// PEM file, or if the algorithm uses key pairs.
    pub fn from_secret(
        algorithm: Algorithm,
        kid: Option<String>,
        secret: &Secret,
    ) -> Result<Self, KeyError> {
        check_secret(algorithm, secret)?;
        Ok(Self {
            fingerprint: KeyFingerprint::compute(algorithm, kid.as_deref(), secret.as_bytes()),
            kid,
            algorithm,
            key: DecodingKey::from_secret(secret.as_bytes()),
        })
    }

    /// Reads the key from the bytes of a PEM file: a SubjectPublicKeyInfo (`BEGIN PUBLIC
    /// KEY`), or for RSA also PKCS#1 (`BEGIN RSA PUBLIC KEY`).
    ///
    /// # Errors
    ///
    /// Fails unless the file holds exactly one public key that fits the algorithm: RSA of 2048
    /// to 8192 bits, P-256 for ES256, P-384 for ES384, Ed25519 for EdDSA.
    pub fn from_public_key_pem(
        algorithm: Algorithm,
        kid: Option<String>,
        pem: &[u8],
    ) -> Result<Self, KeyError> {
        if algorithm.is_symmetric() {
            return Err(KeyError::PemForSecret { algorithm });
        }
        Self::from_public_key(algorithm, kid, &pem_file::public_key(pem)?)
    }

    /// Reads the keys of a JSON Web Key Set (RFC 7517, 5), in its order. Keys with a `use`
    /// other than `sig`, or with `key_ops` that lack `verify`, are left out, and private
    /// parameters are ignored. Without an `alg` the algorithm is that of the curve, or RS256
    /// for RSA; a key of type `oct` must have one.
    ///
    /// # Errors
    ///
    /// Fails if the text is not a key set, if one of its keys cannot be used (with its index),
    /// or if no key is left.
    pub fn from_jwks(json: &[u8]) -> Result<Vec<Self>, KeyError> {
        jwks::parse_keys(json)
    }

    /// Reads the keys of a fetched set, in its order, and returns them with the number of keys
    /// that were skipped: unsupported ones, since an issuer may publish any kind, and shared
    /// secrets (`oct`), since a published secret is not secret.
    ///
    /// # Errors
    ///
    /// Fails if the text is not a key set, or if no key is left.
    pub fn from_fetched_jwks(json: &[u8]) -> Result<(Vec<Self>, usize), KeyError> {
        jwks::parse_fetched_keys(json)
    }

    /// Creates a key from its bytes: DER, or for elliptic curves the encoded point.
    pub(super) fn from_public_key(
        algorithm: Algorithm,
        kid: Option<String>,
        bytes: &[u8],
    ) -> Result<Self, KeyError> {
        let key = match algorithm.key_requirements() {
            KeyRequirements::Hmac { .. } => return Err(KeyError::Rejected { algorithm }),
            KeyRequirements::Rsa => {
                check_rsa(algorithm, bytes)?;
                DecodingKey::from_rsa_der(bytes)
            }
            KeyRequirements::Ec { verification, .. } => {
                check_curve(algorithm, verification, bytes)?;
                DecodingKey::from_ec_der(bytes)
            }
            KeyRequirements::Ed => {
                check_curve(algorithm, &ED25519, bytes)?;
                DecodingKey::from_ed_der(bytes)
            }
        };
        Ok(Self {
            fingerprint: KeyFingerprint::compute(algorithm, kid.as_deref(), bytes),
            kid,
            algorithm,
            key,
        })
    }

    /// Returns the `kid` by which tokens refer to this key.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Returns the only algorithm that the key verifies.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the fingerprint that identifies the key.
    #[must_use]
    pub fn fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }

    /// Returns true if the signature (base64url) of the message was made with this key, or
    /// with its private half.
    pub(super) fn verify_signature(&self, message: &[u8], signature: &str) -> bool {
        let verdict = jsonwebtoken::crypto::verify(
            signature,
            message,
            &self.key,
            self.algorithm.library_algorithm(),
        );
        matches!(verdict, Ok(true))
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Checks that the secret is suitable for the algorithm.
pub(super) fn check_secret(algorithm: Algorithm, secret: &Secret) -> Result<(), KeyError> {
    let KeyRequirements::Hmac {
        secret_bytes_min: bytes_min,
    } = algorithm.key_requirements()
    else {
        return Err(KeyError::SecretForKeyPair { algorithm });
    };
    let secret = secret.as_bytes();
    if pem_file::looks_like_pem(secret) {
        Err(KeyError::PemAsSecret { algorithm })
    } else if secret.len() < bytes_min {
        Err(KeyError::SecretTooShort {
            algorithm,
            bytes: secret.len(),
            bytes_min,
        })
    } else {
        Ok(())
    }
}

fn check_rsa(algorithm: Algorithm, der: &[u8]) -> Result<(), KeyError> {
    let key = RsaSubjectPublicKey::from_der(der).map_err(|_| KeyError::Rejected { algorithm })?;
    let bits = bit_length(key.modulus().big_endian_without_leading_zero());
    if RSA_BITS.contains(&bits) {
        Ok(())
    } else {
        Err(KeyError::RsaSize { bits })
    }
}

fn check_curve(
    algorithm: Algorithm,
    curve: &'static dyn VerificationAlgorithm,
    bytes: &[u8],
) -> Result<(), KeyError> {
    match ParsedPublicKey::new(curve, bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(KeyError::Rejected { algorithm }),
    }
}

fn bit_length(big_endian: &[u8]) -> usize {
    let leading = big_endian.first().map_or(0, |first| first.leading_zeros());
    (big_endian.len() * 8).saturating_sub(leading as usize)
}
