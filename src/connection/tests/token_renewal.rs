//! Tokens that are replaced while a connection stays open.

use std::{future::Future, sync::Arc, time::Duration};

use serde_json::{Value, json};
use sidewire_protocol::{Position, TenantName, Topic, UserName};
use tokio::time::{Instant, sleep_until};

use super::json::{hears, resume_json, subscribe_json};
use crate::{
    auth::{
        Algorithm, Authenticator, JwksUrl, KeySet, NewToken, Secret, SigningKey, TokenRules,
        TokenVerifier, VerificationKey,
    },
    connection::{
        testing::{ConnectionFixture, FrameClient, NOW, WIDE, event_about, settle, simulate},
        wire_testing::{ReceivedFrame, json as text},
    },
};

const SECRET: &[u8] = b"a secret that is at least as long as its hash";
const OLD_EXPIRY: Duration = Duration::from_secs(60);

/// Creates a relay that verifies tokens.
fn fixture() -> ConnectionFixture {
    let fixture = ConnectionFixture::with_log(|_| ());
    require_tokens(&fixture);
    fixture
}

/// Makes the relay verify tokens.
pub(super) fn require_tokens(fixture: &ConnectionFixture) {
    let verifier = TokenVerifier::new(vec![verification_key(SECRET)], TokenRules::default());
    fixture.set_authenticator(Authenticator::Tokens(verifier.unwrap()));
}

fn verification_key(secret: &[u8]) -> VerificationKey {
    VerificationKey::from_secret(Algorithm::HS256, None, &Secret::new(secret)).unwrap()
}

/// Returns a token of ann that expires this many seconds after the start of the test.
pub(super) fn token(lifetime: u64, topics: Option<&[&str]>) -> String {
    token_of("acme", "ann", lifetime, topics)
}

fn token_of(tenant: &str, user: &str, lifetime: u64, topics: Option<&[&str]>) -> String {
    let key = SigningKey::from_secret(Algorithm::HS256, None, &Secret::new(SECRET)).unwrap();
    let topics = topics.map(|topics| {
        let topics = topics.iter().map(|topic| Topic::parse(topic).unwrap());
        topics.collect()
    });
    let token = NewToken {
        tenant: TenantName::parse(tenant).unwrap(),
        user: UserName::parse(user).unwrap(),
        expires_at: Some(NOW + Duration::from_secs(lifetime)),
        topics,
        subscribe: None,
    };
    key.mint(&token, &TokenRules::default()).unwrap()
}

/// Connects a JSON client with a token that expires after [`OLD_EXPIRY`].
fn connect(fixture: &ConnectionFixture) -> FrameClient {
    fixture.connect_json_until(NOW + OLD_EXPIRY, WIDE)
}

async fn subscribe(client: &mut FrameClient, topic: &str) {
    client.send(subscribe_json("s", topic)).await;
    hears(client, [ReceivedFrame::Subscribed("s".to_owned())]).await;
}

pub(super) fn authenticate(id: &str, token: &str) -> Vec<u8> {
    text(&json!({"messageId": id, "authenticate": {"token": token}}).to_string())
}

/// Sends the token, and returns the answer.
async fn renewed(client: &mut FrameClient, token: &str) -> Value {
    client.send(authenticate("a", token)).await;
    let mut answer = client.next_json().await;
    answer["authenticated"].take()
}

/// Sends the token, and returns the code and the field of the refusal.
async fn refused(client: &mut FrameClient, token: &str) -> (String, String) {
    client.send(authenticate("a", token)).await;
    let answer = client.next_json().await;
    let error = &answer["error"];
    assert_eq!(error["requestMessageId"], "a", "{answer}");
    assert!(!answer.to_string().contains(token) || token.is_empty());
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (text("errorCode"), text("fieldName"))
}

/// Waits until this many seconds after the start of the test.
fn wait_until(start: Instant, seconds: u64) -> impl Future<Output = ()> {
    sleep_until(start + Duration::from_secs(seconds))
}

/// Asserts that nothing is left to read but the answer to a ping.
async fn receives_nothing(client: &mut FrameClient) {
    settle().await;
    client.send(text(r#"{"ping": {}}"#)).await;
    let answer = client.next_json().await;
    assert!(answer.get("pong").is_some(), "{answer}");
}

/// Asserts that the connection is closed with this code.
async fn is_closed(client: &mut FrameClient, code: u16) {
    let frames = client.rest_after_close().await;
    let last = frames.last();
    assert!(
        matches!(last, Some(ReceivedFrame::Close(given, _)) if *given == code),
        "{last:?}"
    );
}

#[test]
fn a_connection_lives_until_its_newest_token_expires() {
    simulate(async {
        let (fixture, start) = (fixture(), Instant::now());
        let mut client = connect(&fixture);
        subscribe(&mut client, "project:p").await;
        let answer = renewed(&mut client, &token(300, None)).await;
        let expiry = (NOW.as_secs() + 300).to_string();
        assert_eq!(
            answer,
            json!({"expiresAt": expiry, "requestMessageId": "a"})
        );
        wait_until(start, 299).await;
        fixture.publish([event_about("project:p", 10)]).await;
        hears(&mut client, [ReceivedFrame::Event(1)]).await;
        let answer = renewed(&mut client, &token(310, None)).await;
        assert_eq!(answer["requestMessageId"], "a");
        // The leeway is 5 s.
        wait_until(start, 314).await;
        receives_nothing(&mut client).await;
        wait_until(start, 316).await;
        let rest = client.rest_after_close().await;
        let expired = ReceivedFrame::Refused("AUTHENTICATION_FAILED".to_owned());
        let closed = ReceivedFrame::Close(4001, "token expired".to_owned());
        assert_eq!(rest, [expired, closed]);
    });
}

#[test]
fn a_token_that_expires_earlier_ends_the_connection_earlier() {
    simulate(async {
        let (fixture, start) = (fixture(), Instant::now());
        let mut client = connect(&fixture);
        assert!(renewed(&mut client, &token(10, None)).await.is_object());
        is_closed(&mut client, 4001).await;
        assert_eq!(start.elapsed(), Duration::from_secs(15));
    });
}

#[test]
fn topics_that_the_new_token_does_not_grant_end_and_are_named() {
    simulate(async {
        let fixture = fixture();
        let mut client = connect(&fixture);
        for topic in ["project:p", "project:q", "sprint:*", "sprint:1", "item:*"] {
            subscribe(&mut client, topic).await;
        }
        let grant = ["project:p", "sprint:1", "item:*"];
        let answer = renewed(&mut client, &token(300, Some(&grant))).await;
        let mut revoked = answer["revokedTopics"].as_array().unwrap().clone();
        revoked.sort_by_key(Value::to_string);
        assert_eq!(revoked, ["project:q", "sprint:*"]);
        let about = ["project:q", "sprint:2", "project:p", "sprint:1", "item:7"];
        fixture
            .publish(about.map(|topic| event_about(topic, 10)))
            .await;
        hears(&mut client, [3, 4, 5].map(ReceivedFrame::Event)).await;
        client.send(subscribe_json("t", "project:q")).await;
        let denied = ReceivedFrame::Refused("AUTHORIZATION_FAILED".to_owned());
        hears(&mut client, [denied.clone()]).await;
        let typing = json!({"userTyping": {"projectId": "q", "isTyping": true}});
        client.send(text(&typing.to_string())).await;
        hears(&mut client, [denied]).await;
        // A wider grant allows it again, and brings nothing back by itself.
        assert!(renewed(&mut client, &token(300, None)).await.is_object());
        fixture.publish([event_about("project:q", 10)]).await;
        receives_nothing(&mut client).await;
        subscribe(&mut client, "project:q").await;
        fixture.check_sums();
    });
}

#[test]
fn what_a_client_sends_after_a_token_is_judged_by_that_token() {
    simulate(async {
        let fixture = fixture();
        let mut client = connect(&fixture);
        let narrow = authenticate("a", &token(300, Some(&["project:p"])));
        let wide = authenticate("b", &token(300, None));
        let [granted, denied, again] = [("1", "p"), ("2", "q"), ("3", "q")]
            .map(|(id, project)| subscribe_json(id, &format!("project:{project}")));
        client
            .send([narrow, granted, denied, wide, again].concat())
            .await;
        let mut answers = Vec::new();
        for _ in 0..5 {
            let answer = client.next_json().await;
            let members = answer.as_object().unwrap().keys();
            let is_payload = |name: &&String| !["messageId", "timestamp"].contains(&name.as_str());
            answers.extend(members.filter(is_payload).cloned());
        }
        let confirmed = "subscriptionConfirmed";
        let expected = [
            "authenticated",
            confirmed,
            "error",
            "authenticated",
            confirmed,
        ];
        assert_eq!(answers, expected);
    });
}

#[test]
fn a_refused_token_changes_nothing() {
    simulate(async {
        let (fixture, start) = (fixture(), Instant::now());
        let mut client = connect(&fixture);
        subscribe(&mut client, "project:p").await;
        let authentication = ("AUTHENTICATION_FAILED", "authenticate.token");
        let authorization = ("AUTHORIZATION_FAILED", "");
        let mut forged = token(300, None);
        forged.replace_range(forged.len() - 8..forged.len() - 4, "AAAA");
        let long = "x".repeat(9_000);
        for (token, (code, field)) in [
            (token_of("globex", "ann", 300, None), authorization),
            (token_of("acme", "bob", 300, None), authorization),
            (token_of("acme", "bob", 300, Some(&[])), authorization),
            (forged, authentication),
            (long, authentication),
            ("no token".to_owned(), authentication),
            (String::new(), authentication),
        ] {
            let refused = refused(&mut client, &token).await;
            assert_eq!(refused, (code.to_owned(), field.to_owned()), "{token}");
        }
        wait_until(start, 20).await;
        let expired = token(10, Some(&[]));
        assert_eq!(refused(&mut client, &expired).await.0, authentication.0);
        fixture.publish([event_about("project:p", 10)]).await;
        hears(&mut client, [ReceivedFrame::Event(1)]).await;
        is_closed(&mut client, 4001).await;
        assert_eq!(start.elapsed(), OLD_EXPIRY);
    });
}

#[test]
fn a_relay_that_needs_no_token_refuses_one() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        fixture.set_authenticator(Authenticator::Open);
        let mut client = fixture.connect_json(WIDE);
        let refused = refused(&mut client, &token(300, None)).await;
        let expected = ("VALIDATION_ERROR".to_owned(), "authenticate".to_owned());
        assert_eq!(refused, expected);
    });
}

/// Makes the relay verify tokens with the keys of a set, which has not been fetched yet.
fn set_fetched_keys(fixture: &ConnectionFixture) -> Arc<KeySet> {
    let set = Arc::new(KeySet::new(JwksUrl::parse("https://id.example").unwrap()));
    let sets = vec![Arc::clone(&set)];
    let verifier = TokenVerifier::with_sets(Vec::new(), sets, TokenRules::default());
    fixture.set_authenticator(Authenticator::Tokens(verifier.unwrap()));
    set
}

#[test]
fn a_token_of_an_unknown_key_is_answered_when_the_keys_are_fetched() {
    simulate(async {
        let (fixture, start) = (fixture(), Instant::now());
        let set = set_fetched_keys(&fixture);
        let mut client = connect(&fixture);
        let first = token(300, None);
        client.send(authenticate("a", &first)).await;
        // Everything else is handled meanwhile, but no second token.
        subscribe(&mut client, "project:p").await;
        let second = refused(&mut client, &first).await;
        assert_eq!(second.0, "RATE_LIMIT_EXCEEDED");
        wait_until(start, 3).await;
        assert!(set.finish_fetch(Some(vec![verification_key(SECRET)]), Instant::now()));
        let answer = client.next_json().await;
        assert!(answer["authenticated"].is_object(), "{answer}");
        wait_until(start, 200).await;
        receives_nothing(&mut client).await;
    });
}

#[test]
fn the_old_token_expires_while_keys_for_the_new_one_are_fetched() {
    simulate(async {
        let (fixture, start) = (fixture(), Instant::now());
        fixture.reload(|config| config.auth.jwks_timeout = Duration::from_hours(1));
        set_fetched_keys(&fixture);
        let mut client = connect(&fixture);
        client.send(authenticate("a", &token(300, None))).await;
        is_closed(&mut client, 4001).await;
        assert_eq!(start.elapsed(), OLD_EXPIRY);
    });
}

/// Publishes 100 events about the project, and connects a client that replays them and does not
/// read on.
async fn replaying(fixture: &ConnectionFixture) -> FrameClient {
    let events = (0..100).map(|_| event_about("project:p", 1_000));
    let first = fixture.publish(events).await.events[0].position;
    fixture.reload(|config| config.limits.outbox_frames = 10);
    let mut client = fixture.connect_json_until(NOW + OLD_EXPIRY, 256);
    let start = Position { offset: 0, ..first };
    client.send(resume_json("r", "project:p", start)).await;
    let confirmed = ReceivedFrame::Resumed("r".to_owned(), 100);
    hears(&mut client, [confirmed]).await;
    client
}

#[test]
fn a_token_is_answered_during_a_replay_which_goes_on() {
    simulate(async {
        let fixture = fixture();
        let mut client = replaying(&fixture).await;
        client.send(subscribe_json("t", "sprint:1")).await;
        let token = token(300, Some(&["project:p"]));
        client.send(authenticate("a", &token)).await;
        let mut offsets = Vec::new();
        let mut answered_after = None;
        loop {
            let next = client.next_json().await;
            if next.get("authenticated").is_some() {
                answered_after = Some(offsets.len());
            } else if let Some(error) = next.get("error") {
                // The Subscribe that waited is judged by the new grant.
                assert_eq!(error["requestMessageId"], "t");
                assert_eq!(error["errorCode"], "AUTHORIZATION_FAILED");
                break;
            } else {
                offsets.push(next["position"]["offset"].as_str().unwrap().to_owned());
            }
        }
        let expected: Vec<_> = (1..=100).map(|offset: u64| offset.to_string()).collect();
        assert_eq!(offsets, expected);
        assert!(answered_after.unwrap() < 100, "{answered_after:?}");
    });
}

#[test]
fn a_token_that_takes_a_topic_of_the_replay_closes_with_4006() {
    simulate(async {
        let fixture = fixture();
        let mut client = replaying(&fixture).await;
        let token = token(300, Some(&["project:q"]));
        client.send(authenticate("a", &token)).await;
        is_closed(&mut client, 4006).await;
        fixture.check_nothing_but_the_log_is_left();
    });
}

#[test]
fn the_removal_of_a_key_ends_the_connections_with_its_newest_tokens() {
    simulate(async {
        let fixture = fixture();
        fixture.reload(|config| config.auth.close_on_key_removal = true);
        let mut renewing = connect(&fixture);
        assert!(renewed(&mut renewing, &token(300, None)).await.is_object());
        let only = |secret: &[u8]| {
            let keys = vec![verification_key(secret)];
            Authenticator::Tokens(TokenVerifier::new(keys, TokenRules::default()).unwrap())
        };
        fixture.set_authenticator(only(SECRET));
        receives_nothing(&mut renewing).await;
        fixture.set_authenticator(only(b"another secret that is as long as its hash"));
        is_closed(&mut renewing, 4001).await;
        assert_eq!(fixture.closed("key_removed"), 1);
    });
}
