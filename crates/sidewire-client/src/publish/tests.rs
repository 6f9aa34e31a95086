//! The publisher against a fake ingest listener.

use std::collections::VecDeque;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::*;

const PUBLISHED: &str = r#"{"message_id":"m1","position":{"epoch":"e","offset":"42"},
    "topics":["kind:1"],"matched":3,"duplicate":false}"#;

/// The requests that a listener received, and the number of connections.
type Seen = (Vec<(String, String)>, usize);

fn response(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Serves these answers in order. An empty one, or one with `Connection: close`, ends the
/// connection.
async fn serve(answers: Vec<String>) -> (EventPublisher, JoinHandle<Seen>) {
    serve_at("/", answers).await
}

/// Serves these answers to a publisher whose URL has this path.
async fn serve_at(path: &str, answers: Vec<String>) -> (EventPublisher, JoinHandle<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{path}", listener.local_addr().unwrap());
    let key = Credential::new("a-key");
    let publisher = EventPublisher::new(&url, Some(&key)).unwrap();
    let serving = tokio::spawn(async move {
        let (mut answers, mut seen, mut connections) = (VecDeque::from(answers), Vec::new(), 0);
        while !answers.is_empty() {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections += 1;
            while let Some(answer) = answers.pop_front() {
                seen.push(request(&mut stream).await);
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answer.is_empty() || answer.contains("Connection: close") {
                    break;
                }
            }
        }
        (seen, connections)
    });
    (publisher, serving)
}

async fn request(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn an_event_is_posted_and_the_answer_is_read() {
    let (publisher, serving) = serve(vec![response(200, PUBLISHED)]).await;
    let answer = publisher
        .post(
            "a b/ü",
            "{}",
            PublishEncoding::Json,
            &["kind:1&2", "kind:ü"],
            false,
        )
        .await
        .unwrap();
    let expected = PublishedEvent {
        message_id: "m1".to_owned(),
        position: wire::Position {
            epoch: "e".to_owned(),
            offset: 42,
        },
        topics: vec!["kind:1".to_owned()],
        matched: Some(3),
        duplicate: false,
    };
    assert_eq!((answer.status, answer.results), (200, vec![expected]));
    assert_eq!(answer.body, PUBLISHED);

    let (seen, _) = serving.await.unwrap();
    let (head, body) = &seen[0];
    let target = "POST /v1/tenants/a%20b%2F%C3%BC/events?topic=kind%3A1%262&topic=kind%3A%C3%BC HTTP/1.1\r\n";
    assert!(head.starts_with(target), "{head}");
    assert!(
        head.contains("content-type: application/json\r\n"),
        "{head}"
    );
    assert!(head.contains("authorization: Bearer a-key\r\n"), "{head}");
    assert!(head.contains("host: 127.0.0.1:"), "{head}");
    assert_eq!(body, "{}");
}

#[tokio::test]
async fn a_batch_has_a_result_for_each_event() {
    let late =
        r#"{"message_id":"m2","position":{"epoch":"e","offset":"0"},"topics":[],"duplicate":true}"#;
    let body = format!(r#"{{"results":[{PUBLISHED},{late}]}}"#);
    let (publisher, serving) = serve(vec![response(202, &body)]).await;
    let answer = publisher
        .post("t", "x", PublishEncoding::Protobuf, &[], true)
        .await
        .unwrap();
    assert_eq!(answer.status, 202);
    let facts: Vec<_> = answer
        .results
        .iter()
        .map(|it| (it.position.offset, it.matched, it.duplicate))
        .collect();
    assert_eq!(facts, [(42, Some(3), false), (0, None, true)]);

    let (seen, _) = serving.await.unwrap();
    let head = &seen[0].0;
    assert!(head.starts_with("POST /v1/tenants/t/events:batch HTTP/1.1\r\n"));
    assert!(head.contains("content-type: application/x-protobuf\r\n"));
}

#[tokio::test]
async fn a_connection_is_reused_even_after_a_refusal() {
    let refusal = r#"{"code":"VALIDATION_ERROR","detail":"no topic",
        "errors":[{"index":1,"field":"topics","message":"none"}]}"#;
    let answers = vec![
        response(200, PUBLISHED),
        response(400, refusal),
        response(200, PUBLISHED),
    ];
    let (publisher, serving) = serve(answers).await;
    let post = async || {
        publisher
            .post("t", "{}", PublishEncoding::Json, &[], false)
            .await
    };
    post().await.unwrap();
    let refused = post().await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the relay refused: 400 VALIDATION_ERROR: no topic; event 1: topics: none"
    );
    post().await.unwrap();
    assert_eq!(serving.await.unwrap().1, 1);
}

#[tokio::test]
async fn a_connection_that_ended_between_calls_is_replaced() {
    let closing = response(200, PUBLISHED).replace("X\r\n", "X\r\nConnection: close\r\n");
    let (publisher, serving) = serve(vec![closing, response(200, PUBLISHED)]).await;
    for _ in 0..2 {
        publisher
            .post("t", "{}", PublishEncoding::Json, &[], false)
            .await
            .unwrap();
    }
    let (seen, connections) = serving.await.unwrap();
    assert_eq!((seen.len(), connections), (2, 2));
}

#[tokio::test]
async fn a_call_is_not_retried_if_the_connection_breaks_before_the_answer() {
    let answers = vec![response(200, PUBLISHED), String::new()];
    let (publisher, serving) = serve(answers).await;
    let post = async || {
        publisher
            .post("t", "{}", PublishEncoding::Json, &[], false)
            .await
    };
    post().await.unwrap();
    let lost = post().await;
    assert!(matches!(lost, Err(CallFailure::Lost(_))), "{lost:?}");
    assert_eq!(serving.await.unwrap().0.len(), 2);
}

#[tokio::test]
async fn an_unreachable_address_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let publisher = EventPublisher::new(&url, None).unwrap();
    let unreachable = publisher
        .post("t", "{}", PublishEncoding::Json, &[], false)
        .await;
    assert!(
        matches!(unreachable, Err(CallFailure::Unreachable { .. })),
        "{unreachable:?}"
    );
}

#[tokio::test]
async fn an_answer_that_no_relay_sends_is_an_error() {
    for body in [
        "",
        "OK",
        "{}",
        r#"{"results":[]}"#,
        &PUBLISHED.replace(r#""42""#, "42"),
        &PUBLISHED.replace("42", "x"),
    ] {
        let (publisher, _serving) = serve(vec![response(200, body)]).await;
        let answer = publisher
            .post("t", "{}", PublishEncoding::Json, &[], false)
            .await;
        assert!(
            matches!(answer, Err(CallFailure::Protocol(_))),
            "{body}: {answer:?}"
        );
    }
}

#[test]
fn an_unusable_url_or_key_is_refused() {
    for url in [
        "",
        "https://127.0.0.1:3001",
        "ws://127.0.0.1:3001",
        "http://",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:3001?x=1",
        "unix:",
    ] {
        let refused = EventPublisher::new(url, None);
        assert!(
            matches!(refused, Err(CallFailure::Address(_))),
            "{url}: {refused:?}"
        );
    }
    let key = Credential::new("a\nb");
    let refused = EventPublisher::new("http://127.0.0.1:3001", Some(&key));
    assert!(matches!(refused, Err(CallFailure::MalformedKey)));
}

#[tokio::test]
async fn the_path_of_the_url_is_kept() {
    let (publisher, serving) = serve_at("/relay/", vec![response(200, PUBLISHED)]).await;
    publisher
        .post("t", "{}", PublishEncoding::Json, &[], false)
        .await
        .unwrap();
    let (seen, _) = serving.await.unwrap();
    let (head, _) = &seen[0];
    assert!(
        head.starts_with("POST /relay/v1/tenants/t/events HTTP/1.1\r\n"),
        "{head}"
    );
}
