//! Polls: events by one HTTP request after another, without anything that lasts.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use sidewire::config::WebOrigin;
use sidewire_testing::http::Answer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use crate::{
    ingest_support::{BATCH, Call, JSON, list},
    json_client::JsonClient,
    raw::RawClient,
    response_support::{ORIGIN, deciding_backend, position, post, start},
    support::{INGEST_KEY, PATIENCE, TestRelay, token, token_subscribing, token_with},
};

const WAITING: &str = "sidewire_transport_connections{transport=\"poll\"}";
const ANSWERED: &str = "sidewire_connections_closed_total{transport=\"poll\",reason=\"answered\"}";

/// Returns the request for a poll with this token and query.
fn request(token: &str, query: &str) -> Call {
    Call::new("GET", &format!("/poll?{query}")).key(token)
}

/// Polls as ann of acme on a connection of its own.
async fn poll(relay: &TestRelay, query: &str) -> Answer {
    poll_bearing(relay, &token("acme", "ann"), query).await
}

async fn poll_bearing(relay: &TestRelay, token: &str, query: &str) -> Answer {
    send(relay, &request(token, query)).await
}

async fn send(relay: &TestRelay, call: &Call) -> Answer {
    let (answer, _) = RawClient::ask(relay.addresses.client, &call.bytes()).await;
    answer
}

/// What a poll was answered with.
#[derive(Debug, PartialEq)]
struct Polled {
    position: String,
    recovered: bool,
    events: Vec<(String, Value)>,
}

impl Polled {
    fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.headers["content-type"], "application/json");
        let json = answer.json();
        let events = json["events"].as_array().unwrap();
        Self {
            position: position(&json["position"]),
            recovered: json["recovered"].as_bool().unwrap(),
            events: events
                .iter()
                .map(|event| (position(&event["position"]), event["event"]["data"].clone()))
                .collect(),
        }
    }
}

async fn polled(relay: &TestRelay, query: &str) -> Polled {
    Polled::of(&poll(relay, query).await)
}

#[tokio::test]
async fn the_first_poll_returns_the_position_of_now_and_no_events() {
    let relay = start(|_| ());
    let before = post(&relay, "a:1", json!(1)).await;
    let first = polled(&relay, "topic=a:1").await;
    let expected = Polled {
        position: before,
        recovered: false,
        events: Vec::new(),
    };
    assert_eq!(first, expected);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_poll_returns_what_came_since_in_order() {
    let relay = start(|_| ());
    let since = polled(&relay, "").await.position;
    let mut expected = Vec::new();
    let topics = [
        "a:1", "c:3", "b:2", "user:ann", "user:bob", "tenant:*", "c:3",
    ];
    let mut last = String::new();
    for (number, topic) in topics.into_iter().enumerate() {
        last = post(&relay, topic, json!(number)).await;
        if !matches!(topic, "c:3" | "user:bob") {
            expected.push((last.clone(), json!(number)));
        }
    }
    let query = format!("topic=a:1&topic=b:2&since={since}");
    for wait in ["", "&wait=0", "&wait=60s"] {
        let answer = polled(&relay, &format!("{query}{wait}")).await;
        assert_eq!(answer.events, expected);
        // Not that of the last event: up to the head there is nothing else.
        assert_eq!((answer.position, answer.recovered), (last.clone(), true));
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_bound_cuts_an_answer_and_the_next_one_goes_on_there() {
    let relay = start(|config| config.limits.outbox_bytes = 64 * 1024);
    let mut since = polled(&relay, "").await.position;
    let mut posted = Vec::new();
    for number in 0..25 {
        posted.push((post(&relay, "a:1", json!(number)).await, json!(number)));
    }
    let mut got = Vec::new();
    for count in [10, 10, 5] {
        let answer = polled(&relay, &format!("topic=a:1&max=10&since={since}")).await;
        assert_eq!(answer.events.len(), count);
        since = answer.position;
        got.extend(answer.events);
    }
    assert_eq!(got, posted);

    // Two of them fit into an answer, and the last one is more than fits.
    let large = [30_000, 30_000, 30_000, 100_000].map(|len| json!("x".repeat(len)));
    for data in &large {
        post(&relay, "a:1", data.clone()).await;
    }
    let mut got = Vec::new();
    for count in [2, 1, 1] {
        let answer = polled(&relay, &format!("topic=a:1&since={since}")).await;
        assert_eq!(answer.events.len(), count);
        since = answer.position;
        got.extend(answer.events.into_iter().map(|(_, data)| data));
    }
    assert!(got == large, "all of them come once");
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_poll_waits_for_the_next_event_and_counts_as_a_connection_meanwhile() {
    let relay = start(|_| ());
    let since = polled(&relay, "").await.position;
    let query = format!("topic=a:1&wait=60s&since={since}");
    let waiting = polled(&relay, &query);
    let meanwhile = async {
        relay.metrics_where(|metrics| metrics[WAITING] == 1.0).await;
        let listing = list(&relay, "/v1/tenants/acme/connections", "user=ann").await;
        assert_eq!(listing["connections"][0]["transport"], "poll");
        assert_eq!(listing["connections"][0]["topics"], 1);
        let event = json!({"event": {"type": "test", "data": 1}});
        let posted = Call::event("/v1/tenants/acme/events?topic=a:1", &event);
        let answer = posted.answer(&relay).await.json();
        assert_eq!(answer["matched"], 1);
        position(&answer["position"])
    };
    let (answer, at) = tokio::join!(waiting, meanwhile);
    assert_eq!(answer.events, [(at.clone(), json!(1))]);
    assert_eq!((answer.position, answer.recovered), (at, true));
    // It is no connection that was lost and found again.
    relay
        .metrics_where(|metrics| metrics[ANSWERED] == 2.0)
        .await;
    assert_eq!(relay.metrics().await["sidewire_reconnects_total"], 0.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn events_that_come_together_reach_a_poll_whole() {
    let relay = start(|_| ());
    let token = token("acme", "ann");
    let mut client = RawClient::silent(relay.addresses.client).await;
    client.send(&request(&token, "topic=a:1").bytes()).await;
    let mut since = Polled::of(&client.answer().await).position;
    let text = "x".repeat(2_000);
    let mut got = Vec::new();
    for round in 0..5 {
        let query = format!("topic=a:1&wait=60s&since={since}");
        client.send(&request(&token, &query).bytes()).await;
        relay.metrics_where(|metrics| metrics[WAITING] == 1.0).await;
        let numbers = round * 30..(round + 1) * 30;
        let event =
            |number| json!({"event": {"type": "test", "data": {"n": number, "text": text}}});
        let batch = json!({"messages": numbers.clone().map(event).collect::<Vec<_>>()});
        let posted = Call::post(&format!("{BATCH}?topic=a:1"), JSON, batch.to_string());
        assert_eq!(posted.answer(&relay).await.status, 200);
        while got.len() < numbers.end {
            let answer = Polled::of(&client.answer().await);
            since = answer.position;
            got.extend(answer.events.into_iter().map(|(_, data)| data["n"].clone()));
            if got.len() < numbers.end {
                let query = format!("topic=a:1&wait=60s&since={since}");
                client.send(&request(&token, &query).bytes()).await;
            }
        }
    }
    assert_eq!(
        got,
        (0..150).map(|number| json!(number)).collect::<Vec<_>>()
    );
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_poll_that_has_waited_in_vain_returns_how_far_the_log_was_searched() {
    let relay = start(|_| ());
    let since = polled(&relay, "").await.position;
    let query = format!("topic=a:1&wait=300ms&since={since}");
    let waiting = polled(&relay, &query);
    let meanwhile = async {
        relay.metrics_where(|metrics| metrics[WAITING] == 1.0).await;
        // Not for this client, which must not ask for it again and again.
        post(&relay, "b:2", json!(1)).await
    };
    let (answer, passed) = tokio::join!(waiting, meanwhile);
    let expected = Polled {
        position: passed,
        recovered: true,
        events: Vec::new(),
    };
    assert_eq!(answer, expected);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_that_was_away_for_too_long_is_told_at_once() {
    let relay = start(|config| config.replay.events = 2);
    let since = polled(&relay, "").await.position;
    let mut last = String::new();
    for number in 0..4 {
        last = post(&relay, "a:1", json!(number)).await;
    }
    let epoch = "0123456789abcdef0123456789abcdef";
    for since in [since, format!("{epoch}:1")] {
        let answer = polled(&relay, &format!("topic=a:1&wait=60s&since={since}")).await;
        let expected = Polled {
            position: last.clone(),
            recovered: false,
            events: Vec::new(),
        };
        assert_eq!(answer, expected);
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn polls_follow_each_other_on_one_connection_and_a_websocket_may_follow_them() {
    let relay = start(|_| ());
    let token = token("acme", "ann");
    let mut client = RawClient::silent(relay.addresses.client).await;
    client.send(&request(&token, "topic=a:1").bytes()).await;
    let mut since = Polled::of(&client.answer().await).position;
    for number in 0..20 {
        post(&relay, "a:1", json!(number)).await;
        let query = format!("topic=a:1&wait=60s&since={since}");
        client.send(&request(&token, &query).bytes()).await;
        let answer = Polled::of(&client.answer().await);
        assert_eq!(answer.events.len(), 1);
        assert_eq!(answer.events[0].1, number);
        since = answer.position;
    }
    let upgrade = sidewire_testing::http::handshake(&sidewire_testing::http::bearer(&token));
    client.send(upgrade.as_bytes()).await;
    assert_eq!(client.answer().await.status, 101);
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_response_is_framed_as_the_request_wants_it() {
    let relay = start(|_| ());
    let poll = request(&token("acme", "ann"), "topic=a:1");
    let (kept, mut open) = RawClient::ask(relay.addresses.client, &poll.bytes()).await;
    assert_eq!(kept.headers["transfer-encoding"], "chunked");
    assert_eq!(kept.header("connection"), None);
    let last = poll.clone().header("Connection: te, Close");
    open.send(&last.bytes()).await;
    let closed = open.answer().await;
    assert_eq!(closed.headers["transfer-encoding"], "chunked");
    assert_eq!(closed.headers["connection"], "close");
    open.ended().await;
    let mut old = TcpStream::connect(relay.addresses.client).await.unwrap();
    old.write_all(&poll.http_1_0().bytes()).await.unwrap();
    let mut response = String::new();
    let whole = timeout(PATIENCE, old.read_to_string(&mut response)).await;
    whole.expect("the connection ends with the answer").unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nconnection: close"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["events"], json!([]));
    for answer in [kept, closed] {
        Polled::of(&answer);
        for (name, value) in [
            ("cache-control", "no-store, no-transform"),
            ("x-accel-buffering", "no"),
            ("x-content-type-options", "nosniff"),
            ("vary", "Origin"),
        ] {
            assert_eq!(answer.headers[name], value);
        }
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn polls_are_refused_with_problem_documents() {
    let relay = start(|config| {
        config.client.origins = vec![WebOrigin::parse(ORIGIN).unwrap()];
    });
    let (all, some) = (
        token("acme", "ann"),
        token_with("acme", "ann", Duration::from_hours(1), Some(&["a:1"])),
    );
    let epoch = "0123456789abcdef0123456789abcdef";
    let twice = format!("since={epoch}:1&since={epoch}:1");
    for (token, query, status, code) in [
        ("", "topic=a:1", 401, "AUTHENTICATION_FAILED"),
        (&some, "topic=b:2", 403, "AUTHORIZATION_FAILED"),
        (&all, "topic=user:ann", 403, "AUTHORIZATION_FAILED"),
        (&all, "topic=nothing", 400, "VALIDATION_ERROR"),
        (&all, "topics=a:1", 400, "VALIDATION_ERROR"),
        (&all, "since=1", 400, "VALIDATION_ERROR"),
        (&all, &twice, 400, "VALIDATION_ERROR"),
        (&all, "wait=61s", 400, "VALIDATION_ERROR"),
        (&all, "wait=5", 400, "VALIDATION_ERROR"),
        (&all, "wait=-1s", 400, "VALIDATION_ERROR"),
        (&all, "wait=", 400, "VALIDATION_ERROR"),
        (&all, "wait=1s&wait=1s", 400, "VALIDATION_ERROR"),
        (&all, "max=0", 400, "VALIDATION_ERROR"),
        (&all, "max=1001", 400, "VALIDATION_ERROR"),
        (&all, "max=x", 400, "VALIDATION_ERROR"),
    ] {
        let call = request(token, query).header(&format!("Origin: {ORIGIN}"));
        let answer = send(&relay, &call).await;
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.headers["access-control-allow-origin"], ORIGIN);
        let seen = answer.json()["code"].clone();
        assert_eq!(
            (answer.status, seen.as_str()),
            (status, Some(code)),
            "{query}"
        );
    }
    let post = Call::new("POST", "/poll").key(&all);
    assert_eq!(send(&relay, &post).await.status, 405);
    let preflight = Call::new("OPTIONS", "/poll").header(&format!("Origin: {ORIGIN}"));
    assert_eq!(send(&relay, &preflight).await.status, 204);
    assert!(relay.stop().await);

    let relay = start(|config| config.client.poll = false);
    assert_eq!(poll(&relay, "topic=a:1").await.status, 404);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn polls_are_charged_to_the_user_like_further_subscribes() {
    let relay = start(|config| config.limits.user_burst = 3.try_into().unwrap());
    for _ in 0..3 {
        polled(&relay, "topic=a:1").await;
    }
    let refused = poll(&relay, "topic=a:1").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["code"], "RATE_LIMIT_EXCEEDED");
    assert!(refused.header("retry-after").is_some());
    // Another user is not affected.
    let other = poll_bearing(&relay, &token("acme", "bob"), "topic=a:1").await;
    assert_eq!(other.status, 200);
    assert!(relay.stop().await);
}

/// What ends a poll that waits.
async fn ended(relay: &TestRelay, token: &str, end: impl Future<Output = ()>) -> Answer {
    let since = polled(relay, "").await.position;
    let query = format!("topic=a:1&wait=60s&since={since}");
    let waiting = poll_bearing(relay, token, &query);
    let ending = async {
        relay.metrics_where(|metrics| metrics[WAITING] == 1.0).await;
        end.await;
    };
    tokio::join!(waiting, ending).0
}

#[tokio::test]
async fn the_relay_says_why_it_ends_a_poll_that_waits() {
    let mut relay = start(|_| ());
    let ann = token("acme", "ann");
    let delete = |path: &'static str| {
        let relay = &relay;
        async move {
            let call = Call::new("DELETE", &format!("/v1/tenants/acme/users/ann/{path}"));
            let answer = call.key(INGEST_KEY).answer(relay).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    };
    for (path, status, code) in [
        ("connections", 403, "AUTHORIZATION_FAILED"),
        ("connections?reconnect=true", 401, "AUTHENTICATION_FAILED"),
        ("subscriptions?topic=a:1", 403, "AUTHORIZATION_FAILED"),
    ] {
        let answer = ended(&relay, &ann, delete(path)).await;
        let seen = answer.json()["code"].clone();
        assert_eq!(
            (answer.status, seen.as_str()),
            (status, Some(code)),
            "{path}"
        );
    }
    let short = token_with("acme", "ann", Duration::from_secs(2), None);
    let answer = ended(&relay, &short, async {}).await;
    assert_eq!(answer.status, 401);
    assert!(answer.headers["www-authenticate"].starts_with("Bearer"));

    let since = polled(&relay, "").await.position;
    let query = format!("topic=a:1&wait=60s&since={since}");
    let (address, call) = (relay.addresses.client, request(&ann, &query));
    let waiting = tokio::spawn(async move { RawClient::ask(address, &call.bytes()).await.0 });
    relay.metrics_where(|metrics| metrics[WAITING] == 1.0).await;
    let drained = relay.begin_drain();
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["code"], "INTERNAL_ERROR");
    assert!(answer.header("retry-after").is_some());
    assert!(drained.await.unwrap());
}

#[tokio::test]
async fn a_client_that_goes_ends_its_poll() {
    let relay = start(|_| ());
    let since = polled(&relay, "").await.position;
    let query = format!("topic=a:1&wait=60s&since={since}");
    let mut client = RawClient::silent(relay.addresses.client).await;
    client
        .send(&request(&token("acme", "ann"), &query).bytes())
        .await;
    relay.metrics_where(|metrics| metrics[WAITING] == 1.0).await;
    drop(client);
    let gone = "sidewire_connections_closed_total{transport=\"poll\",reason=\"client\"}";
    relay.metrics_where(|metrics| metrics[gone] == 1.0).await;
    relay.check_at_rest().await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_request_that_comes_before_the_answer_ends_the_connection_after_it() {
    let relay = start(|_| ());
    let token = token("acme", "ann");
    let since = polled(&relay, "").await.position;
    let first = request(&token, &format!("topic=a:1&wait=60s&since={since}"));
    let second = request(&token, "topic=a:1");
    let mut client = RawClient::silent(relay.addresses.client).await;
    client.send(&[first.bytes(), second.bytes()].concat()).await;
    relay.metrics_where(|metrics| metrics[WAITING] == 1.0).await;
    post(&relay, "a:1", json!(1)).await;
    assert_eq!(Polled::of(&client.answer().await).events.len(), 1);
    client.ended().await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_poll_has_no_presence_and_nothing_of_other_clients() {
    let relay = start(|_| ());
    let mut bob = JsonClient::subscribed(&relay, "bob", &["a:1"]).await;
    bob.say(json!({"presence": {"type": "here", "topics": ["a:1"]}}))
        .await;
    bob.say(json!({"ping": {}})).await;
    while bob.envelope().await.get("pong").is_none() {}
    let since = polled(&relay, "").await.position;
    let query = format!("topic=a:1&wait=60s&since={since}");
    let waiting = polled(&relay, &query);
    let meanwhile = async {
        relay.metrics_where(|metrics| metrics[WAITING] == 1.0).await;
        bob.say(json!({"message": {"type": "typing", "topics": ["a:1"]}}))
            .await;
        bob.say(json!({"presence": {"type": "away", "topics": ["a:1"]}}))
            .await;
        bob.say(json!({"ping": {}})).await;
        while bob.envelope().await.get("pong").is_none() {}
        post(&relay, "a:1", json!("stored")).await
    };
    let (answer, at) = tokio::join!(waiting, meanwhile);
    assert_eq!(answer.events, [(at, json!("stored"))]);
    drop(bob);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_token_subscribes_a_poll_to_its_topics() {
    let relay = start(|_| ());
    let since = polled(&relay, "").await.position;
    let posted = post(&relay, "a:1", json!(1)).await;
    let token = token_subscribing("acme", "ann", &["a:1"]);
    let answer = poll_bearing(&relay, &token, &format!("wait=60s&since={since}")).await;
    assert_eq!(Polled::of(&answer).events, [(posted, json!(1))]);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_backend_decides_on_a_poll_and_nothing_is_missed_meanwhile() {
    let permits = Arc::new(Semaphore::new(0));
    let url = deciding_backend(&["a:1"], Arc::clone(&permits)).await;
    let relay = start(|config| config.auth.subscribe.url = Some(url));
    let since = polled(&relay, "").await.position;
    let first = post(&relay, "a:1", json!(1)).await;
    let asked = "sidewire_backend_questions_under_way";
    let query = format!("topic=a:1&since={since}");
    let waiting = polled(&relay, &query);
    let meanwhile = async {
        relay.metrics_where(|metrics| metrics[asked] == 1.0).await;
        // The first is for the user, who has it without asking.
        let second = post(&relay, "user:ann", json!(2)).await;
        let third = post(&relay, "a:1", json!(3)).await;
        permits.add_permits(10);
        [(second, json!(2)), (third, json!(3))]
    };
    let (answer, later) = tokio::join!(waiting, meanwhile);
    let expected: Vec<_> = [(first, json!(1))].into_iter().chain(later).collect();
    assert_eq!(answer.events, expected);

    let denied = poll(&relay, &format!("topic=b:2&since={since}")).await;
    assert_eq!(denied.status, 403);
    assert_eq!(denied.json()["code"], "AUTHORIZATION_FAILED");
    relay.check_at_rest().await;
    assert!(relay.stop().await);
}
