//! `sidewire serve` and SIGHUP with a custom schema: additions apply to the next event, and
//! a change that would break clients is refused as a whole.

use std::fs;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sidewire_client::{RelayConnection, RelayMessage};
use sidewire_testing::{
    http::http,
    process::{PATIENCE, Signal},
    relay::{Files, INGEST_KEY, Relay, log_line, subscribe, token},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::reload::{connect, edit, is_there, lines, reload};

const CHAT: &str = r#"syntax = "proto3";
package chat.v1;
import "sidewire/v1/options.proto";
import "sidewire/v1/relay.proto";
message Envelope {
  string message_id = 1;
  int64 timestamp = 8;
  sidewire.v1.Position position = 9;
  repeated string topics = 18;
  oneof payload {
    Post post = 2;
    sidewire.v1.Subscribe subscribe = 10;
    sidewire.v1.SubscriptionConfirmed subscription_confirmed = 11;
    sidewire.v1.Unsubscribe unsubscribe = 12;
    sidewire.v1.UnsubscribeConfirmed unsubscribe_confirmed = 13;
    sidewire.v1.Ping ping = 14;
    sidewire.v1.Pong pong = 15;
    sidewire.v1.ErrorResponse error = 16;
  }
}
message Post {
  string room_id = 1 [(sidewire.v1.topic) = "room"];
  string author = 2;
  Mood mood = 3;
}
enum Mood {
  MOOD_UNSPECIFIED = 0;
  MOOD_GLAD = 1;
}
"#;

/// Starts a relay with the schema, and a client in the room `r1`.
async fn start() -> (Relay, RelayConnection) {
    let files = Files::new();
    files.write("chat.proto", CHAT);
    let config = fs::read_to_string(files.config()).unwrap();
    let section = "[schema]\nfiles = [\"chat.proto\"]\nenvelope = \"chat.v1.Envelope\"\n[log]";
    files.write("sidewire.toml", &config.replace("[log]", section));
    let relay = Relay::serve(files);
    let mut ann = connect(&relay, &token("acme", "ann")).await.unwrap();
    subscribe(&mut ann, "room:r1").await;
    (relay, ann)
}

/// Writes the schema with these replacements.
fn write(relay: &Relay, edits: &[(&str, &str)]) {
    let mut text = CHAT.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    relay.files.write("chat.proto", &text);
}

/// Posts an event and returns its topics, or the problem document if it is refused.
fn post(relay: &Relay, event: &Value) -> Result<Value, Value> {
    let body = event.to_string();
    let length = body.len();
    let answer = http(
        relay.ingest,
        &format!(
            "POST /v1/tenants/acme/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nAuthorization: Bearer {INGEST_KEY}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ),
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    if head.starts_with("HTTP/1.1 200 ") {
        Ok(body["topics"].clone())
    } else {
        Err(body)
    }
}

/// Asserts that the next event of the client contains this text.
async fn gets(client: &mut RelayConnection, text: &str) {
    match timeout(PATIENCE, client.receive()).await.unwrap() {
        Ok(RelayMessage::Event(event)) => {
            let bytes = event.envelope;
            assert!(
                bytes
                    .windows(text.len())
                    .any(|window| window == text.as_bytes())
            );
        }
        other => panic!("{other:?}"),
    }
}

/// Sends SIGHUP and returns the message of the `times`th refused reload.
fn refused_reload(relay: &Relay, times: usize) -> String {
    relay.process.signal(Signal::HUP);
    relay.process.stderr_has(|log| {
        let messages = log.split_inclusive('\n').filter_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            Some(line["message"].as_str()?.to_owned())
        });
        messages
            .filter(|message| message.starts_with("the config is not reloaded"))
            .nth(times - 1)
    })
}

/// Returns the only schema revision in the metrics.
fn revision(relay: &Relay) -> String {
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let scrape = http(relay.ops, request);
    let series: Vec<_> = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("sidewire_schema_revision{revision=\""))
        .collect();
    assert_eq!(series.len(), 1, "{series:?}");
    series[0].strip_suffix("\"} 1").unwrap().to_owned()
}

fn reloads(relay: &Relay) -> [f64; 3] {
    ["applied", "unchanged", "refused"].map(|result| {
        relay.metric(&format!(
            "sidewire_schema_reloads_total{{result=\"{result}\"}}"
        ))
    })
}

#[tokio::test]
async fn a_batch_is_answered_with_404_under_a_schema_without_batches() {
    let (relay, _ann) = start().await;
    for body in ["", r#"{"messages": []}"#] {
        let head = "POST /v1/tenants/acme/events:batch HTTP/1.1\r\nHost: localhost\r\n\
                    Connection: close\r\nContent-Type: application/json\r\n";
        let request = format!(
            "{head}Authorization: Bearer {INGEST_KEY}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = http(relay.ingest, &request);
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        assert!(answer.contains("\"code\":\"NOT_FOUND\""), "{answer}");
        let request = request.replace(INGEST_KEY, "another key, which the relay does not know");
        let answer = http(relay.ingest, &request);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
}

#[tokio::test]
async fn an_addition_to_the_schema_applies_to_the_next_event() {
    let (relay, mut ann) = start().await;
    let post_event = json!({"post": {"roomId": "r1", "author": "bob"}});
    assert_eq!(post(&relay, &post_event), Ok(json!(["room:r1"])));
    gets(&mut ann, "bob").await;
    let edit_event = json!({"edit": {"roomId": "r1", "text": "fixed"}});
    let unknown = post(&relay, &edit_event).unwrap_err();
    assert!(unknown["detail"].as_str().unwrap().contains("edit"));
    let first = revision(&relay);
    let started = relay
        .process
        .stderr_has(|log| log_line(log, "schema compiled"));
    assert_eq!(started["revision"], first);
    assert_eq!(started["envelope"], "chat.v1.Envelope");
    assert_eq!(started["events"], 1);
    assert!(started["milliseconds"].is_u64(), "{started}");

    write(
        &relay,
        &[
            ("Post post = 2;", "Post post = 2;\nEdit edit = 3;"),
            (
                "string author = 2;",
                "string author = 2 [(sidewire.v1.topic) = \"author\"];",
            ),
            ("MOOD_GLAD = 1;", "MOOD_GLAD = 1;\nMOOD_SAD = 2;"),
            (
                "message Post {",
                "message Edit { string room_id = 1 [(sidewire.v1.topic) = \"room\"]; string text = 2; }\nmessage Post {",
            ),
        ],
    );
    reload(&relay, 1);
    assert_eq!(post(&relay, &edit_event), Ok(json!(["room:r1"])));
    gets(&mut ann, "fixed").await;
    subscribe(&mut ann, "author:eve").await;
    let elsewhere = json!({"post": {"roomId": "r2", "author": "eve", "mood": "MOOD_SAD"}});
    assert_eq!(
        post(&relay, &elsewhere),
        Ok(json!(["room:r2", "author:eve"]))
    );
    gets(&mut ann, "eve").await;
    let second = revision(&relay);
    assert_ne!(second, first);
    assert_eq!(reloads(&relay), [1.0, 0.0, 0.0]);
    let reloaded = relay
        .process
        .stderr_has(|log| log_line(log, "schema reloaded"));
    assert_eq!(reloaded["revision"], second);
    assert_eq!(reloaded["events"], 2);

    // A comment makes no difference to clients.
    let text = fs::read_to_string(relay.files.path("chat.proto")).unwrap();
    relay
        .files
        .write("chat.proto", &format!("{text}// The end.\n"));
    reload(&relay, 2);
    assert_eq!(revision(&relay), second);
    assert_eq!(reloads(&relay), [1.0, 1.0, 0.0]);
    is_there(&mut ann).await;
}

#[tokio::test]
async fn a_schema_that_breaks_clients_is_refused_with_every_breaking_change() {
    let (relay, mut ann) = start().await;
    let first = revision(&relay);
    let event = json!({"post": {"roomId": "r1", "author": "bob", "mood": "MOOD_GLAD"}});
    // Together with a config change that would be valid by itself.
    edit(
        &relay,
        &[("shards = 2", "shards = 2\ntopics_per_subscribe = 1")],
    );
    write(
        &relay,
        &[
            ("string author = 2;", "int32 author = 2;"),
            (" [(sidewire.v1.topic) = \"room\"]", ""),
            ("MOOD_GLAD = 1;", "MOOD_GLAD = 2;"),
        ],
    );
    let message = refused_reload(&relay, 1);
    for line in [
        "  chat.v1.Post.room_id is no longer annotated with (sidewire.v1.topic) = \"room\"; restore the annotation",
        "  chat.v1.Post.author was declared as `string` and is now `int32`; restore the type, and declare a new field if another one is wanted",
        "  chat.v1.Mood.MOOD_GLAD had the number 1 and now has 2; restore 1, and declare a new value if another number is wanted",
    ] {
        assert!(message.lines().any(|it| it == line), "{line}: {message}");
    }
    assert!(message.contains("sidewire.toml:"), "{message}");
    assert!(
        message.contains("\n  hint: undo these changes"),
        "{message}"
    );
    assert_eq!(revision(&relay), first);
    assert_eq!(reloads(&relay), [0.0, 0.0, 1.0]);
    assert_eq!(relay.metric("sidewire_config_reload_successful"), 0.0);
    assert_eq!(post(&relay, &event), Ok(json!(["room:r1"])));
    gets(&mut ann, "bob").await;
    ann.subscribe(["room:r2", "room:r3"]).await.unwrap();
    let received = timeout(PATIENCE, ann.receive()).await.unwrap();
    assert!(
        matches!(received, Ok(RelayMessage::SubscriptionConfirmed(_))),
        "{received:?}"
    );

    // An invalid .proto file is reported with its line.
    write(&relay, &[("string author = 2;", "string author 2;")]);
    let message = refused_reload(&relay, 2);
    assert!(message.contains("chat.proto:23: error: "), "{message}");
    assert_eq!(reloads(&relay), [0.0, 0.0, 2.0]);
    assert_eq!(revision(&relay), first);
    assert_eq!(post(&relay, &event), Ok(json!(["room:r1"])));
    gets(&mut ann, "bob").await;

    // Once the file is fixed, the rest of the config takes effect too.
    write(&relay, &[]);
    reload(&relay, 1);
    assert_eq!(revision(&relay), first);
    assert_eq!(reloads(&relay), [0.0, 1.0, 2.0]);
    ann.subscribe(["room:r4", "room:r5"]).await.unwrap();
    let received = timeout(PATIENCE, ann.receive()).await.unwrap();
    assert!(
        matches!(received, Ok(RelayMessage::Error(_))),
        "{received:?}"
    );
}

#[tokio::test]
async fn a_reload_logs_the_warnings_of_the_new_schema() {
    let (relay, mut ann) = start().await;
    write(
        &relay,
        &[
            ("Post post = 2;", "Post post = 2;\n    Closed closed = 3;"),
            (
                "enum Mood",
                "message Closed { string room_id = 1; }\nenum Mood",
            ),
        ],
    );
    reload(&relay, 1);
    relay.process.stderr_has(|log| {
        let message = "schema: the event closed relates to no topic: nothing in it is annotated";
        let warnings = lines(log, message);
        let [warning] = &warnings[..] else {
            assert!(warnings.is_empty(), "{warnings:?}");
            return None;
        };
        assert_eq!(warning["level"], "WARN");
        assert_eq!(warning["line"], 12);
        Some(())
    });
    is_there(&mut ann).await;
}

#[tokio::test]
async fn another_envelope_waits_for_a_restart_and_the_rest_is_applied() {
    let (relay, mut ann) = start().await;
    let first = revision(&relay);
    relay
        .files
        .write("other.proto", &CHAT.replace("chat.v1", "other.v1"));
    edit(
        &relay,
        &[
            ("chat.proto", "other.proto"),
            ("chat.v1.Envelope", "other.v1.Envelope"),
            ("shards = 2", "shards = 2\ntopics_per_subscribe = 1"),
        ],
    );
    reload(&relay, 1);
    assert_eq!(revision(&relay), first);
    assert_eq!(reloads(&relay), [0.0, 1.0, 0.0]);
    relay.process.stderr_has(|log| {
        let named = "this config key cannot change without a restart; the old value stays";
        let named = lines(log, named);
        assert_eq!(named.len(), 1);
        assert_eq!(named[0]["key"], "schema.envelope");
        Some(())
    });
    ann.subscribe(["room:r4", "room:r5"]).await.unwrap();
    let received = timeout(PATIENCE, ann.receive()).await.unwrap();
    assert!(
        matches!(received, Ok(RelayMessage::Error(_))),
        "{received:?}"
    );
}

/// Connects a JSON client in the room `r1`. Returns it with the confirmation of its Subscribe.
async fn json_client(relay: &Relay, resume_from: &Value) -> (WebSocketStream<TcpStream>, Value) {
    let mut request = relay.client_url().into_client_request().unwrap();
    let offer = format!("sidewire.v1.json, bearer.{}", token("acme", "eve"));
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", offer.parse().unwrap());
    let stream = TcpStream::connect(relay.client).await.unwrap();
    let (mut client, _) = client_async(request, stream).await.unwrap();
    let mut subscribe = json!({"topics": ["room:r1"]});
    if !resume_from.is_null() {
        subscribe["resumeFrom"] = resume_from.clone();
    }
    let envelope = json!({"messageId": "s1", "subscribe": subscribe});
    client
        .send(Message::text(envelope.to_string()))
        .await
        .unwrap();
    let confirmed = next_json(&mut client).await["subscriptionConfirmed"].take();
    (client, confirmed)
}

async fn next_json(client: &mut WebSocketStream<TcpStream>) -> Value {
    loop {
        let next = timeout(PATIENCE, client.next()).await.unwrap();
        if let Message::Text(text) = next.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[tokio::test]
async fn a_stored_event_is_rendered_by_the_schema_under_which_it_was_posted() {
    let (relay, _ann) = start().await;
    let (mut eve, confirmed) = json_client(&relay, &Value::Null).await;
    let before = confirmed["position"].clone();
    let event = json!({"post": {"roomId": "r1", "author": "bob"}});
    assert_eq!(post(&relay, &event), Ok(json!(["room:r1"])));
    assert_eq!(next_json(&mut eve).await["post"], event["post"]);

    let without_author = ("string author = 2;", "reserved 2; reserved \"author\";");
    write(&relay, &[without_author]);
    reload(&relay, 1);
    let refused = post(&relay, &event).unwrap_err();
    assert!(
        refused["detail"].as_str().unwrap().contains("author"),
        "{refused}"
    );
    let newer = json!({"post": {"roomId": "r1", "mood": "MOOD_GLAD"}});
    assert_eq!(post(&relay, &newer), Ok(json!(["room:r1"])));
    assert_eq!(next_json(&mut eve).await["post"], newer["post"]);

    let (mut eve, confirmed) = json_client(&relay, &before).await;
    assert_eq!(confirmed["recovered"], true, "{confirmed}");
    assert_eq!(next_json(&mut eve).await["post"], event["post"]);
    assert_eq!(next_json(&mut eve).await["post"], newer["post"]);
}
