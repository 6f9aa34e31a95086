//! Invalid headers.

use super::*;

pub(super) fn headers() -> Vec<Row> {
    let deep = format!(
        r#"{{"alg":"HS256","x":{}{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    let mut rows = Vec::new();
    for header in [
        "",
        "[]",
        "null",
        "true",
        "\"HS256\"",
        "{",
        "}",
        "{}",
        r#"{"alg":null}"#,
        r#"{"alg":256}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":{"HS256":1}}"#,
        r#"{"alg":true}"#,
        r#"{"ALG":"HS256"}"#,
        r#"{"typ":"JWT"}"#,
        r#"["alg","HS256"]"#,
        r#"[{"alg":"HS256"}]"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"HS256","\u0061lg":"none"}"#,
        r#"{"alg":"HS256","typ":"JWT","typ":"JWT"}"#,
        r#"{"alg":"HS256","kid":"HS256","kid":"HS256"}"#,
        r#"{"alg":"HS256","kid":null}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r#"{"alg":"HS256","kid":["HS256"]}"#,
        r#"{"alg":"HS256","kid":{}}"#,
        r#"{"alg":"HS256",}"#,
        r#"{"alg":"HS256"}{}"#,
        r#"{"alg":"HS256"} x"#,
        r#"{'alg':'HS256'}"#,
        r#"{alg:"HS256"}"#,
        r#"{"alg":"HS256"/* */}"#,
        r#"{"alg":"HS256","x":NaN}"#,
        r#"{"alg":"HS256","x":1e400}"#,
        r#"{"alg":"HS256","x":"\ud800"}"#,
        "{\"alg\":\"HS256\",\"x\":\"\n\"}",
        "\u{feff}{\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\"}\0",
        &deep,
    ] {
        rows.push(row(
            format!("header {header}"),
            token_headed(header),
            "malformed",
        ));
    }
    rows.push(row(
        "header not UTF-8",
        token_headed(b"{\"alg\":\"HS256\",\"x\":\"\xff\"}"),
        "malformed",
    ));
    let wide: Vec<u8> = r#"{"alg":"HS256"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    rows.push(row("header in UTF-16", token_headed(wide), "malformed"));
    for crit in [
        "[]",
        "null",
        "\"exp\"",
        "[\"exp\"]",
        "[\"b64\"],\"b64\":false",
        "[\"b64\"],\"b64\":true",
        "[\"x\"],\"x\":1",
        "{}",
    ] {
        let header = format!(r#"{{"alg":"HS256","crit":{crit}}}"#);
        rows.push(row(
            format!("header {header}"),
            token_headed(header),
            "critical_header",
        ));
    }
    rows
}

pub(super) fn algorithms() -> Vec<Row> {
    let mut rows = Vec::new();
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
        "HS256\u{0}",
        "HS-256",
        "HS1",
        "HS224",
        "RS1",
        "RSA1_5",
        "ES512",
        "ES256K",
        "Ed25519",
        "Ed448",
        "EDDSA",
        "dir",
        "A128KW",
        "RSA-OAEP",
        "ＨＳ２５６",
        "HS256,none",
    ] {
        let header = json!({"alg": name, "kid": "HS256"}).to_string();
        rows.push(row(
            format!("alg {name:?}"),
            token_headed(&header),
            "forbidden_algorithm",
        ));
    }
    let claims = to_base64url(good_claims().to_string().as_bytes());
    for name in ["none", "None", "NONE", "nOnE"] {
        let header = to_base64url(json!({"alg": name}).to_string().as_bytes());
        rows.push(row(
            format!("unsigned {name}"),
            format!("{header}.{claims}."),
            "forbidden_algorithm",
        ));
    }
    rows
}

/// Returns tokens that are signed with public data.
pub(super) fn confusions() -> Vec<Row> {
    let mut rows = Vec::new();
    let named = r#"{"alg":"HS256","kid":"RS256"}"#;
    let nameless = r#"{"alg":"HS256"}"#;
    for (file, public) in [
        ("rsa.pub.pem", &testdata!("rsa.pub.pem")[..]),
        ("rsa-pkcs1.pub.pem", testdata!("rsa-pkcs1.pub.pem")),
        ("p256.pub.pem", testdata!("p256.pub.pem")),
        ("ed25519.pub.pem", testdata!("ed25519.pub.pem")),
    ] {
        let der = pem::parse(public).unwrap().into_contents();
        let trimmed = public.trim_ascii_end();
        for (form, secret) in [("as it is", public), ("trimmed", trimmed), ("as DER", &der)] {
            let token = hmac_sha256(nameless, secret);
            rows.push(row(
                format!("{file} {form} as secret"),
                token,
                "bad_signature",
            ));
            let token = hmac_sha256(named, secret);
            rows.push(row(
                format!("{file} {form} as secret, kid"),
                token,
                "forbidden_algorithm",
            ));
        }
    }
    for (what, secret) in [
        ("an empty secret", &b""[..]),
        ("31 of its bytes", &[b'a'; 31]),
        ("33 bytes", &[b'a'; 33]),
        ("the algorithm's name", b"HS256"),
        ("secret", b"secret"),
    ] {
        rows.push(row(
            format!("{what} as secret"),
            hmac_sha256(r#"{"alg":"HS256","kid":"HS256"}"#, secret),
            "bad_signature",
        ));
    }
    rows
}

pub(super) fn key_names() -> Vec<Row> {
    let mut rows = Vec::new();
    for kid in [
        "",
        "hs256",
        "HS256 ",
        "HS257",
        "*",
        "../../dev/null",
        "' OR 1=1 --",
        "/etc/passwd",
        "0",
    ] {
        let header = json!({"alg": "HS256", "kid": kid}).to_string();
        rows.push(row(
            format!("kid {kid:?}"),
            token_headed(&header),
            "unknown_key",
        ));
    }
    for kid in [
        "HS384", "HS512", "RS256", "PS256", "ES256", "ES384", "EdDSA",
    ] {
        let header = json!({"alg": "HS256", "kid": kid}).to_string();
        rows.push(row(
            format!("kid of a {kid} key"),
            token_headed(&header),
            "forbidden_algorithm",
        ));
    }
    let foreign = foreign_private(Algorithm::HS256);
    let jwk = to_base64url(foreign);
    for header in [
        json!({"alg": "HS256", "jwk": {"kty": "oct", "k": jwk, "alg": "HS256"}}),
        json!({"alg": "HS256", "jku": "https://evil.example/jwks.json"}),
        json!({"alg": "HS256", "x5u": "https://evil.example/cert.pem"}),
        json!({"alg": "HS256", "x5c": ["MIIB"]}),
    ] {
        let header = header.to_string();
        rows.push(row(
            format!("header {header}"),
            hmac_sha256(&header, foreign),
            "bad_signature",
        ));
    }
    rows
}
