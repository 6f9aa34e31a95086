//! Refused handshakes: each gets its status, a problem document, and a closed socket.

use std::time::Duration;

use serde_json::json;
use sidewire::config::WebOrigin;
use sidewire_testing::http::{Answer, KEY, bearer, handshake, handshake_to};

use crate::{
    raw::RawClient,
    support::{TestRelay, token, token_of},
};

/// Sends the request, which must be refused with this status, after which the socket must
/// be closed.
async fn refused(relay: &TestRelay, request: &str, status: u16) -> Answer {
    let (answer, client) = RawClient::ask(relay.addresses.client, request.as_bytes()).await;
    assert_eq!(answer.status, status, "{request}\n{}", answer.text());
    assert_eq!(answer.headers["connection"], "close", "{request}");
    client.ended().await;
    answer
}

fn good() -> String {
    handshake(&bearer(&token("acme", "ann")))
}

/// Asserts that this many refusals with the status were counted, and that nobody was admitted.
async fn assert_counted(relay: &TestRelay, status: u16, count: usize) {
    assert_ne!(count, 0);
    let name = format!("sidewire_handshakes_refused_total{{status=\"{status}\"}}");
    relay
        .metrics_where(|metrics| metrics[&name] == count as f64)
        .await;
    let metrics = relay.metrics().await;
    assert_eq!(
        metrics["sidewire_connections_opened_total{transport=\"websocket\"}"],
        0.0
    );
    assert_eq!(metrics["sidewire_tenants"], 0.0);
}

#[tokio::test]
async fn an_invalid_handshake_of_the_protocol_is_400() {
    let relay = TestRelay::start();
    let offering = |offer: &str| {
        let headers = bearer(&token("acme", "ann"));
        handshake(&format!("{headers}Sec-WebSocket-Protocol: {offer}\r\n"))
    };
    let with_key = |key: &str| good().replace(KEY, key);
    let requests = [
        good().replace(&format!("Sec-WebSocket-Key: {KEY}\r\n"), ""),
        with_key(""),
        with_key("dGhlIHNhbXBsZSBub25jZQ="),
        with_key("dGhlIHNhbXBsZSBub25j"),
        with_key("dGhlIHNhbXBsZSBub25jZQ==AAAA"),
        with_key("dGhlIHNhbXBsZSBub25j!Q=="),
        // RFC 6455, 11.3: neither header may occur twice.
        good().replace(KEY, &format!("{KEY}\r\nSec-WebSocket-Key: {KEY}")),
        good().replace(
            "Sec-WebSocket-Version: 13\r\n",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n",
        ),
        offering("graphql-transport-ws"),
        offering("sidewire.v2.protobuf, soap"),
        offering("SIDEWIRE.V1.PROTOBUF"),
        offering(&format!("bearer.{}", token("acme", "ann"))),
        offering("sidewire.v1.protobuf, bearer.a, bearer.b"),
        handshake_to("/ws?user_id=%ff", &bearer(&token("acme", "ann"))),
    ];
    for request in &requests {
        let answer = refused(&relay, request, 400).await;
        assert_eq!(answer.problem_code(), "VALIDATION_ERROR", "{request}");
    }
    assert_counted(&relay, 400, requests.len()).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_missing_or_invalid_token_is_401() {
    let relay = TestRelay::start();
    let mut forged = token("acme", "ann");
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    let of = |claims| bearer(&token_of(&claims));
    let exp = 4_000_000_000_u64;
    let cases = [
        ("missing", String::new()),
        (
            "missing",
            "Authorization: Basic YW5uOnNlY3JldA==\r\n".into(),
        ),
        ("malformed", "Authorization: Bearer \r\n".into()),
        ("malformed", bearer("no.token")),
        ("malformed", bearer("a") + &bearer("b")),
        ("too_long", bearer(&"x".repeat(8 * 1024 + 1))),
        ("bad_signature", bearer(&forged)),
        (
            "expired",
            of(json!({"tenant_id": "acme", "user_id": "ann", "exp": 1})),
        ),
        (
            "not_yet_valid",
            of(json!({"tenant_id": "acme", "user_id": "ann", "exp": exp, "nbf": exp})),
        ),
        (
            "missing_claim",
            of(json!({"tenant_id": "acme", "user_id": "ann"})),
        ),
        ("missing_claim", of(json!({"user_id": "ann", "exp": exp}))),
        (
            "missing_claim",
            of(json!({"tenant_id": "acme", "exp": exp})),
        ),
        (
            "malformed_claim",
            of(json!({"tenant_id": "", "user_id": "ann", "exp": exp})),
        ),
        (
            "malformed_claim",
            of(json!({"tenant_id": "acme", "user_id": 1.5, "exp": exp})),
        ),
        (
            "malformed_claim",
            of(json!({"tenant_id": "acme", "user_id": "ann", "exp": exp, "topics": "project:p"})),
        ),
        (
            "malformed_claim",
            of(json!({"tenant_id": "acme", "user_id": "ann", "exp": exp, "topics": ["nothing"]})),
        ),
    ];
    let failures = |metrics: &std::collections::BTreeMap<String, f64>, reason: &str| {
        metrics[&format!(
            "sidewire_authentication_failures_total{{listener=\"client\",reason=\"{reason}\"}}"
        )]
    };
    for (reason, headers) in &cases {
        let before = failures(&relay.metrics().await, reason);
        let answer = refused(&relay, &handshake(headers), 401).await;
        assert_eq!(answer.problem_code(), "AUTHENTICATION_FAILED", "{reason}");
        let challenge = &answer.headers["www-authenticate"];
        assert_eq!(challenge, "Bearer error=\"invalid_token\"");
        let after = failures(&relay.metrics().await, reason);
        assert_eq!(after, before + 1.0, "{reason}: {headers}");
    }
    assert_counted(&relay, 401, cases.len()).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_refusal_does_not_repeat_the_token() {
    let relay = TestRelay::start();
    let claims = json!({"tenant_id": "acme", "user_id": "canary", "exp": 1});
    let token = token_of(&claims);
    for headers in [
        bearer(&token),
        format!("Sec-WebSocket-Protocol: sidewire.v1.protobuf, bearer.{token}\r\n"),
        format!("Sec-WebSocket-Protocol: bearer.{token}\r\n"),
    ] {
        let request = handshake(&headers);
        let (answer, client) = RawClient::ask(relay.addresses.client, request.as_bytes()).await;
        let mut told = format!("{:?} {}", answer.headers, answer.text());
        match answer.status {
            // Refused after the upgrade.
            101 => told += &client.closed().await.1,
            status => assert!(matches!(status, 400 | 401)),
        }
        for part in token.split('.').chain(["canary"]) {
            assert!(!told.contains(part), "{told}");
        }
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_page_of_another_origin_is_403() {
    let listed = TestRelay::with(|config| {
        config.client.origins = vec![WebOrigin::parse("https://app.example").unwrap()];
    });
    let desktop = TestRelay::desktop();
    let cases = [
        (&listed, "Origin: https://evil.example\r\n"),
        (&listed, "Origin: http://app.example\r\n"),
        (&listed, "Origin: https://app.example:8443\r\n"),
        (&listed, "Origin: https://app.example.evil.example\r\n"),
        (&listed, "Origin: http://localhost\r\n"),
        (&listed, "Origin: null\r\n"),
        (&listed, "Origin: \r\n"),
        (
            &listed,
            "Origin: https://app.example\r\nOrigin: https://evil.example\r\n",
        ),
        (&desktop, "Origin: https://evil.example\r\n"),
        (&desktop, "Origin: http://localhost.evil.example\r\n"),
        (&desktop, "Origin: null\r\n"),
    ];
    for (relay, origin) in &cases {
        let request = handshake(&(bearer(&token("acme", "ann")) + origin));
        let answer = refused(relay, &request, 403).await;
        assert_eq!(answer.problem_code(), "AUTHORIZATION_FAILED", "{origin}");
    }
    assert_counted(&listed, 403, 8).await;
    assert_counted(&desktop, 403, 3).await;
    assert!(listed.stop().await);
    assert!(desktop.stop().await);
}

#[tokio::test]
async fn another_path_is_404_and_another_method_405() {
    let relay = TestRelay::start();
    let paths = [
        "/",
        "/ws/",
        "/WS",
        "/ws/x",
        "/metrics",
        "/v1/tenants/acme/events",
    ];
    for path in paths {
        let request = good().replace("GET /ws ", &format!("GET {path} "));
        let answer = refused(&relay, &request, 404).await;
        assert_eq!(answer.problem_code(), "NOT_FOUND", "{path}");
    }
    let methods = ["POST", "PUT", "DELETE", "OPTIONS"];
    for method in methods {
        let request = good().replace("GET /ws ", &format!("{method} /ws "));
        let answer = refused(&relay, &request, 405).await;
        assert_eq!(answer.problem_code(), "VALIDATION_ERROR", "{method}");
        assert_eq!(answer.headers["allow"], "GET", "{method}");
    }
    assert_counted(&relay, 404, paths.len()).await;
    assert_counted(&relay, 405, methods.len()).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_request_without_an_upgrade_to_version_13_is_426() {
    let relay = TestRelay::start();
    let requests = [
        format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
            bearer(&token("acme", "ann"))
        ),
        good().replace("HTTP/1.1", "HTTP/1.0"),
        good().replace("Sec-WebSocket-Version: 13\r\n", ""),
        good().replace("Version: 13", "Version: 8"),
        good().replace("Version: 13", "Version: 013"),
        good().replace("Upgrade: websocket", "Upgrade: h2c"),
        good().replace("Upgrade: websocket\r\n", ""),
        good().replace("Connection: Upgrade", "Connection: keep-alive"),
        good().replace("Connection: Upgrade\r\n", ""),
    ];
    for request in &requests {
        let answer = refused(&relay, request, 426).await;
        assert_eq!(answer.problem_code(), "VALIDATION_ERROR", "{request}");
        assert_eq!(answer.headers["upgrade"], "websocket", "{request}");
        assert_eq!(answer.headers["sec-websocket-version"], "13", "{request}");
    }
    assert_counted(&relay, 426, requests.len()).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_handshake_with_a_body_is_400() {
    let relay = TestRelay::start();
    let with = |header: &str| good().replace("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"));
    let requests = [
        with("Content-Length: 5"),
        with("Transfer-Encoding: chunked"),
    ];
    for request in &requests {
        let answer = refused(&relay, request, 400).await;
        assert_eq!(answer.problem_code(), "VALIDATION_ERROR", "{request}");
        assert_eq!(answer.json()["detail"], "the request must not have a body");
    }
    assert_counted(&relay, 400, requests.len()).await;
    let empty = with("Content-Length: 0");
    let mut client = RawClient::open_with(&relay, empty.as_bytes()).await;
    client.nothing_more(&relay).await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let relay = TestRelay::start();
    let token = token("acme", "ann");
    // 16 KiB by default.
    let big_header = format!("{}X-Padding: {}\r\n", bearer(&token), "x".repeat(16 * 1024));
    let many_headers = bearer(&token) + &"X-Padding: x\r\n".repeat(200);
    let requests = [handshake(&big_header), handshake(&many_headers)];
    for request in &requests {
        let answer = refused(&relay, request, 431).await;
        assert!(answer.body.is_empty(), "{}", answer.text());
    }
    assert_counted(&relay, 431, requests.len()).await;
    let below = format!("{}X-Padding: {}\r\n", bearer(&token), "x".repeat(12 * 1024));
    let mut client = RawClient::open_with(&relay, handshake(&below).as_bytes()).await;
    client.nothing_more(&relay).await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn invalid_http_is_400() {
    let relay = TestRelay::start();
    let requests = [
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03\r\n\r\n",
        "GET /ws\r\n\r\n",
        "HELLO\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost relay\r\n\r\n",
    ];
    for request in requests {
        refused(&relay, request, 400).await;
    }
    assert_counted(&relay, 400, requests.len()).await;
    assert!(relay.stop().await);
}

/// Asserts that `Retry-After` is a number of whole seconds, at least one.
fn assert_says_when_to_come_back(answer: &Answer) {
    let seconds: u64 = answer.headers["retry-after"].parse().unwrap();
    assert!((1..=10).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_tenant_over_the_limit_is_503() {
    let relay = TestRelay::with(|config| config.limits.tenants = 1);
    let client = relay.connect("acme", "ann").await;
    let other = handshake(&bearer(&token("other", "ann")));
    let answer = refused(&relay, &other, 503).await;
    assert_eq!(answer.problem_code(), "RATE_LIMIT_EXCEEDED");
    assert_says_when_to_come_back(&answer);
    // A tenant with a slot keeps it, and releases it with its last connection.
    relay.connect("acme", "bob").await.nothing_more().await;
    drop(client);
    relay
        .metrics_where(|metrics| metrics["sidewire_tenants"] == 0.0)
        .await;
    relay.connect("other", "ann").await.nothing_more().await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_relay_that_drains_answers_503() {
    let relay = TestRelay::with(|config| config.client.drain_spread = Duration::from_secs(5));
    let address = relay.addresses.client;
    // It does not answer the Close, so the relay waits a while.
    let mut mute = RawClient::open(&relay, "acme", "ann").await;
    let request = good();
    let come_late = async {
        let close = mute.frame().await;
        assert_eq!(close.payload[..2], 1001_u16.to_be_bytes());
        let (answer, client) = RawClient::ask(address, request.as_bytes()).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.headers["connection"], "close");
        assert_eq!(answer.problem_code(), "INTERNAL_ERROR");
        assert_says_when_to_come_back(&answer);
        client.ended().await;
        drop(mute);
    };
    let (drained, ()) = tokio::join!(relay.stop(), come_late);
    assert!(drained);
}
