//! Claims with a valid signature.

use serde_json::Value;

use super::{HEADER, Token, claims_of, kind};
use crate::{
    campaign::Mutator,
    forge::{good_claims, signed},
};

/// Claims with a valid signature.
pub(super) fn claims() -> Vec<Mutator<Token>> {
    let mut mutators = Vec::new();
    for claim in ["exp", "iss", "aud", "tenant_id", "user_id"] {
        mutators.push(kind(format!("no {claim}"), move |_| {
            let mut claims = good_claims("ann");
            claims.as_object_mut().unwrap().remove(claim);
            signed(HEADER, claims.to_string())
        }));
    }
    let long_name = format!("\"{}\"", "x".repeat(129));
    let long_topic = format!("[\"project:{}\"]", "x".repeat(257));
    let name = [
        "\"\"",
        &long_name,
        "\"a\\nb\"",
        "\"\\u0000\"",
        "\"a\\u007f\"",
        "\"\\u0085\"",
        "null",
        "true",
        "1.0",
        "1.5",
        "1e3",
        "-0",
        "18446744073709551616",
        "[\"acme\"]",
        "{}",
        "[]",
    ];
    let date = [
        "-1",
        "-0.5",
        "-1e300",
        "null",
        "true",
        "\"4000000000\"",
        "\"\"",
        "[1]",
        "{}",
        "1e400",
        "NaN",
        "Infinity",
        "0x7fffffff",
        "+1",
        "1.",
    ];
    let groups: [(&str, &[&str]); 9] = [
        ("tenant_id", &name),
        ("user_id", &name),
        ("exp", &date),
        ("nbf", &date),
        ("iat", &date),
        (
            "exp",
            &["0", "1", "1e-9", "1700000000", "1700000000.5", "-0.0"],
        ),
        (
            "nbf",
            &["4100000000", "4e9", "18446744073709551615", "1e300"],
        ),
        (
            "iss",
            &[
                "\"\"",
                "\"https://id.example/\"",
                "\"https://ID.example\"",
                "\"http://id.example\"",
                "null",
                "1",
                "[\"https://id.example\"]",
                "{}",
            ],
        ),
        (
            "aud",
            &[
                "\"\"",
                "\"Sidewire\"",
                "\"sidewire \"",
                "\"side\"",
                "[]",
                "[\"other\"]",
                "null",
                "1",
                "{}",
                "[\"sidewire\",1]",
                "[[\"sidewire\"]]",
                "\"other sidewire\"",
            ],
        ),
    ];
    for (claim, values) in groups {
        mutators.extend(values.iter().map(|value| replaced(claim, value)));
    }
    for topics in [
        "null",
        "true",
        "1",
        "\"\"",
        "\"project:1\"",
        "{}",
        "[1]",
        "[null]",
        "[[]]",
        "[\"\"]",
        "[\"*\"]",
        "[\"*:*\"]",
        "[\":\"]",
        "[\"project\"]",
        "[\"project:\"]",
        "[\"Project:1\"]",
        "[\"pro*:1\"]",
        "[\"project:a\\u0000\"]",
        "[\"project:1\",2]",
        "[\" project:1\"]",
        &long_topic,
    ] {
        mutators.push(replaced("topics", topics));
        mutators.push(replaced("subscribe", topics));
    }
    for subscribe in [
        "[\"user:ann\"]",
        "[\"user:*\"]",
        "[\"tenant:*\"]",
        "[\"secret:1\"]",
        "[\"project:1\",\"secret:*\"]",
    ] {
        mutators.push(replaced("subscribe", subscribe));
    }
    let good = claims_of("ann");
    for (name, text) in [
        ("a list", format!("[{good}]")),
        ("twice", format!("{good}{good}")),
        ("null", "null".to_owned()),
        ("nothing", String::new()),
        ("a text", "\"ann\"".to_owned()),
        ("behind a byte order mark", format!("\u{feff}{good}")),
        ("in single quotes", good.replace('"', "'")),
        ("with a comma too many", good.replace('}', ",}")),
        (
            "with exp twice",
            good.replace("\"exp\"", "\"exp\":1,\"exp\""),
        ),
        (
            "with user_id twice",
            good.replace("\"user_id\"", "\"\\u0075ser_id\":\"root\",\"user_id\""),
        ),
        (
            "too deep",
            format!("{}{good}{}", r#"{"x":"#.repeat(130), "}".repeat(130)),
        ),
        ("a token", signed(HEADER, &good)),
    ] {
        mutators.push(kind(format!("claims: {name}"), move |_| {
            signed(HEADER, &text)
        }));
    }
    mutators
}

/// Replaces the value of one claim.
fn replaced(claim: &'static str, value: &str) -> Mutator<Token> {
    let mut claims = good_claims("ann");
    claims.as_object_mut().unwrap().remove(claim);
    let text = claims.to_string();
    let rest = text.strip_suffix('}').unwrap();
    let claims = format!("{rest},{}:{value}}}", Value::from(claim));
    let name: String = value.chars().take(40).collect();
    kind(format!("{claim} {name}"), move |_| signed(HEADER, &claims))
}
