//! Refused handshakes of browsers, which are upgraded and then closed with a code that a script
//! can read.

use std::{num::NonZeroU32, time::Duration};

use serde_json::json;
use sidewire::config::WebOrigin;
use sidewire_testing::{
    http::{ACCEPT, bearer, handshake, handshake_to},
    websocket::{FIN, TEXT, frame},
};

use crate::{
    raw::RawClient,
    support::{TestRelay, token, token_of},
};

const ORIGIN: &str = "Origin: https://app.example\r\n";

const SUBPROTOCOLS: [&str; 2] = ["sidewire.v1.protobuf", "sidewire.v1.json"];

/// Returns the handshake of a browser with this token.
fn browsers_handshake(subprotocol: &str, token: &str) -> String {
    handshake(&format!(
        "{ORIGIN}Sec-WebSocket-Protocol: {subprotocol}, bearer.{token}\r\n"
    ))
}

fn expired() -> String {
    token_of(&json!({"tenant_id": "acme", "user_id": "canary", "exp": 1}))
}

/// Sends the handshake, which must be refused after the upgrade. Returns the echoed subprotocol,
/// and the code and the reason of the Close frame.
async fn refused(relay: &TestRelay, request: &str) -> (Option<String>, u16, String) {
    let (answer, client) = RawClient::ask(relay.addresses.client, request.as_bytes()).await;
    assert_eq!(answer.status, 101, "{request}\n{}", answer.text());
    assert_eq!(answer.headers["sec-websocket-accept"], ACCEPT);
    let echoed = answer.header("sec-websocket-protocol").map(str::to_owned);
    let (code, reason) = client.closed().await;
    (echoed, code, reason)
}

/// Returns the delay in a reason.
fn retry_after_ms(reason: &str, code: &str) -> u64 {
    let delay = reason
        .strip_prefix(code)
        .and_then(|rest| rest.strip_prefix(" retry_after_ms="));
    delay.unwrap_or_else(|| panic!("{reason}")).parse().unwrap()
}

fn refusals(status: u16) -> String {
    format!("sidewire_handshakes_refused_total{{status=\"{status}\"}}")
}

#[tokio::test]
async fn a_browser_without_a_valid_token_sees_4401() {
    let relay = TestRelay::start();
    let mut forged = token("acme", "canary");
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    let tokens = ["", "no.token", &forged, &expired()].map(str::to_owned);
    let mut count = 0.0;
    for token in &tokens {
        for subprotocol in SUBPROTOCOLS {
            let request = browsers_handshake(subprotocol, token);
            let (echoed, code, reason) = refused(&relay, &request).await;
            assert_eq!(echoed.as_deref(), Some(subprotocol));
            assert_eq!((code, &*reason), (4401, "AUTHENTICATION_FAILED"));
            count += 1.0;
        }
    }
    for headers in [
        ORIGIN.to_owned(),
        // Not from a page, but the token is where browsers put theirs.
        format!("Sec-WebSocket-Protocol: sidewire.v1.json, bearer.{forged}\r\n"),
        // Of another scheme: meant for a proxy.
        format!("{ORIGIN}Authorization: Basic YW5uOnNlY3JldA==\r\n"),
    ] {
        let (echoed, code, reason) = refused(&relay, &handshake(&headers)).await;
        assert_eq!(echoed.is_some(), headers.contains("Protocol"), "{headers}");
        assert_eq!((code, &*reason), (4401, "AUTHENTICATION_FAILED"));
        count += 1.0;
    }
    let metrics = relay.metrics().await;
    assert_eq!(metrics[&refusals(401)], count);
    assert_eq!(
        metrics["sidewire_connections_opened_total{transport=\"websocket\"}"],
        0.0
    );
    assert_eq!(metrics["sidewire_tenants"], 0.0);
    let failures: f64 = metrics
        .iter()
        .filter(|(series, _)| series.starts_with("sidewire_authentication_failures_total"))
        .map(|(_, failed)| failed)
        .sum();
    assert_eq!(failures, count);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_page_of_another_origin_sees_4403() {
    let relay = TestRelay::with(|config| {
        config.client.origins = vec![WebOrigin::parse("https://other.example").unwrap()];
    });
    let desktop = TestRelay::desktop();
    let token = token("acme", "ann");
    for subprotocol in SUBPROTOCOLS {
        let request = browsers_handshake(subprotocol, &token);
        let (echoed, code, reason) = refused(&relay, &request).await;
        assert_eq!(echoed.as_deref(), Some(subprotocol));
        assert_eq!((code, &*reason), (4403, "AUTHORIZATION_FAILED"));
    }
    let rebound =
        handshake("Origin: http://localhost\r\n").replace("Host: localhost", "Host: evil");
    for request in [handshake(ORIGIN), rebound] {
        let (echoed, code, reason) = refused(&desktop, &request).await;
        assert_eq!(echoed, None);
        assert_eq!((code, &*reason), (4403, "AUTHORIZATION_FAILED"));
    }
    assert_eq!(relay.metrics().await[&refusals(403)], 2.0);
    assert_eq!(desktop.metrics().await[&refusals(403)], 2.0);
    assert!(relay.stop().await);
    assert!(desktop.stop().await);
}

#[tokio::test]
async fn a_browser_beyond_a_cap_sees_4429_and_when_to_return() {
    let relay = TestRelay::with(|config| {
        config.limits.connections_per_user = NonZeroU32::new(1);
        config.client.drain_spread = Duration::from_secs(5);
    });
    let client = relay.connect("acme", "ann").await;
    for subprotocol in SUBPROTOCOLS {
        let request = browsers_handshake(subprotocol, &token("acme", "ann"));
        let (echoed, code, reason) = refused(&relay, &request).await;
        assert_eq!(echoed.as_deref(), Some(subprotocol));
        assert_eq!(code, 4429);
        assert!(retry_after_ms(&reason, "RATE_LIMIT_EXCEEDED") <= 5000);
    }
    let metrics = relay.metrics().await;
    assert_eq!(metrics[&refusals(429)], 2.0);
    let exceeded = "sidewire_limits_exceeded_total{limit=\"user_connections\"}";
    assert_eq!(metrics[exceeded], 2.0);
    assert_eq!(
        metrics["sidewire_connections_opened_total{transport=\"websocket\"}"],
        1.0
    );
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_browser_beyond_a_rate_sees_4429_and_the_time_until_there_is_room() {
    let relay = TestRelay::with(|config| {
        config.limits.address_handshakes_per_minute = NonZeroU32::new(1).unwrap();
    });
    let (_, code, _) = refused(&relay, &handshake(ORIGIN)).await;
    assert_eq!(code, 4401);
    let (_, code, reason) = refused(&relay, &handshake(ORIGIN)).await;
    assert_eq!(code, 4429);
    let delay = retry_after_ms(&reason, "RATE_LIMIT_EXCEEDED");
    assert!((1..=60_000).contains(&delay), "{delay}");
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_browser_that_finds_the_relay_full_sees_4503_and_when_to_return() {
    let relay = TestRelay::with(|config| {
        config.limits.tenants = 1;
        config.client.drain_spread = Duration::from_secs(5);
    });
    let client = relay.connect("acme", "ann").await;
    for subprotocol in SUBPROTOCOLS {
        let request = browsers_handshake(subprotocol, &token("other", "ann"));
        let (echoed, code, reason) = refused(&relay, &request).await;
        assert_eq!(echoed.as_deref(), Some(subprotocol));
        assert_eq!(code, 4503);
        assert!(retry_after_ms(&reason, "RATE_LIMIT_EXCEEDED") <= 5000);
    }
    let metrics = relay.metrics().await;
    assert_eq!(metrics[&refusals(503)], 2.0);
    assert_eq!(
        metrics["sidewire_connections_opened_total{transport=\"websocket\"}"],
        1.0
    );
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_browser_that_comes_during_a_drain_sees_4503_and_does_not_delay_it() {
    let relay = TestRelay::with(|config| config.client.drain_spread = Duration::from_secs(5));
    let address = relay.addresses.client;
    // It does not answer the Close, so the relay waits a while.
    let mut mute = RawClient::open(&relay, "acme", "ann").await;
    let come_late = async {
        let close = mute.frame().await;
        assert_eq!(close.close_code(), 1001);
        let request = browsers_handshake("sidewire.v1.json", &token("acme", "ann"));
        let (answer, mut late) = RawClient::ask(address, request.as_bytes()).await;
        assert_eq!(answer.status, 101);
        let close = late.frame().await;
        assert_eq!(close.close_code(), 4503);
        assert!(retry_after_ms(close.close_reason(), "INTERNAL_ERROR") <= 5000);
        drop(mute);
        // It never closes, so the end of the relay ends it.
        late.ended().await;
    };
    let (drained, ()) = tokio::join!(relay.stop(), come_late);
    assert!(drained);
}

#[tokio::test]
async fn clients_that_can_read_a_status_and_invalid_handshakes_are_refused_over_http() {
    let relay = TestRelay::start();
    let expired = expired();
    let offer = format!("Sec-WebSocket-Protocol: sidewire.v1.json, bearer.{expired}\r\n");
    let good = handshake(&(ORIGIN.to_owned() + &offer));
    for (request, status) in [
        (handshake(""), 401),
        (
            handshake("Sec-WebSocket-Protocol: sidewire.v1.json\r\n"),
            401,
        ),
        (handshake("Authorization: Basic YW5uOng=\r\n"), 401),
        (handshake(&(bearer(&expired) + ORIGIN)), 401),
        (handshake(&(bearer(&expired) + &offer)), 401),
        (
            handshake(&format!("Authorization: Bearer\r\n{ORIGIN}")),
            401,
        ),
        (good.replace("Version: 13", "Version: 8"), 426),
        (good.replace("Upgrade: websocket", "Upgrade: h2c"), 426),
        (good.replace("sidewire.v1.json", "soap"), 400),
        (good.replace("Sec-WebSocket-Key", "X-Key"), 400),
        (good.replace("Host", "X-Host"), 400),
        (good.replace(" /ws ", " /wss "), 404),
        (good.replace("GET ", "PUT "), 405),
        (good.replace("Host", "Content-Length: 4\r\nHost"), 401),
        (handshake_to("/ws?user_id=%ff", ORIGIN), 400),
    ] {
        let (answer, client) = RawClient::ask(relay.addresses.client, request.as_bytes()).await;
        assert_eq!(answer.status, status, "{request}\n{}", answer.text());
        assert_eq!(answer.headers["connection"], "close");
        client.ended().await;
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn no_more_refusals_than_configured_are_open_at_a_time() {
    let relay = TestRelay::with(|config| config.limits.refusals_open = 3);
    let request = browsers_handshake("sidewire.v1.json", &expired());
    let ask = || RawClient::ask(relay.addresses.client, request.as_bytes());
    let mut open = Vec::new();
    for _ in 0..3 {
        let (answer, mut client) = ask().await;
        assert_eq!(answer.status, 101);
        assert_eq!(client.frame().await.close_code(), 4401);
        open.push(client);
    }
    let (answer, beyond) = ask().await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.problem_code(), "AUTHENTICATION_FAILED");
    beyond.ended().await;
    // Clients that never close are given up.
    for client in open {
        client.ended().await;
    }
    assert_eq!(refused(&relay, &request).await.1, 4401);
    assert_eq!(relay.metrics().await[&refusals(401)], 5.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_flood_of_refused_browsers_keeps_no_other_out() {
    let relay = TestRelay::start();
    let request = browsers_handshake("sidewire.v1.json", &expired());
    let flood = async {
        let mut open = Vec::new();
        for _ in 0..400 {
            let mut client = RawClient::silent(relay.addresses.client).await;
            client.send(request.as_bytes()).await;
            let noise = frame(FIN | TEXT, &[b'x'; 2000]);
            // The relay may have closed the connection.
            drop(client.try_send(&noise).await);
            open.push(client);
        }
        open
    };
    let honest = async {
        for number in 0..20 {
            let user = format!("user-{number}");
            relay.connect("acme", &user).await.nothing_more().await;
        }
    };
    let (open, ()) = tokio::join!(flood, honest);
    relay
        .metrics_where(|metrics| metrics[&refusals(401)] == 400.0)
        .await;
    let metrics = relay.metrics().await;
    assert_eq!(metrics["sidewire_handshakes_timed_out_total"], 0.0);
    assert_eq!(
        metrics["sidewire_connections_opened_total{transport=\"websocket\"}"],
        20.0
    );
    drop(open);
    assert!(relay.stop().await);
}
