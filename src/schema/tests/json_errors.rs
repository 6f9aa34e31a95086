//! What errors in JSON suggest.

use super::{
    super::{Bundled, JsonError},
    Schema, torture,
};

fn bundled() -> Schema {
    Schema::bundled().unwrap()
}

fn told(error: &JsonError) -> (Option<&str>, String) {
    (error.field(), error.to_string())
}

/// The field and the text of the error.
#[track_caller]
fn assert_refused(schema: &Schema, json: &str, field: Option<&str>, message: &str) {
    let error = schema.envelope_from_json(json.as_bytes()).unwrap_err();
    let path = field.map(|field| format!("{field}: ")).unwrap_or_default();
    assert_eq!(told(&error), (field, format!("{path}{message}")));
}

#[test]
fn an_unknown_event_is_told_the_nearest() {
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
fn where_no_event_is_near_all_are_listed_and_nothing_that_is_no_event() {
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
    let generic = Bundled::named("generic").unwrap().schema().unwrap();
    assert_refused(&generic, r#"{"subscribed": {}}"#, None, message);
}

#[test]
fn a_client_is_told_what_clients_send() {
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
        "unknown message `zzz`; the messages are userPresence, subscribe, unsubscribe, ping, userTyping"
    );
}

#[test]
fn an_unknown_field_is_told_the_nearest_or_all_of_its_message() {
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
fn an_unknown_event_of_a_batch_is_told_with_its_place() {
    let json = br#"{"messages": [{"userTyping": {}}, {"userTypin": {}}]}"#;
    let error = bundled().batch_from_json(json).unwrap_err();
    let (index, error) = error.in_message().unwrap();
    assert_eq!(index, 1);
    let message = "unknown event `userTypin`; did you mean `userTyping`?";
    assert_eq!(told(&error), (None, message.to_owned()));
}

#[test]
fn a_very_long_name_is_compared_to_nothing_and_the_list_is_cut() {
    let name = "x".repeat(1 << 20);
    let json = format!(r#"{{"userTyping": {{"{name}": 1}}}}"#);
    let error = bundled().envelope_from_json(json.as_bytes()).unwrap_err();
    assert!(error.to_string().len() < (1 << 20) + 1000);
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
fn names_that_are_the_applications_own_may_be_alike() {
    for json in [
        r#"{"scalars": {"byText": {"work_item": "a", "workItem": "b", "01": "", "1": ""}}}"#,
        r#"{"anything": {"record": {"work_item": 1, "workItem": 2}}}"#,
    ] {
        torture().envelope_from_json(json.as_bytes()).unwrap();
    }
}
