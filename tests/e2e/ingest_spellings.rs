//! Correct and faulty spellings of an event's payload: the parts of the tables of ingest
//! tests that differ between the bundled schemas.

use serde_json::{Value, json};

use crate::vocabulary::TestSchema;

/// A case's name, the event, and the faulty field.
pub type Refused = (&'static str, Value, Option<&'static str>);

/// Returns events that are accepted, each with at least one topic.
pub fn taken(schema: TestSchema) -> Vec<(&'static str, Value)> {
    match schema {
        TestSchema::Tracker => vec![
            (
                "an empty id beside another",
                json!({"userTyping": {"projectId": "", "workItemId": "w"}}),
            ),
            (
                "null for what is not set",
                json!({
                    "messageId": null, "position": null, "ping": null,
                    "userTyping": {"projectId": "p", "workItemId": null},
                }),
            ),
            (
                "the .proto's names",
                json!({"message_id": "m", "user_typing": {"project_id": "p"}}),
            ),
            (
                "both styles of name",
                json!({"message_id": "n", "userTyping": {"projectId": "p", "work_item_id": "w"}}),
            ),
            (
                "an enum by number",
                json!({"userPresence": {"projectId": "p", "status": 1}}),
            ),
            (
                "an enum number without a name",
                json!({"userPresence": {"projectId": "p", "status": 99}}),
            ),
        ],
        TestSchema::Generic => vec![
            (
                "an empty topic beside another",
                json!({"message": {"topics": ["", "work_item:w"]}}),
            ),
            (
                "null for what is not set",
                json!({
                    "messageId": null, "position": null, "ping": null,
                    "message": {"topics": ["project:p"], "userId": null, "bytes": null},
                }),
            ),
            (
                "the .proto's names",
                json!({"message_id": "m", "message": {"user_id": "u", "topics": ["project:p"]}}),
            ),
            (
                "both styles of name",
                json!({
                    "message_id": "n", "topics": ["project:p"],
                    "event": {"userId": "u", "type": "t"},
                }),
            ),
            (
                "bytes without padding and in the alphabet of URLs",
                json!({"event": {"bytes": "_-8"}, "topics": ["project:p"]}),
            ),
            (
                "the same topic in two fields",
                json!({"presence": {"topics": ["project:p"]}, "topics": ["project:p"]}),
            ),
        ],
    }
}

/// Returns events that are refused. The field is named as in the text; for an unknown
/// field, it is the message that contains it.
pub fn refused(schema: TestSchema) -> Vec<Refused> {
    match schema {
        TestSchema::Tracker => refused_with_tracker(),
        TestSchema::Generic => refused_with_generic(),
    }
}

fn refused_with_tracker() -> Vec<Refused> {
    let id = |id: &str| json!({"workItemCreated": {"workItem": {"projectId": id}}});
    let path = Some("work_item_created.work_item.project_id");
    let typing = |fields: Value| json!({"userTyping": fields});
    vec![
        ("an id `*` deep down", id("*"), path),
        ("an id of 257 bytes deep down", id(&"i".repeat(257)), path),
        ("an id of two lines deep down", id("a\nb"), path),
        (
            "no topic, deep down",
            json!({"workItemCreated": {"workItem": {"title": "t"}}}),
            None,
        ),
        (
            "empty ids",
            json!({"workItemCreated": {"workItem": {"id": "", "projectId": ""}}}),
            None,
        ),
        (
            "an unknown field beside one that is known",
            typing(json!({"projectId": "p1", "project": "p"})),
            Some("userTyping"),
        ),
        (
            "an unknown field deep down",
            json!({"work_item_created": {"workItem": {"Title": 1}}}),
            Some("work_item_created.workItem"),
        ),
        (
            "one field in both styles of name",
            json!({"workItemCreated": {"workItem": {"id": "w"}}, "work_item_created": {}}),
            Some("work_item_created"),
        ),
        (
            "one field in both styles of name, below",
            typing(json!({"projectId": "p1", "project_id": "p1"})),
            Some("userTyping.project_id"),
        ),
        (
            "a number for a string",
            typing(json!({"projectId": 1})),
            Some("userTyping.projectId"),
        ),
        (
            "a string for a bool",
            typing(json!({"projectId": "p1", "isTyping": "true"})),
            Some("userTyping.isTyping"),
        ),
        (
            "an enum value that is none",
            json!({"userPresence": {"status": "AWAY"}}),
            Some("userPresence.status"),
        ),
    ]
}

fn refused_with_generic() -> Vec<Refused> {
    let event = |fields: Value| json!({"event": fields, "topics": ["board:1"]});
    let message = |topics: Value| json!({"message": {"topics": topics}});
    vec![
        (
            "a wildcard",
            message(json!(["a:1", "a:*"])),
            Some("message.topics[1]"),
        ),
        (
            "all users",
            message(json!(["user:*"])),
            Some("message.topics[0]"),
        ),
        (
            "another tenant",
            message(json!(["tenant:other"])),
            Some("message.topics[0]"),
        ),
        (
            "no colon",
            message(json!(["board"])),
            Some("message.topics[0]"),
        ),
        (
            "a kind in capitals",
            message(json!(["Board:1"])),
            Some("message.topics[0]"),
        ),
        ("empty topics", message(json!(["", ""])), None),
        (
            "presence without a topic",
            json!({"presence": {"type": "viewing"}}),
            None,
        ),
        (
            "an unknown field beside one that is known",
            event(json!({"type": "t", "kind": "k"})),
            Some("event"),
        ),
        (
            "a number for a string",
            event(json!({"type": 1})),
            Some("event.type"),
        ),
        (
            "a number for bytes",
            event(json!({"bytes": 1})),
            Some("event.bytes"),
        ),
        (
            "bytes that are no base64",
            event(json!({"bytes": "?"})),
            Some("event.bytes"),
        ),
        (
            "a string for a bool",
            json!({"presence": {"topics": ["a:1"], "absent": "true"}}),
            Some("presence.absent"),
        ),
    ]
}

/// Returns texts that are refused, five for each schema.
pub fn refused_texts(schema: TestSchema) -> Vec<(&'static str, Vec<u8>)> {
    let texts: [(&str, &[u8]); 5] = match schema {
        TestSchema::Tracker => [
            (
                "a name twice",
                br#"{"topics": ["a:1"], "topics": ["b:1"], "userTyping": {"projectId": "p1"}}"#,
            ),
            (
                "a name twice, deep down and in both styles",
                br#"{"workItemCreated": {"workItem": {"projectId": "p1"}, "work_item": {"id": "w1"}}}"#,
            ),
            ("two texts", br#"{"userTyping":{"projectId":"p1"}} {}"#),
            ("no UTF-8", b"{\"userTyping\":{\"projectId\":\"p1\xff\"}}"),
            (
                "half a surrogate pair",
                br#"{"userTyping":{"projectId":"\ud800"}}"#,
            ),
        ],
        TestSchema::Generic => [
            (
                "a name twice",
                br#"{"topics": ["a:1"], "topics": ["b:1"], "event": {}}"#,
            ),
            (
                "a name twice, deep down",
                br#"{"event": {"data": {"a": {"b": 1, "b": 1}}}, "topics": ["a:1"]}"#,
            ),
            ("two texts", br#"{"event":{}, "topics":["a:1"]} {}"#),
            (
                "no UTF-8",
                b"{\"event\":{\"data\":\"p1\xff\"}, \"topics\":[\"a:1\"]}",
            ),
            (
                "half a surrogate pair",
                br#"{"event":{"data":"\ud800"}, "topics":["a:1"]}"#,
            ),
        ],
    };
    texts.map(|(what, text)| (what, text.to_vec())).to_vec()
}

/// Returns envelopes with a malformed payload, and the path of the fault.
pub fn malformed(schema: TestSchema) -> [(&'static str, Vec<u8>, &'static str); 2] {
    match schema {
        TestSchema::Tracker => [
            (
                "an id that is no text",
                b"\x12\x05\x0a\x03\x0a\x01\xff".to_vec(),
                "work_item_created.work_item.id",
            ),
            (
                "cut short inside",
                b"\x12\x04\x0a\x02\x0a\x05".to_vec(),
                "work_item_created.work_item",
            ),
        ],
        TestSchema::Generic => [
            (
                "a topic that is no text",
                b"\x8a\x02\x03\x2a\x01\xff".to_vec(),
                "message.topics[0]",
            ),
            (
                "cut short inside",
                b"\x82\x02\x04\x12\x02\x1a\x05".to_vec(),
                "event.data",
            ),
        ],
    }
}

/// Returns the payload of `typing` without a field, as encoded in an envelope, and its name.
pub fn empty_typing(schema: TestSchema) -> (&'static [u8], &'static str) {
    match schema {
        TestSchema::Tracker => (b"\xea\x02\x00", "user_typing"),
        TestSchema::Generic => (b"\x8a\x02\x00", "message"),
    }
}
