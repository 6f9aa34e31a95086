//! A faulty event or batch is reported, and has no effect.

use serde_json::{Value, json};
use sidewire_protocol::schema::PayloadKind;

use crate::{
    ingest_spellings,
    ingest_support::{Call, EVENTS, JSON, PROTOBUF, Watched},
    vocabulary::{TestSchema, also, created, edited_by, typing},
};

#[tokio::test]
async fn an_event_in_json_that_breaks_a_rule_is_refused_with_its_field() {
    let mut watched = Watched::start().await;
    let schema = TestSchema::under_test();
    let with = |field: &str, value: Value| {
        let mut event = created("p1");
        event[field] = value;
        event
    };
    // `json!` sorts members, and the later one is reported.
    let second = |other: &'static str| other.max(schema.created_member());
    let path = Some(schema.typing_path());
    let many: Vec<_> = (0..100).map(|i| format!("board:{i}")).collect();

    let mut cases = vec![
        ("no payload", json!({}), Some("payload")),
        (
            "no payload",
            json!({"messageId": "m", "topics": ["board:1"]}),
            Some("payload"),
        ),
        (
            "a payload of null",
            json!({schema.typing_member(): null, "topics": ["board:1"]}),
            Some("payload"),
        ),
        (
            "two payloads",
            with(schema.typing_member(), json!({})),
            Some(second(schema.typing_member())),
        ),
        (
            "an event and a control message",
            with("ping", json!({})),
            Some(second("ping")),
        ),
        (
            "a position",
            with("position", json!({"epoch": "e", "offset": "7"})),
            Some("position"),
        ),
        (
            "an empty position",
            with("position", json!({})),
            Some("position"),
        ),
        ("no topic", edited_by("ann"), None),
        ("an empty id", schema.without_id(), None),
        ("101 topics", also(typing("p1"), &many), None),
        (
            "a message_id of 129 bytes",
            with("messageId", json!("m".repeat(129))),
            Some("message_id"),
        ),
        (
            "a message_id of 130 bytes",
            with("messageId", json!("ü".repeat(65))),
            Some("message_id"),
        ),
        (
            "a message_id of two lines",
            with("messageId", json!("a\nb")),
            Some("message_id"),
        ),
        (
            "a message_id with a NUL",
            with("messageId", json!("\0")),
            Some("message_id"),
        ),
        (
            "a message_id with a C1 control",
            with("messageId", json!("\u{85}")),
            Some("message_id"),
        ),
        ("an id `*`", typing("*"), path),
        ("an id of 257 bytes", typing(&"i".repeat(257)), path),
        ("an id of two lines", typing("a\nb"), path),
        ("a control character", typing("p\u{7f}1"), path),
        (
            "a wildcard",
            with("topics", json!(["board:1", "project:*"])),
            Some("topics[1]"),
        ),
        (
            "all users",
            with("topics", json!(["user:*"])),
            Some("topics[0]"),
        ),
        (
            "another tenant",
            with("topics", json!(["tenant:other"])),
            Some("topics[0]"),
        ),
        (
            "no colon",
            with("topics", json!(["board"])),
            Some("topics[0]"),
        ),
        ("no kind", with("topics", json!([":1"])), Some("topics[0]")),
        (
            "a kind in capitals",
            with("topics", json!(["board:1", "Board:1"])),
            Some("topics[1]"),
        ),
        (
            "a kind of 33 bytes",
            with("topics", json!([format!("{}:1", "k".repeat(33))])),
            Some("topics[0]"),
        ),
        (
            "no id",
            with("topics", json!(["board:"])),
            Some("topics[0]"),
        ),
        (
            "an empty topic",
            with("topics", json!([""])),
            Some("topics[0]"),
        ),
        (
            "a long topic",
            with("topics", json!([format!("b:{}", "i".repeat(257))])),
            Some("topics[0]"),
        ),
        // JSON that is not an event. The field is named as in the text; for an unknown
        // field, it is the message that contains it.
        ("an unknown field", with("workItemCreate", json!({})), None),
        (
            "an unknown field below",
            schema.unreadable(),
            Some(schema.typing_member()),
        ),
        (
            "a relay field that is reserved",
            with("19", json!({})),
            None,
        ),
        (
            "a string for a message",
            json!({schema.typing_member(): "p1"}),
            Some(schema.typing_member()),
        ),
        (
            "a list for a message",
            json!({schema.typing_member(): []}),
            Some(schema.typing_member()),
        ),
        (
            "a string for a list",
            with("topics", json!("board:1")),
            Some("topics"),
        ),
        (
            "a null in a list",
            with("topics", json!([null])),
            Some("topics[0]"),
        ),
        (
            "a bool for a number",
            with("timestamp", json!(true)),
            Some("timestamp"),
        ),
        (
            "a fraction for a number",
            with("timestamp", json!(1.5)),
            Some("timestamp"),
        ),
        (
            "2^63",
            with("timestamp", json!("9223372036854775808")),
            Some("timestamp"),
        ),
    ];
    cases.extend(ingest_spellings::refused(schema));
    for (what, event, field) in cases {
        watched
            .refuses(what, Call::event(EVENTS, &event), field)
            .await;
    }

    let texts: [(&str, &[u8]); 6] = [
        ("nothing", b""),
        ("no JSON", b"{"),
        ("a list", b"[]"),
        ("null", b"null"),
        ("a string", b"\"userTyping\""),
        ("protobuf", b"\xea\x02\x02\x12\x00"),
    ];
    let texts = texts.iter().map(|(what, text)| (*what, text.to_vec()));
    let texts: Vec<_> = texts
        .chain(ingest_spellings::refused_texts(schema))
        .collect();
    assert_eq!(texts.len(), 11);
    for (what, text) in texts {
        let answer = Call::post(EVENTS, JSON, text).answer(&watched.relay).await;
        assert_eq!(
            (answer.status, &answer.problem_code()[..]),
            (400, "VALIDATION_ERROR"),
            "{what}"
        );
    }
    let deep = "[".repeat(99_000);
    watched
        .refuses("a deep text", Call::post(EVENTS, JSON, deep), None)
        .await;
    watched.has_not_changed().await;
}

#[tokio::test]
async fn control_messages_are_not_accepted_as_events() {
    let mut watched = Watched::start().await;
    let control: Vec<_> = watched
        .relay
        .schema
        .payloads()
        .iter()
        .filter(|payload| matches!(payload.kind, PayloadKind::Control(_)))
        .map(|payload| (payload.number, payload.name.clone()))
        .collect();
    assert_eq!(control.len(), 10);
    let query = format!("{EVENTS}?topic=board:1");
    for (number, name) in control {
        let tag = (number << 3 | 2) as u8;
        // Field numbers up to 15 have a tag of one byte.
        let bytes = match number {
            ..16 => vec![tag, 0],
            _ => vec![tag | 0x80, 1, 0],
        };
        let call = Call::post(&query, PROTOBUF, bytes);
        watched.refuses(&name, call, Some(&name)).await;
        let event = json!({ &name: {}, "messageId": "m" });
        let call = Call::event(&query, &event);
        watched.refuses(&name, call, Some(&name)).await;
    }
    let event = json!({"batch": {"messages": [created("p1")]}});
    let call = Call::event(EVENTS, &event);
    watched.refuses("a batch", call, Some("batch")).await;
    watched.has_not_changed().await;
}

#[tokio::test]
async fn an_event_in_protobuf_that_is_malformed_is_refused_with_its_field() {
    let mut watched = Watched::start().await;
    let good = watched.relay.envelope(created("p1"));
    let and = |bytes: &[u8]| [&good, bytes].concat();
    let schema = TestSchema::under_test();
    let topics = created("p1")["topics"].as_array().map_or(0, Vec::len);
    let after_its_topics = format!("topics[{topics}]");
    let mut cut_inside = good.clone();
    cut_inside.truncate(good.len() - 1);

    let cases: [(&str, Vec<u8>, Option<&str>); 21] = [
        ("nothing", vec![], Some("payload")),
        (
            "a payload of which the schema knows nothing",
            b"\x92\x03\x00".to_vec(),
            Some("payload"),
        ),
        ("the last byte is missing", cut_inside, None),
        ("half a tag", and(b"\x92"), None),
        ("a length beyond the end", and(b"\x92\x01\x09board:1"), None),
        (
            "a length of 2^63",
            and(b"\x92\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
            None,
        ),
        (
            "a varint of 11 bytes",
            and(b"\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            None,
        ),
        (
            "a varint of 65 bits",
            and(b"\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
            None,
        ),
        ("a field 0", and(b"\x02\x00"), None),
        ("a field 2^29", and(b"\x80\x80\x80\x80\x10\x00"), None),
        ("a wire type 7", and(b"\x0f"), None),
        ("a group", and(b"\x93\x03\x94\x03"), None),
        ("the end of a group", and(b"\x94\x03"), None),
        ("a reserved field", and(b"\xa8\x01\x01"), None),
        (
            "a message_id of another wire type",
            and(b"\x08\x01"),
            Some("message_id"),
        ),
        (
            "a message_id twice",
            and(b"\x0a\x01m\x0a\x01m"),
            Some("message_id"),
        ),
        (
            "a timestamp twice",
            and(b"\x40\x00\x40\x00"),
            Some("timestamp"),
        ),
        (
            "a message_id that is no text",
            and(b"\x0a\x01\xff"),
            Some("message_id"),
        ),
        (
            "a topic that is no text",
            and(b"\x92\x01\x01\xff"),
            Some(&after_its_topics),
        ),
        ("a position", and(b"\x4a\x02\x10\x07"), Some("position")),
        ("an empty position", and(b"\x4a\x00"), Some("position")),
    ];
    for (what, bytes, field) in cases {
        let call = Call::post(EVENTS, PROTOBUF, bytes);
        watched.refuses(what, call, field).await;
    }
    for (what, bytes, field) in ingest_spellings::malformed(schema) {
        let call = Call::post(EVENTS, PROTOBUF, bytes);
        watched.refuses(what, call, Some(field)).await;
    }

    let (typing, name) = ingest_spellings::empty_typing(schema);
    let second: [(&str, Vec<u8>, &str); 3] = [
        ("two payloads", and(typing), name),
        (
            "the same payload twice",
            good.repeat(2),
            schema.created_name(),
        ),
        ("an event and a control message", and(b"\x72\x00"), "ping"),
    ];
    for (what, bytes, field) in second {
        let call = Call::post(EVENTS, PROTOBUF, bytes);
        watched.refuses(what, call, Some(field)).await;
    }
    let json = Call::post(EVENTS, PROTOBUF, created("p1").to_string());
    watched.refuses("JSON", json, None).await;
    watched.has_not_changed().await;
}
