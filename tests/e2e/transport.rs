//! The layers below HTTP: TLS, Unix sockets, and proxies that announce the client's address.

use std::{
    fs, num::NonZeroU32, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration,
};

use rcgen::generate_simple_self_signed;
use rustls::{ClientConfig, pki_types::ServerName};
use sidewire::{
    config::{Config, ListenAddress, TlsFiles},
    tls::client_config,
};
use sidewire_client::{EventPublisher, OpenError, PublishEncoding, RelayConnection};
use sidewire_testing::http::{bearer, handshake};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    client::TestClient,
    raw::{RawClient, connect_narrow, http_over},
    support::{PATIENCE, TestRelay, token},
    vocabulary::{also, item_created},
};

/// A certificate for 127.0.0.1, and a config that trusts it.
pub struct Certified {
    files: TempDir,
    pub trust: Arc<ClientConfig>,
}

impl Certified {
    pub fn new() -> Self {
        let made = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let files = TempDir::new().unwrap();
        fs::write(files.path().join("tls.crt"), made.cert.pem()).unwrap();
        fs::write(
            files.path().join("tls.key"),
            made.signing_key.serialize_pem(),
        )
        .unwrap();
        let trust = client_config(Some(made.cert.pem().as_bytes())).unwrap();
        Self { files, trust }
    }

    pub fn relay(&self, settings: impl FnOnce(&mut Config)) -> TestRelay {
        TestRelay::with(|config| {
            config.client.tls = Some(TlsFiles {
                cert_file: self.files.path().join("tls.crt"),
                key_file: self.files.path().join("tls.key"),
            });
            settings(config);
        })
    }

    async fn open(&self, relay: &TestRelay) -> Result<TestClient, OpenError> {
        let mut options = relay.options().with_token(token("acme", "ann"));
        options.url = format!("wss://{}/ws", relay.addresses.client);
        let options = options.with_tls(Arc::clone(&self.trust));
        RelayConnection::open(&options).await.map(TestClient::of)
    }

    /// Opens TLS over a connection that begins with these bytes, with small kernel buffers.
    async fn stream(&self, relay: &TestRelay, begun: &[u8]) -> TlsStream<TcpStream> {
        let mut stream = connect_narrow(relay.addresses.client).await;
        stream.write_all(begun).await.unwrap();
        let host = ServerName::try_from("127.0.0.1").unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.trust));
        connector.connect(host, stream).await.unwrap()
    }

    /// Opens such a stream and performs the WebSocket handshake.
    async fn let_in(&self, relay: &TestRelay, begun: &[u8]) -> TlsStream<TcpStream> {
        let mut stream = self.stream(relay, begun).await;
        let request = handshake(&bearer(&token("acme", "ann")));
        let answer = http_over(&mut stream, &request, b"").await;
        assert_eq!(answer.status, 101);
        stream
    }
}

fn event(title: &str) -> serde_json::Value {
    also(item_created("w", "p", title), &["tenant:*"])
}

#[tokio::test]
async fn a_client_gets_its_events_over_tls_in_order() {
    let certified = Certified::new();
    let relay = certified.relay(|_| ());
    let mut client = certified.open(&relay).await.unwrap();
    client.subscribe(&["project:p"]).await;
    for offset in 1..=60 {
        // Some of the events fill more than one record.
        relay
            .publish("acme", event(&"x".repeat(offset * 300)))
            .await;
    }
    for offset in 1..=60 {
        assert_eq!(client.event().await.position.unwrap().offset, offset);
    }
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_over_tls_too_and_the_sums_add_up() {
    let certified = Certified::new();
    let write_timeout = Duration::from_millis(700);
    let relay = certified.relay(|config| {
        config.client.write_timeout = write_timeout;
        config.client.send_buffer = 4096;
        config.limits.outbox_frames = 50;
    });
    let mut silent = certified.let_in(&relay, b"").await;
    let mut good = certified.open(&relay).await.unwrap();
    for offset in 1..=120 {
        relay.publish("acme", event(&"x".repeat(8000))).await;
        assert_eq!(good.event().await.position.unwrap().offset, offset);
    }
    relay
        .metrics_where(|metrics| {
            metrics["sidewire_connections_closed_total{transport=\"websocket\",reason=\"too_slow\"}"] == 1.0
        })
        .await;
    let metrics = relay.metrics().await;
    // The other client has received all of them.
    assert!(metrics["sidewire_events_written_total"] >= 120.0);
    assert!(metrics["sidewire_events_dropped_total{reason=\"too_slow\"}"] > 0.0);
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, silent.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(end.is_err(), "it ends without a word: {end:?}");
    good.nothing_more().await;
    drop(good);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_unfinished_tls_handshake_is_dropped_at_the_handshake_timeout() {
    let certified = Certified::new();
    let relay = certified.relay(|config| {
        config.client.handshake_timeout = Duration::from_millis(500);
    });
    let silent = RawClient::silent(relay.addresses.client).await;
    // A record that announces 512 bytes, and contains one.
    let mut halfway = RawClient::silent(relay.addresses.client).await;
    halfway.send(b"\x16\x03\x01\x02\x00\x01").await;
    // A completed TLS handshake, then silence: one deadline covers both handshakes.
    let mut encrypted = certified.stream(&relay, b"").await;
    tokio::join!(silent.ended(), halfway.ended(), async {
        let mut rest = Vec::new();
        let end = encrypted.read_to_end(&mut rest);
        assert_eq!(timeout(PATIENCE, end).await.unwrap().unwrap_or(0), 0);
    });
    relay
        .metrics_where(|metrics| metrics["sidewire_handshakes_timed_out_total"] == 3.0)
        .await;
    let metrics = relay.metrics().await;
    assert_eq!(metrics["sidewire_tls_handshakes_failed_total"], 0.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_without_tls_or_without_trust_in_the_relay_is_counted() {
    let certified = Certified::new();
    let relay = certified.relay(|_| ());
    let mut plain = RawClient::silent(relay.addresses.client).await;
    let request = handshake(&bearer(&token("acme", "ann")));
    plain.send(request.as_bytes()).await;
    relay
        .metrics_where(|metrics| metrics["sidewire_tls_handshakes_failed_total"] == 1.0)
        .await;
    let stranger = Certified::new().open(&relay).await;
    assert!(
        matches!(stranger, Err(OpenError::Unreachable { .. })),
        "{:?}",
        stranger.err()
    );
    relay
        .metrics_where(|metrics| metrics["sidewire_tls_handshakes_failed_total"] == 2.0)
        .await;
    let metrics = relay.metrics().await;
    assert_eq!(
        metrics["sidewire_connections_opened_total{transport=\"websocket\"}"],
        0.0
    );
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_trusted_proxy_begins_with_a_proxy_header_and_no_other_peer_does() {
    let certified = Certified::new();
    let networks = |text: &str| vec![text.parse().unwrap()];
    let relay = certified.relay(|config| {
        config.client.proxy_protocol = true;
        config.client.trusted_proxies = networks("127.0.0.0/8");
    });
    let line = b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 3000\r\n";
    let client = certified.let_in(&relay, line).await;
    let mut bare = RawClient::silent(relay.addresses.client).await;
    bare.send(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    bare.ended().await;
    let metrics = relay.metrics().await;
    assert_eq!(metrics["sidewire_proxy_headers_malformed_total"], 1.0);
    assert_eq!(
        metrics["sidewire_connections_opened_total{transport=\"websocket\"}"],
        1.0
    );
    drop(client);
    assert!(relay.stop().await);

    let relay = certified.relay(|config| {
        config.client.proxy_protocol = true;
        config.client.trusted_proxies = networks("192.0.2.0/24");
    });
    let client = certified.let_in(&relay, b"").await;
    drop(client);
    assert!(relay.stop().await);
}

fn mode(path: &PathBuf) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn backends_and_operators_can_use_unix_sockets_that_are_removed_at_the_end() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let relay = TestRelay::with(|config| {
        config.ingest.listen = ListenAddress::Unix(path("ingest.sock"));
        config.ingest.keys.clear();
        config.ops.listen = ListenAddress::Unix(path("ops.sock"));
    });
    assert_eq!(
        [mode(&path("ingest.sock")), mode(&path("ops.sock"))],
        [0o660; 2]
    );
    let mut client = relay.connect("acme", "ann").await;
    let url = format!("unix:{}", path("ingest.sock").display());
    let backend = EventPublisher::new(&url, None).unwrap();
    for offset in 1..=2 {
        let body = event("x").to_string();
        let answer = backend
            .post("acme", body, PublishEncoding::Json, &[], false)
            .await;
        assert_eq!(answer.unwrap().status, 200);
        assert_eq!(client.event().await.position.unwrap().offset, offset);
    }
    let stream = UnixStream::connect(path("ops.sock")).await.unwrap();
    let answer = http_over(
        stream,
        "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"",
    )
    .await;
    assert_eq!(answer.status, 200);
    drop(client);
    assert!(relay.stop().await);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

#[tokio::test]
async fn handshakes_over_tls_are_counted_once_and_before_tls_starts() {
    let certified = Certified::new();
    let relay = certified.relay(|it| it.limits.handshakes_per_second = NonZeroU32::new(2));
    let refused = "sidewire_limits_exceeded_total{limit=\"handshakes\"}";
    // Two are accepted even on a slow machine; then more are opened until one is refused.
    let first = certified.open(&relay).await.unwrap();
    let second = certified.open(&relay).await.unwrap();
    assert_eq!(relay.metrics().await[refused], 0.0);
    loop {
        if certified.open(&relay).await.is_err() {
            break;
        }
    }
    assert_eq!(relay.metrics().await[refused], 1.0);
    let metrics = relay.metrics().await;
    assert_eq!(metrics["sidewire_tls_handshakes_failed_total"], 0.0);
    drop((first, second));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn handshakes_from_an_address_are_counted_once_and_before_tls_starts() {
    let certified = Certified::new();
    let count = |count| NonZeroU32::new(count).unwrap();
    let relay = certified.relay(|it| it.limits.address_handshakes_per_minute = count(2));
    let first = certified.open(&relay).await.unwrap();
    let second = certified.open(&relay).await.unwrap();
    assert!(certified.open(&relay).await.is_err());
    let metrics = relay.metrics().await;
    let refused = "sidewire_limits_exceeded_total{limit=\"address_handshakes\"}";
    assert_eq!(metrics[refused], 1.0);
    assert_eq!(metrics["sidewire_tls_handshakes_failed_total"], 0.0);
    drop((first, second));
    assert!(relay.stop().await);
}
