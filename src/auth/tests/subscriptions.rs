//! The claim with the topics that a client is subscribed to when it connects.

use sidewire_protocol::Topic;

use super::*;

fn topic(text: &str) -> Topic {
    Topic::parse(text).unwrap()
}

fn subscriptions(token: &str) -> Option<Vec<Topic>> {
    verifier().verify(token, now()).unwrap().subscriptions
}

#[test]
fn the_topics_to_subscribe_to_are_read_without_duplicates_in_their_order() {
    let claims = with(
        "subscribe",
        r#"["sprint:*","project:1","sprint:*","sprint:1"]"#,
    );
    let expected = ["sprint:*", "project:1", "sprint:1"].map(topic);
    assert_eq!(subscriptions(&token_with(claims)), Some(expected.into()));
    let empty = subscriptions(&token_with(with("subscribe", "[]")));
    assert_eq!(empty, Some(vec![]));
    assert_eq!(subscriptions(&good_token(Algorithm::HS256)), None);
}

#[test]
fn the_topics_to_subscribe_to_are_within_the_grant() {
    for (subscribe, is_accepted) in [
        (r#"["project:1","sprint:2"]"#, true),
        (r#"["sprint:*"]"#, true),
        (r#"["project:1","project:2"]"#, false),
        (r#"["project:*"]"#, false),
        (r#"["user:ann"]"#, false),
        (r#"["user:*"]"#, false),
        (r#"["tenant:*"]"#, false),
    ] {
        let claims = with("topics", r#"["project:1","sprint:*","user:*","tenant:*"]"#);
        let claims = claims.replace('}', &format!(r#","subscribe":{subscribe}}}"#));
        let verdict = verifier().verify(&token_with(claims), now());
        let expected = if is_accepted {
            "accepted"
        } else {
            "malformed_claim"
        };
        assert_eq!(reason(verdict), expected, "{subscribe}");
    }
}

#[test]
fn a_token_subscribes_to_no_more_topics_than_the_rules_allow() {
    let verifier = plain_verifier(TokenRules {
        subscribe_topics_max: 2,
        ..rules()
    });
    let verdict = |subscribe| {
        let claims = with("subscribe", subscribe);
        let token = compact(Algorithm::HS256, r#"{"alg":"HS256"}"#, claims);
        verifier.verify(&token, now())
    };
    assert!(verdict(r#"["a:1","a:2"]"#).is_ok());
    // Duplicates count, as in a Subscribe.
    let error = verdict(r#"["a:1","a:1","a:1"]"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token's claim `subscribe` names 3 topics; the maximum is 2"
    );
}
