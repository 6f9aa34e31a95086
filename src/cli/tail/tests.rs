//! `tail` against a fake relay over TCP.

use std::{
    future::{pending, ready},
    io,
};

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use sidewire_client::{ControlMessage, Envelope, SUBPROTOCOL};
use sidewire_protocol::wire;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: TailArgs,
}

fn parse(words: &[&str]) -> Result<TailArgs, clap::Error> {
    Command::try_parse_from(["tail"].iter().chain(words)).map(|command| command.args)
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    (listener, url)
}

#[expect(clippy::result_large_err, reason = "tungstenite's callback is so")]
async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let echo = |_: &Request, mut response: Response| {
        let headers = response.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", SUBPROTOCOL.parse().unwrap());
        Ok::<_, ErrorResponse>(response)
    };
    let (stream, _) = listener.accept().await.unwrap();
    accept_hdr_async(stream, echo).await.unwrap()
}

async fn send(
    peer: &mut WebSocketStream<TcpStream>,
    message_id: &str,
    control: Option<ControlMessage>,
) {
    let envelope = Envelope {
        message_id: message_id.to_owned(),
        control,
        ..Default::default()
    };
    let message = Message::Binary(envelope.encode_to_vec().into());
    peer.send(message).await.unwrap();
}

/// Accepts, waits for the Subscribe, and sends these events, the middle one of
/// which cannot be decoded.
async fn serve(listener: TcpListener) {
    let mut peer = accept(&listener).await;
    peer.next().await.unwrap().unwrap();
    for message_id in ["first", "bad", "last"] {
        send(&mut peer, message_id, None).await;
    }
    while peer.next().await.is_some_and(|frame| frame.is_ok()) {}
}

fn decode(bytes: &[u8]) -> Result<String, String> {
    let id = Envelope::decode(bytes).unwrap().message_id;
    if id == "bad" {
        return Err("no such field".to_owned());
    }
    Ok(serde_json::json!({ "messageId": id }).to_string())
}

/// A pipe with a reader that closes after a number of lines.
struct Pipe {
    text: String,
    lines_max: usize,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.lines().count() == self.lines_max && self.text.ends_with('\n') {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.text.push_str(str::from_utf8(bytes).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn events_are_printed_until_the_reader_goes_away() {
    for (format, lines_max, printed) in [
        ("json", 1, "{\"messageId\":\"first\"}\n"),
        ("pretty", 3, "{\n  \"messageId\": \"first\"\n}\n"),
    ] {
        let (listener, url) = listen().await;
        let args = parse(&["--format", format, "kind:1"]).unwrap();
        let text = String::new();
        let mut out = Pipe { text, lines_max };
        let (outcome, ()) = tokio::join!(
            run(
                args,
                &url,
                EventFilter::default(),
                decode,
                &mut out,
                pending()
            ),
            serve(listener)
        );
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(out.text, printed);
    }
}

#[tokio::test]
async fn output_that_cannot_be_written_is_a_failure() {
    let (listener, url) = listen().await;
    let args = parse(&[]).unwrap();
    let mut full: &mut [u8] = &mut [];
    let running = run(
        args,
        &url,
        EventFilter::default(),
        decode,
        &mut full,
        pending(),
    );
    let (outcome, ()) = tokio::join!(running, serve(listener));
    assert_eq!(outcome.unwrap_err().exit_code, 1);
}

#[tokio::test]
async fn tail_stops_on_request() {
    let args = parse(&["kind:1"]).unwrap();
    let url = "ws://127.0.0.1:3000/ws";
    let stop = ready(());
    run(
        args,
        url,
        EventFilter::default(),
        decode,
        &mut Vec::new(),
        stop,
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_refused_token_ends_tail_with_status_3_and_a_hint() {
    let (listener, url) = listen().await;
    let args = parse(&["kind:1"]).unwrap();
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let read = stream.read(&mut [0; 4096]).await.unwrap();
        assert!(read > 0);
        let refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(refusal).await.unwrap();
    };
    let mut out = Vec::new();
    let (outcome, ()) = tokio::join!(
        run(
            args,
            &url,
            EventFilter::default(),
            decode,
            &mut out,
            pending()
        ),
        serving
    );
    let failure = outcome.unwrap_err();
    assert_eq!(failure.exit_code, 3);
    assert!(
        failure
            .to_string()
            .contains("connect again with a new token"),
        "{failure}"
    );
    assert!(failure.to_string().contains("--token-file"), "{failure}");
    assert!(out.is_empty());
}

#[tokio::test]
async fn tail_starts_after_the_given_position() {
    let (listener, url) = listen().await;
    let since = format!("{}:42", "0f".repeat(16));
    let args = parse(&["--since", &since, "kind:1"]).unwrap();
    let serving = async {
        let mut peer = accept(&listener).await;
        let Message::Binary(bytes) = peer.next().await.unwrap().unwrap() else {
            panic!("no Subscribe");
        };
        Envelope::decode(bytes).unwrap().control
    };
    let mut out = Vec::new();
    let control = tokio::select! {
        outcome = run(args, &url, EventFilter::default(), decode, &mut out, pending()) => panic!("{outcome:?}"),
        control = serving => control,
    };
    let Some(ControlMessage::Subscribe(subscribe)) = control else {
        panic!("{control:?}");
    };
    let resume_from = subscribe.resume_from.unwrap();
    assert_eq!(
        (resume_from.epoch, resume_from.offset),
        ("0f".repeat(16), 42)
    );
}

#[tokio::test]
async fn a_refused_subscribe_ends_tail() {
    let (listener, url) = listen().await;
    let args = parse(&["kind:1"]).unwrap();
    let serving = async {
        let mut peer = accept(&listener).await;
        peer.next().await.unwrap().unwrap();
        let error = wire::ErrorResponse {
            error_code: "AUTHORIZATION_FAILED".to_owned(),
            error_message: "not yours".to_owned(),
            ..Default::default()
        };
        send(&mut peer, "e", Some(ControlMessage::Error(error))).await;
        while peer.next().await.is_some_and(|frame| frame.is_ok()) {}
    };
    let running = async {
        // Dropping the client ends the fake relay's read loop.
        run(
            args,
            &url,
            EventFilter::default(),
            decode,
            &mut Vec::new(),
            pending(),
        )
        .await
    };
    let (outcome, ()) = tokio::join!(running, serving);
    let failure = outcome.unwrap_err();
    assert_eq!(failure.exit_code, 1);
    assert!(failure.to_string().contains("not yours"), "{failure}");
}

#[test]
fn an_invalid_topic_is_wrong_usage() {
    assert!(parse(&["kind"]).is_err());
    assert!(parse(&["--format", "xml", "kind:1"]).is_err());
    for since in ["42", "7c3e:42", &format!("{}:x", "0f".repeat(16))] {
        let refused = parse(&["--since", since, "kind:1"]);
        assert!(refused.is_err_and(|error| error.to_string().contains("--since")));
    }
    assert_eq!(parse(&["kind:1", "kind:2"]).unwrap().topics.len(), 2);
}
