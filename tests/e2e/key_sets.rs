//! Keys fetched from a URL, from a server of the test that counts the requests.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sidewire::{
    auth::{Algorithm, JwksUrl, NewToken, SigningKey, TokenRules},
    config::{AuthKey, Config},
};
use sidewire_client::{ControlMessage, OpenError, RelayMessage};
use sidewire_protocol::{TenantName, UserName, clock::Clock, wire};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::{raw::http, support::TestRelay, vocabulary::created};

/// A key pair as PEM: the private and the public half.
#[derive(Clone, Copy)]
struct Pair(&'static str, &'static str);

const OLD: Pair = Pair(
    include_str!("../../src/auth/testdata/ed25519.pem"),
    include_str!("../../src/auth/testdata/ed25519.pub.pem"),
);
const NEW: Pair = Pair(
    include_str!("../../src/auth/testdata/ed25519-other.pem"),
    include_str!("../../src/auth/testdata/ed25519-other.pub.pem"),
);

impl Pair {
    fn jwk(self, kid: &str) -> Value {
        let der = pem::parse(self.1).unwrap().into_contents();
        let x = URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]);
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "use": "sig"})
    }

    /// Returns a token of the user `ann`.
    fn token(self, kid: &str) -> String {
        let key = SigningKey::from_private_key_pem(
            Algorithm::EdDSA,
            Some(kid.to_owned()),
            self.0.as_bytes(),
        );
        let token = NewToken {
            tenant: TenantName::parse("acme").unwrap(),
            user: UserName::parse("ann").unwrap(),
            expires_at: Some(Clock::system().since_unix_epoch() + Duration::from_hours(1)),
            topics: None,
            subscribe: None,
        };
        key.unwrap().mint(&token, &TokenRules::default()).unwrap()
    }
}

/// An issuer's answer: a status line with headers, and a body. `None` means no answer.
type Answer = Option<(&'static str, Vec<u8>)>;

/// An issuer on loopback.
struct Issuer {
    url: JwksUrl,
    answer: Arc<Mutex<Answer>>,
    /// True while answers are held back.
    held: watch::Sender<bool>,
    fetches: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer: Arc<Mutex<Answer>> = Arc::default();
        let (fetches, held) = (Arc::<AtomicUsize>::default(), watch::Sender::new(false));
        let mut tasks = JoinSet::new();
        let (its_answer, its_fetches) = (Arc::clone(&answer), Arc::clone(&fetches));
        let is_held = held.subscribe();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (answer, fetches) = (Arc::clone(&its_answer), Arc::clone(&its_fetches));
                let mut is_held = is_held.clone();
                connections.spawn(async move {
                    read_head(&mut stream).await;
                    fetches.fetch_add(1, Ordering::SeqCst);
                    drop(is_held.wait_for(|held| !held).await);
                    let answer = answer.lock().unwrap().clone();
                    match answer {
                        Some((head, body)) => {
                            let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n");
                            // The relay may stop reading before it has everything.
                            drop(stream.write_all(&[head.as_bytes(), &body].concat()).await);
                        }
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self {
            url: JwksUrl::parse(&format!("http://{address}/keys")).unwrap(),
            answer,
            held,
            fetches,
            _tasks: tasks,
        }
    }

    fn answers(&self, head: &'static str, body: impl Into<Vec<u8>>) {
        *self.answer.lock().unwrap() = Some((head, body.into()));
    }

    fn has(&self, keys: &[Value]) {
        self.answers("200 OK", json!({ "keys": keys }).to_string());
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// Starts a relay that fetches its keys from this issuer.
    fn relay(&self, settings: impl FnOnce(&mut Config)) -> TestRelay {
        TestRelay::with(|config| {
            config.auth.keys = vec![AuthKey::JwksUrl {
                url: self.url.clone(),
            }];
            config.auth.jwks_cooldown = Duration::from_hours(1);
            settings(config);
        })
    }
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"GET /keys HTTP/1.1\r\n"));
}

async fn is_let_in(relay: &TestRelay, token: String) -> bool {
    match relay.connect_with(token).await {
        Ok(_) => true,
        Err(OpenError::Unauthorized(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_key_is_fetched_when_a_token_names_it_but_not_for_every_such_token() {
    let issuer = Issuer::start().await;
    issuer.has(&[OLD.jwk("old")]);
    let relay = issuer.relay(|_| ());
    // The first client waits for the fetch that the relay starts with.
    assert!(is_let_in(&relay, OLD.token("old")).await);
    assert!(
        !is_let_in(&relay, NEW.token("old")).await,
        "it is not that key"
    );
    assert_eq!(issuer.fetches(), 1);

    issuer.has(&[NEW.jwk("new")]);
    assert!(
        is_let_in(&relay, OLD.token("old")).await,
        "nobody has asked"
    );
    assert!(is_let_in(&relay, NEW.token("new")).await);
    assert_eq!(issuer.fetches(), 2);
    assert!(!is_let_in(&relay, OLD.token("old")).await, "it is gone");
    for kid in ["a", "b", "c"] {
        assert!(!is_let_in(&relay, NEW.token(kid)).await);
    }
    assert_eq!(issuer.fetches(), 2, "within the cooldown");
    let fetched_at = relay.metrics().await["sidewire_jwks_fetched_timestamp_seconds"];
    let age = Clock::system().since_unix_epoch().as_secs_f64() - fetched_at;
    assert!((0.0..60.0).contains(&age), "{age}");
    assert!(relay.stop().await);
}

#[tokio::test]
async fn many_handshakes_wait_for_one_fetch() {
    let issuer = Issuer::start().await;
    issuer.has(&[OLD.jwk("old")]);
    let relay = issuer.relay(|_| ());
    assert!(is_let_in(&relay, OLD.token("old")).await);
    issuer.has(&[NEW.jwk("new")]);
    issuer.held.send_replace(true);
    let mut handshakes = JoinSet::new();
    for _ in 0..20 {
        let options = relay.options().with_token(NEW.token("new"));
        handshakes.spawn(async move { sidewire_client::RelayConnection::open(&options).await });
    }
    while issuer.fetches() < 2 {
        tokio::task::yield_now().await;
    }
    // Tokens of known keys are not delayed.
    assert!(is_let_in(&relay, OLD.token("old")).await);
    issuer.held.send_replace(false);
    assert!(handshakes.join_all().await.iter().all(Result::is_ok));
    assert_eq!(issuer.fetches(), 2);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_failed_fetch_leaves_the_keys_as_they_are() {
    let issuer = Issuer::start().await;
    issuer.has(&[OLD.jwk("old")]);
    let relay = issuer.relay(|config| {
        config.auth.jwks_cooldown = Duration::from_millis(1);
        config.auth.jwks_timeout = Duration::from_millis(300);
        config.auth.jwks_max = 1000;
    });
    assert!(is_let_in(&relay, OLD.token("old")).await);
    let new = json!({ "keys": [NEW.jwk("new")] }).to_string();
    let too_big = format!("{new}{}", " ".repeat(1000)).into_bytes();
    for (result, answer) in [
        ("status", Some(("500 Internal Server Error", new.clone().into_bytes()))),
        (
            "status",
            Some(("302 Found\r\nLocation: http://127.0.0.1:1/", Vec::new())),
        ),
        ("too_big", Some(("200 OK", too_big))),
        ("invalid", Some(("200 OK", b"{}".to_vec()))),
        (
            "invalid",
            Some(("200 OK", br#"{"keys":[{"kty":"oct","alg":"HS256","kid":"new","k":"YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE"}]}"#.to_vec())),
        ),
        ("unreachable", Some(("nonsense", Vec::new()))),
        ("timed_out", None),
    ] {
        let series = format!("sidewire_jwks_fetches_total{{result=\"{result}\"}}");
        let before = relay.metrics().await[&series];
        *issuer.answer.lock().unwrap() = answer;
        assert!(!is_let_in(&relay, NEW.token("new")).await, "{result}");
        relay.metrics_where(|metrics| metrics[&series] > before).await;
        assert!(is_let_in(&relay, OLD.token("old")).await, "{result}");
    }
    issuer.answers("200 OK", new);
    while !is_let_in(&relay, NEW.token("new")).await {
        tokio::task::yield_now().await;
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_relay_without_a_key_is_not_ready_until_it_has_fetched_one() {
    let issuer = Issuer::start().await;
    issuer.answers("503 Service Unavailable", "");
    let relay = issuer.relay(|config| config.auth.jwks_cooldown = Duration::from_millis(50));
    let ask = async || http(relay.addresses.ops, "GET /readyz HTTP/1.1\r\n", "", b"").await;
    let answer = loop {
        // At first the relay may also report that it is starting.
        let answer = ask().await;
        if answer.status == 503 && answer.json()["checks"]["start"] == "ok" {
            break answer;
        }
    };
    assert_eq!(answer.problem_code(), "INTERNAL_ERROR");
    assert_eq!(answer.headers["retry-after"], "1");
    let keys = answer.json()["checks"]["keys"].clone();
    assert_eq!(answer.json()["detail"], keys);
    assert!(keys.as_str().unwrap().starts_with("no key set"), "{keys}");

    // The relay cannot tell whether the token is valid.
    match relay.connect_with(OLD.token("old")).await.err() {
        Some(OpenError::Refused(problem)) => assert_eq!(problem.status, 503),
        other => panic!("{other:?}"),
    }
    issuer.has(&[OLD.jwk("old")]);
    let answer = loop {
        let answer = ask().await;
        if answer.status == 200 {
            break answer.json();
        }
    };
    let ok =
        ["start", "drain", "listeners", "shards", "keys"].map(|it| (it.to_owned(), "ok".into()));
    let checks = Value::Object(ok.into_iter().collect());
    assert_eq!(answer, json!({"ready": true, "checks": checks}));
    assert!(is_let_in(&relay, OLD.token("old")).await);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn clients_of_a_key_that_has_left_the_set_are_disconnected_if_configured() {
    for closes in [true, false] {
        let issuer = Issuer::start().await;
        issuer.has(&[OLD.jwk("old"), NEW.jwk("kept")]);
        let relay = issuer.relay(|config| config.auth.close_on_key_removal = closes);
        let mut leaver = relay.connect_with(OLD.token("old")).await.unwrap();
        let mut stayer = relay.connect_with(NEW.token("kept")).await.unwrap();
        issuer.has(&[NEW.jwk("kept"), OLD.jwk("new")]);
        assert!(is_let_in(&relay, OLD.token("new")).await);
        if closes {
            assert_eq!(leaver.closed().await.0, 4001);
            let series =
                "sidewire_connections_closed_total{transport=\"websocket\",reason=\"key_removed\"}";
            relay.metrics_where(|metrics| metrics[series] == 1.0).await;
        } else {
            leaver.nothing_more().await;
        }
        stayer.nothing_more().await;
        assert!(relay.stop().await);
    }
}

#[tokio::test]
async fn the_key_of_the_newest_token_decides_whether_its_removal_disconnects() {
    let issuer = Issuer::start().await;
    issuer.has(&[OLD.jwk("old"), NEW.jwk("kept")]);
    let relay = issuer.relay(|config| config.auth.close_on_key_removal = true);
    let mut leaver = relay.connect_bearing(&NEW.token("kept")).await;
    leaver.authenticate(&OLD.token("old")).await.unwrap();
    let mut stayer = relay.connect_bearing(&OLD.token("old")).await;
    stayer.authenticate(&NEW.token("kept")).await.unwrap();
    // A refused token leaves the key as it is.
    stayer.authenticate(&NEW.token("old")).await.unwrap_err();

    issuer.has(&[NEW.jwk("kept"), OLD.jwk("new")]);
    assert!(is_let_in(&relay, OLD.token("new")).await);
    assert_eq!(leaver.error().await.error_code, "AUTHENTICATION_FAILED");
    assert_eq!(leaver.closed().await.0, 4001);
    stayer.nothing_more().await;
    let series =
        "sidewire_connections_closed_total{transport=\"websocket\",reason=\"key_removed\"}";
    relay.metrics_where(|metrics| metrics[series] == 1.0).await;
    drop(stayer);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_token_on_an_open_connection_has_its_key_fetched_while_everything_else_goes_on() {
    let issuer = Issuer::start().await;
    issuer.has(&[OLD.jwk("old")]);
    let relay = issuer.relay(|_| ());
    let mut client = relay.connect_bearing(&OLD.token("old")).await;
    issuer.has(&[OLD.jwk("old"), NEW.jwk("new")]);
    issuer.held.send_replace(true);
    let authenticate = |token| ControlMessage::Authenticate(wire::Authenticate { token });
    let id = client.send(authenticate(NEW.token("new"))).await;
    while issuer.fetches() < 2 {
        tokio::task::yield_now().await;
    }
    client.subscribe(&["project:p1"]).await;
    let second = client.authenticate(&OLD.token("old")).await.unwrap_err();
    assert_eq!(second.error_code, "RATE_LIMIT_EXCEEDED");
    assert!(second.retry_after_ms.is_some(), "{second:?}");
    let published = relay.publish("acme", created("p1")).await;
    assert_eq!(client.event().await.message_id, published.message_id);

    issuer.held.send_replace(false);
    match client.receive().await {
        RelayMessage::Authenticated(answer) => assert_eq!(answer.request_message_id, id),
        other => panic!("not answered: {other:?}"),
    }
    // Within the cooldown an unknown key is refused without another fetch.
    let error = client.authenticate(&NEW.token("a")).await.unwrap_err();
    assert_eq!(error.error_code, "AUTHENTICATION_FAILED");
    assert_eq!(issuer.fetches(), 2);
    drop(client);
    assert!(relay.stop().await);
}
