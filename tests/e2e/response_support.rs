//! What the tests of clients without a WebSocket share: the relay and its events, and a backend that
//! decides on their topics.

use std::sync::Arc;

use serde_json::{Value, json};
use sidewire::config::{BackendUrl, Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Semaphore,
};

use crate::{
    ingest_support::{Call, EVENTS},
    support::TestRelay,
    vocabulary::TestSchema,
};

/// An origin that may connect where a test allows it.
pub const ORIGIN: &str = "https://app.example";

/// Starts a relay with a schema that has a payload for everything.
pub fn start(settings: impl FnOnce(&mut Config)) -> TestRelay {
    TestRelay::serving(TestSchema::Generic, settings)
}

/// Posts an event about the topic, and returns its position as text.
pub async fn post(relay: &TestRelay, topic: &str, data: Value) -> String {
    let event = json!({"event": {"type": "test", "data": data}});
    let call = Call::event(&format!("{EVENTS}?topic={topic}"), &event);
    let answer = call.answer(relay).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    position(&answer.json()["position"])
}

/// Returns a position as text.
pub fn position(position: &Value) -> String {
    let epoch = position["epoch"].as_str().unwrap();
    // JSON leaves a zero out.
    let offset = position["offset"].as_str().unwrap_or("0");
    format!("{epoch}:{offset}")
}

/// Answers the questions of the relay with these topics, one for each permit.
pub async fn deciding_backend(
    allow: &'static [&'static str],
    permits: Arc<Semaphore>,
) -> BackendUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/subscribe", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut asked, _)) = listener.accept().await {
            let mut question = vec![0; 64 * 1024];
            let read = asked.read(&mut question).await.unwrap();
            assert!(read > 0);
            permits.acquire().await.unwrap().forget();
            let body = json!({ "allow": allow }).to_string();
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
            let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            asked.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    BackendUrl::parse(&url).unwrap()
}
