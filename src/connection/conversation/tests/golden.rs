//! The bytes that a client of the bundled schema sends, and how they are understood. (Those of
//! the replies are tested beside `protocol::reply`.)

use super::*;

/// Returns the bytes of commented hexadecimal text, and checks that a client of the schema would
/// encode this JSON as those bytes.
fn golden(hex: &str, json: &Value) -> Vec<u8> {
    let bytes: Vec<u8> = hex
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    assert_eq!(frame(json), bytes, "{json}");
    bytes
}

#[test]
fn subscribe_has_the_schema_lists_topics_and_resume_position() {
    let frame = golden(
        "0a 01 6d \
         40 05 \
         52 3a \
         0a 01 70 0a 01 71 \
         12 01 73 \
         1a 01 77 \
         82 01 03 61 3a 31 \
         8a 01 25 \
         0a 20 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 \
         30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 65 \
         10 ac 02",
        &json!({
            "messageId": "m",
            "timestamp": "5",
            "subscribe": {
                "projectIds": ["p", "q"],
                "sprintIds": ["s"],
                "workItemIds": ["w"],
                "topics": ["a:1"],
                "resumeFrom": {"epoch": position().epoch.to_string(), "offset": "300"},
            },
        }),
    );
    let listed = |number, ids: &[&str]| ListedIds {
        number,
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
    };
    let topics = ["project:p", "project:q", "sprint:s", "work_item:w", "a:1"];
    assert_eq!(
        conversation().handle_frame(&SCHEMA, &frame, NOW),
        ConversationAction::Request(ClientRequest::Subscribe(TopicsRequest {
            topics: topics.map(|text| Topic::parse(text).unwrap()).into(),
            resume_from: Some(Ok(Position {
                offset: 300,
                ..position()
            })),
            answer: TopicsAnswer {
                message_id: "m".to_owned(),
                lists: vec![listed(1, &["p", "q"]), listed(2, &["s"]), listed(3, &["w"])],
                texts: vec!["a:1".to_owned()],
            },
        }))
    );
}

#[test]
fn unsubscribe_has_the_schema_lists_and_topics() {
    let frame = golden(
        "0a 01 6d \
         62 0f \
         0a 01 70 \
         12 01 73 \
         1a 01 77 \
         82 01 03 61 3a 31",
        &json!({
            "messageId": "m",
            "unsubscribe": {
                "projectIds": ["p"],
                "sprintIds": ["s"],
                "workItemIds": ["w"],
                "topics": ["a:1"],
            },
        }),
    );
    let action = conversation().handle_frame(&SCHEMA, &frame, NOW);
    assert!(
        matches!(
            &action,
            ConversationAction::Request(ClientRequest::Unsubscribe(_))
        ),
        "{action:?}"
    );
    assert_eq!(
        topics(&action),
        ["project:p", "sprint:s", "work_item:w", "a:1"]
    );
}

#[test]
fn an_empty_subscribe_is_two_bytes() {
    let frame = golden("52 00", &json!({"subscribe": {}}));
    let action = conversation().handle_frame(&SCHEMA, &frame, NOW);
    assert!(
        matches!(
            &action,
            ConversationAction::Request(ClientRequest::Subscribe(_))
        ),
        "{action:?}"
    );
    assert!(topics(&action).is_empty());
}

#[test]
fn ping_has_the_clients_time() {
    let frame = golden(
        "0a 01 6d 72 02 08 05",
        &json!({"messageId": "m", "ping": {"timestamp": "5"}}),
    );
    let pong = wire::Pong {
        timestamp: NOW,
        client_timestamp: 5,
        position: None,
    };
    assert_eq!(
        conversation().handle_frame(&SCHEMA, &frame, NOW),
        ConversationAction::Reply(Reply::Pong(pong))
    );
}

#[test]
fn fields_in_another_order_and_unknown_fields_are_accepted() {
    let frame = [
        field(500, b"from a newer client"),
        field(14, &[0x08, 5, 0x10, 9]),
        field(1, b"m"),
    ]
    .concat();
    assert_eq!(
        answer(&conversation(), &frame)["pong"]["clientTimestamp"],
        "5"
    );
}
