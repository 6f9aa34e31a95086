//! Tokens that must be refused, each made from a good one by one change.

mod claims;
mod headers;
mod mutations;
mod shapes;
mod signatures;

use std::collections::{HashMap, HashSet};

use super::*;

/// A description of the change, the token, and the reason for its refusal.
type Row = (String, String, &'static str);

fn row(what: impl Into<String>, token: impl Into<String>, reason: &'static str) -> Row {
    (what.into(), token.into(), reason)
}

#[test]
fn every_token_in_the_table_is_refused_with_its_reason() {
    let verifier = verifier();
    let rows: Vec<Row> = [
        shapes::shapes(),
        shapes::encodings(),
        headers::headers(),
        headers::algorithms(),
        headers::confusions(),
        headers::key_names(),
        signatures::signatures(),
        signatures::curve_signatures(),
        claims::claim_objects(),
        claims::times(),
        claims::parties(),
        claims::names(),
        claims::users(),
        claims::grants(),
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
    // A missing token cannot be a row of a table of tokens.
    assert_eq!(met.len(), TokenError::COUNT - 1, "{met:?}");
}

fn hmac_sha256(header: &str, secret: &[u8]) -> String {
    compact_by(secret, Algorithm::HS256, header, good_claims().to_string())
}

#[test]
fn an_algorithm_is_never_taken_from_the_token() {
    for algorithm in Algorithm::ALL {
        let key = verification_key(algorithm, None, halves(algorithm).1);
        let verifier = TokenVerifier::new(vec![key], rules()).unwrap();
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
fn a_public_key_is_never_used_as_a_secret() {
    for algorithm in [
        Algorithm::RS256,
        Algorithm::PS256,
        Algorithm::ES256,
        Algorithm::EdDSA,
    ] {
        let public = halves(algorithm).1;
        let key = verification_key(algorithm, None, public);
        let verifier = TokenVerifier::new(vec![key], rules()).unwrap();
        let token = hmac_sha256(r#"{"alg":"HS256"}"#, public);
        assert_eq!(
            reason(verifier.verify(&token, now())),
            "forbidden_algorithm"
        );
    }
}

#[test]
fn an_error_reveals_nothing_about_the_token_or_the_key() {
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
            let shown = format!("{error} {error:?} {}", error.name());
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
fn a_client_without_a_token_is_refused() {
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
fn a_verifier_needs_a_key_and_claim_names() {
    assert_eq!(
        TokenVerifier::new(vec![], rules()).unwrap_err(),
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
        TokenRules {
            subscribe_claim: "".into(),
            ..rules()
        },
    ] {
        assert_eq!(
            TokenVerifier::new(all_keys(), rules).unwrap_err(),
            VerifierError::EmptyClaimName
        );
    }
}
