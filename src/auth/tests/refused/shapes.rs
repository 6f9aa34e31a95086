//! Texts that do not have the form of a token.

use super::*;

pub(super) fn shapes() -> Vec<Row> {
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

pub(super) fn encodings() -> Vec<Row> {
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

/// Returns base64url that would need padding, by adding white space to the JSON.
fn uneven(json: &str) -> String {
    let texts = ["", " ", "  "].map(|blanks| to_base64url(format!("{json}{blanks}").as_bytes()));
    texts.into_iter().find(|text| text.len() % 4 != 0).unwrap()
}

/// Returns the text with base64 padding.
fn padded(text: &str) -> String {
    let missing = 4 - text.len() % 4;
    assert_ne!(missing, 4);
    format!("{text}{}", "=".repeat(missing))
}

/// Returns texts that a lax decoder decodes to the same bytes: with other values for the unused
/// bits of the last character.
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
