//! A token, and whether it is accepted. The first byte selects whether the rest is a token,
//! or a header and claims, one per line, that are then signed.

use std::{sync::LazyLock, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use serde_json::Value;
use sidewire::auth::{
    Algorithm, EXPIRY_AHEAD_MAX, Identity, Secret, TokenRules, TokenVerifier, VerificationKey,
};
use sidewire_protocol::Topic;

use crate::seeds::{Seeds, read};

const IS_TO_BE_SIGNED: u8 = 1;
const NOW: Duration = Duration::from_secs(1_800_000_000);
const LEEWAY: Duration = Duration::from_secs(5);
const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "sidewire";
const SECRET: [u8; 32] = [b'a'; 32];

/// Tokens signed by another library, one for each algorithm in [`Algorithm::ALL`].
static TOKENS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let file = read("src/auth/testdata/pyjwt.tokens.txt");
    file.lines().map(str::to_owned).collect()
});

static VERIFIER: LazyLock<TokenVerifier> = LazyLock::new(|| {
    let rules = TokenRules {
        issuer: Some(ISSUER.to_owned()),
        audience: Some(AUDIENCE.to_owned()),
        leeway: LEEWAY,
        ..TokenRules::default()
    };
    let keys = Algorithm::ALL.into_iter().map(key).collect();
    TokenVerifier::new(keys, rules).expect("there are keys")
});

/// Checks one token.
pub fn run(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let Ok(text) = str::from_utf8(rest) else {
        return;
    };
    if first & IS_TO_BE_SIGNED == 0 {
        let verdict = VERIFIER.verify(text, NOW);
        assert!(verdict.is_err() || is_ours(text), "nobody signed {text}");
        return;
    }
    let (header, claims) = text.split_once('\n').unwrap_or((HEADER, text));
    match VERIFIER.verify(&sign(header, claims), NOW) {
        Ok(identity) => check(&identity, header, claims),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Returns true if the signed part of the token is that of one of [`TOKENS`].
fn is_ours(token: &str) -> bool {
    let signed = |token: &str| token.rsplit_once('.').map(|(signed, _)| signed.to_owned());
    TOKENS.iter().any(|ours| signed(ours) == signed(token))
}

/// Decodes header and claims again with a lenient parser, and checks that the identity
/// agrees with them.
fn check(identity: &Identity, header: &str, claims: &str) {
    let header: Value = serde_json::from_str(header).expect("a header is JSON");
    assert_eq!(header["alg"], "HS256");
    assert!(header.get("crit").is_none());
    let claims: Value = serde_json::from_str(claims).expect("claims are JSON");
    assert_eq!(claims["iss"], ISSUER);
    let is_for_us = |name: &Value| *name == AUDIENCE;
    let audiences = claims["aud"].as_array();
    assert!(is_for_us(&claims["aud"]) || audiences.is_some_and(|all| all.iter().any(is_for_us)));
    assert!(
        claims["exp"].as_f64().expect("exp is a number") + LEEWAY.as_secs_f64() > NOW.as_secs_f64()
    );
    let ends = identity.expires_at.expect("tokens end");
    assert!(ends > NOW && ends <= NOW + EXPIRY_AHEAD_MAX);
    assert_eq!(identity.tenant.as_str(), name(&claims["tenant_id"]));
    assert_eq!(identity.user.as_str(), name(&claims["user_id"]));
    if let Some(topics) = claims.get("topics") {
        let text = topics[0].as_str();
        for topic in ["project:p1", "sprint:s1"]
            .into_iter()
            .flat_map(Topic::parse)
        {
            let all = topics.as_array().expect("topics are a list");
            let holds = all
                .iter()
                .any(|it| *it == topic.as_str() || *it == format!("{}:*", topic.kind()));
            assert_eq!(identity.grant.allows(&topic), holds, "{text:?}");
        }
    }
    let subscribe = claims.get("subscribe").and_then(Value::as_array);
    assert_eq!(identity.subscriptions.is_some(), subscribe.is_some());
    for topic in identity.subscriptions.iter().flatten() {
        let is_listed = subscribe.is_some_and(|all| all.iter().any(|it| *it == topic.as_str()));
        assert!(
            is_listed && identity.grant.allows(topic) && !topic.is_implicit(),
            "{topic}"
        );
    }
}

fn name(claim: &Value) -> String {
    claim
        .as_str()
        .map_or_else(|| claim.to_string(), str::to_owned)
}

fn sign(header: &str, claims: &str) -> String {
    let signed = [header, claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let key = EncodingKey::from_secret(&SECRET);
    let signature =
        jsonwebtoken::crypto::sign(signed.as_bytes(), &key, jsonwebtoken::Algorithm::HS256);
    format!("{signed}.{}", signature.expect("a secret signs"))
}

fn key(algorithm: Algorithm) -> VerificationKey {
    use Algorithm::{
        ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
    };
    let kid = Some(algorithm.to_string());
    let secret = |byte, len| {
        VerificationKey::from_secret(algorithm, kid.clone(), &Secret::new(vec![byte; len]))
    };
    let public = |name: &str| {
        let pem = read(&format!("src/auth/testdata/{name}.pub.pem"));
        VerificationKey::from_public_key_pem(algorithm, kid.clone(), pem.as_bytes())
    };
    match algorithm {
        HS256 => secret(b'a', 32),
        HS384 => secret(b'b', 48),
        HS512 => secret(b'c', 64),
        RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => public("rsa"),
        ES256 => public("p256"),
        ES384 => public("p384"),
        EdDSA => public("ed25519"),
    }
    .expect("the key is one")
}

/// Returns valid tokens, tokens with unusual headers, and claims.
#[must_use]
pub fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    for (algorithm, token) in Algorithm::ALL.into_iter().zip(TOKENS.iter()) {
        seeds.insert(
            format!("token-{algorithm}"),
            [&[0][..], token.as_bytes()].concat(),
        );
    }
    for (name, header) in HEADERS {
        let text = format!("{header}\n{CLAIMS}");
        seeds.insert(format!("header-{name}"), to_be_signed(&text));
        let unsigned = [*header, CLAIMS]
            .map(|part| URL_SAFE_NO_PAD.encode(part))
            .join(".");
        let unsigned = [&[0][..], unsigned.as_bytes(), b"."].concat();
        seeds.insert(format!("unsigned-{name}"), unsigned);
    }
    for (name, old, new) in CLAIM_CHANGES {
        let claims = CLAIMS.replace(old, new);
        assert!(claims != CLAIMS, "{name}");
        seeds.insert(
            format!("claims-{name}"),
            to_be_signed(&format!("{HEADER}\n{claims}")),
        );
    }
    seeds
}

fn to_be_signed(text: &str) -> Vec<u8> {
    [&[IS_TO_BE_SIGNED][..], text.as_bytes()].concat()
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

const CLAIMS: &str = r#"{"iss":"https://id.example","aud":"sidewire","exp":1800000600,"nbf":1799999000,"iat":1799999000,"tenant_id":"acme","user_id":7,"topics":["project:p1","sprint:*"]}"#;

const HEADERS: &[(&str, &str)] = &[
    ("plain", HEADER),
    ("kid", r#"{"alg":"HS256","kid":"HS256"}"#),
    ("other-kid", r#"{"alg":"HS256","kid":"RS256"}"#),
    ("none", r#"{"alg":"none"}"#),
    ("crit", r#"{"alg":"HS256","crit":["exp"]}"#),
    ("twice", r#"{"alg":"HS256","alg":"HS256"}"#),
    (
        "jku",
        r#"{"alg":"RS256","jku":"https://evil.example","jwk":{"kty":"oct"}}"#,
    ),
    ("number", r#"{"alg":7}"#),
];

const CLAIM_CHANGES: &[(&str, &str, &str)] = &[
    ("float-exp", "1800000600", "1800000600.5"),
    ("huge-exp", "1800000600", "18446744073709551615"),
    ("vast-exp", "1800000600", "1e308"),
    ("negative-exp", "1800000600", "-1"),
    ("string-exp", "1800000600", "\"1800000600\""),
    ("past-exp", "1800000600", "1799999995"),
    ("future-nbf", "\"nbf\":1799999000", "\"nbf\":1800000006"),
    ("several-aud", "\"sidewire\"", "[\"other\",\"sidewire\"]"),
    ("other-iss", "id.example", "id.example.evil"),
    (
        "twice",
        "\"user_id\":7",
        "\"user_id\":7,\"user_id\":\"ann\"",
    ),
    ("number-tenant", "\"acme\"", "-42"),
    ("float-user", "7", "7.0"),
    ("empty-tenant", "\"acme\"", "\"\""),
    ("control-tenant", "\"acme\"", "\"a\\u0000\""),
    ("no-topics", "[\"project:p1\",\"sprint:*\"]", "[]"),
    ("null-topics", "[\"project:p1\",\"sprint:*\"]", "null"),
    (
        "deep",
        "[\"project:p1\",\"sprint:*\"]",
        "[[[[[[[[{}]]]]]]]]",
    ),
];
