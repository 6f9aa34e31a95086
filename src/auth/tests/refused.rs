//! Tokens that must be refused, each made from a good one by one change.

use std::collections::{HashMap, HashSet};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;

/// What was changed, the token, and why it is refused.
type Row = (String, String, &'static str);

fn row(what: impl Into<String>, token: impl Into<String>, reason: &'static str) -> Row {
    (what.into(), token.into(), reason)
}

#[test]
fn every_token_of_the_table_is_refused_for_its_reason() {
    let verifier = verifier();
    let rows: Vec<Row> = [
        shapes(),
        encodings(),
        headers(),
        algorithms(),
        confusions(),
        key_names(),
        signatures(),
        curve_signatures(),
        claim_objects(),
        times(),
        parties(),
        names(),
        grants(),
    ]
    .concat();
    for (what, token, reason) in &rows {
        assert_eq!(
            super::reason(verifier.verify(token, now())),
            *reason,
            "{what}"
        );
    }
    let mut seen = HashMap::new();
    for (what, token, _) in &rows {
        if let Some(earlier) = seen.insert(token, what) {
            panic!("the same token twice: {earlier}, {what}");
        }
    }
    assert!(rows.len() >= 550, "{} rows", rows.len());
    let met: HashSet<&str> = rows.iter().map(|(_, _, reason)| *reason).collect();
    // A token that is missing is no row of a table of tokens.
    assert_eq!(met.len(), TokenError::REASONS.len() - 1, "{met:?}");
}

fn shapes() -> Vec<Row> {
    let good = good_token(Algorithm::HS256);
    let [h, c, s] = split(&good);
    let mut rows = Vec::new();
    for text in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "null".into(),
        h.into(),
        format!("{h}.{c}"),
        format!(".{c}.{s}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{s}"),
        format!("{h}.{c}.{s}.{c}.{s}"),
        format!("{h}..{c}.{s}"),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{good}\0"),
        format!("Bearer {good}"),
        format!("\"{good}\""),
        format!("{good},{good}"),
        format!("{h}%2E{c}%2E{s}"),
        format!("{h}．{c}．{s}"),
        format!("{h}\r\n.{c}.{s}"),
        format!(r#"{{"protected":"{h}","payload":"{c}","signature":"{s}"}}"#),
    ] {
        rows.push(row(format!("shape {text:?}"), text, "malformed"));
    }
    rows.push(row("no claims", format!("{h}..{s}"), "bad_signature"));
    rows.push(row("signed emptiness", segments(h, ""), "malformed"));
    let filler = "x".repeat(TOKEN_BYTES_MAX);
    rows.push(row(
        "too long",
        token_with(with("pad", &format!("\"{filler}\""))),
        "too_long",
    ));
    rows.push(row(
        "too long and no token",
        ".".repeat(TOKEN_BYTES_MAX + 1),
        "too_long",
    ));
    rows.push(row("as long as may be, and no token", filler, "malformed"));
    rows
}

fn encodings() -> Vec<Row> {
    let good = good_token(Algorithm::HS256);
    let [h, c, s] = split(&good);
    let header = uneven(&header_of(Algorithm::HS256));
    let claims = uneven(&good_claims().to_string());
    let standard = to_base64url(br#"{"alg":"HS256","x":"???>>>"}"#)
        .replace('-', "+")
        .replace('_', "/");
    assert!(standard.contains(['+', '/']));
    let mut tokens = vec![
        ("padded signature", format!("{h}.{c}.{}", padded(s))),
        ("padded header", segments(&padded(&header), c)),
        ("padded claims", segments(h, &padded(&claims))),
        ("header in the standard alphabet", segments(&standard, c)),
        ("white space in the header", segments(&format!("{h} "), c)),
        ("newline in the claims", segments(h, &format!("{c}\n"))),
        ("plain JSON as header", segments(r#"{"alg":"HS256"}"#, c)),
        ("plain JSON as claims", segments(h, "{}")),
        ("a signature of odd length", format!("{h}.{c}.abcde")),
        ("plus in the signature", format!("{h}.{c}.+{s}")),
        ("umlaut in the signature", format!("{h}.{c}.ä{s}")),
    ];
    for spelling in other_spellings(s) {
        tokens.push(("loose bits in the signature", format!("{h}.{c}.{spelling}")));
    }
    for spelling in other_spellings(&header) {
        tokens.push(("loose bits in the header", segments(&spelling, c)));
    }
    for spelling in other_spellings(&claims) {
        tokens.push(("loose bits in the claims", segments(h, &spelling)));
    }
    let rows = tokens.into_iter();
    rows.map(|(what, token)| row(what, token, "malformed"))
        .collect()
}

/// Base64url that would need padding, brought about by white space in the JSON.
fn uneven(json: &str) -> String {
    let texts = ["", " ", "  "].map(|blanks| to_base64url(format!("{json}{blanks}").as_bytes()));
    texts.into_iter().find(|text| text.len() % 4 != 0).unwrap()
}

/// The text with the padding that base64 asks for.
fn padded(text: &str) -> String {
    let missing = 4 - text.len() % 4;
    assert_ne!(missing, 4);
    format!("{text}{}", "=".repeat(missing))
}

/// Texts that a lax decoder takes for the same bytes: the bits that are over in
/// the last character, set otherwise.
fn other_spellings(text: &str) -> Vec<String> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = text.split_at(text.len() - 1);
    let place = ALPHABET.iter().position(|byte| last.as_bytes() == [*byte]);
    let value = place.unwrap();
    let spare = match text.len() % 4 {
        2 => 16,
        3 => 4,
        _ => panic!("no bits are over"),
    };
    assert_eq!(value % spare, 0);
    (1..spare)
        .map(|bits| format!("{rest}{}", char::from(ALPHABET[value + bits])))
        .collect()
}

fn headers() -> Vec<Row> {
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

fn algorithms() -> Vec<Row> {
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

/// Tokens that are signed with what everybody can have.
fn confusions() -> Vec<Row> {
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

fn hmac_sha256(header: &str, secret: &[u8]) -> String {
    compact_by(secret, Algorithm::HS256, header, good_claims().to_string())
}

fn key_names() -> Vec<Row> {
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

fn signatures() -> Vec<Row> {
    let mut rows = Vec::new();
    for algorithm in Algorithm::ALL {
        let good = good_token(algorithm);
        let signature = signature_of(&good);
        let bytes = signature.len();
        let mut changed = vec![
            ("no bytes", vec![]),
            ("all zero", vec![0; bytes]),
            ("all ones", vec![0xff; bytes]),
            ("a byte short", signature[..bytes - 1].to_vec()),
            ("without its first byte", signature[1..].to_vec()),
            ("a byte long", [&signature[..], &[0]].concat()),
            ("a zero before", [&[0], &signature[..]].concat()),
            ("doubled", [&signature[..], &signature].concat()),
        ];
        for (what, place) in [
            ("first byte", 0),
            ("middle byte", bytes / 2),
            ("last byte", bytes - 1),
        ] {
            let mut flipped = signature.clone();
            flipped[place] ^= 1;
            changed.push((what, flipped));
        }
        for (what, signature) in changed {
            rows.push(row(
                format!("{algorithm} signature {what}"),
                resigned(&good, &signature),
                "bad_signature",
            ));
        }
        rows.push(row(
            format!("{algorithm} by another key"),
            compact_by(
                foreign_private(algorithm),
                algorithm,
                header_of(algorithm),
                good_claims().to_string(),
            ),
            "bad_signature",
        ));
        let [h, c, s] = split(&good);
        let raised = to_base64url(with("user_id", "\"root\"").as_bytes());
        rows.push(row(
            format!("{algorithm} over other claims"),
            format!("{h}.{raised}.{s}"),
            "bad_signature",
        ));
        let plain = [header_of(algorithm), good_claims().to_string()].join(".");
        let signature = super::signature(halves(algorithm).0, algorithm, &plain);
        rows.push(row(
            format!("{algorithm} over the decoded parts"),
            format!("{h}.{c}.{signature}"),
            "bad_signature",
        ));
    }
    rows
}

/// Signatures that are right in another form.
fn curve_signatures() -> Vec<Row> {
    let mut rows = Vec::new();
    for algorithm in [Algorithm::ES256, Algorithm::ES384] {
        let good = good_token(algorithm);
        let signature = signature_of(&good);
        let (r, s) = signature.split_at(signature.len() / 2);
        rows.push(row(
            format!("{algorithm} in DER"),
            resigned(&good, &ecdsa_der(r, s)),
            "bad_signature",
        ));
        rows.push(row(
            format!("{algorithm} with s before r"),
            resigned(&good, &[s, r].concat()),
            "bad_signature",
        ));
        let mut one = vec![0; signature.len()];
        one[r.len() - 1] = 1;
        one[signature.len() - 1] = 1;
        rows.push(row(
            format!("{algorithm} with r = s = 1"),
            resigned(&good, &one),
            "bad_signature",
        ));
    }
    let good = good_token(Algorithm::EdDSA);
    rows.push(row(
        "EdDSA with s + l",
        resigned(&good, &ed25519_plus_order(&signature_of(&good))),
        "bad_signature",
    ));
    for (made, claimed) in [
        (Algorithm::RS256, Algorithm::PS256),
        (Algorithm::PS256, Algorithm::RS256),
        (Algorithm::RS384, Algorithm::RS256),
        (Algorithm::PS512, Algorithm::PS384),
        (Algorithm::ES256, Algorithm::ES384),
        (Algorithm::ES384, Algorithm::ES256),
        (Algorithm::HS512, Algorithm::HS256),
        (Algorithm::EdDSA, Algorithm::ES256),
    ] {
        let token = compact(made, header_of(claimed), good_claims().to_string());
        rows.push(row(
            format!("{made} called {claimed}"),
            token,
            "bad_signature",
        ));
    }
    let long = compact(
        Algorithm::HS384,
        header_of(Algorithm::HS256),
        good_claims().to_string(),
    );
    rows.push(row(
        "HS384 cut to HS256",
        resigned(&long, &signature_of(&long)[..32]),
        "bad_signature",
    ));
    rows
}

/// ECDSA-Sig-Value (RFC 3279, 2.2.3), which JOSE does not use.
fn ecdsa_der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let bytes = [&[0], bytes].concat();
        [&[2, u8::try_from(bytes.len()).unwrap()], &bytes[..]].concat()
    };
    let body = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

/// The same signature to whoever does not check that s is reduced (RFC 8032,
/// 5.1.7).
fn ed25519_plus_order(signature: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut sum = signature.to_vec();
    let mut carry = 0;
    for (byte, order) in sum[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    sum
}

fn claim_objects() -> Vec<Row> {
    let good = good_claims().to_string();
    let mut rows = Vec::new();
    for claims in [
        "[]".to_owned(),
        "null".into(),
        "\"acme\"".into(),
        "1".into(),
        "{".into(),
        format!("[{good}]"),
        format!("{good}{good}"),
        format!("{good}."),
        format!("\u{feff}{good}"),
        good.replace(r#""exp""#, r#""exp":1,"exp""#),
        good.replace(r#""tenant_id""#, r#""tenant_id":"acme","tenant_id""#),
        good.replace(r#""user_id""#, r#""\u0075ser_id":"root","user_id""#),
        good.replace('}', r#","x":1,"x":1}"#),
        good.replace('}', r#","x":1e400}"#),
        good.replace('}', r#","x":01}"#),
        good.replace('}', r#","x":"\ud800"}"#),
        good.replace('}', ",}"),
        good.replace('"', "'"),
        format!("{}{good}{}", r#"{"x":"#.repeat(130), "}".repeat(130)),
        good_token(Algorithm::HS256),
    ] {
        rows.push(row(
            format!("claims {claims}"),
            token_with(claims),
            "malformed",
        ));
    }
    rows.push(row(
        "claims not UTF-8",
        token_with(b"{\"tenant_id\":\"\xff\"}"),
        "malformed",
    ));
    rows
}

fn times() -> Vec<Row> {
    let mut rows = vec![row("no exp", token_with(without("exp")), "missing_claim")];
    for exp in [
        "0",
        "-0.0",
        "1",
        "1e-9",
        "1799999995",
        "1799999994",
        "1799999995.0",
        "1799999994.999",
    ] {
        rows.push(row(
            format!("exp {exp}"),
            token_with(with("exp", exp)),
            "expired",
        ));
    }
    for nbf in [
        "1800000006",
        "1800000005.5",
        "1800000006.0",
        "18446744073709551615",
        "1e300",
    ] {
        rows.push(row(
            format!("nbf {nbf}"),
            token_with(with("nbf", nbf)),
            "not_yet_valid",
        ));
    }
    for claim in ["exp", "nbf", "iat"] {
        for value in [
            "-1",
            "-0.5",
            "-1e300",
            "-9223372036854775808",
            "null",
            "true",
            "\"1800000600\"",
            "\"2027-01-15T08:10:00Z\"",
            "\"\"",
            "[1800000600]",
            "{}",
        ] {
            rows.push(row(
                format!("{claim} {value}"),
                token_with(with(claim, value)),
                "malformed_claim",
            ));
        }
        for value in [
            "1e400",
            "NaN",
            "Infinity",
            "0x7fffffff",
            "+1800000600",
            "1800000600.",
        ] {
            rows.push(row(
                format!("{claim} {value}"),
                token_with(with(claim, value)),
                "malformed",
            ));
        }
    }
    rows
}

fn parties() -> Vec<Row> {
    let mut rows = vec![
        row("no iss", token_with(without("iss")), "missing_claim"),
        row("no aud", token_with(without("aud")), "missing_claim"),
    ];
    for issuer in [
        "",
        "https://id.example/",
        "https://ID.example",
        "https://id.exampl",
        "http://id.example",
        " https://id.example",
    ] {
        rows.push(row(
            format!("iss {issuer:?}"),
            token_with(with("iss", &json!(issuer).to_string())),
            "wrong_issuer",
        ));
    }
    for issuer in ["null", "1", "[\"https://id.example\"]", "{}", "true"] {
        rows.push(row(
            format!("iss {issuer}"),
            token_with(with("iss", issuer)),
            "malformed_claim",
        ));
    }
    for audience in [
        "\"\"",
        "\"Sidewire\"",
        "\"sidewire \"",
        "\"side\"",
        "\"sidewire2\"",
        "[]",
        "[\"other\"]",
        "[\"\",\"SIDEWIRE\"]",
        "\"other sidewire\"",
    ] {
        rows.push(row(
            format!("aud {audience}"),
            token_with(with("aud", audience)),
            "wrong_audience",
        ));
    }
    for audience in [
        "null",
        "1",
        "{}",
        "{\"sidewire\":1}",
        "[\"sidewire\",1]",
        "[[\"sidewire\"]]",
        "[null]",
        "true",
    ] {
        rows.push(row(
            format!("aud {audience}"),
            token_with(with("aud", audience)),
            "malformed_claim",
        ));
    }
    rows
}

fn names() -> Vec<Row> {
    let long = format!("\"{}\"", "x".repeat(129));
    let wide = format!("\"{}\"", "ü".repeat(65));
    let mut rows = Vec::new();
    for claim in ["tenant_id", "user_id"] {
        rows.push(row(
            format!("no {claim}"),
            token_with(without(claim)),
            "missing_claim",
        ));
        for value in [
            "\"\"",
            &long,
            &wide,
            "\"a\\nb\"",
            "\"\\u0000\"",
            "\"a\\u007f\"",
            "\"\\u0085\"",
            "null",
            "true",
            "false",
            "1.0",
            "1.5",
            "1e3",
            "-0",
            "18446744073709551616",
            "-9223372036854775809",
            "[\"acme\"]",
            "{}",
            "[]",
        ] {
            rows.push(row(
                format!("{claim} {value}"),
                token_with(with(claim, value)),
                "malformed_claim",
            ));
        }
    }
    rows
}

fn grants() -> Vec<Row> {
    let long_id = format!("[\"project:{}\"]", "x".repeat(257));
    let long_kind = format!("[\"{}:1\"]", "k".repeat(33));
    let mut rows = Vec::new();
    for topics in [
        "null",
        "true",
        "1",
        "\"\"",
        "\"project:1\"",
        "\"*\"",
        "{}",
        "{\"project:1\":true}",
        "[1]",
        "[null]",
        "[true]",
        "[[]]",
        "[[\"project:1\"]]",
        "[\"\"]",
        "[\"*\"]",
        "[\"*:*\"]",
        "[\":\"]",
        "[\":1\"]",
        "[\"project\"]",
        "[\"project:\"]",
        "[\"Project:1\"]",
        "[\"pro*:1\"]",
        "[\"project:a\\u0000\"]",
        "[\"project:1\",\"\"]",
        "[\"project:1\",2]",
        "[\"project:*\",null]",
        "[\" project:1\"]",
        &long_id,
        &long_kind,
    ] {
        rows.push(row(
            format!("topics {topics}"),
            token_with(with("topics", topics)),
            "malformed_claim",
        ));
    }
    rows
}

#[test]
fn an_algorithm_is_never_taken_from_the_token() {
    for algorithm in Algorithm::ALL {
        let key = verification_key(algorithm, None, halves(algorithm).1);
        let verifier = Verifier::new(vec![key], rules()).unwrap();
        for other in Algorithm::ALL {
            let verdict = reason(verifier.verify(
                &compact(
                    other,
                    format!(r#"{{"alg":"{other}"}}"#),
                    good_claims().to_string(),
                ),
                now(),
            ));
            let expected = if other == algorithm {
                "accepted"
            } else {
                "forbidden_algorithm"
            };
            assert_eq!(verdict, expected, "{other} token, {algorithm} key");
        }
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    for algorithm in [
        Algorithm::RS256,
        Algorithm::PS256,
        Algorithm::ES256,
        Algorithm::EdDSA,
    ] {
        let public = halves(algorithm).1;
        let key = verification_key(algorithm, None, public);
        let verifier = Verifier::new(vec![key], rules()).unwrap();
        let token = hmac_sha256(r#"{"alg":"HS256"}"#, public);
        assert_eq!(
            reason(verifier.verify(&token, now())),
            "forbidden_algorithm"
        );
    }
}

#[test]
fn no_mutation_of_a_good_token_is_accepted() {
    let verifier = verifier();
    let originals = Algorithm::ALL.map(good_token);
    let known: HashSet<&str> = originals.iter().map(String::as_str).collect();
    let mut rng = StdRng::seed_from_u64(0x51de_3172);
    let mut reasons: HashMap<&str, usize> = HashMap::new();
    let mut tried = 0;
    while tried < mutations() {
        let mut token = originals.choose(&mut rng).unwrap().clone().into_bytes();
        for _ in 0..rng.random_range(1..=3) {
            mutate(&mut token, &originals, &mut rng);
        }
        let token = String::from_utf8_lossy(&token).into_owned();
        if known.contains(token.as_str()) {
            continue;
        }
        tried += 1;
        let verdict = reason(verifier.verify(&token, now()));
        assert_ne!(verdict, "accepted", "{token}");
        *reasons.entry(verdict).or_default() += 1;
    }
    // The mutations get as far as the signature, not only to the first dot.
    assert!(reasons["bad_signature"] > 2_000, "{reasons:?}");
    assert!(reasons["malformed"] > 2_000, "{reasons:?}");
}

/// How many mutations are tried; a million before a release.
fn mutations() -> usize {
    let wanted = std::env::var("SIDEWIRE_TOKEN_MUTATIONS");
    wanted.map_or(20_000, |text| text.parse().unwrap())
}

fn mutate(token: &mut Vec<u8>, originals: &[String], rng: &mut StdRng) {
    const ALPHABET: &[u8] = b"ABCXYZabcxyz019-_.=+/ \xff";
    let place = rng.random_range(0..token.len().max(1)).min(token.len());
    let byte = *ALPHABET.choose(rng).unwrap();
    match rng.random_range(0..8) {
        0 if place < token.len() => token[place] = byte,
        1 if place < token.len() => token[place] ^= 1 << rng.random_range(0..7),
        2 => token.insert(place, byte),
        3 if place < token.len() => drop(token.remove(place)),
        4 => token.truncate(place),
        5 if place + 1 < token.len() => token.swap(place, place + 1),
        6 => splice(
            token,
            originals.choose(rng).unwrap(),
            rng.random_range(0..3),
        ),
        _ => {
            if let Some(last) = token.last_mut() {
                *last = byte;
            }
        }
    }
}

/// Puts one part of another token in the place of this one's.
fn splice(token: &mut Vec<u8>, other: &str, part: usize) {
    let mut parts: Vec<Vec<u8>> = token
        .split(|byte| *byte == b'.')
        .map(<[u8]>::to_vec)
        .collect();
    if let Some(slot) = parts.get_mut(part) {
        *slot = split(other)[part].as_bytes().to_vec();
    }
    *token = parts.join(&b'.');
}

#[test]
fn an_error_says_nothing_of_the_token_or_the_key() {
    let verifier = verifier();
    let canary = "canary-7f3a";
    for claim in ["iss", "aud", "exp", "nbf", "iat", "topics"] {
        for value in [
            format!("\"{canary}\""),
            format!("[\"{canary}\"]"),
            format!("{{\"{canary}\":1}}"),
        ] {
            let error = verifier
                .verify(&token_with(with(claim, &value)), now())
                .unwrap_err();
            let shown = format!("{error} {error:?} {}", error.reason());
            assert!(!shown.contains(canary), "{shown}");
        }
    }
    let claims = with("user_id", &format!("[\"{canary}\"]"));
    let error = verifier.verify(&token_with(claims), now()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token's claim `user_id` is neither a string nor an integer"
    );
    let header = format!(r#"{{"alg":"{canary}","kid":"{canary}"}}"#);
    let error = verifier.verify(&token_headed(header), now()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(canary));
    assert!(!format!("{verifier:?}").contains("aaaa"));
}

#[test]
fn without_a_token_nobody_gets_in() {
    let authenticator = Authenticator::Tokens(verifier());
    let nothing = Credentials::default();
    assert_eq!(
        reason(authenticator.authenticate(nothing, now())),
        "missing"
    );
    let claimed = Credentials {
        user_id: Some("ann"),
        ..nothing
    };
    assert_eq!(
        reason(authenticator.authenticate(claimed, now())),
        "missing"
    );
    let token = good_token(Algorithm::EdDSA);
    let proven = Credentials {
        token: Some(&token),
        user_id: Some("root"),
    };
    assert_eq!(
        authenticator
            .authenticate(proven, now())
            .unwrap()
            .user
            .as_str(),
        "ann"
    );
}

#[test]
fn a_verifier_needs_a_key_and_names_of_claims() {
    assert_eq!(
        Verifier::new(vec![], rules()).unwrap_err(),
        VerifierError::NoKeys
    );
    for rules in [
        TokenRules {
            tenant_claim: "".into(),
            ..rules()
        },
        TokenRules {
            user_claim: "".into(),
            ..rules()
        },
        TokenRules {
            topics_claim: "".into(),
            ..rules()
        },
    ] {
        assert_eq!(
            Verifier::new(all_keys(), rules).unwrap_err(),
            VerifierError::EmptyClaimName
        );
    }
}
