//! Web pages that reach this machine under a name of their own (DNS rebinding): the `Host`
//! and `Origin` of their requests, on each listener.

use std::net::SocketAddr;

use serde_json::json;
use sidewire::config::{Config, HostName, ListenAddress};
use sidewire_testing::http::{Answer, bearer, handshake};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};

use crate::{
    raw::{RawClient, http_over},
    support::{TestRelay, token},
    vocabulary::created,
};

/// Hosts that every listener accepts.
const OWN: [&str; 5] = [
    "localhost",
    "LOCALHOST:3001",
    "127.0.0.1:3001",
    "[::1]:3001",
    "192.0.2.7",
];

/// Hosts that a page may have.
const FOREIGN: [&str; 4] = [
    "evil.example",
    "evil.example:3001",
    "localhost.evil.example",
    "127.0.0.1.evil.example:3001",
];

/// Sends one request with these header lines and this body.
async fn ask(address: SocketAddr, line: &str, headers: &[&str], body: &str) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    http_over(stream, &head(line, headers, body), body.as_bytes()).await
}

fn head(line: &str, headers: &[&str], body: &str) -> String {
    let length = body.len();
    let headers: String = headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    format!("{line}\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n")
}

/// Asserts that the answer refuses a page and names the setting to change.
fn assert_refused(answer: &Answer, remedy: &str) {
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(answer.problem_code(), "AUTHORIZATION_FAILED");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(remedy), "{detail}");
}

fn without_keys(config: &mut Config) {
    config.ingest.keys.clear();
}

const POST: &str = "POST /v1/tenants/acme/events HTTP/1.1";
const JSON: &str = "Content-Type: application/json";

fn event() -> String {
    created("p1").to_string()
}

#[tokio::test]
async fn ingest_without_keys_refuses_calls_under_another_name() {
    let relay = TestRelay::with(without_keys);
    let ingest = relay.addresses.ingest;
    for host in FOREIGN {
        let host = format!("Host: {host}");
        for line in [
            POST,
            "GET /v1/tenants/acme HTTP/1.1",
            "DELETE /v1/tenants/acme/users/ann/connections HTTP/1.1",
            "GET / HTTP/1.1",
        ] {
            let answer = ask(ingest, line, &[&host, JSON], &event()).await;
            assert_refused(&answer, "[[ingest.keys]]");
        }
    }
    let metrics = relay.metrics().await;
    assert_eq!(metrics["sidewire_events_ingested_total"], 0.0);
    for host in OWN {
        let host = format!("Host: {host}");
        let answer = ask(ingest, POST, &[&host, JSON], &event()).await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text());
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn ingest_without_keys_refuses_calls_from_a_page() {
    let relay = TestRelay::with(without_keys);
    for origin in ["http://evil.example:3001", "http://localhost:5173", "null"] {
        let origin = format!("Origin: {origin}");
        let headers = ["Host: localhost", &origin, JSON];
        let answer = ask(relay.addresses.ingest, POST, &headers, &event()).await;
        assert_refused(&answer, "[[ingest.keys]]");
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn ingest_with_keys_is_reached_by_any_name() {
    let relay = TestRelay::start();
    let key = format!("Authorization: Bearer {}", crate::support::INGEST_KEY);
    let headers = [
        "Host: relay.example",
        "Origin: http://a.example",
        JSON,
        &key,
    ];
    let answer = ask(relay.addresses.ingest, POST, &headers, &event()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(relay.stop().await);
}

#[tokio::test]
async fn only_http_1_0_may_omit_the_host_and_two_hosts_are_refused() {
    let relay = TestRelay::with(without_keys);
    for (line, headers, status) in [
        ("GET /v1/tenants/acme HTTP/1.0", &[][..], 404),
        ("GET /v1/tenants/acme HTTP/1.1", &[], 400),
        (
            "GET /v1/tenants/acme HTTP/1.0",
            &["Host: evil.example"],
            403,
        ),
        (
            "GET /v1/tenants/acme HTTP/1.1",
            &["Host: localhost", "Host: localhost"],
            400,
        ),
        (
            "GET http://evil.example/v1/tenants/acme HTTP/1.1",
            &["Host: localhost"],
            403,
        ),
    ] {
        let answer = ask(relay.addresses.ingest, line, headers, "").await;
        assert_eq!(
            answer.status,
            status,
            "{line} {headers:?}: {}",
            answer.text()
        );
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn ops_answers_only_under_its_own_names_and_never_a_page() {
    let relay = TestRelay::with(|config| {
        config.ops.hosts = vec![HostName::parse("relay.internal").unwrap()];
    });
    let ops = relay.addresses.ops;
    for line in [
        "GET /metrics HTTP/1.1",
        "GET /healthz HTTP/1.1",
        "GET /readyz HTTP/1.1",
    ] {
        for host in FOREIGN {
            let answer = ask(ops, line, &[&format!("Host: {host}")], "").await;
            assert_refused(&answer, "ops.hosts");
        }
        let headers = ["Host: localhost", "Origin: http://localhost:3002"];
        assert_refused(&ask(ops, line, &headers, "").await, "Unix socket");
    }
    for host in OWN
        .into_iter()
        .chain(["relay.internal", "Relay.Internal:3002"])
    {
        let answer = ask(
            ops,
            "GET /healthz HTTP/1.1",
            &[&format!("Host: {host}")],
            "",
        )
        .await;
        assert_eq!(answer.status, 200, "{host}");
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_unix_socket_is_reached_by_any_name() {
    let files = TempDir::new().unwrap();
    let socket = |name: &str| files.path().join(name);
    let relay = TestRelay::with(|config| {
        without_keys(config);
        config.ingest.listen = ListenAddress::Unix(socket("ingest"));
        config.ops.listen = ListenAddress::Unix(socket("ops"));
    });
    let headers = ["Host: sidewire", JSON];
    let stream = UnixStream::connect(socket("ingest")).await.unwrap();
    let answer = http_over(stream, &head(POST, &headers, &event()), event().as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let stream = UnixStream::connect(socket("ops")).await.unwrap();
    let line = "GET /healthz HTTP/1.1";
    let answer = http_over(stream, &head(line, &headers, ""), b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(relay.stop().await);
}

#[tokio::test]
async fn clients_without_tokens_connect_by_an_address_or_localhost() {
    let relay = TestRelay::desktop();
    let with_host = |host: &str| handshake("").replace("Host: localhost", &format!("Host: {host}"));
    for host in FOREIGN {
        let request = with_host(host);
        let (answer, client) = RawClient::ask(relay.addresses.client, request.as_bytes()).await;
        assert_refused(&answer, "auth.mode");
        client.ended().await;
    }
    for host in OWN {
        let mut client = RawClient::open_with(&relay, with_host(host).as_bytes()).await;
        client.nothing_more(&relay).await;
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_with_a_token_must_give_exactly_one_host() {
    let relay = TestRelay::start();
    let request = handshake(&bearer(&token("acme", "ann")));
    for (hosts, told) in [
        ("", "the Host header is missing"),
        (
            "Host: localhost\r\nHost: localhost\r\n",
            "the header host is given more than once",
        ),
    ] {
        let request = request.replace("Host: localhost\r\n", hosts);
        let (answer, client) = RawClient::ask(relay.addresses.client, request.as_bytes()).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(answer.json()["detail"], told);
        client.ended().await;
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn clients_with_tokens_connect_by_any_name() {
    let relay = TestRelay::start();
    let request = handshake(&bearer(&token("acme", "ann")));
    let request = request.replace("Host: localhost", "Host: relay.example");
    let mut client = RawClient::open_with(&relay, request.as_bytes()).await;
    client
        .say(&relay, json!({"ping": {"timestamp": "1"}}))
        .await;
    client.envelope(&relay).await;
    drop(client);
    assert!(relay.stop().await);
}
