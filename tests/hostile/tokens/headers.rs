//! The headers of tokens, and the keys of their signatures.

use std::{fs, path::Path};

use serde_json::json;
use sidewire_testing::token::{self, base64url};

use super::{HEADER, Token, claims_of, kind};

use crate::{campaign::Mutator, forge::signed};

/// Headers with a valid signature.
pub(super) fn headers() -> Vec<Mutator<Token>> {
    let mut mutators = Vec::new();
    for header in [
        "",
        "[]",
        "null",
        "true",
        "\"HS256\"",
        "{",
        "{}",
        r#"{"alg":null}"#,
        r#"{"alg":256}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":true}"#,
        r#"{"ALG":"HS256"}"#,
        r#"{"typ":"JWT"}"#,
        r#"[{"alg":"HS256"}]"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","\u0061lg":"none"}"#,
        r#"{"alg":"HS256","kid":null}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r#"{"alg":"HS256","kid":["a"]}"#,
        r#"{"alg":"HS256",}"#,
        r#"{"alg":"HS256"}{}"#,
        r#"{"alg":"HS256"} x"#,
        r#"{'alg':'HS256'}"#,
        r#"{alg:"HS256"}"#,
        r#"{"alg":"HS256","x":NaN}"#,
        r#"{"alg":"HS256","x":1e400}"#,
        r#"{"alg":"HS256","x":"\ud800"}"#,
        "\u{feff}{\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\"}\0",
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
    ] {
        mutators.push(kind(format!("header {header:?}"), move |_| {
            signed(header, claims_of("ann"))
        }));
    }
    mutators.push(kind("a header that is deep", |forge| {
        let deep = "[".repeat(forge.between(200, 2000));
        signed(format!(r#"{{"alg":"HS256","x":{deep}}}"#), claims_of("ann"))
    }));
    mutators.push(kind("a header that is not UTF-8", |_| {
        signed(b"{\"alg\":\"HS256\",\"x\":\"\xff\"}", claims_of("ann"))
    }));
    mutators
}

pub(super) fn algorithms() -> Vec<Mutator<Token>> {
    let mut mutators = Vec::new();
    for name in [
        "",
        "none",
        "None",
        "NONE",
        "nOnE",
        "none ",
        "null",
        "hs256",
        "Hs256",
        "HS256 ",
        " HS256",
        "HS256\0",
        "HS-256",
        "HS1",
        "HS224",
        "HS384",
        "HS512",
        "RS1",
        "RSA1_5",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "ES256",
        "ES384",
        "ES512",
        "ES256K",
        "EdDSA",
        "Ed25519",
        "Ed448",
        "dir",
        "A128KW",
        "RSA-OAEP",
        "HS256,none",
        "../HS256",
    ] {
        mutators.push(kind(format!("alg {name:?}"), move |_| {
            signed(json!({"alg": name}).to_string(), claims_of("ann"))
        }));
    }
    for name in ["none", "None", "NONE", "nOnE", "HS256"] {
        mutators.push(kind(format!("alg {name:?} and no signature"), move |_| {
            let header = base64url(json!({"alg": name}).to_string());
            format!("{header}.{}.", base64url(claims_of("root")))
        }));
    }
    mutators
}

/// Signatures made with keys that anybody can have.
pub(super) fn keys() -> Vec<Mutator<Token>> {
    let mut mutators = Vec::new();
    for file in ["rsa.pub.pem", "p256.pub.pem", "ed25519.pub.pem"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/auth/testdata")
            .join(file);
        let public = fs::read(path).unwrap();
        let der = pem::parse(&public).unwrap().into_contents();
        for (form, secret) in [("as it is", public), ("as DER", der)] {
            mutators.push(kind(format!("{file} {form} as the secret"), move |forge| {
                let named = json!({"alg": "HS256", "kid": file}).to_string();
                let header = forge.pick(&[HEADER, &named]).to_owned();
                token::signed(&secret, header, claims_of("ann"))
            }));
        }
    }
    for (name, secret) in [
        ("nothing", ""),
        ("secret", "secret"),
        ("the algorithm", "HS256"),
    ] {
        mutators.push(kind(format!("{name} as the secret"), move |_| {
            token::signed(secret.as_bytes(), HEADER, claims_of("ann"))
        }));
    }
    mutators.push(kind("a secret by chance", |forge| {
        let len = forge.between(1, 200);
        token::signed(&forge.bytes(len), HEADER, claims_of("ann"))
    }));
    for header in [
        json!({"alg": "HS256", "jwk": {"kty": "oct", "k": base64url("evil"), "alg": "HS256"}}),
        json!({"alg": "HS256", "jku": "https://evil.example/jwks.json"}),
        json!({"alg": "HS256", "x5u": "https://evil.example/cert.pem"}),
        json!({"alg": "HS256", "x5c": ["MIIB"]}),
        json!({"alg": "HS256", "kid": "../../../../dev/null"}),
        json!({"alg": "HS256", "kid": "' OR 1=1 --"}),
    ] {
        mutators.push(kind(format!("a key of its own, {header}"), move |_| {
            token::signed(b"evil", header.to_string(), claims_of("ann"))
        }));
    }
    mutators.push(kind("a kid of another key", |forge| {
        let kid = forge.pick(&["p256", "rsa"]);
        signed(
            json!({"alg": "HS256", "kid": kid}).to_string(),
            claims_of("ann"),
        )
    }));
    mutators
}
