//! Tokens that must be accepted, and the identities that they give.

use sidewire_protocol::{TenantName, Topic, UserName};

use super::*;

fn accept(token: &str) -> Identity {
    verifier().verify(token, now()).unwrap()
}

fn topic(text: &str) -> Topic {
    Topic::parse(text).unwrap()
}

#[test]
fn a_valid_token_of_every_algorithm_is_accepted() {
    for algorithm in Algorithm::ALL {
        let identity = accept(&good_token(algorithm));
        assert_eq!(identity.tenant.as_str(), "acme", "{algorithm}");
        assert_eq!(identity.user.as_str(), "ann", "{algorithm}");
        assert_eq!(identity.grant, Grant::Everything, "{algorithm}");
        assert_eq!(identity.expires_at, Some(Duration::from_secs(NOW + 605)));
    }
}

#[test]
fn a_token_signed_by_another_library_is_accepted() {
    let tokens: Vec<&str> = include_str!("../testdata/pyjwt.tokens.txt")
        .lines()
        .collect();
    assert_eq!(tokens.len(), Algorithm::ALL.len());
    for (algorithm, token) in Algorithm::ALL.into_iter().zip(tokens) {
        assert_eq!(accept(token).user.as_str(), "ann", "{algorithm}");
    }
}

/// The examples of RFC 7515, A.1 to A.3; their claims are `iss` ("joe"), `exp`
/// and another. The payload of RFC 8037, A.4, is not JSON.
#[test]
fn the_examples_of_the_rfcs_are_verified() {
    let keys = VerificationKey::from_jwks(testdata!("rfc.jwks.json")).unwrap();
    let rules = TokenRules {
        tenant_claim: "iss".into(),
        user_claim: "iss".into(),
        ..TokenRules::default()
    };
    let verifier = TokenVerifier::new(keys, rules).unwrap();
    let tokens: Vec<&str> = include_str!("../testdata/rfc.tokens.txt").lines().collect();
    let just_before = Duration::from_secs(1_300_819_379);
    for token in &tokens[..3] {
        let identity = verifier.verify(token, just_before).unwrap();
        assert_eq!(identity.tenant.as_str(), "joe");
        assert_eq!(reason(verifier.verify(token, now())), "expired");
    }
    assert_eq!(reason(verifier.verify(tokens[3], just_before)), "malformed");
    assert_eq!(tokens.len(), 4);
}

#[test]
fn a_token_is_valid_until_its_expiry_plus_the_leeway() {
    let verifier = verifier();
    let token = token_with(with("exp", &NOW.to_string()));
    let nearly = Duration::from_millis(NOW * 1000 + 4_999);
    let end = Duration::from_secs(NOW + 5);
    assert_eq!(
        verifier.verify(&token, nearly).unwrap().expires_at,
        Some(end)
    );
    assert_eq!(reason(verifier.verify(&token, end)), "expired");
}

#[test]
fn a_token_is_valid_from_its_start_minus_the_leeway() {
    let verifier = verifier();
    for nbf in ["1800000005", "1800000005.0", "0", "1799999999.5"] {
        let token = token_with(with("nbf", nbf));
        assert_eq!(reason(verifier.verify(&token, now())), "accepted", "{nbf}");
    }
    let token = token_with(with("nbf", "1800000005"));
    let early = Duration::from_millis(NOW * 1000 - 1);
    assert_eq!(reason(verifier.verify(&token, early)), "not_yet_valid");
}

#[test]
fn without_leeway_the_expiry_is_exact_to_the_millisecond() {
    let verifier = plain_verifier(TokenRules {
        leeway: Duration::ZERO,
        ..TokenRules::default()
    });
    let token = compact(
        Algorithm::HS256,
        r#"{"alg":"HS256"}"#,
        with("exp", "1800000000.5"),
    );
    let at = |millis| reason(verifier.verify(&token, Duration::from_millis(NOW * 1000 + millis)));
    assert_eq!((at(499), at(500)), ("accepted", "expired"));
}

#[test]
fn a_date_may_have_a_fraction() {
    for (exp, end_millis) in [
        ("1800000000.25", NOW * 1000 + 5_250),
        ("1.8e9", NOW * 1000 + 5_000),
    ] {
        let identity = accept(&token_with(with("exp", exp)));
        assert_eq!(
            identity.expires_at,
            Some(Duration::from_millis(end_millis)),
            "{exp}"
        );
    }
    for iat in ["1800000000", "1799999999.9", "0", "9e99"] {
        accept(&token_with(with("iat", iat)));
    }
}

#[test]
fn an_expiry_in_the_far_future_is_clamped() {
    let latest = now() + EXPIRY_AHEAD_MAX;
    assert!(i64::try_from(latest.as_nanos()).is_ok());
    for exp in [
        "18446744073709551615",
        "18446744073709551616",
        "1e19",
        "1e300",
        "253402300800",
    ] {
        let identity = accept(&token_with(with("exp", exp)));
        assert_eq!(identity.expires_at, Some(latest), "{exp}");
    }
    let patient = TokenRules {
        leeway: Duration::MAX,
        ..TokenRules::default()
    };
    let token = compact(Algorithm::HS256, r#"{"alg":"HS256"}"#, with("exp", "0"));
    let identity = plain_verifier(patient).verify(&token, now()).unwrap();
    assert_eq!(identity.expires_at, Some(latest));
}

#[test]
fn the_expiry_is_optional_if_the_rules_say_so() {
    let lax = plain_verifier(TokenRules {
        require_exp: false,
        ..TokenRules::default()
    });
    let endless = compact(Algorithm::HS256, r#"{"alg":"HS256"}"#, without("exp"));
    assert_eq!(lax.verify(&endless, now()).unwrap().expires_at, None);
    let past = compact(Algorithm::HS256, r#"{"alg":"HS256"}"#, with("exp", "1"));
    assert_eq!(reason(lax.verify(&past, now())), "expired");
}

#[test]
fn the_expected_audience_may_be_one_of_several() {
    for audience in [
        r#""sidewire""#,
        r#"["sidewire"]"#,
        r#"["a","sidewire","b"]"#,
    ] {
        accept(&token_with(with("aud", audience)));
    }
}

#[test]
fn issuer_and_audience_are_ignored_if_none_is_configured() {
    let verifier = plain_verifier(TokenRules::default());
    for claims in [
        without("aud"),
        without("iss"),
        with("aud", "[1]"),
        with("iss", "\"x\""),
    ] {
        let token = compact(Algorithm::HS256, r#"{"alg":"HS256"}"#, claims);
        assert_eq!(reason(verifier.verify(&token, now())), "accepted");
    }
}

#[test]
fn a_name_is_a_string_or_an_integer() {
    let longest = "x".repeat(128);
    for (value, name) in [
        ("\"acme\"", "acme"),
        ("\"a b/ü☃\"", "a b/ü☃"),
        ("\"1.0\"", "1.0"),
        (&*format!("\"{longest}\""), &*longest),
        ("0", "0"),
        ("42", "42"),
        ("-7", "-7"),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
    ] {
        assert_eq!(
            accept(&token_with(with("tenant_id", value)))
                .tenant
                .as_str(),
            name
        );
        assert_eq!(
            accept(&token_with(with("user_id", value))).user.as_str(),
            name
        );
    }
}

#[test]
fn a_token_without_a_kid_is_tried_with_the_first_four_keys_of_its_algorithm() {
    let algorithm = Algorithm::HS256;
    let secret = |number: u8| [number; 32];
    let kid = |number: u8| format!("key-{number}");
    let mut keys = vec![verification_key(
        Algorithm::HS512,
        None,
        halves(Algorithm::HS512).1,
    )];
    keys.extend(
        (1..=6).map(|number| verification_key(algorithm, Some(&kid(number)), &secret(number))),
    );
    let verifier = TokenVerifier::new(keys, rules()).unwrap();
    let claims = NewToken {
        tenant: TenantName::parse("acme").unwrap(),
        user: UserName::parse("ann").unwrap(),
        expires_at: Some(now() + Duration::from_secs(600)),
        topics: None,
        subscribe: None,
    };
    for number in 1..=6 {
        let result = |kid: Option<&str>| {
            let key = signing_key(algorithm, kid, &secret(number));
            reason(verifier.verify(&key.mint(&claims, &rules()).unwrap(), now()))
        };
        assert_eq!(result(Some(&kid(number))), "accepted", "{number}");
        let without = if number <= 4 {
            "accepted"
        } else {
            "bad_signature"
        };
        assert_eq!(result(None), without, "{number}");
    }
}

#[test]
fn a_tenant_may_be_named_star_and_a_user_may_not() {
    let tenant = accept(&token_with(with("tenant_id", "\"*\""))).tenant;
    assert_eq!(tenant.as_str(), "*");
    let user = verifier().verify(&token_with(with("user_id", "\"*\"")), now());
    let detail = user.unwrap_err().to_string();
    assert!(detail.contains("`user_id` is `*`"), "{detail}");
    assert_eq!(
        accept(&token_with(with("user_id", "\"**\""))).user.as_str(),
        "**"
    );
}

#[test]
fn the_rules_set_the_names_of_the_claims() {
    let verifier = plain_verifier(TokenRules {
        tenant_claim: "https://id.example/org".into(),
        user_claim: "sub".into(),
        topics_claim: "may".into(),
        subscribe_claim: "starts_with".into(),
        ..TokenRules::default()
    });
    let claims = json!({
        "exp": NOW, "https://id.example/org": 7, "sub": "bob", "may": ["project:1"],
        "tenant_id": "acme", "user_id": "ann", "topics": "not looked at",
        "subscribe": "not looked at", "starts_with": ["project:1"],
    });
    let token = compact(Algorithm::HS256, r#"{"alg":"HS256"}"#, claims.to_string());
    let identity = verifier.verify(&token, now()).unwrap();
    assert_eq!(
        (identity.tenant.as_str(), identity.user.as_str()),
        ("7", "bob")
    );
    assert_eq!(identity.grant, Grant::from_topics([topic("project:1")]));
    assert_eq!(identity.subscriptions, Some(vec![topic("project:1")]));
}

#[test]
fn a_grant_lists_topics_and_kinds() {
    let claims = with(
        "topics",
        r#"["project:1","project:a:b","sprint:*","user:*","tenant:*"]"#,
    );
    let grant = accept(&token_with(claims)).grant;
    for (text, allowed) in [
        ("project:1", true),
        ("project:a:b", true),
        ("project:2", false),
        ("sprint:9", true),
        ("item:1", false),
    ] {
        assert_eq!(grant.allows(&topic(text)), allowed, "{text}");
    }
    let nothing = accept(&token_with(with("topics", "[]"))).grant;
    assert!(!nothing.allows(&topic("project:1")));
}

#[test]
fn a_token_of_exactly_the_longest_length_is_accepted() {
    let lengths = (5_000..7_000).rev().map(|bytes| {
        let header = header_of(Algorithm::HS256);
        let claims = with("pad", &format!("\"{}\"", "x".repeat(bytes)));
        compact(Algorithm::HS256, header, claims)
    });
    let token = { lengths }
        .find(|token| token.len() <= TOKEN_BYTES_MAX)
        .unwrap();
    assert!(token.len() > TOKEN_BYTES_MAX - 4);
    accept(&token);
}

#[test]
fn header_fields_other_than_algorithm_and_key_are_ignored() {
    for header in [
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"at+jwt","cty":"x","jku":"https://evil.example","x":{"a":1,"a":2}}"#,
        " {\r\n \"alg\" : \"HS256\" } ",
    ] {
        accept(&token_headed(header));
    }
}

/// Several keys of one algorithm, and the `kid` values that each accepts.
#[test]
fn a_kid_selects_the_keys_of_that_name_or_else_those_without_a_name() {
    let algorithm = Algorithm::HS256;
    let secrets = [[b'1'; 32], [b'2'; 32], [b'3'; 32]];
    let keys = |names: [Option<&str>; 3]| {
        let keys = names.iter().zip(&secrets);
        let keys = keys.map(|(kid, secret)| verification_key(algorithm, *kid, secret));
        TokenVerifier::new(keys.collect(), rules()).unwrap()
    };
    let token = |kid: Option<&str>, secret: usize| {
        let header = match kid {
            Some(kid) => json!({"alg": "HS256", "kid": kid}),
            None => json!({"alg": "HS256"}),
        };
        compact_by(
            &secrets[secret],
            algorithm,
            header.to_string(),
            good_claims().to_string(),
        )
    };
    for (names, kid, secret, verdict) in [
        ([Some("a"), Some("b"), None], Some("a"), 0, "accepted"),
        ([Some("a"), Some("b"), None], Some("a"), 1, "bad_signature"),
        ([Some("a"), Some("b"), None], Some("a"), 2, "bad_signature"),
        ([Some("a"), Some("b"), None], Some("b"), 1, "accepted"),
        ([Some("a"), Some("b"), None], Some("c"), 2, "accepted"),
        ([Some("a"), Some("b"), None], Some("c"), 0, "bad_signature"),
        ([Some("a"), Some("b"), None], None, 0, "accepted"),
        ([Some("a"), Some("b"), None], None, 1, "accepted"),
        ([Some("a"), Some("b"), None], None, 2, "accepted"),
        ([None, None, None], Some("x"), 2, "accepted"),
        ([Some("a"), Some("a"), Some("b")], Some("a"), 1, "accepted"),
        (
            [Some("a"), Some("a"), Some("b")],
            Some("c"),
            1,
            "unknown_key",
        ),
    ] {
        let found = reason(keys(names).verify(&token(kid, secret), now()));
        assert_eq!(found, verdict, "{names:?} {kid:?} {secret}");
    }
}
