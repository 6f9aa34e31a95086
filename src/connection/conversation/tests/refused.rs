//! Refused messages, and the content of each refusal.

use super::*;

/// Asserts that the frame is invalid, at this field.
fn assert_invalid(frame: &[u8], request_message_id: &str, field: Option<&str>, case: &str) {
    let refusal = refusal(&conversation(), frame);
    assert_eq!(refusal.code, ErrorCode::ValidationError, "{case}");
    assert_eq!(refusal.request_message_id, request_message_id, "{case}");
    assert_eq!(refusal.field.as_deref(), field, "{case}: {refusal:?}");
    assert_eq!(refusal.retry_after, None, "{case}");
    assert!(!refusal.message.is_empty(), "{case}");
}

#[test]
fn an_invalid_topic_is_refused_with_its_path() {
    let (long_id, long_kind) = ("x".repeat(257), "k".repeat(33));
    let no_topics = [
        String::new(),
        "project".to_owned(),
        ":p".to_owned(),
        "project:".to_owned(),
        "Project:p".to_owned(),
        "1project:p".to_owned(),
        "pro ject:p".to_owned(),
        "project:a\nb".to_owned(),
        "project:\u{85}".to_owned(),
        format!("project:{long_id}"),
        format!("{long_kind}:p"),
        "*".to_owned(),
        "*:*".to_owned(),
    ];
    for payload in ["subscribe", "unsubscribe"] {
        for text in &no_topics {
            let frame = named(payload, &json!({"topics": ["a:1", text, "a:2"]}));
            let path = format!("{payload}.topics[1]");
            assert_invalid(&frame, "m", Some(&path), text);
        }
    }
}

#[test]
fn an_invalid_id_is_refused_with_its_path() {
    let long_id = "x".repeat(257);
    let lists = [
        ("projectIds", "project_ids"),
        ("sprintIds", "sprint_ids"),
        ("workItemIds", "work_item_ids"),
    ];
    for payload in ["subscribe", "unsubscribe"] {
        for (json_name, name) in lists {
            for id in ["", "*", "a\0b", "\u{7f}", &long_id] {
                let frame = named(payload, &json!({json_name: ["good", "better", id]}));
                let path = format!("{payload}.{name}[2]");
                assert_invalid(&frame, "m", Some(&path), id);
            }
        }
    }
}

#[test]
fn a_request_that_names_too_many_topics_is_refused_with_their_number() {
    for payload in ["subscribe", "unsubscribe"] {
        let request = |topics: &[&str]| {
            let ids = vec!["p"; TOPICS_MAX - 1];
            named(payload, &json!({"projectIds": ids, "topics": topics}))
        };
        let most = conversation().handle_frame(&SCHEMA, &request(&["a:1"]), NOW);
        assert_eq!(topics(&most), ["project:p", "a:1"]);
        // What exceeds the maximum need not be a topic.
        let refusal = refusal(&conversation(), &request(&["a:1", "no topic", "a:1"]));
        let message = format!("{payload} names 1002 topics; the maximum is 1000");
        assert_eq!(
            (refusal.field.as_deref(), refusal.message),
            (Some(payload), message)
        );
    }
}

#[test]
fn a_malformed_topic_is_reported_before_a_topic_outside_the_grant() {
    let grant = Grant::from_topics([]);
    let conversation = conversation_of(&grant);
    let frame = named("subscribe", &json!({"projectIds": ["p"], "topics": ["no"]}));
    let refusal = refusal(&conversation, &frame);
    assert_eq!(refusal.code, ErrorCode::ValidationError);
}

#[test]
fn an_invalid_message_id_is_not_repeated() {
    let longest = "x".repeat(128);
    let frame = frame(&json!({"messageId": longest, "subscribe": {}}));
    let confirmed = &answer(&conversation(), &frame)["subscriptionConfirmed"];
    assert_eq!(confirmed["requestMessageId"], longest);

    for id in ["x".repeat(129), "ü".repeat(65), "a\nb".to_owned()] {
        for payload in ["subscribe", "ping", "workItemCreated"] {
            let frame = super::frame(&json!({"messageId": id, payload: {}}));
            assert_invalid(&frame, "", Some("message_id"), &id);
        }
    }
}

#[test]
fn a_frame_that_cannot_be_decoded_is_refused_without_a_request() {
    let id = field(1, b"m");
    let frames: [(&str, Vec<u8>); 14] = [
        ("no protobuf", b"\xff\xff\xff".to_vec()),
        ("JSON", br#"{"ping":{}}"#.to_vec()),
        ("a tag alone", [&id[..], &[0x52]].concat()),
        ("cut short", [&id[..], &[0x52, 5, 0x0a, 1, b'p']].concat()),
        ("field number 0", [&id[..], &[0x02, 0]].concat()),
        (
            "field number 2^29",
            [&id[..], &[0x82, 0x80, 0x80, 0x80, 0x10, 0]].concat(),
        ),
        ("wire type 7", [&id[..], &[0x57]].concat()),
        ("a group", [&id[..], &[0x53, 0x54]].concat()),
        (
            "a subscribe that is a number",
            [&id[..], &[0x50, 1]].concat(),
        ),
        (
            "an endless varint",
            [&id[..], &[0x40], &[0xff; 10], &[1]].concat(),
        ),
        ("a message_id that is a number", vec![0x08, 1]),
        ("a message_id that is no text", field(1, b"\xff")),
        (
            "a topic that is no text",
            [id.clone(), field(10, &field(16, b"a:\xff"))].concat(),
        ),
        (
            "an id that is no text",
            [id.clone(), field(10, &field(1, b"\xc3"))].concat(),
        ),
    ];
    for (case, frame) in frames {
        let refusal = refusal(&conversation(), &frame);
        assert_eq!(refusal.code, ErrorCode::ValidationError, "{case}");
        assert_eq!(refusal.request_message_id, "", "{case}");
        assert!(!refusal.message.is_empty(), "{case}");
    }
}

#[test]
fn the_field_that_cannot_be_decoded_is_named() {
    let frame = field(10, &[field(16, b"a:1"), field(16, b"a:\xff")].concat());
    assert_invalid(&frame, "", Some("subscribe.topics[1]"), "topics");
    let frame = field(12, &field(2, b"\xff"));
    assert_invalid(&frame, "", Some("unsubscribe.sprint_ids[0]"), "sprint_ids");
}

#[test]
fn an_envelope_without_a_payload_is_refused() {
    for (case, frame, id) in [
        ("an empty frame", vec![], ""),
        ("an id alone", field(1, b"m"), "m"),
        (
            "plain fields",
            frame(&json!({"messageId": "m", "timestamp": "1", "topics": ["a:1"]})),
            "m",
        ),
        (
            "an unknown payload",
            [field(1, b"m"), field(99, b"")].concat(),
            "m",
        ),
    ] {
        assert_invalid(&frame, id, Some("payload"), case);
    }
}

#[test]
fn more_than_one_payload_is_refused_with_the_request() {
    let subscribe = field(10, &field(16, b"a:1"));
    let ping = field(14, &[]);
    let event = field(2, &[]);
    for (parts, at) in [
        ([&subscribe, &subscribe], "subscribe"),
        ([&subscribe, &ping], "ping"),
        ([&ping, &subscribe], "subscribe"),
        ([&ping, &ping], "ping"),
        ([&event, &ping], "ping"),
        ([&subscribe, &event], "work_item_created"),
    ] {
        let payloads = [&parts[0][..], parts[1]].concat();
        let case = format!("{payloads:02x?}");
        // At any position of the id.
        assert_invalid(
            &[field(1, b"m"), payloads.clone()].concat(),
            "m",
            Some(at),
            &case,
        );
        assert_invalid(&[payloads, field(1, b"m")].concat(), "m", Some(at), &case);
    }
}

#[test]
fn a_relay_field_that_is_set_twice_is_refused() {
    let ping = field(14, &[]);
    let timestamp = [0x40, 1];
    let frame = [&field(1, b"m")[..], &timestamp, &timestamp, &ping].concat();
    assert_invalid(&frame, "m", Some("timestamp"), "timestamp");
    let frame = [field(1, b"m"), field(9, &[]), field(9, &[]), ping].concat();
    assert_invalid(&frame, "m", Some("position"), "position");
}

#[test]
fn a_field_number_reserved_for_the_relay_is_refused() {
    for number in 21..=31 {
        let frame = [field(1, b"m"), field(number, &[]), field(14, &[])].concat();
        assert_invalid(&frame, "m", None, &number.to_string());
    }
}

#[test]
fn a_client_may_not_send_a_payload_of_the_relay_or_a_backend() {
    let mut refused = 0;
    for payload in SCHEMA.payloads() {
        use ControlKind::{Authenticate, Ping, Subscribe, Unsubscribe};
        if matches!(
            payload.kind,
            PayloadKind::Control(Subscribe | Unsubscribe | Ping | Authenticate)
        ) {
            continue;
        }
        let frame = [field(1, b"m"), field(payload.number, &[])].concat();
        assert_invalid(&frame, "m", Some(&payload.name), &payload.name);
        refused += 1;
    }
    // 11, 13, 15 to 17 and 20, and the application's 20 events.
    assert_eq!(refused, 6 + 20);
}

#[test]
fn the_topics_of_an_event_that_a_client_may_not_send_are_not_checked() {
    for id in ["*", "a\nb", &"x".repeat(257)] {
        let deleted = json!({"userId": "ann", "workItemId": id});
        let frame = named("workItemDeleted", &deleted);
        assert_invalid(&frame, "m", Some("work_item_deleted"), id);
        let typing = named("userTyping", &deleted);
        assert_invalid(&typing, "m", Some("user_typing.work_item_id"), id);
    }
}

#[test]
fn the_token_of_an_authenticate_is_passed_on_and_is_not_in_debug_output() {
    let frame = named("authenticate", &json!({"token": "secret.token"}));
    let action = conversation().handle_frame(&SCHEMA, &frame, NOW);
    assert!(!format!("{action:?}").contains("secret"));
    let expected = RenewalRequest {
        message_id: "m".to_owned(),
        token: "secret.token".to_owned(),
    };
    assert_eq!(action, ConversationAction::RenewToken(expected));
}
