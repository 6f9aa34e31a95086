//! Input that exceeds a limit, and a relay that accepts no more.

use std::time::Duration;

use serde_json::json;
use sidewire_client::{CallFailure, PublishEncoding};
use tokio::time::timeout;

use crate::{
    ingest_support::{BATCH, Backend, Call, EVENTS, JSON, PROTOBUF, offset, refusal},
    raw::http,
    support::{INGEST_KEY, PATIENCE, TestRelay},
    vocabulary::created,
};

const BODY_MAX: usize = 1000;
const BATCH_BODY_MAX: usize = 3000;

/// Starts a relay that accepts small bodies only.
fn small() -> TestRelay {
    TestRelay::with(|config| {
        config.ingest.body_max = BODY_MAX;
        config.ingest.batch_body_max = BATCH_BODY_MAX;
    })
}

/// Returns a JSON event, or a batch of one, of exactly `len` bytes.
fn body(target: &str, len: usize) -> Vec<u8> {
    let (start, end) = match target {
        BATCH => ("{\"messages\":[", "]}"),
        _ => ("", ""),
    };
    let text = format!("{start}{}{end}", created("p1"));
    let mut text = text.into_bytes();
    let spaces = len - text.len();
    text.extend(std::iter::repeat_n(b' ', spaces));
    text
}

#[tokio::test]
async fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
    let relay = small();
    let mut head = 0;
    for (target, max) in [(EVENTS, BODY_MAX), (BATCH, BATCH_BODY_MAX)] {
        let chunked = |len| {
            Call::new("POST", target)
                .key(INGEST_KEY)
                .header("Content-Type: application/json")
                .chunked(&body(target, len))
        };
        for call in [Call::post(target, JSON, body(target, max)), chunked(max)] {
            let answer = call.answer(&relay).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            head += 1;
        }
        for call in [
            Call::post(target, JSON, body(target, max + 1)),
            chunked(max + 1),
        ] {
            let mut backend = Backend::connect(&relay).await;
            let answer = backend.call(&call).await;
            assert_eq!(refusal(&answer), (413, "VALIDATION_ERROR".to_owned(), None));
            assert_eq!(answer.headers["connection"], "close");
            backend.closed().await;
        }
    }
    let answer = Call::event(EVENTS, &created("p1")).answer(&relay).await;
    assert_eq!(offset(&answer), head + 1);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_backend_that_keeps_sending_still_gets_the_answer_to_a_too_large_body() {
    let relay = small();
    let backend = relay.backend();
    for round in 0..20 {
        let body = vec![b' '; 4 * 1024 * 1024];
        let posted = backend
            .post("acme", body, PublishEncoding::Json, &[], false)
            .await;
        match posted {
            Err(CallFailure::Refused(problem)) => assert_eq!(problem.status, 413),
            other => panic!("round {round}: {other:?}"),
        }
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_backend_that_expects_100_continue_gets_it_only_for_acceptable_bodies() {
    let relay = small();
    let expecting = |call: Call| call.header("Expect: 100-continue");
    let (wanted, too_big) = (body(EVENTS, BODY_MAX), body(EVENTS, BODY_MAX + 1));

    let call = expecting(Call::post(EVENTS, JSON, wanted));
    let (head, body) = call.parts();
    let mut backend = Backend::connect(&relay).await;
    for expected in [1, 2] {
        backend.send(&head).await;
        assert_eq!(backend.answer().await.status, 100);
        backend.send(body).await;
        assert_eq!(offset(&backend.answer().await), expected);
    }

    // Each is refused at once with its own error; the relay does not wait for the body.
    for (status, call) in [
        (413, Call::post(EVENTS, JSON, too_big.clone())),
        (401, Call::new("POST", EVENTS).body("x")),
        (415, Call::post(EVENTS, "text/plain", "x")),
        (400, Call::post("/v1/tenants//events", PROTOBUF, "x")),
    ] {
        let mut backend = Backend::connect(&relay).await;
        backend.send(&expecting(call).parts().0).await;
        assert_eq!(refusal(&backend.answer().await).0, status);
        backend.closed().await;
    }

    // If the length is unknown, the limit applies while the body is read.
    let call = Call::new("POST", EVENTS)
        .key(INGEST_KEY)
        .header("Content-Type: application/json");
    let call = expecting(call).chunked(&too_big);
    let (head, body) = call.parts();
    let mut backend = Backend::connect(&relay).await;
    backend.send(&head).await;
    assert_eq!(backend.answer().await.status, 100);
    backend.send(body).await;
    assert_eq!(refusal(&backend.answer().await).0, 413);
    backend.closed().await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_call_for_a_tenant_over_the_limit_gets_a_retry_delay() {
    let relay = TestRelay::with(|config| config.limits.tenants = 2);
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    relay.publish("other", created("p1")).await;
    for path in ["/v1/tenants/third/events", "/v1/tenants/third/events:batch"] {
        let event = match path.ends_with("batch") {
            true => json!({"messages": [created("p1")]}),
            false => created("p1"),
        };
        let answer = Call::event(path, &event).answer(&relay).await;
        assert_eq!(
            refusal(&answer),
            (503, "RATE_LIMIT_EXCEEDED".to_owned(), None)
        );
        let seconds: u64 = answer.headers["retry-after"].parse().unwrap();
        assert!((1..=60).contains(&seconds));
    }
    for (tenant, offset) in [("acme", 1), ("other", 2)] {
        let published = relay.publish(tenant, created("p1")).await;
        assert_eq!(published.position.offset, offset);
    }
    client.event().await;
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_relay_that_drains_answers_running_calls_and_accepts_no_new_ones() {
    let relay = TestRelay::start();
    let ops = relay.addresses.ops;
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    let mut idle = Backend::connect(&relay).await;
    let event = Call::event(EVENTS, &created("p1"));
    assert_eq!(offset(&idle.call(&event).await), 1);

    // A call is under way from the moment its body is requested.
    let call = event.clone().header("Expect: 100-continue");
    let (head, body) = call.parts();
    let mut under_way = Backend::connect(&relay).await;
    under_way.send(&head).await;
    assert_eq!(under_way.answer().await.status, 100);
    let mut late = Backend::connect(&relay).await;

    client.event().await;
    let draining = tokio::spawn(relay.stop());
    let not_ready =
        async { while http(ops, "GET /readyz HTTP/1.1\r\n", "", b"").await.status != 503 {} };
    timeout(PATIENCE, not_ready).await.unwrap();
    for backend in [&mut idle, &mut late] {
        let answer = backend.call(&event).await;
        assert_eq!(refusal(&answer), (503, "INTERNAL_ERROR".to_owned(), None));
        let seconds: u64 = answer.headers["retry-after"].parse().unwrap();
        assert!((1..=10).contains(&seconds));
        assert_eq!(answer.headers["connection"], "close");
        backend.closed().await;
    }
    client.nothing_more().await;

    under_way.send(body).await;
    assert_eq!(offset(&under_way.answer().await), 2);
    assert_eq!(client.event().await.position.unwrap().offset, 2);
    assert_eq!(client.closed().await.0, 1001);
    let drained = timeout(Duration::from_secs(10), draining).await.unwrap();
    assert!(drained.unwrap());
}
