//! JSON to bytes and back.

use serde_json::json;

use super::{super::JsonError, Schema, field, torture};

fn parse(json: &str) -> Result<Vec<u8>, JsonError> {
    Schema::bundled()
        .unwrap()
        .envelope_from_json(json.as_bytes())
}

fn error(json: &str) -> (Option<String>, String) {
    let error = parse(json).unwrap_err();
    (error.field().map(str::to_owned), error.to_string())
}

#[test]
fn both_styles_of_names_are_accepted() {
    let camel = r#"{"messageId": "m", "workItemCreated": {"workItem": {"projectId": "p"}}}"#;
    let snake = r#"{"message_id": "m", "work_item_created": {"work_item": {"project_id": "p"}}}"#;
    let bytes = [field(1, b"m"), field(2, &field(1, &field(3, b"p")))].concat();
    assert_eq!(parse(camel).unwrap(), bytes);
    assert_eq!(parse(snake).unwrap(), bytes);
}

#[test]
fn an_unknown_field_is_refused_by_name() {
    let (path, message) = error(r#"{"workItemCreated": {"workItem": {"projekt": "p"}}}"#);
    assert_eq!(path.as_deref(), Some("workItemCreated.workItem"));
    assert!(message.contains("unknown field `projekt`"), "{message}");
    let (path, message) = error(r#"{"what": 1}"#);
    assert_eq!(path, None);
    assert!(message.contains("`what`"), "{message}");
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_path() {
    let (path, message) =
        error(r#"{"workItemUpdated": {"changes": [{"fieldName": "a"}, {"fieldName": 7}]}}"#);
    assert_eq!(
        path.as_deref(),
        Some("workItemUpdated.changes[1].fieldName")
    );
    assert!(message.contains("expected a string"), "{message}");
    let (path, _) = error(r#"{"timestamp": "soon"}"#);
    assert_eq!(path.as_deref(), Some("timestamp"));
    let (path, _) = error(r#"{"workItemCreated": {"workItem": {"itemType": "CHORE"}}}"#);
    assert_eq!(path.as_deref(), Some("workItemCreated.workItem.itemType"));
}

#[test]
fn json_that_is_not_an_object_is_refused() {
    for json in ["", "{", "[]", "null", "7", "{} {}", "\u{feff}{}"] {
        assert!(parse(json).is_err(), "{json}");
    }
    assert!(
        Schema::bundled()
            .unwrap()
            .envelope_from_json(b"{\"messageId\": \"\xff\"}")
            .is_err()
    );
    let deep = "{\"a\":".repeat(100_000);
    assert!(parse(&deep).is_err());
}

#[test]
fn a_second_payload_is_refused_in_json_too() {
    for json in [
        r#"{"userTyping": {}, "userPresence": {}}"#,
        r#"{"userTyping": {}, "userTyping": {}}"#,
        r#"{"userTyping": {}, "user_typing": {}}"#,
    ] {
        let (field, message) = error(json);
        assert!(field.is_some(), "{message}");
        let is_said = message.contains("oneof `payload`") || message.contains("is set twice");
        assert!(is_said, "{message}");
    }
}

#[test]
fn a_batch_is_read_as_its_envelopes() {
    let schema = Schema::bundled().unwrap();
    let json = br#"{"messages": [{"messageId": "a"}, {"messageId": "b"}]}"#;
    let batch = schema.batch_from_json(json, usize::MAX).unwrap();
    let messages = schema.batch_messages(&batch, 2).unwrap();
    assert_eq!(messages, [field(1, b"a"), field(1, b"b")]);
    let error = schema.batch_from_json(br#"{"messages": [{}, {"x": 1}]}"#, usize::MAX);
    assert_eq!(error.unwrap_err().field(), Some("messages[1]"));
}

#[test]
fn an_error_in_a_batch_can_be_located_in_the_message_that_has_it() {
    let schema = Schema::bundled().unwrap();
    for (json, expected) in [
        (r#"{"messages": [{}, {"x": 1}]}"#, Some((1, None))),
        (r#"{"messages": [{}, {}, 1]}"#, Some((2, None))),
        (
            r#"{"messages": [{"userTyping": {"userId": 1}}]}"#,
            Some((0, Some("userTyping.userId"))),
        ),
        (
            r#"{"messages": [{"topics": [1]}]}"#,
            Some((0, Some("topics[0]"))),
        ),
        (r#"{"messages": {}}"#, None),
        (r#"{"message": []}"#, None),
    ] {
        let error = schema
            .batch_from_json(json.as_bytes(), usize::MAX)
            .unwrap_err();
        let found = error.in_message();
        let found = found.as_ref().map(|(index, error)| (*index, error.field()));
        assert_eq!(found, expected, "{json}");
    }
}

/// A tree with a map of twenty trees, each of which has a map of twenty numbers.
fn maps() -> String {
    let numbers: Vec<_> = (0..20)
        .map(|n| format!(r#""{}": {{}}"#, n * 7 % 20 - 10))
        .collect();
    let numbers = numbers.join(", ");
    let trees: Vec<_> = (0..20)
        .map(|n| {
            format!(
                r#""k{}": {{"tags": ["a", "b"], "numbered": {{{numbers}}}}}"#,
                n * 3 % 20
            )
        })
        .collect();
    format!(
        r#"{{"tree": {{"id": "r", "children": [{{"named": {{{}}}}}]}}}}"#,
        trees.join(", ")
    )
}

#[test]
fn maps_are_written_in_the_order_of_their_keys_at_every_depth() {
    let schema = torture();
    let bytes = schema.envelope_from_json(maps().as_bytes()).unwrap();
    for _ in 0..10 {
        assert_eq!(schema.envelope_from_json(maps().as_bytes()).unwrap(), bytes);
    }
    let keys: Vec<_> = bytes
        .windows(4)
        .filter(|window| window[..2] == *b"\x0a\x02" && window[2] == b'k')
        .map(|window| window[3])
        .collect();
    assert_eq!(keys, b"0123456789");
    let numbers: Vec<i32> = (-10..10).collect();
    let mut entries = Vec::new();
    for number in numbers {
        let mut entry = Vec::new();
        prost::encoding::int32::encode(1, &number, &mut entry);
        let key = if number == 0 { Vec::new() } else { entry };
        entries.push(field(6, &[key, field(2, b"")].concat()));
    }
    let sorted = entries.concat();
    let found = bytes
        .windows(sorted.len())
        .filter(|window| *window == sorted);
    assert_eq!(found.count(), 20);
}

#[test]
fn the_hand_written_encoder_writes_the_message_that_was_read() {
    let schema = torture();
    let text = json!({
        "messageId": "m",
        "timestamp": "1700000000",
        "scalars": {
            "a": 1.5, "c": -3, "f": "18446744073709551615", "g": -7, "m": true, "n": "text",
            "o": "AAEC", "p": "COLOUR_RED", "maybe": 0,
            "packedA": [0.5, 2], "packedC": [1, -1], "packedP": ["COLOUR_RED", 5],
            "unpackedF": ["1", "2"], "strings": ["", "x"], "blobs": ["AA=="],
            "byText": {"": "", "k": "v"}, "byFlag": {"true": "7"},
            "byNumber": {"-1": "AA=="}, "byUnsigned": {"3": 0.25}
        }
    });
    let bytes = schema
        .envelope_from_json(text.to_string().as_bytes())
        .unwrap();
    assert!(schema.inspect(&bytes).is_ok());
    assert_eq!(schema.envelope_to_json(&bytes).unwrap(), text);
}

#[test]
fn extensions_and_well_known_types_are_read_and_written() {
    let schema = torture();
    for text in [
        json!({"legacy": {
            "id": "l", "closed": "ONE",
            "[test.v1.label]": "x", "[test.v1.labels]": ["y"], "[test.v1.more]": {"id": "m"}
        }}),
        json!({"anything": {
            "record": {"a": [1, null, {"b": "c"}]}, "at": "2024-01-01T00:00:00Z"
        }}),
    ] {
        let bytes = schema
            .envelope_from_json(text.to_string().as_bytes())
            .unwrap();
        assert_eq!(schema.envelope_to_json(&bytes).unwrap(), text);
    }
}

#[test]
fn an_envelope_is_shown_with_lower_camel_case_names_and_long_numbers_as_strings() {
    let schema = Schema::bundled().unwrap();
    let ping = [
        field(14, b"\x08\x07"),
        b"\x40\x05".to_vec(),
        field(9, b"\x0a\x01e\x10\x2a"),
    ]
    .concat();
    assert_eq!(
        schema.envelope_to_json(&ping).unwrap(),
        json!({
            "ping": {"timestamp": "7"},
            "position": {"epoch": "e", "offset": "42"},
            "timestamp": "5",
        })
    );
    assert!(schema.envelope_to_json(b"\xff").is_err());
}
