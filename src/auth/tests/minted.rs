//! Tests of tokens created by the command line.

use jsonwebtoken::{DecodingKey, Validation};
use sidewire_protocol::{TenantName, Topic, UserName};

use super::*;

fn new_token() -> NewToken {
    NewToken {
        tenant: TenantName::parse("acme").unwrap(),
        user: UserName::parse("ann").unwrap(),
        expires_at: Some(Duration::from_secs(NOW + 60)),
        topics: None,
        subscribe: None,
    }
}

fn topics(texts: &[&str]) -> Option<Vec<Topic>> {
    Some(
        texts
            .iter()
            .map(|text| Topic::parse(text).unwrap())
            .collect(),
    )
}

#[test]
fn a_minted_token_of_every_algorithm_is_accepted() {
    for algorithm in Algorithm::ALL {
        let token = signer(algorithm).mint(&new_token(), &rules()).unwrap();
        let identity = verifier().verify(&token, now()).unwrap();
        assert_eq!(
            (identity.tenant.as_str(), identity.user.as_str()),
            ("acme", "ann")
        );
        assert_eq!(identity.grant, Grant::Everything);
        assert_eq!(identity.expires_at, Some(Duration::from_secs(NOW + 65)));
    }
}

#[test]
fn a_minted_token_is_accepted_by_the_library_too() {
    for algorithm in Algorithm::ALL {
        let public = halves(algorithm).1;
        let key = match algorithm.key_requirements() {
            KeyRequirements::Hmac { .. } => DecodingKey::from_secret(public),
            KeyRequirements::Rsa => DecodingKey::from_rsa_pem(public).unwrap(),
            KeyRequirements::Ec { .. } => DecodingKey::from_ec_pem(public).unwrap(),
            KeyRequirements::Ed => DecodingKey::from_ed_pem(public).unwrap(),
        };
        let mut validation = Validation::new(algorithm.library_algorithm());
        // The library uses the system clock; tests do not.
        validation.validate_exp = false;
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        let token = signer(algorithm).mint(&new_token(), &rules()).unwrap();
        let data = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap();
        assert_eq!(data.header.kid.as_deref(), Some(algorithm.as_str()));
        assert_eq!(data.claims["exp"], NOW + 60);
    }
}

#[test]
fn a_key_in_an_older_file_format_can_mint_tokens() {
    for (algorithm, private, public) in [
        (
            Algorithm::RS256,
            &testdata!("rsa-pkcs1.pem")[..],
            &testdata!("rsa-pkcs1.pub.pem")[..],
        ),
        (
            Algorithm::ES256,
            testdata!("p256-sec1.pem"),
            testdata!("p256-sec1.pub.pem"),
        ),
    ] {
        let key = signing_key(algorithm, None, private);
        let token = key.mint(&new_token(), &rules()).unwrap();
        let keys = vec![verification_key(algorithm, None, public)];
        let verdict = TokenVerifier::new(keys, rules())
            .unwrap()
            .verify(&token, now());
        assert_eq!(reason(verdict), "accepted", "{algorithm}");
    }
}

#[test]
fn a_minted_token_follows_the_rules_and_the_grant() {
    let rules = TokenRules {
        tenant_claim: "org".into(),
        user_claim: "sub".into(),
        topics_claim: "may".into(),
        ..rules()
    };
    let token = NewToken {
        topics: topics(&["project:1", "sprint:*"]),
        subscribe: topics(&["sprint:*", "sprint:1"]),
        ..new_token()
    };
    let key = signing_key(Algorithm::HS256, None, halves(Algorithm::HS256).0);
    let minted = key.mint(&token, &rules).unwrap();
    let identity = plain_verifier(rules).verify(&minted, now()).unwrap();
    assert_eq!(identity.user.as_str(), "ann");
    assert_eq!(identity.grant, Grant::from_topics(token.topics.unwrap()));
    assert_eq!(identity.subscriptions, token.subscribe);
}

#[test]
fn a_token_that_the_rules_would_refuse_is_not_minted() {
    let key = signer(Algorithm::HS256);
    let endless = NewToken {
        expires_at: None,
        ..new_token()
    };
    assert_eq!(key.mint(&endless, &rules()), Err(MintError::NoExpiry));
    let lax = TokenRules {
        require_exp: false,
        ..rules()
    };
    assert!(key.mint(&endless, &lax).is_ok());

    let ungranted = NewToken {
        topics: topics(&["project:1"]),
        subscribe: topics(&["project:1", "project:2"]),
        ..new_token()
    };
    let error = MintError::NotGranted {
        topic: Topic::parse("project:2").unwrap(),
        reason: "is not granted by the token",
    };
    assert_eq!(key.mint(&ungranted, &rules()), Err(error));

    let clash = TokenRules {
        user_claim: "iss".into(),
        ..rules()
    };
    let error = MintError::ClaimTwice {
        claim: "iss".into(),
    };
    assert_eq!(key.mint(&new_token(), &clash), Err(error));

    let id = "x".repeat(200);
    let many: Vec<_> = (0..40)
        .map(|n| Topic::new("project", &format!("{id}{n}")).unwrap())
        .collect();
    let broad = NewToken {
        topics: Some(many),
        ..new_token()
    };
    assert_eq!(key.mint(&broad, &rules()), Err(MintError::TooLong));
}
