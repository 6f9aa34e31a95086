//! Tests of tokens and keys, with shared fixtures: a verifier with a key for every algorithm,
//! and functions that forge tokens.

mod accepted;
mod key_files;
mod minted;
mod refused;
mod subscriptions;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};
use sidewire_protocol::NamedValues;

use super::{algorithm::KeyRequirements, *};

/// The current time in all tests.
const NOW: u64 = 1_800_000_000;

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "sidewire";

macro_rules! testdata {
    ($name:literal) => {
        include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/auth/testdata/",
            $name
        ))
    };
}
use testdata;

fn now() -> Duration {
    Duration::from_secs(NOW)
}

/// Returns the private and public half of the algorithm's key in `testdata`; for HMAC both are
/// the secret.
fn halves(algorithm: Algorithm) -> (&'static [u8], &'static [u8]) {
    use Algorithm::*;
    match algorithm {
        HS256 => (&[b'a'; 32], &[b'a'; 32]),
        HS384 => (&[b'b'; 48], &[b'b'; 48]),
        HS512 => (&[b'c'; 64], &[b'c'; 64]),
        RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => {
            (testdata!("rsa.pem"), testdata!("rsa.pub.pem"))
        }
        ES256 => (testdata!("p256.pem"), testdata!("p256.pub.pem")),
        ES384 => (testdata!("p384.pem"), testdata!("p384.pub.pem")),
        EdDSA => (testdata!("ed25519.pem"), testdata!("ed25519.pub.pem")),
    }
}

/// Returns a private key, or for HMAC a secret, that no verifier of the tests accepts.
fn foreign_private(algorithm: Algorithm) -> &'static [u8] {
    use Algorithm::*;
    match algorithm {
        HS256 | HS384 | HS512 => &[b'x'; 64],
        RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => testdata!("rsa-other.pem"),
        ES256 => testdata!("p256-other.pem"),
        ES384 => testdata!("p384-other.pem"),
        EdDSA => testdata!("ed25519-other.pem"),
    }
}

fn signing_key(algorithm: Algorithm, kid: Option<&str>, private: &[u8]) -> SigningKey {
    let kid = kid.map(str::to_owned);
    if algorithm.is_symmetric() {
        SigningKey::from_secret(algorithm, kid, &Secret::new(private)).unwrap()
    } else {
        SigningKey::from_private_key_pem(algorithm, kid, private).unwrap()
    }
}

fn signer(algorithm: Algorithm) -> SigningKey {
    signing_key(algorithm, Some(algorithm.as_str()), halves(algorithm).0)
}

fn verification_key(algorithm: Algorithm, kid: Option<&str>, public: &[u8]) -> VerificationKey {
    let kid = kid.map(str::to_owned);
    if algorithm.is_symmetric() {
        VerificationKey::from_secret(algorithm, kid, &Secret::new(public)).unwrap()
    } else {
        VerificationKey::from_public_key_pem(algorithm, kid, public).unwrap()
    }
}

/// Returns a key for every algorithm, with the algorithm's name as `kid`.
fn all_keys() -> Vec<VerificationKey> {
    Algorithm::ALL
        .map(|algorithm| verification_key(algorithm, Some(algorithm.as_str()), halves(algorithm).1))
        .into()
}

fn rules() -> TokenRules {
    TokenRules {
        issuer: Some(ISSUER.to_owned()),
        audience: Some(AUDIENCE.to_owned()),
        ..TokenRules::default()
    }
}

fn verifier() -> TokenVerifier {
    TokenVerifier::new(all_keys(), rules()).unwrap()
}

/// Returns a verifier with only an HS256 key and the default rules.
fn plain_verifier(rules: TokenRules) -> TokenVerifier {
    let algorithm = Algorithm::HS256;
    let key = verification_key(algorithm, None, halves(algorithm).1);
    TokenVerifier::new(vec![key], rules).unwrap()
}

fn good_claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 600,
        "tenant_id": "acme", "user_id": "ann",
    })
}

/// Returns the good claims with one claim added or replaced; the value is JSON text.
fn with(claim: &str, value: &str) -> String {
    let text = without(claim);
    let rest = text.strip_suffix('}').unwrap();
    format!("{rest},{}:{value}}}", json!(claim))
}

fn without(claim: &str) -> String {
    let mut claims = good_claims();
    claims.as_object_mut().unwrap().remove(claim);
    claims.to_string()
}

fn header_of(algorithm: Algorithm) -> String {
    json!({"alg": algorithm.as_str(), "kid": algorithm.as_str()}).to_string()
}

/// Returns a token with these claims and a valid header and signature.
fn token_with(claims: impl AsRef<[u8]>) -> String {
    let algorithm = Algorithm::HS256;
    compact(algorithm, header_of(algorithm), claims)
}

/// Returns a token with this header and a valid signature.
fn token_headed(header: impl AsRef<[u8]>) -> String {
    compact(Algorithm::HS256, header, good_claims().to_string())
}

fn compact(algorithm: Algorithm, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    compact_by(halves(algorithm).0, algorithm, header, claims)
}

/// Returns the compact serialization (RFC 7515, 7.1) of arbitrary bytes, signed with this
/// private key.
fn compact_by(
    private: &[u8],
    algorithm: Algorithm,
    header: impl AsRef<[u8]>,
    claims: impl AsRef<[u8]>,
) -> String {
    let (header, claims) = (to_base64url(header.as_ref()), to_base64url(claims.as_ref()));
    signed(private, algorithm, &format!("{header}.{claims}"))
}

/// Returns the text followed by a dot and its signature.
fn signed(private: &[u8], algorithm: Algorithm, text: &str) -> String {
    let signature = signature(private, algorithm, text);
    format!("{text}.{signature}")
}

/// Returns the signature of the text, as base64url.
fn signature(private: &[u8], algorithm: Algorithm, text: &str) -> String {
    let key = match algorithm.key_requirements() {
        KeyRequirements::Hmac { .. } => EncodingKey::from_secret(private),
        KeyRequirements::Rsa => EncodingKey::from_rsa_pem(private).unwrap(),
        KeyRequirements::Ec { .. } => EncodingKey::from_ec_pem(private).unwrap(),
        KeyRequirements::Ed => EncodingKey::from_ed_pem(private).unwrap(),
    };
    jsonwebtoken::crypto::sign(text.as_bytes(), &key, algorithm.library_algorithm()).unwrap()
}

fn to_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn good_token(algorithm: Algorithm) -> String {
    compact(algorithm, header_of(algorithm), good_claims().to_string())
}

/// Returns a token of arbitrary segments, base64url or not, with a valid signature.
fn segments(header: &str, claims: &str) -> String {
    let algorithm = Algorithm::HS256;
    let text = format!("{header}.{claims}");
    signed(halves(algorithm).0, algorithm, &text)
}

fn split(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}

/// Returns the token with another signature, given as bytes.
fn resigned(token: &str, signature: &[u8]) -> String {
    let [header, claims, _] = split(token);
    format!("{header}.{claims}.{}", to_base64url(signature))
}

fn signature_of(token: &str) -> Vec<u8> {
    strict_json::decode_base64url(split(token)[2]).unwrap()
}

fn reason(verdict: Result<Identity, TokenError>) -> &'static str {
    match verdict {
        Ok(_) => "accepted",
        Err(error) => {
            assert_eq!(TokenError::names()[error.index()], error.name());
            error.name()
        }
    }
}
