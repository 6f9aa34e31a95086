//! Malformed signatures, and signatures of other tokens or keys.

use super::*;

pub(super) fn signatures() -> Vec<Row> {
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

/// Returns tokens with signatures that are valid in another encoding, or that a flawed check
/// would accept.
pub(super) fn curve_signatures() -> Vec<Row> {
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

/// Encodes an ECDSA-Sig-Value (RFC 3279, 2.2.3), which JOSE does not use.
fn ecdsa_der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let bytes = [&[0], bytes].concat();
        [&[2, u8::try_from(bytes.len()).unwrap()], &bytes[..]].concat()
    };
    let body = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

/// Returns the signature with s + l: equivalent for a verifier that does not check that s is
/// reduced (RFC 8032, 5.1.7).
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
