//! The suggestions in errors about JSON.

use super::{
    super::{BundledSchema, JsonError},
    Schema, torture,
};

fn bundled() -> Schema {
    Schema::bundled().unwrap()
}

fn told(error: &JsonError) -> (Option<&str>, String) {
    (error.field(), error.to_string())
}

/// Asserts that the JSON is refused with this field and message.
#[track_caller]
fn assert_refused(schema: &Schema, json: &str, field: Option<&str>, message: &str) {
    let error = schema.envelope_from_json(json.as_bytes()).unwrap_err();
    let path = field.map(|field| format!("{field}: ")).unwrap_or_default();
    assert_eq!(told(&error), (field, format!("{path}{message}")));
}

#[test]
fn an_error_about_an_unknown_event_suggests_the_nearest_name() {
    for (name, near) in [
        ("workItemCreate", "workItemCreated"),
        ("work_item_create", "workItemCreated"),
        ("userTypping", "userTyping"),
    ] {
        let json = format!(r#"{{"messageId": "m", "{name}": {{}}}}"#);
        let message = format!("unknown event `{name}`; did you mean `{near}`?");
        assert_refused(&bundled(), &json, None, &message);
    }
    let message = "unknown field `mesageId`; did you mean `messageId`?";
    assert_refused(&bundled(), r#"{"mesageId": "m"}"#, None, message);
}

#[test]
fn an_error_about_an_event_like_no_other_lists_the_events_and_nothing_else() {
    let error = bundled().envelope_from_json(br#"{"zzz": {}}"#).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("unknown event `zzz`; the events are workItemCreated, workItemUpdated,"),
        "{text}"
    );
    let listed: Vec<_> = text.split([' ', ',']).collect();
    for name in [
        "subscribe",
        "ping",
        "batch",
        "error",
        "position",
        "messageId",
    ] {
        assert!(!listed.contains(&name), "{text}");
    }
    assert!(text.len() < 800, "{text}");
    let message = "unknown event `subscribed`; the events are event, message, presence";
    let generic = BundledSchema::by_name("generic")
        .unwrap()
        .compile()
        .unwrap();
    assert_refused(&generic, r#"{"subscribed": {}}"#, None, message);
}

#[test]
fn an_error_for_a_client_suggests_only_client_messages() {
    let refused = |json: &[u8]| {
        bundled()
            .envelope_from_client_json(json)
            .unwrap_err()
            .to_string()
    };
    let near = refused(br#"{"subscibe": {}}"#);
    assert_eq!(
        near,
        "unknown message `subscibe`; did you mean `subscribe`?"
    );
    let listed = refused(br#"{"zzz": {}}"#);
    assert_eq!(
        listed,
        "unknown message `zzz`; the messages are userPresence, subscribe, unsubscribe, ping, authenticate, userTyping"
    );
}

#[test]
fn an_error_about_an_unknown_field_suggests_the_nearest_or_lists_all_fields() {
    let json = r#"{"workItemCreated": {"workItem": {"projektId": "p"}}}"#;
    let message = "unknown field `projektId`; did you mean `projectId`?";
    assert_refused(&bundled(), json, Some("workItemCreated.workItem"), message);
    let json = r#"{"userTyping": {"zzzz": "p"}}"#;
    let error = bundled().envelope_from_json(json.as_bytes()).unwrap_err();
    let (field, text) = told(&error);
    assert_eq!(field, Some("userTyping"));
    let expected = "userTyping: unknown field `zzzz`; UserTyping has userId, workItemId, isTyping";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn an_error_about_an_unknown_event_of_a_batch_gives_its_location() {
    let json = br#"{"messages": [{"userTyping": {}}, {"userTypin": {}}]}"#;
    let error = bundled().batch_from_json(json, usize::MAX).unwrap_err();
    let (index, error) = error.in_message().unwrap();
    assert_eq!(index, 1);
    let message = "unknown event `userTypin`; did you mean `userTyping`?";
    assert_eq!(told(&error), (None, message.to_owned()));
}

#[test]
fn a_very_long_name_gets_no_suggestion_and_a_list_that_is_cut() {
    let name = "x".repeat(1 << 20);
    let json = format!(r#"{{"userTyping": {{"{name}": 1}}}}"#);
    let error = bundled().envelope_from_json(json.as_bytes()).unwrap_err();
    assert!(error.to_string().len() < 1000);
    let error = torture().envelope_from_json(br#"{"scalars": {"zzzzzzzzzz": 1}}"#);
    assert!(error.unwrap_err().to_string().len() < 900);
}

#[test]
fn a_field_that_is_set_twice_is_refused_with_its_path() {
    for (json, field, name) in [
        (
            r#"{"messageId": "a", "messageId": "b"}"#,
            "messageId",
            "messageId",
        ),
        (
            r#"{"messageId": "a", "message_id": "b"}"#,
            "message_id",
            "message_id",
        ),
        (
            r#"{"tree": {"children": [{}, {"id": "a", "\u0069d": "b"}]}}"#,
            "tree.children[1].id",
            "id",
        ),
        (
            r#"{"scalars": {"byText": {"k": "a", "k": "b"}}}"#,
            "scalars.byText.k",
            "k",
        ),
        (
            r#"{"scalars": {"byNumber": {"1": "", "01": ""}}}"#,
            "scalars.byNumber.01",
            "01",
        ),
        (
            r#"{"anything": {"record": {"a": {"b": 1, "b": 2}}}}"#,
            "anything.record.a.b",
            "b",
        ),
        (
            r#"{"anything": {"value": [{"b": 1, "b": 2}]}}"#,
            "anything.value[0].b",
            "b",
        ),
        (
            r#"{"legacy": {"[test.v1.label]": "x", "[test.v1.label]": "y"}}"#,
            "legacy.[test.v1.label]",
            "[test.v1.label]",
        ),
    ] {
        assert_refused(
            &torture(),
            json,
            Some(field),
            &format!("`{name}` is set twice"),
        );
    }
}

#[test]
fn an_error_about_a_batch_in_place_of_an_event_names_the_batch_endpoint() {
    let message =
        "`messages` is a batch, which is posted to events:batch; an event has one payload";
    assert_refused(&bundled(), r#"{"messages": []}"#, None, message);
}

#[test]
fn the_input_that_an_error_repeats_is_bounded() {
    let long = "x".repeat(30_000);
    for json in [
        format!(r#"{{"scalars": {{"byText": {{"{long}": "a", "{long}": "b"}}}}}}"#),
        format!(r#"{{"scalars": {{"byText": {{"{long}": 1}}}}}}"#),
        format!(r#"{{"scalars": {{"c": "{long}"}}}}"#),
        format!(r#"{{"scalars": {{"p": "{long}"}}}}"#),
        format!(r#"{{"anything": {{"at": "{long}"}}}}"#),
    ] {
        let error = torture().envelope_from_json(json.as_bytes()).unwrap_err();
        assert!(error.to_string().len() <= 1000, "{error}");
        assert!(error.field().unwrap().len() <= 1000);
        // The sentence stays visible after a long path.
        assert!(error.to_string().ends_with(error.message()), "{error}");
    }
}

#[test]
fn a_number_that_the_field_cannot_hold_is_refused_with_its_path() {
    const DOUBLE: &str = r#"a number in the range of a double, "Infinity", "-Infinity" or "NaN""#;
    const FLOAT: &str = r#"a number in the range of a float, "Infinity", "-Infinity" or "NaN""#;
    const INT64: &str = "an integer from -9223372036854775808 to 9223372036854775807";
    const UINT64: &str = "an integer from 0 to 18446744073709551615";
    for (name, value, wanted, got) in [
        ("a", r#""1e400""#, DOUBLE, "the string `1e400`"),
        ("a", r#""inf""#, DOUBLE, "the string `inf`"),
        ("a", r#""nan""#, DOUBLE, "the string `nan`"),
        ("a", r#""-infinity""#, DOUBLE, "the string `-infinity`"),
        ("b", r#""1e39""#, FLOAT, "the string `1e39`"),
        ("b", r#""nan""#, FLOAT, "the string `nan`"),
        ("d", "9223372036854775808.0", INT64, "9223372036854776000"),
        ("d", "9.3e18", INT64, "9300000000000000000"),
        ("f", "18446744073709551616", UINT64, "18446744073709552000"),
    ] {
        let json = format!(r#"{{"scalars": {{"{name}": {value}}}}}"#);
        let field = format!("scalars.{name}");
        assert_refused(
            &torture(),
            &json,
            Some(&field),
            &format!("expected {wanted}, got {got}"),
        );
    }
    let message = format!("expected {DOUBLE}, got the string `1e400`");
    for (json, field) in [
        (
            r#"{"scalars": {"packedA": [1, "1e400"]}}"#,
            "scalars.packedA[1]",
        ),
        (
            r#"{"scalars": {"byUnsigned": {"7": "1e400"}}}"#,
            "scalars.byUnsigned.7",
        ),
        (
            r#"{"anything": {"doubleValue": "1e400"}}"#,
            "anything.doubleValue",
        ),
    ] {
        assert_refused(&torture(), json, Some(field), &message);
    }
    for json in [
        r#"{"scalars": {"a": "NaN", "b": "-Infinity", "d": "9223372036854775807", "f": "18446744073709551615"}}"#,
        r#"{"scalars": {"a": "1e300", "b": "3.4e38", "d": 9007199254740993.0, "c": 7.0}}"#,
    ] {
        torture().envelope_from_json(json.as_bytes()).unwrap();
    }
}

#[test]
fn an_error_about_a_value_of_the_wrong_type_says_what_is_expected() {
    for (json, field, message) in [
        ("[]", None, "expected an object, got a list"),
        (r#"{"tree": 5}"#, Some("tree"), "expected an object, got 5"),
        (
            r#"{"tree": {"children": {}}}"#,
            Some("tree.children"),
            "expected a list, got an object",
        ),
        (
            r#"{"tree": {"children": [null]}}"#,
            Some("tree.children[0]"),
            "null is not allowed in a list or a map",
        ),
        (
            r#"{"scalars": {"n": 1.5}}"#,
            Some("scalars.n"),
            "expected a string, got 1.5",
        ),
        (
            r#"{"scalars": {"m": "yes"}}"#,
            Some("scalars.m"),
            "expected true or false, got the string `yes`",
        ),
        (
            r#"{"scalars": {"c": 2147483648}}"#,
            Some("scalars.c"),
            "expected an integer from -2147483648 to 2147483647, got 2147483648",
        ),
        (
            r#"{"scalars": {"e": "-1"}}"#,
            Some("scalars.e"),
            "expected an integer from 0 to 4294967295, got the string `-1`",
        ),
        (
            r#"{"scalars": {"c": 1.5}}"#,
            Some("scalars.c"),
            "expected an integer from -2147483648 to 2147483647, got 1.5",
        ),
        (
            r#"{"scalars": {"byNumber": {"one": ""}}}"#,
            Some("scalars.byNumber.one"),
            "expected a key that is an integer from -2147483648 to 2147483647, got the string `one`",
        ),
        (
            r#"{"scalars": {"byFlag": {"yes": 1}}}"#,
            Some("scalars.byFlag.yes"),
            "expected a key that is true or false, got the string `yes`",
        ),
        (
            r#"{"scalars": {"p": "COLOR_RED"}}"#,
            Some("scalars.p"),
            "unknown value `COLOR_RED`; did you mean `COLOUR_RED`?",
        ),
        (
            r#"{"scalars": {"p": "?"}}"#,
            Some("scalars.p"),
            "unknown value `?`; Colour has COLOUR_UNSPECIFIED, COLOUR_RED",
        ),
        (
            r#"{"anything": {"at": 5}}"#,
            Some("anything.at"),
            "expected a time such as \"2024-02-29T12:00:00Z\", got 5",
        ),
        (
            r#"{"anything": {"record": []}}"#,
            Some("anything.record"),
            "expected an object, got a list",
        ),
        (
            r#"{"tree": {}, "plain": {}}"#,
            Some("plain"),
            "more than one field of the oneof `payload` is set",
        ),
        (
            "nonsense",
            None,
            "the text is not JSON: expected `true`, `false` or `null` at line 1, column 2",
        ),
    ] {
        assert_refused(&torture(), json, field, message);
    }
}

#[test]
fn an_event_with_too_many_values_is_refused_before_it_is_read() {
    let generic = BundledSchema::by_name("generic")
        .unwrap()
        .compile()
        .unwrap();
    let event = |values: usize| {
        let ones = vec!["1"; values].join(",");
        format!(r#"{{"event":{{"data":[{ones}]}}}}"#)
    };
    // In addition to the commas there are five structural characters.
    let (most, more) = (event(100_000 - 5 + 1), event(100_000 - 5 + 2));
    assert!(generic.envelope_from_json(most.as_bytes()).is_ok());
    let error = generic.envelope_from_json(more.as_bytes()).unwrap_err();
    assert!(error.is_too_large(), "{error}");
    // The limit applies to each event of a batch.
    let batch = format!(r#"{{"messages":[{most},{most}]}}"#);
    assert!(
        generic
            .batch_from_json(batch.as_bytes(), usize::MAX)
            .is_ok()
    );
    let batch = format!(r#"{{"messages":[{most},{more}]}}"#);
    let error = generic
        .batch_from_json(batch.as_bytes(), usize::MAX)
        .unwrap_err();
    assert!(error.is_too_large(), "{error}");
    assert_eq!(error.in_message().unwrap().0, 1);
}

#[test]
fn similar_names_within_application_data_are_accepted() {
    for json in [
        r#"{"scalars": {"byText": {"work_item": "a", "workItem": "b", "01": "", "1": ""}}}"#,
        r#"{"anything": {"record": {"work_item": 1, "workItem": 2}}}"#,
    ] {
        torture().envelope_from_json(json.as_bytes()).unwrap();
    }
}
