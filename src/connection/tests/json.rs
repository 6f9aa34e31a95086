//! Clients that speak JSON: they get what binary clients get, and what they send is treated like
//! what binary clients send.

use std::num::NonZeroU32;

use serde_json::{Value, json};
use sidewire_protocol::{Position, TenantName};

use crate::connection::{
    testing::{ConnectionFixture, FrameClient, WIDE, event, settle, simulate},
    wire_testing::{BINARY, ReceivedFrame, TEXT, frame, json as text, subscribe},
};

/// About the largest frame with a few values that a shard decodes itself.
const READ_AT_ONCE_MAX: usize = 15 * 1024;

/// A frame of this many bytes is never decoded by the shard itself.
const WEIGHT_AT_ONCE_MAX: usize = 16 * 1024;

pub(super) fn acme() -> TenantName {
    TenantName::parse("acme").unwrap()
}

pub(super) fn subscribe_json(id: &str, topic: &str) -> Vec<u8> {
    text(&json!({"messageId": id, "subscribe": {"topics": [topic]}}).to_string())
}

/// The same message in a frame of this many bytes.
pub(super) fn padded(id: &str, topic: &str, len: usize) -> Vec<u8> {
    let short = json!({"messageId": id, "subscribe": {"topics": [topic]}}).to_string();
    let padding = " ".repeat(len - short.len());
    text(&(short + &padding))
}

pub(super) fn resume_json(id: &str, topic: &str, from: Position) -> Vec<u8> {
    let position = json!({"epoch": from.epoch.to_string(), "offset": from.offset});
    let subscribe = json!({"topics": [topic], "resumeFrom": position});
    text(&json!({"messageId": id, "subscribe": subscribe}).to_string())
}

pub(super) async fn hears(
    client: &mut FrameClient,
    heard: impl IntoIterator<Item = ReceivedFrame>,
) {
    for heard in heard {
        assert_eq!(client.next().await, Some(heard));
    }
}

#[test]
fn an_event_reaches_json_and_binary_clients_and_is_rendered_once() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut clients = [
            fixture.connect(WIDE),
            fixture.connect_json(WIDE),
            fixture.connect_json(WIDE),
        ];
        assert!(fixture.shard.relay.publisher.has_json_connection(&acme()));
        for _ in 0..3 {
            fixture.publish([event(10)]).await;
        }
        fixture.publish([event(10), event(20)]).await;
        for client in &mut clients {
            hears(client, (1..=5).map(ReceivedFrame::Event)).await;
        }
        assert_eq!(fixture.tally().json_delivered.get(), 5);
        assert_eq!(fixture.tally().json_connections.get(), 2);
        drop(clients);
        settle().await;
        assert!(!fixture.shard.relay.publisher.has_json_connection(&acme()));
        assert_eq!(fixture.tally().json_connections.get(), 0);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn without_json_clients_no_json_is_rendered() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(WIDE);
        fixture.publish([event(10)]).await;
        assert_eq!(client.next().await, Some(ReceivedFrame::Event(1)));
        assert_eq!(fixture.tally().json_delivered.get(), 0);
    });
}

#[test]
fn a_message_in_json_is_answered_in_json() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_json(WIDE);
        client.send(subscribe_json("s", "project:p")).await;
        client
            .send(text(
                r#"{"message_id": "t", "subscribe": {"project_ids": ["q"]}}"#,
            ))
            .await;
        client
            .send(text(
                r#"{"messageId": "u", "unsubscribe": {"topics": ["project:p"]}}"#,
            ))
            .await;
        client.send(text(r#"{"ping": {"timestamp": "7"}}"#)).await;
        let heard = [
            ReceivedFrame::Subscribed("s".to_owned()),
            ReceivedFrame::Subscribed("t".to_owned()),
            ReceivedFrame::Unsubscribed("u".to_owned()),
            ReceivedFrame::Answered(Some(0)),
        ];
        hears(&mut client, heard).await;
        for wrong in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"subscribe": {"topics": "a:1"}}"#,
            r#"{"subscribe": {"colour": 1}}"#,
            r#"{"subscribe": {}, "ping": {}}"#,
            r#"{"subscribe": {}, "subscribe": {}}"#,
            r#"{"pong": {}}"#,
            &"[".repeat(READ_AT_ONCE_MAX),
            &format!(r#"{{"subscribe": {}"#, "{\"a\":".repeat(8 * 1024)),
        ] {
            client.send(text(wrong)).await;
            let refused = ReceivedFrame::Refused("VALIDATION_ERROR".to_owned());
            assert_eq!(client.next().await, Some(refused), "{wrong}");
        }
        drop(client);
        settle().await;
        fixture.check_nothing_is_left();
    });
}

/// Returns the id and the field of the refusal of this frame.
async fn refused(client: &mut FrameClient, frame: &str) -> (Value, Value) {
    client.send(text(frame)).await;
    let envelope = client.next_json().await;
    let error = &envelope["error"];
    assert_eq!(
        error["errorCode"], "VALIDATION_ERROR",
        "{frame}: {envelope}"
    );
    let message = error["errorMessage"].as_str().unwrap();
    assert!((1..=1000).contains(&message.len()), "{frame}: {message}");
    (
        error["requestMessageId"].clone(),
        error["fieldName"].clone(),
    )
}

#[test]
fn a_refusal_names_the_message_and_the_field_if_the_text_is_json() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_json(WIDE);
        let long_id = "i".repeat(129);
        for (frame, id, field) in [
            (
                r#"{"messageId":"m1","subscribe":{},"ping":{}}"#,
                json!("m1"),
                json!("ping"),
            ),
            (
                r#"{"ping":{"time":1},"message_id":"m2"}"#,
                json!("m2"),
                json!("ping"),
            ),
            (
                r#"{"messageId":"m3","subscribe":{"topics":["a:1",2]}}"#,
                json!("m3"),
                json!("subscribe.topics[1]"),
            ),
            (
                r#"{"messageId":"m4","pong":{}}"#,
                json!("m4"),
                json!("pong"),
            ),
            (r#"{"messageId":"m5"}"#, json!("m5"), json!("payload")),
            (
                r#"{"messageId":"m6","ping":{},"ping":{}}"#,
                json!("m6"),
                json!("ping"),
            ),
            // It is unclear which of them is meant.
            (
                r#"{"messageId":"m7","message_id":"m8","ping":{}}"#,
                Value::Null,
                json!("message_id"),
            ),
            (
                r#"{"messageId":9,"ping":{}}"#,
                Value::Null,
                json!("messageId"),
            ),
            // An id that is too long is not echoed.
            (
                &format!(r#"{{"messageId":"{long_id}","pong":{{}}}}"#),
                Value::Null,
                json!("message_id"),
            ),
            (r#"{"messageId":"m9","ping":{}"#, Value::Null, Value::Null),
            (
                r#"{"messageId":"m9","ping":{}} x"#,
                Value::Null,
                Value::Null,
            ),
        ] {
            assert_eq!(refused(&mut client, frame).await, (id, field), "{frame}");
        }
        drop(client);
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_refusal_repeats_no_more_than_a_kilobyte_of_what_the_client_sent() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_json(WIDE);
        let long = "x".repeat(30_000);
        for frame in [
            format!(r#"{{"messageId":"m","subscribe":{{"topics":{{"{long}":1}}}}}}"#),
            format!(r#"{{"messageId":"m","{long}":1}}"#),
            format!(r#"{{"messageId":"m","subscribe":{{"resumeFrom":{{"offset":"{long}"}}}}}}"#),
        ] {
            let (id, field) = refused(&mut client, &frame).await;
            assert_eq!(id, "m");
            assert!(field.as_str().is_none_or(|field| field.len() <= 1000));
        }
    });
}

#[test]
fn a_frame_is_charged_by_its_kind_before_it_is_read() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|config| {
            config.limits.user_burst = NonZeroU32::MIN;
            config.limits.heartbeat_burst = NonZeroU32::MIN;
        });
        let mut client = fixture.connect_json(WIDE);
        client.send(subscribe_json("first", "project:p")).await;
        client.send(subscribe_json("second", "project:q")).await;
        client.send(text(r#"{"ping":{}}"#)).await;
        let heard = [
            ReceivedFrame::Subscribed("first".to_owned()),
            ReceivedFrame::Subscribed("second".to_owned()),
            ReceivedFrame::Answered(Some(0)),
        ];
        hears(&mut client, heard).await;
        // Each would be refused for its content if it were decoded.
        for (id, frame) in [
            (
                json!("a"),
                r#"{"messageId":"a","unsubscribe":{"colour":1}}"#,
            ),
            (json!("b"), r#"{"messageId":"b","ping":{"colour":1}}"#),
            (json!("c"), r#"{"messageId":"c","colour":1}"#),
            (Value::Null, "{"),
        ] {
            client.send(text(frame)).await;
            let error = &client.next_json().await["error"];
            assert_eq!(error["errorCode"], "RATE_LIMIT_EXCEEDED", "{frame}");
            assert_eq!(error["requestMessageId"], id, "{frame}");
        }
    });
}

#[test]
fn small_frames_with_many_values_are_offloaded() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_json(WIDE);
        let topics = vec!["\"a:1\""; 300].join(",");
        let frame = format!(r#"{{"messageId":"s","subscribe":{{"topics":[{topics}]}}}}"#);
        assert!(frame.len() < READ_AT_ONCE_MAX);
        client.send(text(&frame)).await;
        client.send(text(r#"{"ping":{}}"#)).await;
        let heard = [
            ReceivedFrame::Subscribed("s".to_owned()),
            ReceivedFrame::Answered(Some(0)),
        ];
        hears(&mut client, heard).await;
        assert_eq!(fixture.tally().subscriptions.get(), 1);
    });
}

#[test]
fn frames_of_the_other_kind_are_answered_with_1003() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_json(WIDE);
        client.send(subscribe("s", "project:p")).await;
        let reason = "this connection speaks text frames".to_owned();
        assert_eq!(
            client.rest_after_close().await,
            [ReceivedFrame::Close(1003, reason)]
        );
        let mut client = fixture.connect(WIDE);
        client.send(subscribe_json("s", "project:p")).await;
        let reason = "this connection speaks binary frames".to_owned();
        assert_eq!(
            client.rest_after_close().await,
            [ReceivedFrame::Close(1003, reason)]
        );
        assert_eq!(fixture.closed("wrong_frame_type"), 2);
        let mut client = fixture.connect_json(WIDE);
        client.send(frame(TEXT, true, b"{\"\xff\": 1}")).await;
        let heard = client.rest_after_close().await;
        assert!(
            matches!(heard[..], [ReceivedFrame::Close(1007, _)]),
            "{heard:?}"
        );
        drop(client);
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn large_frames_are_offloaded_and_answered_in_order() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_json(WIDE);
        let mut sent = Vec::new();
        let mut expected = Vec::new();
        for (number, len) in [
            READ_AT_ONCE_MAX,
            WEIGHT_AT_ONCE_MAX,
            64 * 1024,
            100,
            WEIGHT_AT_ONCE_MAX,
        ]
        .into_iter()
        .enumerate()
        {
            let id = number.to_string();
            sent.extend(padded(&id, "project:p", len));
            expected.push(ReceivedFrame::Subscribed(id));
        }
        sent.extend(text(r#"{"ping": {}}"#));
        expected.push(ReceivedFrame::Answered(Some(0)));
        client.send(sent).await;
        hears(&mut client, expected).await;
        client.send(padded("s", "project:p", 64 * 1024 + 1)).await;
        let heard = client.rest_after_close().await;
        assert!(
            matches!(heard[..], [ReceivedFrame::Close(1009, _)]),
            "{heard:?}"
        );
        drop(client);
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn binary_and_text_frames_differ_only_in_their_opcodes() {
    assert_eq!(text("{}")[1..], frame(BINARY, true, b"{}")[1..]);
}
