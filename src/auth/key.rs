//! Keys that verify signatures, each bound to one algorithm. Knows no tokens.

use std::{fmt, num::NonZeroU64};

use aws_lc_rs::{
    digest::{Context, SHA256},
    signature::{ED25519, ParsedPublicKey, RsaSubjectPublicKey, VerificationAlgorithm},
};
use jsonwebtoken::DecodingKey;

use super::{Algorithm, KeyError, Secret, algorithm::Scheme, jwks, pem_file};

/// How many bits the modulus of an RSA key may have (RFC 7518, 3.3).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Tells keys apart without showing them: a part of the hash of a key, its algorithm
/// and its `kid`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyFingerprint(NonZeroU64);

impl fmt::Debug for KeyFingerprint {
    /// Not the number, by which a weak secret could be guessed at leisure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFingerprint").finish_non_exhaustive()
    }
}

impl KeyFingerprint {
    fn of(algorithm: Algorithm, kid: Option<&str>, material: &[u8]) -> Self {
        let mut hash = Context::new(&SHA256);
        // The length, so that no two differ only in where the one ends.
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

/// A key that verifies what one algorithm has signed. It was checked when it was
/// made: its strength, its type and its curve.
#[derive(Clone)]
pub struct VerificationKey {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    fingerprint: KeyFingerprint,
}

impl VerificationKey {
    /// The key that a secret is, for HS256, HS384 or HS512.
    ///
    /// # Errors
    ///
    /// When the secret has fewer bytes than the algorithm's hash (RFC 7518,
    /// 3.2), is a PEM file, or the algorithm has key pairs.
    pub fn from_secret(
        algorithm: Algorithm,
        kid: Option<String>,
        secret: &Secret,
    ) -> Result<Self, KeyError> {
        check_secret(algorithm, secret)?;
        Ok(Self {
            fingerprint: KeyFingerprint::of(algorithm, kid.as_deref(), secret.as_bytes()),
            kid,
            algorithm,
            key: DecodingKey::from_secret(secret.as_bytes()),
        })
    }

    /// The key in a PEM file: a SubjectPublicKeyInfo (`BEGIN PUBLIC KEY`), or
    /// for RSA also PKCS#1 (`BEGIN RSA PUBLIC KEY`).
    ///
    /// # Errors
    ///
    /// When the file holds anything but one public key as the algorithm needs
    /// it: RSA of 2048 to 8192 bits, P-256 for ES256, P-384 for ES384, Ed25519.
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

    /// The keys of a JSON Web Key Set (RFC 7517, 5), in its order. Keys whose
    /// `use` is not `sig`, or whose `key_ops` lack `verify`, are left out, and
    /// private parameters ignored. Without an `alg` the algorithm is that of the
    /// curve, or RS256 for RSA; a key of type `oct` must have one.
    ///
    /// # Errors
    ///
    /// When it is none, when one of its keys cannot be used (with its index), or
    /// when no key is left.
    pub fn from_jwks(json: &[u8]) -> Result<Vec<Self>, KeyError> {
        jwks::keys(json)
    }

    /// The keys of a set that was fetched, in its order, and how many were passed
    /// over: of an issuer's set the relay need not know every kind, and a secret that
    /// everybody can fetch is none.
    ///
    /// # Errors
    ///
    /// When it is no set, or no key is left.
    pub fn from_fetched_jwks(json: &[u8]) -> Result<(Vec<Self>, usize), KeyError> {
        jwks::fetched_keys(json)
    }

    /// The key that these bytes are: DER, or for elliptic curves the point.
    pub(super) fn from_public_key(
        algorithm: Algorithm,
        kid: Option<String>,
        bytes: &[u8],
    ) -> Result<Self, KeyError> {
        let key = match algorithm.scheme() {
            Scheme::Hmac { .. } => return Err(KeyError::Rejected { algorithm }),
            Scheme::Rsa => {
                check_rsa(algorithm, bytes)?;
                DecodingKey::from_rsa_der(bytes)
            }
            Scheme::Ec { verification, .. } => {
                check_curve(algorithm, verification, bytes)?;
                DecodingKey::from_ec_der(bytes)
            }
            Scheme::Ed => {
                check_curve(algorithm, &ED25519, bytes)?;
                DecodingKey::from_ed_der(bytes)
            }
        };
        Ok(Self {
            fingerprint: KeyFingerprint::of(algorithm, kid.as_deref(), bytes),
            kid,
            algorithm,
            key,
        })
    }

    /// What a token's `kid` calls this key.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The one algorithm that it verifies.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What tells it from others.
    #[must_use]
    pub fn fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }

    /// Whether this key, or its private half, made the signature (base64url) of
    /// the message.
    pub(super) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let verdict =
            jsonwebtoken::crypto::verify(signature, message, &self.key, self.algorithm.library());
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

/// Whether the secret is fit for the algorithm.
pub(super) fn check_secret(algorithm: Algorithm, secret: &Secret) -> Result<(), KeyError> {
    let Scheme::Hmac {
        secret_bytes_min: bytes_min,
    } = algorithm.scheme()
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
