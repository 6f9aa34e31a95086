//! Parses JSON Web Key Sets (RFC 7517), from the operator's files or fetched. Knows nothing
//! about tokens and fetches nothing.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Algorithm, KeyError, Secret, VerificationKey, algorithm::KeyRequirements, error::JwkProblem,
    strict_json::decode_base64url,
};

#[derive(Deserialize)]
struct JsonWebKeySet<K = JsonWebKey> {
    keys: Vec<K>,
}

/// The parameters of a key that the relay uses; others are ignored (RFC 7517, 4). With a `kty`
/// of `oct` it holds a secret, so it has no `Debug`.
#[derive(Deserialize)]
struct JsonWebKey {
    kty: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    k: Option<String>,
}

pub(super) fn parse_keys(json: &[u8]) -> Result<Vec<VerificationKey>, KeyError> {
    let keys = parse_set::<JsonWebKey>(json)?
        .keys
        .into_iter()
        .enumerate()
        .filter(|(_, jwk)| jwk.is_for_verification())
        .map(|(index, jwk)| {
            jwk.into_key()
                .map_err(|problem| KeyError::Jwk { index, problem })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Err(KeyError::EmptyJwks);
    }
    Ok(keys)
}

pub(super) fn parse_fetched_keys(json: &[u8]) -> Result<(Vec<VerificationKey>, usize), KeyError> {
    // Key by key, so that a malformed key does not invalidate the others (RFC 7517, 5).
    let jwks = parse_set::<Value>(json)?.keys;
    let count = jwks.len();
    let keys: Vec<_> = jwks
        .into_iter()
        .filter_map(|jwk| serde_json::from_value::<JsonWebKey>(jwk).ok())
        .filter(|jwk| jwk.is_for_verification() && jwk.kty.as_deref() != Some("oct"))
        .filter_map(|jwk| jwk.into_key().ok())
        .collect();
    if keys.is_empty() {
        return Err(KeyError::EmptyJwks);
    }
    let passed_over = count - keys.len();
    Ok((keys, passed_over))
}

fn parse_set<K: DeserializeOwned>(json: &[u8]) -> Result<JsonWebKeySet<K>, KeyError> {
    // The parser's own message is left out: it can quote the file, which can hold secrets.
    serde_json::from_slice(json).map_err(|error| KeyError::Jwks {
        line: error.line(),
        column: error.column(),
    })
}

impl JsonWebKey {
    fn is_for_verification(&self) -> bool {
        self.purpose
            .as_deref()
            .is_none_or(|purpose| purpose == "sig")
            && self
                .key_ops
                .as_ref()
                .is_none_or(|operations| operations.iter().any(|name| name == "verify"))
    }

    fn into_key(self) -> Result<VerificationKey, JwkProblem> {
        match self.kty.as_deref() {
            None => Err(JwkProblem::Missing("kty")),
            Some("oct") => self.into_secret(),
            Some("RSA") => self.into_rsa(),
            Some("EC") => self.into_ec(),
            Some("OKP") => self.into_ed(),
            Some(_) => Err(JwkProblem::Unsupported("kty")),
        }
    }

    fn into_secret(self) -> Result<VerificationKey, JwkProblem> {
        let algorithm = self.algorithm_or(None)?;
        let secret = Secret::new(decode_parameter("k", self.k.as_deref())?);
        if !algorithm.is_symmetric() {
            return Err(JwkProblem::Algorithm);
        }
        VerificationKey::from_secret(algorithm, self.kid, &secret).map_err(unusable_key)
    }

    fn into_rsa(self) -> Result<VerificationKey, JwkProblem> {
        let algorithm = self.algorithm_or(Some(Algorithm::RS256))?;
        let KeyRequirements::Rsa = algorithm.key_requirements() else {
            return Err(JwkProblem::Algorithm);
        };
        let components = RsaPublicKeyComponents {
            n: decode_parameter("n", self.n.as_deref())?,
            e: decode_parameter("e", self.e.as_deref())?,
        };
        // Converted to DER, so that it is checked like a key from a PEM file. The hash and
        // padding of the algorithm constant do not matter for that.
        let key = components
            .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
            .map_err(|_| unusable_key(KeyError::Rejected { algorithm }))?;
        VerificationKey::from_public_key(algorithm, self.kid, key.as_ref()).map_err(unusable_key)
    }

    fn into_ec(self) -> Result<VerificationKey, JwkProblem> {
        let algorithm = match self.crv.as_deref() {
            Some("P-256") => self.algorithm_for(Algorithm::ES256),
            Some("P-384") => self.algorithm_for(Algorithm::ES384),
            Some(_) => Err(JwkProblem::Unsupported("crv")),
            None => Err(JwkProblem::Missing("crv")),
        }?;
        let KeyRequirements::Ec {
            coordinate_bytes, ..
        } = algorithm.key_requirements()
        else {
            return Err(JwkProblem::Algorithm);
        };
        // An uncompressed point (SEC 1, 2.3.3).
        let mut point = vec![0x04];
        point.extend(decode_exactly("x", self.x.as_deref(), coordinate_bytes)?);
        point.extend(decode_exactly("y", self.y.as_deref(), coordinate_bytes)?);
        VerificationKey::from_public_key(algorithm, self.kid, &point).map_err(unusable_key)
    }

    fn into_ed(self) -> Result<VerificationKey, JwkProblem> {
        let algorithm = match self.crv.as_deref() {
            Some("Ed25519") => self.algorithm_for(Algorithm::EdDSA),
            Some(_) => Err(JwkProblem::Unsupported("crv")),
            None => Err(JwkProblem::Missing("crv")),
        }?;
        let point = decode_exactly("x", self.x.as_deref(), 32)?;
        VerificationKey::from_public_key(algorithm, self.kid, &point).map_err(unusable_key)
    }

    /// Returns the algorithm that the key names, or else `fallback`.
    fn algorithm_or(&self, fallback: Option<Algorithm>) -> Result<Algorithm, JwkProblem> {
        match (&self.alg, fallback) {
            (Some(name), _) => name.parse().map_err(|_| JwkProblem::Unsupported("alg")),
            (None, Some(algorithm)) => Ok(algorithm),
            (None, None) => Err(JwkProblem::Missing("alg")),
        }
    }

    /// Returns the curve's algorithm; fails if the key names another.
    fn algorithm_for(&self, algorithm: Algorithm) -> Result<Algorithm, JwkProblem> {
        if self.algorithm_or(Some(algorithm))? == algorithm {
            Ok(algorithm)
        } else {
            Err(JwkProblem::Algorithm)
        }
    }
}

fn decode_parameter(name: &'static str, text: Option<&str>) -> Result<Vec<u8>, JwkProblem> {
    let text = text.ok_or(JwkProblem::Missing(name))?;
    decode_base64url(text).ok_or(JwkProblem::Encoding(name))
}

fn decode_exactly(
    name: &'static str,
    text: Option<&str>,
    bytes: usize,
) -> Result<Vec<u8>, JwkProblem> {
    let decoded = decode_parameter(name, text)?;
    if decoded.len() == bytes {
        Ok(decoded)
    } else {
        Err(JwkProblem::Length(name))
    }
}

fn unusable_key(error: KeyError) -> JwkProblem {
    JwkProblem::Key(Box::new(error))
}
