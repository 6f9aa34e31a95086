//! `sidewire serve` and SIGHUP: which settings change while connections stay open, which do
//! not, and what systemd is notified of.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sidewire::auth::{Algorithm, NewToken, Secret, SigningKey, TokenRules};
use sidewire_client::{OpenError, ReceiveError, RelayConnection, RelayMessage};
use sidewire_protocol::{TenantName, UserName, clock::Clock};
use sidewire_testing::{
    http::{bearer, handshake, http},
    process::{PATIENCE, Process, Signal, sidewire},
    relay::{Files, INGEST_KEY, Relay, log_line, subscribe, token},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

const RELOADED: &str = "config reloaded";
const NEW_SECRET: &str = "CANARY-another-secret-0123456789abcdef-0123";
const NEW_INGEST_KEY: &str = "CANARY-another-ingest-key";

/// Changes the config file.
pub(crate) fn edit(relay: &Relay, changes: &[(&str, &str)]) {
    let mut text = fs::read_to_string(relay.files.config()).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    relay.files.write("sidewire.toml", &text);
}

pub(crate) fn lines(log: &str, message: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_default())
        .filter(|line| line["message"] == message)
        .collect()
}

/// Sends SIGHUP and waits until it has taken effect for the `times`th time.
pub(crate) fn reload(relay: &Relay, times: usize) {
    relay.process.signal(Signal::HUP);
    relay
        .process
        .stderr_has(|log| (lines(log, RELOADED).len() == times).then_some(()));
}

fn token_of(secret: &str, user: &str) -> String {
    let token = NewToken {
        tenant: TenantName::parse("acme").unwrap(),
        user: UserName::parse(user).unwrap(),
        expires_at: Some(Clock::system().since_unix_epoch() + Duration::from_hours(1)),
        topics: None,
        subscribe: None,
    };
    SigningKey::from_secret(Algorithm::HS256, None, &Secret::new(secret))
        .unwrap()
        .mint(&token, &TokenRules::default())
        .unwrap()
}

pub(crate) async fn connect(relay: &Relay, token: &str) -> Result<RelayConnection, OpenError> {
    RelayConnection::open(&relay.options(token)).await
}

/// Asserts that the connection is open and that no message is waiting.
pub(crate) async fn is_there(client: &mut RelayConnection) {
    client.send_ping().await.unwrap();
    let pong = timeout(PATIENCE, client.receive()).await.unwrap();
    assert!(matches!(pong, Ok(RelayMessage::Pong(_))), "{pong:?}");
}

fn post(relay: &Relay, key: &str) -> String {
    post_to(relay, "acme", key)
}

fn post_to(relay: &Relay, tenant: &str, key: &str) -> String {
    let body = r#"{"userPresence":{"userId":"ann","projectId":"p1"}}"#;
    let length = body.len();
    http(
        relay.ingest,
        &format!(
            "POST /v1/tenants/{tenant}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nAuthorization: Bearer {key}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ),
    )
}

#[tokio::test]
async fn reloadable_keys_change_under_open_connections_and_the_others_are_named() {
    let relay = Relay::start();
    let mut ann = connect(&relay, &token("acme", "ann")).await.unwrap();
    subscribe(&mut ann, "project:p1").await;
    relay.files.write("new.secret", NEW_SECRET);
    relay.files.write("ingest.key", NEW_INGEST_KEY);
    edit(
        &relay,
        &[
            (
                "listen = \"127.0.0.1:0\"",
                "listen = \"127.0.0.1:1\"\norigins = [\"https://app.example\"]",
            ),
            ("jwt.secret", "new.secret"),
            (
                "shards = 2",
                "shards = 3\ntenants = 1\ntopics_per_subscribe = 1",
            ),
            ("[log]", "[replay]\nevents = 7\n[log]\nlevel = \"debug\""),
        ],
    );
    let before = relay.metric("sidewire_config_reload_success_timestamp_seconds");
    assert!(before > 1.7e9);
    reload(&relay, 1);

    // Existing connections stay, and follow the new settings.
    is_there(&mut ann).await;
    ann.subscribe(["project:p2", "project:p3"]).await.unwrap();
    let refused = timeout(PATIENCE, ann.receive()).await.unwrap();
    assert!(
        matches!(&refused, Ok(RelayMessage::Error(error)) if error.error_code == "VALIDATION_ERROR"),
        "{refused:?}"
    );
    // New connections need the new key, and there is no room for another tenant.
    let old = connect(&relay, &token("acme", "ann")).await;
    assert!(matches!(old, Err(OpenError::Unauthorized(_))));
    let mut bob = connect(&relay, &token_of(NEW_SECRET, "bob")).await.unwrap();
    is_there(&mut bob).await;
    let old_key = post(&relay, INGEST_KEY);
    assert!(old_key.starts_with("HTTP/1.1 401 "), "{old_key}");
    let new_key = post(&relay, NEW_INGEST_KEY);
    assert!(new_key.starts_with("HTTP/1.1 200 "), "{new_key}");
    let event = timeout(PATIENCE, ann.receive()).await.unwrap();
    assert!(matches!(event, Ok(RelayMessage::Event(_))), "{event:?}");
    let other_tenant = post_to(&relay, "globex", NEW_INGEST_KEY);
    assert!(other_tenant.starts_with("HTTP/1.1 503 "), "{other_tenant}");
    let headers = bearer(&token_of(NEW_SECRET, "bob")) + "Origin: https://evil.example\r\n";
    let origin = http(relay.client, &handshake(&headers));
    assert!(origin.starts_with("HTTP/1.1 403 "), "{origin}");
    relay
        .process
        .stderr_has(|log| log_line(log, "backend call").filter(|line| line["level"] == "DEBUG"));

    assert_eq!(
        relay.metric("sidewire_config_reloads_total{result=\"applied\"}"),
        1.0
    );
    assert_eq!(relay.metric("sidewire_config_reload_successful"), 1.0);
    assert!(relay.metric("sidewire_config_reload_success_timestamp_seconds") >= before);
    relay.process.signal(Signal::TERM);
    drop((ann, bob));
    let ended = relay.process.end();
    assert_eq!(ended.status.code(), Some(0));
    let named = "this config key cannot change without a restart; the old value stays";
    let named: Vec<_> = lines(&ended.stderr, named)
        .iter()
        .map(|line| line["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(named, ["client.listen", "limits.shards", "replay.events"]);
    assert!(!ended.stderr.contains("CANARY"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_file_with_an_error_changes_nothing_and_is_reported_as_by_check() {
    let relay = Relay::start();
    let mut ann = connect(&relay, &token("acme", "ann")).await.unwrap();
    let good = fs::read_to_string(relay.files.config()).unwrap();
    relay.files.write("ingest.key", NEW_INGEST_KEY);
    for (times, bad) in [
        good.replace("shards = 2", "shardz = 2"),
        good.replace("jwt.secret", "absent.secret"),
        // Consistent within the file, but not with the settings that cannot change.
        good.replace("[log]", "[replay]\nprocess_bytes = \"1MiB\"\n[log]")
            .replace("shards = 2", "memory_max = \"193MiB\""),
    ]
    .into_iter()
    .enumerate()
    {
        relay.files.write("sidewire.toml", &bad);
        let checked = Process::run(sidewire(&["check", "--config", &relay.files.config()]));
        relay.process.signal(Signal::HUP);
        let message = relay.process.stderr_has(|log| {
            let refused: Vec<_> = log
                .lines()
                .filter(|line| line.contains("the config is not reloaded"))
                .collect();
            let line = refused.get(times)?;
            let line: Value = serde_json::from_str(line).ok()?;
            Some(line["message"].as_str()?.to_owned())
        });
        let said = checked.stderr.strip_prefix("sidewire: ");
        match said {
            Some(said) => assert!(message.ends_with(said.trim_end()), "{message}: {said}"),
            None => {
                assert!(checked.status.success(), "{checked:?}");
                assert!(message.contains("limits.memory_max: "), "{message}");
                assert!(message.contains("needs a restart"), "{message}");
            }
        }
        // The reload is counted before it is logged.
        assert_eq!(relay.metric("sidewire_config_reload_successful"), 0.0);
        let refused = relay.metric("sidewire_config_reloads_total{result=\"refused\"}");
        assert_eq!(refused, times as f64 + 1.0);
        let old_key = post(&relay, INGEST_KEY);
        assert!(old_key.starts_with("HTTP/1.1 200 "), "{old_key}");
        is_there(&mut ann).await;
    }
    relay.files.write("sidewire.toml", &good);
    reload(&relay, 1);
    assert_eq!(relay.metric("sidewire_config_reload_successful"), 1.0);
    assert!(post(&relay, NEW_INGEST_KEY).starts_with("HTTP/1.1 200 "));
    is_there(&mut ann).await;
}

#[tokio::test]
async fn clients_of_a_removed_key_are_disconnected_once_that_is_configured() {
    let relay = Relay::start();
    let mut ann = connect(&relay, &token("acme", "ann")).await.unwrap();
    relay.files.write("jwt.secret", NEW_SECRET);
    reload(&relay, 1);
    let mut bob = connect(&relay, &token_of(NEW_SECRET, "bob")).await.unwrap();
    is_there(&mut ann).await;
    edit(
        &relay,
        &[(
            "[[auth.keys]]",
            "[auth]\nclose_on_key_removal = true\n[[auth.keys]]",
        )],
    );
    reload(&relay, 2);
    // The client is closed like one that connects with an expired token.
    match timeout(PATIENCE, ann.receive()).await.unwrap() {
        Ok(RelayMessage::Error(error)) => assert_eq!(error.error_code, "AUTHENTICATION_FAILED"),
        other => panic!("{other:?}"),
    }
    match timeout(PATIENCE, ann.receive()).await.unwrap() {
        Err(ReceiveError::Closed { code: 4001, reason }) => {
            assert_eq!(reason, "the key that signed the token was removed");
        }
        other => panic!("{other:?}"),
    }
    is_there(&mut bob).await;
}

#[test]
fn systemd_is_notified_of_the_start_a_reload_healthy_shards_and_the_end() {
    let files = Files::new();
    let path = files.path("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut bytes = [0; 256];
        let read = systemd.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..read].to_vec()).unwrap()
    };
    let hear_next = || loop {
        let heard = hear();
        if heard.trim() != "WATCHDOG=1" {
            break heard;
        }
    };
    let mut serve = files.serve();
    serve.env("NOTIFY_SOCKET", &path);
    serve.env("WATCHDOG_USEC", "200000");
    let process = Process::start(serve);
    assert_eq!(hear_next().trim(), "READY=1");
    process.stderr_has(|log| log_line(log, "the relay is ready"));

    let before = monotonic_usec();
    process.signal(Signal::HUP);
    let reloading = hear_next();
    let mut reloading = reloading.lines();
    assert_eq!(reloading.next(), Some("RELOADING=1"));
    let at = reloading.next().unwrap().strip_prefix("MONOTONIC_USEC=");
    let at: u64 = at.unwrap().parse().unwrap();
    assert!((before..=monotonic_usec()).contains(&at), "{at}");
    assert_eq!(hear_next().trim(), "READY=1");

    // Each within the time that systemd would wait.
    for _ in 0..3 {
        let began = Instant::now();
        while hear().trim() != "WATCHDOG=1" {}
        assert!(began.elapsed() < PATIENCE);
    }
    process.signal(Signal::TERM);
    assert_eq!(hear_next().trim(), "STOPPING=1");
    assert!(process.end().status.success());
}

#[test]
fn the_watchdog_of_another_process_is_not_notified() {
    let files = Files::new();
    let path = files.path("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut serve = files.serve();
    serve.env("NOTIFY_SOCKET", &path);
    serve.env("WATCHDOG_USEC", "2000").env("WATCHDOG_PID", "1");
    let process = Process::start(serve);
    process.stderr_has(|log| log_line(log, "the relay is ready"));
    process.signal(Signal::TERM);
    assert!(process.end().status.success());
    let mut heard = Vec::new();
    systemd.set_nonblocking(true).unwrap();
    let mut bytes = [0; 256];
    while let Ok(read) = systemd.recv(&mut bytes) {
        heard.push(String::from_utf8(bytes[..read].to_vec()).unwrap());
    }
    let heard: Vec<_> = heard.iter().map(|it| it.trim()).collect();
    assert_eq!(heard, ["READY=1", "STOPPING=1"]);
}

fn monotonic_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000 + u64::try_from(now.tv_nsec).unwrap() / 1000
}

/// Starts an issuer with a certificate signed by its own CA. Returns its port, and the
/// CA's certificate as PEM.
async fn issuer(keys: Value) -> (u16, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let ca = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let body = keys.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust the certificate sends an alert and leaves.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut bytes = [0; 4096];
                drop(stream.read(&mut bytes).await);
                drop(stream.write_all(format!("{head}{body}").as_bytes()).await);
                drop(stream.shutdown().await);
            }
        }
    });
    (port, ca_pem)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_over_tls_from_an_issuer_with_a_trusted_certificate() {
    let public = include_str!("../../src/auth/testdata/ed25519.pub.pem");
    let private = include_str!("../../src/auth/testdata/ed25519.pem");
    let der = pem::parse(public).unwrap().into_contents();
    let x = URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]);
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x});
    let (port, ca) = issuer(json!({"keys": [jwk]})).await;
    let (_, foreign_ca) = issuer(json!({})).await;
    let key = SigningKey::from_private_key_pem(
        Algorithm::EdDSA,
        Some("k".to_owned()),
        private.as_bytes(),
    );
    let token = NewToken {
        tenant: TenantName::parse("acme").unwrap(),
        user: UserName::parse("ann").unwrap(),
        expires_at: Some(Clock::system().since_unix_epoch() + Duration::from_hours(1)),
        topics: None,
        subscribe: None,
    };
    let token = key.unwrap().mint(&token, &TokenRules::default()).unwrap();
    for (believed, is_let_in) in [(ca, true), (foreign_ca, false)] {
        let files = Files::new();
        let text = fs::read_to_string(files.config()).unwrap().replace(
            "secret_file = \"jwt.secret\"\nalgorithm = \"HS256\"",
            &format!("jwks_url = \"https://localhost:{port}/keys\""),
        );
        files.write("sidewire.toml", &text);
        let roots = files.write("ca.pem", &believed);
        let mut serve = files.serve();
        serve.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
        let relay = Relay::started(files, serve);
        let client = connect(&relay, &token).await;
        assert_eq!(client.is_ok(), is_let_in, "{client:?}");
        let result = if is_let_in { "fetched" } else { "unreachable" };
        let series = format!("sidewire_jwks_fetches_total{{result=\"{result}\"}}");
        assert!(relay.metric(&series) >= 1.0);
    }
}
