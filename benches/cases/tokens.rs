//! The check of a token, by algorithm, with the fixed keys and tokens of the tests of
//! `auth`, which another library signed.

use std::{hint::black_box, time::Duration};

use sidewire::auth::{Algorithm, Secret, TokenRules, TokenVerifier, VerificationKey};

use super::{Case, Subject};

const TOKENS: &str = include_str!("../../src/auth/testdata/pyjwt.tokens.txt");
const RSA: &[u8] = include_bytes!("../../src/auth/testdata/rsa.pub.pem");
const P256: &[u8] = include_bytes!("../../src/auth/testdata/p256.pub.pem");
const P384: &[u8] = include_bytes!("../../src/auth/testdata/p384.pub.pem");
const ED25519: &[u8] = include_bytes!("../../src/auth/testdata/ed25519.pub.pem");

/// Ten minutes before the tokens expire.
const NOW: Duration = Duration::from_secs(1_800_000_000);

pub(super) fn cases() -> Vec<Case> {
    assert_eq!(TOKENS.lines().count(), Algorithm::ALL.len());
    let tokens = Algorithm::ALL.into_iter().zip(TOKENS.lines());
    tokens
        .map(|(algorithm, token)| {
            Case::new(format!("token/{algorithm}"), move || {
                Check::new(algorithm, token)
            })
        })
        .collect()
}

struct Check {
    verifier: TokenVerifier,
    token: &'static str,
}

impl Check {
    fn new(algorithm: Algorithm, token: &'static str) -> Self {
        let rules = TokenRules {
            issuer: Some("https://id.example".to_owned()),
            audience: Some("sidewire".to_owned()),
            ..TokenRules::default()
        };
        let verifier = TokenVerifier::new(vec![key(algorithm)], rules).unwrap();
        Self { verifier, token }
    }
}

impl Subject for Check {
    fn operate(&mut self) {
        black_box(self.verifier.verify(black_box(self.token), NOW).unwrap());
    }
}

fn key(algorithm: Algorithm) -> VerificationKey {
    use Algorithm::{
        ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
    };
    let kid = Some(algorithm.to_string());
    let secret = |byte, len| {
        VerificationKey::from_secret(algorithm, kid.clone(), &Secret::new(vec![byte; len]))
    };
    let public = |pem| VerificationKey::from_public_key_pem(algorithm, kid.clone(), pem);
    match algorithm {
        HS256 => secret(b'a', 32),
        HS384 => secret(b'b', 48),
        HS512 => secret(b'c', 64),
        RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => public(RSA),
        ES256 => public(P256),
        ES384 => public(P384),
        EdDSA => public(ED25519),
    }
    .unwrap()
}
