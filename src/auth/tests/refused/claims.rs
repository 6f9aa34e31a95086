//! Claims that are missing, of the wrong type, or not valid at this time or for this relay.

use super::*;

pub(super) fn claim_objects() -> Vec<Row> {
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

pub(super) fn times() -> Vec<Row> {
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

pub(super) fn parties() -> Vec<Row> {
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

pub(super) fn names() -> Vec<Row> {
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

pub(super) fn users() -> Vec<Row> {
    vec![row(
        "the user *",
        token_with(with("user_id", "\"*\"")),
        "malformed_claim",
    )]
}

pub(super) fn grants() -> Vec<Row> {
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
        for claim in ["topics", "subscribe"] {
            rows.push(row(
                format!("{claim} {topics}"),
                token_with(with(claim, topics)),
                "malformed_claim",
            ));
        }
    }
    rows
}
