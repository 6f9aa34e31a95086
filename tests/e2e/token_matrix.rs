//! Tokens of every kind, valid and invalid: an Authenticate on an open connection judges each as a
//! handshake does.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};
use sidewire::{
    auth::Algorithm,
    config::{AuthKey, Config},
};
use sidewire_protocol::{clock::Clock, wire};
use sidewire_testing::{
    http::{Answer, bearer, handshake},
    token::{base64url, signed},
};

use crate::{
    client::TestClient,
    raw::RawClient,
    support::{SECRET, TestRelay},
    vocabulary::created,
};

const ISSUER: &str = "https://id.example";
const EXPIRY: i64 = 4_000_000_000;
const HEADER: &str = r#"{"alg":"HS256"}"#;
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// A token, and what it is.
struct Sample(String, String);

/// Starts a relay with every check of tokens, and two keys with names.
fn start() -> TestRelay {
    TestRelay::with(|config| {
        config.auth.issuer = Some(ISSUER.to_owned());
        config.auth.audience = Some("sidewire".to_owned());
        config.auth.leeway = std::time::Duration::from_hours(1);
        if let AuthKey::Secret { kid, .. } = &mut config.auth.keys[0] {
            *kid = Some("main".to_owned());
        }
        config.auth.keys.push(AuthKey::PublicKey {
            file: testdata("p256.pub.pem").into(),
            algorithm: Algorithm::ES256,
            kid: Some("p256".to_owned()),
        });
        lift_limits(config);
    })
}

/// Allows a client to renew its token, and to be refused, as often as a matrix has rows.
fn lift_limits(config: &mut Config) {
    config.limits.user_burst = std::num::NonZeroU32::MAX;
    config.limits.refusals_per_minute = std::num::NonZeroU32::new(10_000).unwrap();
}

fn testdata(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/auth/testdata");
    directory.join(name).to_str().unwrap().to_owned()
}

fn good_claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "sidewire", "exp": EXPIRY, "tenant_id": "acme", "user_id": "ann",
    })
}

fn by_secret(header: &str, claims: impl AsRef<[u8]>) -> String {
    signed(SECRET.as_bytes(), header, claims)
}

fn of_claims(claims: &Value) -> String {
    by_secret(HEADER, claims.to_string())
}

/// Returns a token with the good claims and these in addition or instead.
fn with(claims: &Value) -> String {
    let mut all = good_claims();
    for (claim, value) in claims.as_object().unwrap() {
        all[claim] = value.clone();
    }
    of_claims(&all)
}

fn without(claim: &str) -> String {
    let mut claims = good_claims();
    claims.as_object_mut().unwrap().remove(claim);
    of_claims(&claims)
}

/// Returns a token of the P-256 key.
fn by_key_pair(kid: Option<&str>) -> String {
    let pem = std::fs::read(testdata("p256.pem")).unwrap();
    let header = jsonwebtoken::Header {
        kid: kid.map(str::to_owned),
        ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256)
    };
    let key = jsonwebtoken::EncodingKey::from_ec_pem(&pem).unwrap();
    jsonwebtoken::encode(&header, &good_claims(), &key).unwrap()
}

/// Returns a valid token of exactly this many bytes, but for the relay's limit.
fn of_size(bytes: usize) -> String {
    let padded = |padding: usize| with(&json!({"padding": "x".repeat(padding)}));
    let mut sizes = (bytes / 2..bytes).map(padded);
    sizes.find(|token| token.len() == bytes).unwrap()
}

/// Returns valid tokens of ann in acme with the number of seconds at which they expire, and the
/// topics that they take from a client that follows `project:p1`.
fn valid_tokens() -> Vec<(Sample, i64, &'static [&'static str])> {
    let just_past = Clock::system().unix_seconds() - 60;
    let claims = |claims: Value| Sample(claims.to_string(), with(&claims));
    let header = |header: &str| {
        let token = by_secret(header, good_claims().to_string());
        Sample(header.to_owned(), token)
    };
    let named = |name: &str, token: String| Sample(name.to_owned(), token);
    let subscribing = json!({"topics": ["project:*"], "subscribe": ["project:p2", "project:*"]});
    vec![
        (claims(json!({})), EXPIRY, &[]),
        (claims(json!({"exp": 5_000_000_000.75})), 5_000_000_000, &[]),
        (
            claims(json!({"exp": 253_402_300_800_i64})),
            253_402_300_800,
            &[],
        ),
        (claims(json!({"exp": u64::MAX})), i64::MAX, &[]),
        (claims(json!({"exp": just_past})), just_past, &[]),
        (claims(json!({"nbf": 1, "iat": 1})), EXPIRY, &[]),
        (claims(json!({"nbf": just_past + 120})), EXPIRY, &[]),
        (claims(json!({"iat": 5_000_000_000_u64})), EXPIRY, &[]),
        (claims(json!({"aud": ["other", "sidewire"]})), EXPIRY, &[]),
        (
            claims(json!({"jti": "1", "role": {"admin": true}})),
            EXPIRY,
            &[],
        ),
        (claims(json!({"topics": ["project:p1"]})), EXPIRY, &[]),
        (claims(json!({"topics": ["project:*"]})), EXPIRY, &[]),
        (
            claims(json!({"topics": ["project:p2"]})),
            EXPIRY,
            &["project:p1"],
        ),
        (claims(json!({"topics": []})), EXPIRY, &["project:p1"]),
        (claims(json!({"subscribe": []})), EXPIRY, &[]),
        (claims(json!({"subscribe": ["sprint:s1"]})), EXPIRY, &[]),
        (claims(subscribing), EXPIRY, &[]),
        (header(r#"{"typ":"JWT","alg":"HS256"}"#), EXPIRY, &[]),
        (header(r#"{"alg":"HS256","kid":"main"}"#), EXPIRY, &[]),
        (named("a key pair", by_key_pair(None)), EXPIRY, &[]),
        (
            named("a named key pair", by_key_pair(Some("p256"))),
            EXPIRY,
            &[],
        ),
        (named("the longest", of_size(TOKEN_BYTES_MAX)), EXPIRY, &[]),
    ]
}

/// Returns tokens that no relay accepts.
fn invalid_tokens() -> Vec<Sample> {
    let mut samples = Vec::new();
    for claim in ["exp", "iss", "aud", "tenant_id", "user_id"] {
        samples.push(Sample(format!("no {claim}"), without(claim)));
    }
    let long_name = "x".repeat(129);
    for claims in [
        json!({"exp": 1}),
        json!({"exp": 1_700_000_000.5}),
        json!({"exp": "4000000000"}),
        json!({"exp": -1}),
        json!({"exp": null}),
        json!({"nbf": 4_100_000_000_u64}),
        json!({"nbf": "1"}),
        json!({"iat": true}),
        json!({"iss": "https://id.example/"}),
        json!({"iss": [ISSUER]}),
        json!({"aud": "Sidewire"}),
        json!({"aud": ["other"]}),
        json!({"aud": []}),
        json!({"tenant_id": ""}),
        json!({"tenant_id": null}),
        json!({"tenant_id": 1.5}),
        json!({"tenant_id": ["acme"]}),
        json!({"user_id": ""}),
        json!({"user_id": "a\nb"}),
        json!({"user_id": "*"}),
        json!({"user_id": long_name}),
        json!({"topics": null}),
        json!({"topics": "project:p1"}),
        json!({"topics": ["nothing"]}),
        json!({"topics": ["project:p1", 2]}),
        json!({"subscribe": "project:p1"}),
        json!({"subscribe": ["nothing"]}),
        json!({"subscribe": ["project:"]}),
        json!({"subscribe": ["user:ann"]}),
        json!({"subscribe": ["tenant:*"]}),
        json!({"subscribe": ["project:p1"], "topics": ["project:p2"]}),
        json!({"subscribe": ["project:*"], "topics": ["project:p1"]}),
    ] {
        samples.push(Sample(claims.to_string(), with(&claims)));
    }
    let good = good_claims().to_string();
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"HS256","kid":"p256"}"#,
        r#"{"alg":"HS256","kid":"unknown"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"typ":"JWT"}"#,
        "{}",
        "",
    ] {
        samples.push(Sample(header.to_owned(), by_secret(header, &good)));
    }
    let token = of_claims(&good_claims());
    let parts: Vec<_> = token.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    let raised = base64url(good.replace("ann", "root"));
    let none = base64url(r#"{"alg":"none"}"#);
    for (name, token) in [
        ("a word", "token".to_owned()),
        ("two dots", "..".to_owned()),
        ("no signature", format!("{header}.{claims}.")),
        ("none, and no signature", format!("{none}.{claims}.")),
        ("other claims", format!("{header}.{raised}.{signature}")),
        ("four parts", format!("{token}.{signature}")),
        ("a padded signature", format!("{token}=")),
        ("another secret", signed(&[7; 32], HEADER, &good)),
        ("claims that are a list", by_secret(HEADER, "[]")),
        (
            "a claim twice",
            by_secret(HEADER, good.replace("\"exp\"", "\"exp\":1,\"exp\"")),
        ),
        ("a byte too long", of_size(TOKEN_BYTES_MAX + 1)),
    ] {
        samples.push(Sample(name.to_owned(), token));
    }
    samples
}

async fn shake_hands(relay: &TestRelay, token: &str) -> Answer {
    let request = handshake(&bearer(token));
    RawClient::ask(relay.addresses.client, request.as_bytes())
        .await
        .0
}

/// Returns how many clients were not authenticated, by reason.
async fn failures(relay: &TestRelay) -> BTreeMap<String, f64> {
    const SERIES: &str = "sidewire_authentication_failures_total{listener=\"client\"";
    let mut series = relay.metrics().await;
    series.retain(|name, _| name.starts_with(SERIES));
    series
}

/// Returns how much each value has grown.
fn growth(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let growth = after
        .iter()
        .map(|(name, value)| (name.clone(), value - before[name]));
    growth.collect()
}

/// Asserts that the client follows `project:p1`.
async fn assert_follows(relay: &TestRelay, client: &mut TestClient) {
    let published = relay.publish("acme", created("p1")).await;
    assert_eq!(client.event().await.message_id, published.message_id);
}

#[tokio::test]
async fn a_token_that_a_handshake_refuses_is_refused_in_place_and_changes_nothing() {
    let relay = start();
    let own = with(&json!({"topics": ["project:p1", "sprint:s1"]}));
    let mut client = relay.connect_bearing(&own).await;
    client.subscribe(&["project:p1"]).await;
    let start = failures(&relay).await;
    let mut details = Vec::new();
    for Sample(name, token) in invalid_tokens() {
        let answer = shake_hands(&relay, &token).await;
        assert_eq!(answer.status, 401, "{name}");
        assert_eq!(answer.problem_code(), "AUTHENTICATION_FAILED", "{name}");
        details.push(answer.json()["detail"].as_str().unwrap().to_owned());
    }
    let by_handshakes = failures(&relay).await;
    for (Sample(name, token), detail) in invalid_tokens().iter().zip(details) {
        let error = client.authenticate(token).await.expect_err(name);
        let expected = wire::ErrorResponse {
            error_code: "AUTHENTICATION_FAILED".to_owned(),
            error_message: detail,
            field_name: Some("authenticate.token".to_owned()),
            ..error.clone()
        };
        assert_eq!(error, expected, "{name}");
        let told = format!("{error:?}");
        assert!(
            token
                .split('.')
                .all(|part| part.len() < 9 || !told.contains(part)),
            "{told}"
        );
        assert_follows(&relay, &mut client).await;
    }
    let in_place = growth(&by_handshakes, &failures(&relay).await);
    assert_eq!(in_place, growth(&start, &by_handshakes));
    let unused: Vec<_> = in_place
        .iter()
        .filter(|(_, count)| **count == 0.0)
        .collect();
    assert_eq!(
        unused.len(),
        1,
        "all reasons but that of a missing token: {unused:?}"
    );

    // The grant is still that of the handshake.
    client.subscribe(&["sprint:s1"]).await;
    client.ask_for(&["project:p2"]).await;
    assert_eq!(client.error().await.error_code, "AUTHORIZATION_FAILED");
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_token_that_a_handshake_accepts_is_accepted_in_place() {
    let relay = start();
    let mut client = relay.connect_bearing(&of_claims(&good_claims())).await;
    for (Sample(name, token), expires_at, revoked) in valid_tokens() {
        assert_eq!(shake_hands(&relay, &token).await.status, 101, "{name}");
        client
            .authenticate(&of_claims(&good_claims()))
            .await
            .expect(&name);
        client.subscribe(&["project:p1"]).await;
        let authenticated = client.authenticate(&token).await.expect(&name);
        assert_eq!(authenticated.expires_at, expires_at, "{name}");
        assert_eq!(authenticated.revoked_topics, revoked, "{name}");
        if revoked.is_empty() {
            assert_follows(&relay, &mut client).await;
        }
        // The claim `subscribe` waits for the next connection.
        let others = relay.publish("acme", created("p2")).await;
        assert_eq!(others.matched, Some(0), "{name}");
        client.nothing_more().await;
    }
    assert!(failures(&relay).await.values().all(|count| *count == 0.0));
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_valid_token_of_another_user_is_refused_in_place_alone() {
    let relay = start();
    let own = with(&json!({"topics": ["project:p1"]}));
    let mut client = relay.connect_bearing(&own).await;
    client.subscribe(&["project:p1"]).await;
    for claims in [
        json!({"user_id": "bob"}),
        json!({"user_id": "Ann"}),
        json!({"user_id": "ann "}),
        json!({"user_id": 7}),
        json!({"tenant_id": "globex"}),
        json!({"tenant_id": "acme2"}),
        json!({"tenant_id": "ann", "user_id": "acme"}),
        json!({"user_id": "bob", "topics": []}),
    ] {
        let token = with(&claims);
        assert_eq!(shake_hands(&relay, &token).await.status, 101, "{claims}");
        let error = client.authenticate(&token).await.unwrap_err();
        assert_eq!(error.error_code, "AUTHORIZATION_FAILED", "{claims}");
        assert_eq!(error.field_name, None);
        for claim in claims.as_object().unwrap().values() {
            assert!(
                !error.error_message.contains(&claim.to_string()),
                "{error:?}"
            );
        }
        assert_follows(&relay, &mut client).await;
    }
    client.ask_for(&["project:p2"]).await;
    assert_eq!(client.error().await.error_code, "AUTHORIZATION_FAILED");
    assert!(failures(&relay).await.values().all(|count| *count == 0.0));
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn names_that_are_numbers_are_the_same_user_as_their_digits() {
    let relay = start();
    let digits = with(&json!({"tenant_id": "7", "user_id": "-12"}));
    let mut client = relay.connect_bearing(&digits).await;
    let numbers = with(&json!({"tenant_id": 7, "user_id": -12}));
    let authenticated = client.authenticate(&numbers).await.unwrap();
    assert_eq!(authenticated.expires_at, EXPIRY);
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_token_without_an_end_may_replace_another_where_the_relay_accepts_it() {
    let relay = TestRelay::with(|config| config.auth.require_exp = false);
    let claims = json!({"tenant_id": "acme", "user_id": "ann"});
    let mut client = relay.connect("acme", "ann").await;
    let authenticated = client.authenticate(&of_claims(&claims)).await.unwrap();
    assert_eq!(authenticated.expires_at, 0);
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}
