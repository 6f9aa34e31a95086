//! `tail` against a fake relay over TCP.

use std::{
    future::{pending, ready},
    io,
};

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use sidewire_client::{ControlMessage, Envelope};
use sidewire_protocol::{
    schema::{BundledSchema, JsonError, Schema},
    wire,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::cli::fake_relay::{accept, listen, send};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: TailArgs,
}

fn parse(words: &[&str]) -> Result<TailArgs, clap::Error> {
    Command::try_parse_from(["tail"].iter().chain(words)).map(|command| command.args)
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

fn reader() -> EventReader<'static, impl Fn(&[u8]) -> Result<String, String>> {
    EventReader {
        filter: EventFilter::default(),
        decode,
        presence: None,
    }
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
            run(args, &url, reader(), &mut out, pending()),
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
    let running = run(args, &url, reader(), &mut full, pending());
    let (outcome, ()) = tokio::join!(running, serve(listener));
    assert_eq!(outcome.unwrap_err().exit_code, 1);
}

#[tokio::test]
async fn tail_stops_on_request() {
    let args = parse(&["kind:1"]).unwrap();
    let url = "ws://127.0.0.1:3000/ws";
    let stop = ready(());
    run(args, url, reader(), &mut Vec::new(), stop)
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
    let (outcome, ()) = tokio::join!(run(args, &url, reader(), &mut out, pending()), serving);
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
        outcome = run(args, &url, reader(), &mut out, pending()) => panic!("{outcome:?}"),
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
        run(args, &url, reader(), &mut Vec::new(), pending()).await
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

/// Runs `tail --presence` until it has printed what the relay sends, and returns that.
async fn printed_presence(words: &[&str], schema: &Schema, sent: &[&str]) -> String {
    let (listener, url) = listen().await;
    let count = sent.len().to_string();
    let args = parse(&[words, &["--presence", "--count", &count, "room:1"]].concat()).unwrap();
    let reader = EventReader {
        filter: EventFilter::default(),
        decode: |envelope: &[u8]| -> Result<String, JsonError> {
            schema.envelope_to_json_text(envelope)
        },
        presence: Some(schema),
    };
    let serving = async {
        let mut peer = accept(&listener).await;
        peer.next().await.unwrap().unwrap();
        for json in sent {
            let envelope = schema.envelope_from_json(json.as_bytes()).unwrap();
            peer.send(Message::Binary(envelope.into())).await.unwrap();
        }
        while peer.next().await.is_some_and(|frame| frame.is_ok()) {}
    };
    let mut out = Vec::new();
    let (outcome, ()) = tokio::join!(run(args, &url, reader, &mut out, pending()), serving);
    outcome.unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn presence_is_printed_with_the_message_that_tells_it() {
    let generic = BundledSchema::by_name("generic").unwrap();
    let schema = generic.compile().unwrap();
    let sent = [
        r#"{"presence":{"userId":"ann","topics":["room:1"]}}"#,
        r#"{"message":{"type":"wave","userId":"ann","topics":["room:1"]}}"#,
        r#"{"presence":{"userId":"ann","topics":["room:1"],"absent":true}}"#,
    ];
    let lines = [
        format!(
            r#"{{"presence":{{"present":true,"topics":["room:1"],"user":"ann"}},"event":{}}}"#,
            sent[0]
        ),
        sent[1].to_owned(),
        format!(
            r#"{{"presence":{{"present":false,"topics":["room:1"],"user":"ann"}},"event":{}}}"#,
            sent[2]
        ),
    ];
    let printed = printed_presence(&[], &schema, &sent).await;
    assert_eq!(printed, lines.join("\n") + "\n");
    let pretty = printed_presence(&["--format", "pretty"], &schema, &sent[..1]).await;
    assert!(pretty.contains("\"present\": true"), "{pretty}");
}
