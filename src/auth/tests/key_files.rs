//! Tests of key files: the accepted files and their algorithms.

use super::*;

fn public(algorithm: Algorithm, pem: &[u8]) -> Result<(), KeyError> {
    VerificationKey::from_public_key_pem(algorithm, None, pem).map(drop)
}

fn private(algorithm: Algorithm, pem: &[u8]) -> Result<(), KeyError> {
    SigningKey::from_private_key_pem(algorithm, None, pem).map(drop)
}

#[test]
fn a_secret_is_at_least_as_long_as_its_hash() {
    for (algorithm, bytes_min) in [
        (Algorithm::HS256, 32),
        (Algorithm::HS384, 48),
        (Algorithm::HS512, 64),
    ] {
        for (bytes, fits) in [
            (0, false),
            (bytes_min - 1, false),
            (bytes_min, true),
            (200, true),
        ] {
            let secret = Secret::new(vec![7; bytes]);
            let expected = fits.then_some(()).ok_or(KeyError::SecretTooShort {
                algorithm,
                bytes,
                bytes_min,
            });
            let verifying = VerificationKey::from_secret(algorithm, None, &secret);
            assert_eq!(verifying.map(drop), expected);
            let signing = SigningKey::from_secret(algorithm, None, &secret);
            assert_eq!(signing.map(drop), expected);
        }
    }
}

#[test]
fn secrets_and_pem_files_are_not_mistaken_for_each_other() {
    let (algorithm, pem) = (Algorithm::HS256, testdata!("rsa.pub.pem"));
    let taken = VerificationKey::from_secret(algorithm, None, &Secret::new(*pem));
    assert_eq!(taken.map(drop), Err(KeyError::PemAsSecret { algorithm }));
    assert_eq!(
        public(algorithm, pem),
        Err(KeyError::PemForSecret { algorithm })
    );
    let algorithm = Algorithm::RS256;
    let taken = VerificationKey::from_secret(algorithm, None, &Secret::new([1; 64]));
    assert_eq!(
        taken.map(drop),
        Err(KeyError::SecretForKeyPair { algorithm })
    );
}

#[test]
fn a_public_key_must_fit_its_algorithm() {
    use Algorithm::{ES256, ES384, EdDSA, PS512, RS256};
    let rejected = |algorithm| Err(KeyError::Rejected { algorithm });
    for (number, (algorithm, pem, verdict)) in [
        (RS256, &testdata!("rsa.pub.pem")[..], Ok(())),
        (PS512, testdata!("rsa-pkcs1.pub.pem"), Ok(())),
        (
            RS256,
            testdata!("rsa-1024.pub.pem"),
            Err(KeyError::RsaSize { bits: 1024 }),
        ),
        (
            PS512,
            testdata!("rsa-2047.pub.pem"),
            Err(KeyError::RsaSize { bits: 2047 }),
        ),
        (RS256, testdata!("p256.pub.pem"), rejected(RS256)),
        (RS256, testdata!("ed25519.pub.pem"), rejected(RS256)),
        (ES256, testdata!("p256.pub.pem"), Ok(())),
        (ES256, testdata!("p256-sec1.pub.pem"), Ok(())),
        (ES256, testdata!("p384.pub.pem"), rejected(ES256)),
        (ES256, testdata!("p521.pub.pem"), rejected(ES256)),
        (ES256, testdata!("secp256k1.pub.pem"), rejected(ES256)),
        (ES256, testdata!("rsa.pub.pem"), rejected(ES256)),
        (ES384, testdata!("p384.pub.pem"), Ok(())),
        (ES384, testdata!("p256.pub.pem"), rejected(ES384)),
        (ES384, testdata!("p521.pub.pem"), rejected(ES384)),
        (EdDSA, testdata!("ed25519.pub.pem"), Ok(())),
        (EdDSA, testdata!("ed448.pub.pem"), rejected(EdDSA)),
        (EdDSA, testdata!("p256.pub.pem"), rejected(EdDSA)),
        (RS256, testdata!("rsa.pem"), Err(KeyError::PrivateKey)),
        (RS256, testdata!("rsa-pkcs1.pem"), Err(KeyError::PrivateKey)),
        (ES256, testdata!("p256-sec1.pem"), Err(KeyError::PrivateKey)),
        (
            EdDSA,
            testdata!("ed25519-encrypted.pem"),
            Err(KeyError::PrivateKey),
        ),
        (RS256, testdata!("rsa.cert.pem"), Err(KeyError::Certificate)),
        (RS256, b"", Err(KeyError::NoPem)),
        (RS256, b"ssh-rsa AAAA", Err(KeyError::NoPem)),
        (
            RS256,
            b"-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n",
            Err(KeyError::NoPem),
        ),
        (
            RS256,
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            rejected(RS256),
        ),
        (
            RS256,
            b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            Err(KeyError::PemKind),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(public(algorithm, pem), verdict, "row {number}");
    }
    let two = [
        &testdata!("rsa.pub.pem")[..],
        testdata!("rsa-other.pub.pem"),
    ]
    .concat();
    assert_eq!(public(RS256, &two), Err(KeyError::PemBlocks(2)));
}

#[test]
fn a_private_key_must_fit_its_algorithm() {
    use Algorithm::{ES256, ES384, EdDSA, HS256, PS256, RS256};
    let rejected = |algorithm| Err(KeyError::Rejected { algorithm });
    for (number, (algorithm, pem, verdict)) in [
        (RS256, &testdata!("rsa.pem")[..], Ok(())),
        (PS256, testdata!("rsa-pkcs1.pem"), Ok(())),
        (ES256, testdata!("p256.pem"), Ok(())),
        (ES256, testdata!("p256-sec1.pem"), Ok(())),
        (ES384, testdata!("p384.pem"), Ok(())),
        (EdDSA, testdata!("ed25519.pem"), Ok(())),
        (ES256, testdata!("p384.pem"), rejected(ES256)),
        (ES384, testdata!("p256-sec1.pem"), rejected(ES384)),
        (RS256, testdata!("p256.pem"), rejected(RS256)),
        (EdDSA, testdata!("rsa.pem"), rejected(EdDSA)),
        (RS256, testdata!("rsa.pub.pem"), Err(KeyError::PublicKey)),
        (RS256, testdata!("rsa.cert.pem"), Err(KeyError::PublicKey)),
        (
            EdDSA,
            testdata!("ed25519-encrypted.pem"),
            Err(KeyError::EncryptedKey),
        ),
        (
            HS256,
            testdata!("rsa.pem"),
            Err(KeyError::PemForSecret { algorithm: HS256 }),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(private(algorithm, pem), verdict, "row {number}");
    }
}

/// The keys of the RFCs: RFC 7515, A.1 to A.3, and RFC 8037, A.2.
fn rfc_jwk(index: usize) -> Value {
    let set: Value = serde_json::from_slice(testdata!("rfc.jwks.json")).unwrap();
    set["keys"][index].clone()
}

fn jwks(keys: &[Value]) -> Result<Vec<VerificationKey>, KeyError> {
    VerificationKey::from_jwks(json!({ "keys": keys }).to_string().as_bytes())
}

/// Returns the JWK with one parameter replaced, or removed if the new value is `null`.
fn changed(index: usize, parameter: &str, value: Value) -> Value {
    let mut jwk = rfc_jwk(index);
    if value.is_null() {
        jwk.as_object_mut().unwrap().remove(parameter);
    } else {
        jwk[parameter] = value;
    }
    jwk
}

const OCT: usize = 0;
const RSA: usize = 1;
const EC: usize = 2;
const OKP: usize = 3;

#[test]
fn a_jwk_without_an_algorithm_gets_the_default_of_its_key_type() {
    let keys = jwks(&[rfc_jwk(OCT), rfc_jwk(RSA), rfc_jwk(EC), rfc_jwk(OKP)]).unwrap();
    let algorithms: Vec<_> = keys.iter().map(VerificationKey::algorithm).collect();
    assert_eq!(
        algorithms,
        [
            Algorithm::HS256,
            Algorithm::RS256,
            Algorithm::ES256,
            Algorithm::EdDSA
        ]
    );
    let named = jwks(&[
        changed(RSA, "alg", json!("PS384")),
        changed(EC, "kid", json!("k2")),
    ])
    .unwrap();
    assert_eq!(named[0].algorithm(), Algorithm::PS384);
    assert_eq!((named[0].kid(), named[1].kid()), (None, Some("k2")));
}

#[test]
fn jwks_that_are_not_for_signatures_are_skipped() {
    let keys = jwks(&[
        changed(RSA, "use", json!("enc")),
        changed(EC, "use", json!("sig")),
        changed(OKP, "key_ops", json!(["sign"])),
        changed(OCT, "key_ops", json!(["sign", "verify"])),
    ])
    .unwrap();
    let algorithms: Vec<_> = keys.iter().map(VerificationKey::algorithm).collect();
    assert_eq!(algorithms, [Algorithm::ES256, Algorithm::HS256]);
    assert_eq!(jwks(&[]).map(drop), Err(KeyError::EmptyJwks));
    let none = jwks(&[changed(RSA, "use", json!("enc"))]);
    assert_eq!(none.map(drop), Err(KeyError::EmptyJwks));
}

#[test]
fn the_private_parameters_of_a_jwk_are_ignored() {
    assert!(
        jwks(&[
            changed(EC, "d", json!(17)),
            changed(RSA, "x5c", json!(["?"]))
        ])
        .is_ok()
    );
}

#[test]
fn an_unusable_jwk_is_named_by_its_index() {
    let rejected = |algorithm| JwkProblem::Key(Box::new(KeyError::Rejected { algorithm }));
    let short = JwkProblem::Key(Box::new(KeyError::SecretTooShort {
        algorithm: Algorithm::HS256,
        bytes: 3,
        bytes_min: 32,
    }));
    for (number, (jwk, problem)) in [
        (changed(EC, "kty", Value::Null), JwkProblem::Missing("kty")),
        (
            changed(EC, "kty", json!("ec")),
            JwkProblem::Unsupported("kty"),
        ),
        (changed(EC, "crv", Value::Null), JwkProblem::Missing("crv")),
        (
            changed(EC, "crv", json!("P-521")),
            JwkProblem::Unsupported("crv"),
        ),
        (changed(EC, "crv", json!("P-384")), JwkProblem::Length("x")),
        (changed(EC, "x", Value::Null), JwkProblem::Missing("x")),
        (changed(EC, "y", json!("AA")), JwkProblem::Length("y")),
        (changed(EC, "y", json!("A=")), JwkProblem::Encoding("y")),
        (
            changed(EC, "y", rfc_jwk(EC)["x"].clone()),
            rejected(Algorithm::ES256),
        ),
        (changed(EC, "alg", json!("ES384")), JwkProblem::Algorithm),
        (changed(EC, "alg", json!("RS256")), JwkProblem::Algorithm),
        (
            changed(EC, "alg", json!("ES512")),
            JwkProblem::Unsupported("alg"),
        ),
        (changed(RSA, "alg", json!("HS256")), JwkProblem::Algorithm),
        (
            changed(RSA, "alg", json!("none")),
            JwkProblem::Unsupported("alg"),
        ),
        (changed(RSA, "n", Value::Null), JwkProblem::Missing("n")),
        (changed(RSA, "n", json!("")), rejected(Algorithm::RS256)),
        (
            changed(RSA, "n", json!("AQAB")),
            JwkProblem::Key(Box::new(KeyError::RsaSize { bits: 17 })),
        ),
        (
            changed(RSA, "e", json!("AAEAAQ")),
            rejected(Algorithm::RS256),
        ),
        (changed(RSA, "e", json!("AQ")), rejected(Algorithm::RS256)),
        (changed(RSA, "e", json!("+")), JwkProblem::Encoding("e")),
        (
            changed(OKP, "crv", json!("X25519")),
            JwkProblem::Unsupported("crv"),
        ),
        (changed(OKP, "x", json!("AAAA")), JwkProblem::Length("x")),
        (changed(OKP, "alg", json!("HS256")), JwkProblem::Algorithm),
        (changed(OCT, "alg", Value::Null), JwkProblem::Missing("alg")),
        (changed(OCT, "alg", json!("RS256")), JwkProblem::Algorithm),
        (changed(OCT, "k", Value::Null), JwkProblem::Missing("k")),
        (changed(OCT, "k", json!("AAAA")), short),
    ]
    .into_iter()
    .enumerate()
    {
        let error = jwks(&[rfc_jwk(OKP), jwk]).map(drop);
        assert_eq!(
            error,
            Err(KeyError::Jwk { index: 1, problem }),
            "row {number}"
        );
    }
}

#[test]
fn an_invalid_jwks_file_is_refused_without_being_quoted() {
    let canary = "canary-7f3a";
    for text in [
        String::new(),
        format!("\"{canary}\""),
        format!("{{\"keys\":\"{canary}\"}}"),
        format!("{{\"keys\":[\"{canary}\"]}}"),
        format!("{{\"keys\":[{{\"kty\":\"oct\",\"k\":[\"{canary}\"]}}]}}"),
        format!("{{\"keys\":[{{\"kty\":\"oct\",\"k\":\"{canary}\",\"k\":\"{canary}\"}}]}}"),
        rfc_jwk(EC).to_string(),
        "{\"keys\":[]} x".to_owned(),
    ] {
        let error = VerificationKey::from_jwks(text.as_bytes()).unwrap_err();
        assert!(matches!(error, KeyError::Jwks { .. }), "{text}");
        assert!(!format!("{error} {error:?}").contains(canary), "{error}");
    }
}

#[test]
fn debug_output_shows_no_key() {
    for algorithm in Algorithm::ALL {
        let (private, public) = halves(algorithm);
        let shown = format!(
            "{:?} {:?}",
            signing_key(algorithm, Some("k1"), private),
            verification_key(algorithm, Some("k1"), public)
        );
        let expected = format!(
            "SigningKey {{ kid: Some(\"k1\"), algorithm: {algorithm:?}, .. }} \
             VerificationKey {{ kid: Some(\"k1\"), algorithm: {algorithm:?}, .. }}"
        );
        assert_eq!(shown, expected);
    }
}

#[test]
fn an_error_tells_the_operator_what_to_do() {
    for (error, words) in [
        (KeyError::PrivateKey, "-pubout"),
        (KeyError::Certificate, "openssl x509"),
        (
            KeyError::SecretForKeyPair {
                algorithm: Algorithm::ES256,
            },
            "ES256 needs an elliptic-curve key on P-256",
        ),
        (
            KeyError::Rejected {
                algorithm: Algorithm::EdDSA,
            },
            "this key cannot be used with EdDSA, which needs an Ed25519 key",
        ),
        (KeyError::RsaSize { bits: 1024 }, "1024 bits"),
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn secrets_and_unsupported_keys_of_a_fetched_set_are_skipped() {
    let secret = json!({"kty": "oct", "alg": "HS256", "kid": "s", "k": "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE"});
    let encryption = json!({"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"});
    let unknown = json!({"kty": "XYZ", "kid": "u"});
    let curve = json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"});
    let set = |keys: &[Value]| json!({ "keys": keys }).to_string();
    let all = [
        secret.clone(),
        rfc_jwk(OKP),
        encryption,
        unknown,
        curve,
        rfc_jwk(EC),
    ];
    let (keys, passed_over) = VerificationKey::from_fetched_jwks(set(&all).as_bytes()).unwrap();
    let algorithms: Vec<_> = keys.iter().map(VerificationKey::algorithm).collect();
    assert_eq!((algorithms.len(), passed_over), (2, 4), "{algorithms:?}");
    assert!(algorithms.iter().all(|algorithm| !algorithm.is_symmetric()));
    let only_secret = VerificationKey::from_fetched_jwks(set(&[secret]).as_bytes());
    assert_eq!(only_secret.map(drop), Err(KeyError::EmptyJwks));
}

#[test]
fn a_malformed_key_of_a_fetched_set_does_not_affect_the_others() {
    for odd in [
        json!(null),
        json!("x"),
        json!(7),
        json!([rfc_jwk(EC)]),
        json!({}),
        json!({"kty": 1}),
        changed(EC, "kid", json!(7)),
        changed(EC, "key_ops", json!("verify")),
        changed(EC, "use", json!(["sig"])),
        changed(RSA, "n", json!(["AQAB"])),
    ] {
        let set = json!({ "keys": [odd, rfc_jwk(OKP), odd] }).to_string();
        let fetched = VerificationKey::from_fetched_jwks(set.as_bytes());
        let (keys, passed_over) = fetched.unwrap_or_else(|error| panic!("{odd}: {error}"));
        assert_eq!((keys.len(), passed_over), (1, 2), "{odd}");
        assert_eq!(keys[0].algorithm(), Algorithm::EdDSA);
    }
}

#[test]
fn a_fingerprint_depends_on_key_name_and_algorithm_and_reveals_none() {
    let [a, b] = [[b'a'; 64], [b'b'; 64]].map(Secret::new);
    let of = |algorithm, kid: Option<&str>, secret: &Secret| {
        let kid = kid.map(str::to_owned);
        VerificationKey::from_secret(algorithm, kid, secret)
            .unwrap()
            .fingerprint()
    };
    let one = of(Algorithm::HS256, Some("k"), &a);
    assert_eq!(one, of(Algorithm::HS256, Some("k"), &a));
    for other in [
        of(Algorithm::HS256, Some("k"), &b),
        of(Algorithm::HS384, Some("k"), &a),
        of(Algorithm::HS256, Some("l"), &a),
        of(Algorithm::HS256, Some(""), &a),
        of(Algorithm::HS256, None, &a),
    ] {
        assert_ne!(one, other);
    }
}
