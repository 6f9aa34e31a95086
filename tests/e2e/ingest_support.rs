//! A hand-written backend: requests are written byte for byte, answers are read one at a
//! time, and their contents are checked.

use serde_json::Value;
use sidewire_testing::{http::Answer, socket::Socket};
use tokio::time::timeout;

use crate::{
    client::TestClient,
    raw::read_answer,
    support::{INGEST_KEY, PATIENCE, TestRelay},
    vocabulary::created,
};

pub const EVENTS: &str = "/v1/tenants/acme/events";
pub const BATCH: &str = "/v1/tenants/acme/events:batch";
pub const JSON: &str = "application/json";
pub const PROTOBUF: &str = "application/x-protobuf";

/// A request as it is written.
#[derive(Clone)]
pub struct Call {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Call {
    /// Makes a request with any method and only this path.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            line: format!("{method} {target} HTTP/1.1"),
            headers: vec!["Host: localhost".to_owned()],
            body: Vec::new(),
        }
    }

    /// Makes a POST with the key for every tenant.
    pub fn post(target: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target)
            .key(INGEST_KEY)
            .header(&format!("Content-Type: {content_type}"))
            .body(body)
    }

    /// Makes a POST of a JSON event with the key for every tenant.
    pub fn event(target: &str, event: &Value) -> Self {
        Self::post(target, JSON, event.to_string())
    }

    pub fn key(self, key: &str) -> Self {
        self.header(&format!("Authorization: Bearer {key}"))
    }

    pub fn header(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }

    /// Adds a body with its length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len();
        self.header(&format!("Content-Length: {length}"))
    }

    /// Adds a body in chunks of up to 1,000 bytes.
    pub fn chunked(mut self, body: &[u8]) -> Self {
        for chunk in body.chunks(1000) {
            self.body
                .extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            self.body.extend(chunk);
            self.body.extend(b"\r\n");
        }
        self.body.extend(b"0\r\n\r\n");
        self.header("Transfer-Encoding: chunked")
    }

    pub fn http_1_0(mut self) -> Self {
        self.line = self.line.replace("HTTP/1.1", "HTTP/1.0");
        self
    }

    /// Returns the head and the body.
    pub fn parts(&self) -> (Vec<u8>, &[u8]) {
        let head = format!("{}\r\n{}\r\n\r\n", self.line, self.headers.join("\r\n"));
        (head.into_bytes(), &self.body)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (head, body) = self.parts();
        [&head, body].concat()
    }

    /// Sends the call on a new connection and returns the answer.
    pub async fn answer(&self, relay: &TestRelay) -> Answer {
        Backend::connect(relay).await.call(self).await
    }
}

/// Lists what is at the path. Returns the answer's document.
pub async fn list(relay: &TestRelay, path: &str, query: &str) -> Value {
    let answer = ask(relay, path, query).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/json");
    answer.json()
}

/// Returns the answer to a GET with this query.
pub async fn ask(relay: &TestRelay, path: &str, query: &str) -> Answer {
    let call = Call::new("GET", &format!("{path}?{query}"));
    call.key(INGEST_KEY).answer(relay).await
}

/// A connection to the ingest listener.
pub struct Backend(Socket);

impl Backend {
    pub async fn connect(relay: &TestRelay) -> Self {
        Self(Socket::connect(relay.addresses.ingest).await.unwrap())
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.try_send(bytes).await.unwrap();
    }

    /// Reads the next answer, including a 100.
    pub async fn answer(&mut self) -> Answer {
        read_answer(&mut self.0).await
    }

    pub async fn call(&mut self, call: &Call) -> Answer {
        self.send(&call.bytes()).await;
        self.answer().await
    }

    /// Stops sending, and returns the answers that the relay then sends.
    pub async fn answers_after_the_end(mut self) -> Vec<Answer> {
        self.0.half_close().await;
        let mut answers = Vec::new();
        loop {
            let answer = timeout(PATIENCE, self.0.next_answer(true)).await;
            match answer.expect("the relay closes the connection").unwrap() {
                Some(answer) => answers.push(answer),
                None => break,
            }
        }
        assert!(!self.0.was_reset());
        answers
    }

    /// Waits until the relay has closed the connection cleanly, without sending anything more.
    pub async fn closed(&mut self) {
        let ended = timeout(PATIENCE, self.0.ended()).await;
        ended.expect("the relay closes the connection").unwrap();
        assert!(!self.0.was_reset());
    }
}

/// A tenant in which one event was published, with a client that would receive any event
/// published by mistake.
pub struct Watched {
    pub relay: TestRelay,
    watcher: TestClient,
    head: u64,
}

impl Watched {
    pub async fn start() -> Self {
        let relay = TestRelay::start();
        let mut watcher = relay.connect("acme", "ann").await;
        let topics = ["project:p1", "work_item:w1", "board:1", "project:*x"];
        watcher.subscribe(&topics).await;
        let mut watched = Self {
            relay,
            watcher,
            head: 0,
        };
        watched.publish().await;
        watched
    }

    async fn publish(&mut self) {
        let answer = Call::event(EVENTS, &created("p1"));
        self.head += 1;
        assert_eq!(offset(&answer.answer(&self.relay).await), self.head);
        let event = self.watcher.event().await;
        assert_eq!(event.position.unwrap().offset, self.head);
    }

    /// Asserts that the call is refused for this field.
    pub async fn refuses(&mut self, what: &str, call: Call, field: Option<&str>) -> Answer {
        let answer = call.answer(&self.relay).await;
        assert_eq!(
            refusal(&answer),
            invalid(field),
            "{what}: {}",
            answer.text()
        );
        answer
    }

    /// Asserts that none of the calls had an effect: neither an offset nor a message.
    pub async fn has_not_changed(mut self) {
        self.watcher.nothing_more().await;
        self.publish().await;
        self.watcher.nothing_more().await;
        drop(self.watcher);
        assert!(self.relay.stop().await);
    }
}

/// Returns a refusal's status, its code, and the faulty field.
pub fn refusal(answer: &Answer) -> (u16, String, Option<String>) {
    let code = answer.problem_code();
    let field = answer.json()["field"].as_str().map(str::to_owned);
    (answer.status, code, field)
}

/// Returns the expected refusal with status 400 for this field.
pub fn invalid(field: Option<&str>) -> (u16, String, Option<String>) {
    let code = "VALIDATION_ERROR".to_owned();
    (400, code, field.map(str::to_owned))
}

/// Returns the offset in the answer to one event.
pub fn offset(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let offset = &answer.json()["position"]["offset"];
    offset.as_str().unwrap().parse().unwrap()
}
