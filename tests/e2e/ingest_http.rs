//! HTTP of backends' calls: which caller may call what, and the life of connections.

use serde_json::json;
use sidewire_testing::http::Answer;
use tokio::net::TcpStream;

use crate::{
    ingest_support::{BATCH, Backend, Call, EVENTS, JSON, PROTOBUF, offset, refusal},
    raw::http_over,
    support::{ACME_KEY, INGEST_KEY, TestRelay},
    vocabulary::{created, named},
};

#[tokio::test]
async fn a_backend_without_a_known_key_is_refused_before_all_else() {
    let relay = TestRelay::start();
    let key = |text: &str| format!("Authorization: {text}");
    let headers: [&[String]; 9] = [
        &[],
        &[key("Bearer wrong")],
        &[key("Bearer")],
        &[key("Bearer ")],
        &[key(&format!("Basic {INGEST_KEY}"))],
        &[key(INGEST_KEY)],
        &[key(&format!("Bearer {INGEST_KEY}x"))],
        &[key(&format!("Bearer {}", &INGEST_KEY[1..]))],
        &[key(&format!("Bearer {INGEST_KEY}")), key("Bearer wrong")],
    ];
    for headers in headers {
        for (method, path) in [("POST", EVENTS), ("GET", EVENTS), ("POST", "/nothing/here")] {
            let call = Call::new(method, path).body("no event");
            let call = headers.iter().fold(call, |call, line| call.header(line));
            let answer = call.answer(&relay).await;
            assert_eq!(
                refusal(&answer),
                (401, "AUTHENTICATION_FAILED".to_owned(), None)
            );
            let challenge = "Bearer error=\"invalid_token\"";
            assert_eq!(answer.headers["www-authenticate"], challenge);
            assert!(!answer.text().contains(INGEST_KEY));
        }
    }
    let call = Call::new("POST", EVENTS)
        .header(&format!("authorization: bEARER   {INGEST_KEY}"))
        .header("Authorization: Basic dTpw")
        .header(&format!("Content-Type: {JSON}"))
        .body(created("p1").to_string());
    assert_eq!(offset(&call.answer(&relay).await), 1);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_key_of_one_tenant_is_refused_for_another() {
    let relay = TestRelay::start();
    let mut other = relay.connect("other", "ann").await;
    other.subscribe(&["project:p1"]).await;
    let call = |method: &str, target: &str| {
        Call::new(method, target)
            .key(ACME_KEY)
            .header(&format!("Content-Type: {JSON}"))
            .body(created("p1").to_string())
    };
    for (method, target) in [
        ("POST", "/v1/tenants/other/events"),
        ("POST", "/v1/tenants/other/events:batch"),
        ("POST", "/v1/tenants/Acme/events"),
        ("POST", "/v1/tenants/acme%20/events"),
        ("GET", "/v1/tenants/other/events"),
        ("POST", "/v1/tenants/other/nothing"),
    ] {
        let answer = call(method, target).answer(&relay).await;
        let expected = (403, "AUTHORIZATION_FAILED".to_owned(), None);
        assert_eq!(refusal(&answer), expected, "{method} {target}");
    }
    assert_eq!(offset(&call("POST", EVENTS).answer(&relay).await), 1);
    let answer = call("POST", "/v1/tenants/%61cme/events")
        .answer(&relay)
        .await;
    assert_eq!(offset(&answer), 2);
    other.nothing_more().await;
    let answer = Call::event("/v1/tenants/other/events", &created("p1"));
    assert_eq!(offset(&answer.answer(&relay).await), 1);
    drop(other);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn on_loopback_no_key_has_to_be_configured() {
    let relay = TestRelay::with(|config| config.ingest.keys.clear());
    let event = created("p1").to_string();
    let call = Call::new("POST", EVENTS)
        .header(&format!("Content-Type: {JSON}"))
        .body(event);
    assert_eq!(offset(&call.answer(&relay).await), 1);
    let call = call.key("whatever");
    assert_eq!(offset(&call.answer(&relay).await), 2);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn other_paths_are_not_found_and_other_methods_not_allowed() {
    let relay = TestRelay::start();
    for target in [
        "/",
        "/v1/tenants",
        "/v1/tenants/acme/",
        "/v1/tenants/acme/event",
        "/v1/tenants/acme/events/",
        "/v1/tenants/acme/events:batches",
        "/v1/tenants/acme/events%3Abatch/",
        "/v1/tenants/a/b/events",
        "/v2/tenants/acme/events",
        "//v1/tenants/acme/events",
        "/metrics",
        "*",
    ] {
        let method = if target == "*" { "OPTIONS" } else { "POST" };
        let call = Call::new(method, target).key(INGEST_KEY);
        let answer = call.answer(&relay).await;
        assert_eq!(
            refusal(&answer),
            (404, "NOT_FOUND".to_owned(), None),
            "{target}"
        );
    }
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"] {
        for target in [EVENTS, BATCH] {
            let call = Call::new(method, target).key(INGEST_KEY);
            let answer = call.answer(&relay).await;
            let expected = (405, "VALIDATION_ERROR".to_owned(), None);
            assert_eq!(refusal(&answer), expected, "{method} {target}");
            assert_eq!(answer.headers["allow"], "POST");
        }
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_body_that_is_neither_protobuf_nor_json_is_unsupported() {
    let relay = TestRelay::start();
    let event = created("p1").to_string();
    for target in [EVENTS, BATCH] {
        for content_type in [
            "text/plain",
            "",
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-16",
        ] {
            let answer = Call::post(target, content_type, event.clone())
                .answer(&relay)
                .await;
            let expected = (415, "VALIDATION_ERROR".to_owned(), None);
            assert_eq!(refusal(&answer), expected, "{content_type}");
        }
        for encoding in ["gzip", "identity", "br, gzip"] {
            let call = Call::post(target, JSON, event.clone());
            let answer = call
                .header(&format!("Content-Encoding: {encoding}"))
                .answer(&relay)
                .await;
            assert_eq!(refusal(&answer).0, 415, "{encoding}");
        }
        for coding in ["gzip, chunked", "deflate , chunked"] {
            let call = format!(
                "POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Content-Type: {JSON}\r\nAuthorization: Bearer {INGEST_KEY}\r\n\
                 Transfer-Encoding: {coding}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
            );
            let stream = TcpStream::connect(relay.addresses.ingest).await.unwrap();
            let answer = http_over(stream, &call, b"").await;
            assert_eq!(refusal(&answer).0, 415, "{coding}");
        }
    }
    let call = Call::new("POST", EVENTS)
        .key(INGEST_KEY)
        .body(event.clone());
    assert_eq!(refusal(&call.answer(&relay).await).0, 415);
    let call = Call::post(EVENTS, "Application/JSON ; charset=\"UTF-8\"", event);
    assert_eq!(offset(&call.answer(&relay).await), 1);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_tenant_may_have_any_name_without_control_characters() {
    let relay = TestRelay::start();
    let long = "t".repeat(128);
    let umlauts = "ü".repeat(64);
    for name in [
        "a/b",
        "ü ☃ 漢",
        "..",
        "events",
        "a%2Fb",
        "a+b",
        "?#&=;",
        "*",
        "tenant:*",
        " ",
        &long,
        &umlauts,
    ] {
        let mut client = relay.connect(name, "ann").await;
        client.subscribe(&["project:p1"]).await;
        let published = relay.publish(name, created("p1")).await;
        assert_eq!(
            (published.position.offset, published.matched),
            (1, Some(1)),
            "{name:?}"
        );
        assert_eq!(client.event().await.message_id, published.message_id);
    }
    let too_long = "t".repeat(129);
    for name in [
        "", "a%00", "%0a", "%7F", "a%C2%85b", "%ff", "%", "%zz", &too_long,
    ] {
        let call = Call::event(&format!("/v1/tenants/{name}/events"), &created("p1"));
        let answer = call.answer(&relay).await;
        let expected = (
            400,
            "VALIDATION_ERROR".to_owned(),
            Some("tenant".to_owned()),
        );
        assert_eq!(refusal(&answer), expected, "{name:?}");
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_connection_stays_open_after_refusals() {
    let relay = TestRelay::start();
    let event = created("p1");
    let refused = [
        (400, Call::event(EVENTS, &json!({}))),
        (401, Call::new("POST", EVENTS).body("x")),
        (
            403,
            Call::new("POST", "/v1/tenants/other/events")
                .key(ACME_KEY)
                .body("x"),
        ),
        (404, Call::post("/nothing", JSON, "x")),
        (405, Call::new("PUT", EVENTS).key(INGEST_KEY).body("x")),
        (415, Call::post(EVENTS, "text/plain", "x")),
        (
            400,
            Call::new("POST", EVENTS)
                .key(INGEST_KEY)
                .header(&format!("Content-Type: {PROTOBUF}"))
                .chunked(b"\x0a"),
        ),
    ];
    let mut backend = Backend::connect(&relay).await;
    for (index, (status, call)) in refused.into_iter().enumerate() {
        assert_eq!(backend.call(&call).await.status, status);
        let answer = backend.call(&Call::event(EVENTS, &event)).await;
        assert_eq!(offset(&answer), index as u64 + 1);
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn pipelined_calls_are_answered_in_order() {
    let relay = TestRelay::start();
    let event = |id: &str| {
        let event = named(id, created("p1"));
        Call::event(EVENTS, &event).bytes()
    };
    let refused = Call::event(EVENTS, &json!({})).bytes();
    let unknown = Call::new("POST", EVENTS).body("x").bytes();
    let mut backend = Backend::connect(&relay).await;
    let calls = [event("a"), refused, event("b"), unknown, event("c")];
    backend.send(&calls.concat()).await;
    let mut answers = Vec::new();
    for _ in 0..calls.len() {
        let answer = backend.answer().await;
        let answer = (answer.status, answer.json());
        answers.push((
            answer.0,
            answer.1["message_id"].clone(),
            answer.1["position"]["offset"].clone(),
        ));
    }
    let none = serde_json::Value::Null;
    let expected = [
        (200, json!("a"), json!("1")),
        (400, none.clone(), none.clone()),
        (200, json!("b"), json!("2")),
        (401, none.clone(), none),
        (200, json!("c"), json!("3")),
    ];
    assert_eq!(answers, expected);
    assert!(relay.stop().await);
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

#[tokio::test]
async fn a_backend_that_has_closed_its_sending_side_gets_its_answers() {
    let relay = TestRelay::start();
    let call = Call::event(EVENTS, &created("p1")).bytes();
    for calls in [1, 3] {
        for _ in 0..20 {
            let mut backend = Backend::connect(&relay).await;
            backend.send(&call.repeat(calls)).await;
            let answers = backend.answers_after_the_end().await;
            assert_eq!(statuses(&answers), vec![200; calls]);
        }
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn invalid_http_does_not_lose_the_answers_to_earlier_calls() {
    let relay = TestRelay::start();
    let call = Call::event(EVENTS, &created("p1")).bytes();
    let mut backend = Backend::connect(&relay).await;
    let rubbish = [b"BAD\0\r\n\r\n".to_vec(), vec![b'x'; 200_000]].concat();
    backend.send(&[call.repeat(200), rubbish].concat()).await;
    let answers = backend.answers_after_the_end().await;
    assert_eq!(statuses(&answers), [vec![200; 200], vec![400]].concat());
    assert!(relay.stop().await);
}

#[tokio::test]
async fn http_1_0_is_supported() {
    let relay = TestRelay::start();
    let call = Call::event(EVENTS, &created("p1")).http_1_0();
    let mut backend = Backend::connect(&relay).await;
    assert_eq!(offset(&backend.call(&call).await), 1);
    backend.closed().await;
    let call = call.header("Connection: keep-alive");
    let mut backend = Backend::connect(&relay).await;
    for expected in [2, 3] {
        assert_eq!(offset(&backend.call(&call).await), expected);
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_call_that_breaks_off_leaves_nothing_behind() {
    let relay = TestRelay::start();
    let call = Call::event(EVENTS, &created("p1"));
    let whole = call.bytes();
    assert!(whole.len() > 100);
    for end in (1..whole.len()).step_by(7) {
        let mut backend = Backend::connect(&relay).await;
        backend.send(&whole[..end]).await;
        let answers = backend.answers_after_the_end().await;
        assert!(!statuses(&answers).contains(&200), "{answers:?}");
    }
    let answer = call.answer(&relay).await;
    assert_eq!(offset(&answer), 1);
    assert!(relay.stop().await);
}
