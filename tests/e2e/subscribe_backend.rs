//! Subscribes that a backend decides on, asked over TCP or a Unix socket.

use std::time::Duration;

use serde_json::{Value, json};
use sidewire::config::{BackendUrl, Config};
use sidewire_client::{ControlMessage, RelayMessage};
use sidewire_protocol::wire;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::{
    client::TestClient,
    raw::http,
    support::{INGEST_KEY, PATIENCE, TestRelay, token_with},
    vocabulary::{about, created},
};

/// A question that the backend was asked.
struct Question {
    head: String,
    json: Value,
    answer: oneshot::Sender<String>,
}

impl Question {
    fn topics(&self) -> &Value {
        &self.json["topics"]
    }

    /// Answers with status 200.
    fn allow(self, topics: &[&str]) {
        self.respond("200 OK", &json!({ "allow": topics }).to_string());
    }

    fn respond(self, status: &str, body: &str) {
        let len = body.len();
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\n\r\n{body}");
        drop(self.answer.send(response));
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A backend on this machine, which answers when the test says so.
struct SubscribeBackend {
    url: BackendUrl,
    questions: mpsc::Receiver<Question>,
    tasks: JoinSet<()>,
    _directory: TempDir,
}

impl SubscribeBackend {
    async fn tcp() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/subscribe", listener.local_addr().unwrap());
        Self::serve(&url, TempDir::new().unwrap(), Listener::Tcp(listener))
    }

    fn unix() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("app.sock");
        let url = format!("unix:{}:/subscribe", socket.display());
        let listener = UnixListener::bind(&socket).unwrap();
        Self::serve(&url, directory, Listener::Unix(listener))
    }

    fn serve(url: &str, directory: TempDir, listener: Listener) -> Self {
        let (asked, questions) = mpsc::channel(100);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let asked = asked.clone();
                match &listener {
                    Listener::Tcp(listener) => {
                        let (stream, _) = listener.accept().await.unwrap();
                        connections.spawn(serve_questions(stream, asked));
                    }
                    Listener::Unix(listener) => {
                        let (stream, _) = listener.accept().await.unwrap();
                        connections.spawn(serve_questions(stream, asked));
                    }
                }
            }
        });
        Self {
            url: BackendUrl::parse(url).unwrap(),
            questions,
            tasks,
            _directory: directory,
        }
    }

    fn relay(&self, settings: impl FnOnce(&mut Config)) -> TestRelay {
        TestRelay::with(|config| {
            config.auth.subscribe.url = Some(self.url.clone());
            settings(config);
        })
    }

    async fn next(&mut self) -> Question {
        let next = timeout(PATIENCE, self.questions.recv()).await;
        next.expect("a question comes").unwrap()
    }

    fn is_idle(&self) -> bool {
        self.questions.is_empty()
    }
}

/// Passes the questions of a connection on to the test, and answers them.
async fn serve_questions(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    asked: mpsc::Sender<Question>,
) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                // The relay keeps no more connections.
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let (_, len) = head.split_once("content-length: ").unwrap();
        let len = len.split_once("\r\n").unwrap().0.parse().unwrap();
        let mut body = vec![0; len];
        stream.read_exact(&mut body).await.unwrap();
        let (answer, answered) = oneshot::channel();
        let json = serde_json::from_slice(&body).unwrap();
        asked.send(Question { head, json, answer }).await.unwrap();
        match answered.await {
            // The relay may stop reading before it has everything.
            Ok(response) => drop(stream.write_all(response.as_bytes()).await),
            // It is never answered.
            Err(_) => std::future::pending().await,
        }
    }
}

async fn confirmed(client: &mut TestClient, id: &str) -> wire::SubscriptionConfirmed {
    match client.receive().await {
        RelayMessage::SubscriptionConfirmed(confirmed) => {
            assert_eq!(confirmed.request_message_id, id);
            confirmed
        }
        other => panic!("not confirmed: {other:?}"),
    }
}

async fn pong_position(client: &mut TestClient) -> Option<wire::Position> {
    let ping = ControlMessage::Ping(wire::Ping { timestamp: 1 });
    client.send(ping).await;
    match client.receive().await {
        RelayMessage::Pong(pong) => pong.position,
        other => panic!("no pong: {other:?}"),
    }
}

#[tokio::test]
async fn a_backend_allows_and_denies_topics_over_tcp_and_a_unix_socket() {
    for mut backend in [SubscribeBackend::tcp().await, SubscribeBackend::unix()] {
        let directory = TempDir::new().unwrap();
        let key_file = directory.path().join("subscribe.key");
        std::fs::write(&key_file, "hunter2\n").unwrap();
        let relay = backend.relay(|config| config.auth.subscribe.key_file = Some(key_file));
        let mut client = relay.connect("acme", "ann").await;
        let id = client.ask_for(&["project:p2", "project:p1"]).await;
        let question = backend.next().await;
        let expected =
            json!({"tenant": "acme", "user": "ann", "topics": ["project:p1", "project:p2"]});
        assert_eq!(question.json, expected);
        let line = "post /subscribe http/1.1\r\n";
        assert!(question.head.starts_with(line), "{}", question.head);
        let key = "authorization: bearer hunter2\r\n";
        assert!(question.head.contains(key), "{}", question.head);
        question.allow(&["project:*"]);
        confirmed(&mut client, &id).await;
        assert_eq!(relay.publish("acme", created("p1")).await.matched, Some(1));
        client.event().await;

        // Neither the wildcard nor another kind is allowed, and nothing of it changes.
        let id = client
            .ask_for(&["sprint:s1", "project:p1", "project:*"])
            .await;
        let question = backend.next().await;
        assert_eq!(question.topics(), &json!(["project:*", "sprint:s1"]));
        question.allow(&["project:p1", "project:p2", "project:*"]);
        let error = client.error().await;
        assert_eq!(error.error_code, "AUTHORIZATION_FAILED");
        assert_eq!(error.request_message_id, id);
        assert_eq!(
            error.error_message,
            "sprint:s1 is not allowed by the backend"
        );
        let other = relay.publish("acme", about(&["sprint:s1"])).await;
        assert_eq!(other.matched, Some(0));

        // It is remembered that the wildcard is allowed.
        client.subscribe(&["project:*"]).await;
        assert_eq!(relay.publish("acme", created("p3")).await.matched, Some(1));
        client.event().await;
        let id = client.ask_for(&["sprint:s1"]).await;
        assert_eq!(client.error().await.request_message_id, id);
        assert!(backend.is_idle());
        drop(client);
        assert!(relay.stop().await);
    }
}

#[tokio::test]
async fn what_the_token_does_not_grant_is_not_asked_about() {
    let mut backend = SubscribeBackend::tcp().await;
    let relay = backend.relay(|_| ());
    let token = token_with("acme", "ann", Duration::from_hours(1), Some(&["project:*"]));
    let mut client = relay.connect_with(token).await.unwrap();
    for topic in ["sprint:s1", "user:ann", "tenant:*"] {
        client.ask_for(&["project:p1", topic]).await;
        let error = client.error().await;
        assert_eq!(error.error_code, "AUTHORIZATION_FAILED", "{topic}");
    }
    // An empty Subscribe names nothing to ask about.
    client.subscribe(&[]).await;
    assert!(backend.is_idle());
    let id = client.ask_for(&["project:p1"]).await;
    backend.next().await.allow(&["project:p1"]);
    confirmed(&mut client, &id).await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_late_answer_delays_only_what_follows_the_subscribe() {
    let mut backend = SubscribeBackend::tcp().await;
    let relay = backend.relay(|config| config.auth.subscribe.timeout = Duration::from_secs(20));
    let mut neighbour = relay.connect("acme", "bob").await;
    let mut client = relay.connect("acme", "ann").await;
    let id = client.ask_for(&["project:p1"]).await;
    backend.next().await.allow(&["project:p1"]);
    confirmed(&mut client, &id).await;

    let asked = client.ask_for(&["project:p2"]).await;
    let question = backend.next().await;
    let mut waiting = Vec::new();
    for _ in 0..16 {
        waiting.push(client.ask_for(&["project:p1"]).await);
    }
    let too_many = client.ask_for(&["project:p1"]).await;
    let error = client.error().await;
    assert_eq!(error.error_code, "RATE_LIMIT_EXCEEDED");
    assert_eq!(error.request_message_id, too_many);
    assert!(error.retry_after_ms.is_some());
    assert_eq!(pong_position(&mut client).await, None);
    relay.publish("acme", created("p1")).await;
    client.event().await;
    let neighbours = neighbour.ask_for(&[]).await;
    confirmed(&mut neighbour, &neighbours).await;

    question.allow(&["project:p2"]);
    confirmed(&mut client, &asked).await;
    for id in &waiting {
        confirmed(&mut client, id).await;
    }
    assert!(pong_position(&mut client).await.is_some());
    drop((client, neighbour));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_resume_replays_what_came_before_the_answer() {
    let mut backend = SubscribeBackend::unix();
    let relay = backend.relay(|_| ());
    let start = relay.publish("acme", created("p1")).await.position;
    relay.publish("acme", created("p1")).await;
    let mut client = relay.connect("acme", "ann").await;
    let subscribe = wire::Subscribe {
        topics: vec!["project:p1".to_owned()],
        resume_from: Some(start),
    };
    let id = client.send(ControlMessage::Subscribe(subscribe)).await;
    let question = backend.next().await;
    relay.publish("acme", created("p1")).await;
    question.allow(&["project:p1"]);
    let confirmation = confirmed(&mut client, &id).await;
    assert_eq!((confirmation.recovered, confirmation.replayed), (true, 2));
    for offset in [2, 3] {
        assert_eq!(client.event().await.position.unwrap().offset, offset);
    }
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn without_an_answer_nothing_is_granted_and_the_breaker_saves_the_wait() {
    let mut backend = SubscribeBackend::tcp().await;
    let relay = backend.relay(|config| config.auth.subscribe.timeout = Duration::from_millis(200));
    let mut client = relay.connect("acme", "ann").await;
    for (status, body) in [
        ("500 Internal Server Error", r#"{"allow":["project:p1"]}"#),
        ("302 Found\r\nLocation: /other", ""),
        ("200 OK", r#"{"allowed":["project:p1"]}"#),
        ("200 OK", &" ".repeat(300_000)),
    ] {
        let id = client.ask_for(&["project:p1"]).await;
        backend.next().await.respond(status, body);
        let error = client.error().await;
        assert_eq!(error.error_code, "INTERNAL_ERROR", "{status}");
        assert_eq!(error.request_message_id, id);
        assert!(error.retry_after_ms.is_some());
    }
    // It never answers, and then it is gone.
    client.ask_for(&["project:p1"]).await;
    drop(backend.next().await);
    assert_eq!(client.error().await.error_code, "INTERNAL_ERROR");
    backend.tasks.shutdown().await;
    for _ in 0..5 {
        client.ask_for(&["project:p1"]).await;
        assert_eq!(client.error().await.error_code, "INTERNAL_ERROR");
    }
    let metrics = relay.metrics().await;
    assert_eq!(metrics["sidewire_backend_breaker_open"], 1.0);
    let result = |name: &str| {
        let series = format!("sidewire_backend_questions_total{{result=\"{name}\"}}");
        metrics[&series]
    };
    let results = ["status", "invalid", "too_big", "timed_out", "not_asked"].map(result);
    assert!(results[..4] == [2.0, 1.0, 1.0, 1.0], "{results:?}");
    assert!(results[4] >= 1.0, "{results:?}");
    assert_eq!(relay.publish("acme", created("p1")).await.matched, Some(0));
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_ended_subscription_is_asked_about_again() {
    let mut backend = SubscribeBackend::tcp().await;
    let relay = backend.relay(|_| ());
    let mut client = relay.connect("acme", "ann").await;
    let id = client.ask_for(&["project:p1"]).await;
    backend.next().await.allow(&["project:p1"]);
    confirmed(&mut client, &id).await;
    client.subscribe(&["project:p1"]).await;
    assert!(backend.is_idle());
    let line = "DELETE /v1/tenants/acme/users/ann/subscriptions?topic=project:p1 HTTP/1.1\r\n";
    let key = format!("Authorization: Bearer {INGEST_KEY}\r\n");
    let answer = http(relay.addresses.ingest, line, &key, b"").await;
    assert_eq!(answer.json(), json!({"revoked": 1}));
    assert_eq!(client.unsubscribed().await.topics, ["project:p1"]);
    client.ask_for(&["project:p1"]).await;
    backend.next().await.allow(&[]);
    assert_eq!(client.error().await.error_code, "AUTHORIZATION_FAILED");
    drop(client);
    assert!(relay.stop().await);
}
