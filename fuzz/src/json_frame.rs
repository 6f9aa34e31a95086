//! A client's JSON frame, compared with the same frame in binary. The first byte selects
//! the schema.

use sidewire::{auth::Grant, config::Config, connection::Conversation};
use sidewire_protocol::{
    MessageId, UserName,
    schema::{JsonError, Schema, oracle::reflected_from_json},
};

use crate::{
    conversation,
    schemas::{BUNDLED, GENERIC, TORTURE},
    seeds::{Seeds, events},
};

const NOW: i64 = 1_800_000_000;

/// Handles one frame.
pub fn run(input: &[u8]) {
    let Some((first, json)) = input.split_first() else {
        return;
    };
    let schema: &Schema = match first % 3 {
        0 => &BUNDLED,
        1 => &GENERIC,
        _ => &TORTURE,
    };
    let read = schema.envelope_from_json(json);
    assert_eq!(
        read,
        schema.envelope_from_json(json),
        "the same JSON, twice"
    );
    check_client(schema, json, &read);
    match read {
        Ok(envelope) => check_envelope(schema, json, &envelope),
        Err(error) => check_error(&error),
    }
    if first % 3 == 0
        && let Ok(envelope) = schema.envelope_from_json(json)
    {
        conversation::run(&envelope);
    }
}

/// Checks that a client's JSON is decoded like a backend's (only the suggestions in errors
/// may differ), and that peeking at it agrees with decoding it.
fn check_client(schema: &Schema, json: &[u8], read: &Result<Vec<u8>, JsonError>) {
    let by_client = schema.envelope_from_client_json(json);
    assert_eq!(by_client.as_ref().ok(), read.as_ref().ok());
    let peeked = schema.peek_client_json(json);
    match read {
        Ok(envelope) => {
            let Ok(inspected) = schema.inspect(envelope) else {
                return;
            };
            let payload = inspected.payload.as_ref().map(|payload| payload.kind);
            assert_eq!(peeked.payload, payload);
            let id = peeked.message_id.as_ref().map(|id| id.as_str());
            let told = inspected
                .message_id
                .filter(|it| MessageId::parse(it).is_ok());
            assert_eq!(id, told);
        }
        Err(_) => check_error(&by_client.expect_err("both refuse it")),
    }
}

/// Checks that the relay decodes the JSON as prost-reflect does: both envelopes have the
/// same answer and the same JSON.
fn check_envelope(schema: &Schema, json: &[u8], envelope: &[u8]) {
    let theirs = reflected_from_json(schema, json).expect("prost-reflect takes it");
    let user = UserName::parse("ann").expect("it is a name");
    let limits = (&Config::default()).into();
    let conversation = Conversation::new(&user, &Grant::Everything, limits);
    let action = conversation.handle_frame(schema, envelope, NOW);
    assert_eq!(action, conversation.handle_frame(schema, &theirs, NOW));
    let (text, their_text) = (
        schema.envelope_to_json_text(envelope),
        schema.envelope_to_json_text(&theirs),
    );
    assert_eq!(text, their_text);
    if let Ok(text) = text {
        let again = schema.envelope_from_json(text.as_bytes());
        assert_eq!(again.as_deref(), Ok(envelope), "{text}");
    }
}

fn check_error(error: &JsonError) {
    assert!(!error.to_string().is_empty());
    assert!(error.field().is_none_or(|field| !field.is_empty()));
}

/// Returns control messages and events in JSON, and frames that are refused.
#[must_use]
pub fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    let mut add = |name: &str, schema: u8, json: &str| {
        seeds.insert(name.to_owned(), [&[schema][..], json.as_bytes()].concat());
    };
    for (name, json) in conversation::CONTROL {
        add(name, 0, json);
    }
    for (name, json) in events() {
        add(&name, 0, &json);
    }
    for (name, json) in GENERIC_MESSAGES {
        add(&format!("generic-{name}"), 1, json);
    }
    for (name, json) in ODD {
        add(&format!("odd-{name}"), 2, json);
    }
    seeds
}

const GENERIC_MESSAGES: &[(&str, &str)] = &[
    (
        "message",
        r#"{"message":{"type":"typing","data":{"a":[1,null,true,"x",{"b":-0.5e3}]},"topics":["order:7"]}}"#,
    ),
    (
        "presence",
        r#"{"presence":{"type":"viewing","bytes":"AAEC","topics":["order:7"],"absent":true}}"#,
    ),
    ("subscribe", r#"{"subscribe":{"topics":["order:7"]}}"#),
    ("null", r#"{"event":{"data":null}}"#),
];

const ODD: &[(&str, &str)] = &[
    ("no-object", "[]"),
    ("open", r#"{"tree":{"id":"#),
    ("twice", r#"{"tree":{"id":"a","id":"b"}}"#),
    (
        "two-styles",
        r#"{"scalars":{"packed_a":[1],"packedA":[2]}}"#,
    ),
    ("two-payloads", r#"{"tree":{},"plain":{}}"#),
    ("unknown", r#"{"tree":{"colour":1}}"#),
    (
        "numbers",
        r#"{"scalars":{"a":"NaN","b":1e3,"c":1.0,"d":"-9223372036854775808","f":18446744073709551615,"g":-0}}"#,
    ),
    (
        "maps",
        r#"{"scalars":{"byText":{"a":"b"},"byFlag":{"true":1},"byNumber":{"-1":"AA"},"byFixed":{"7":"COLOUR_RED"}}}"#,
    ),
    (
        "well-known",
        r#"{"anything":{"record":{"a":[1,null]},"at":"2024-02-29T12:00:00.000000001Z"}}"#,
    ),
    (
        "out-of-range",
        r#"{"anything":{"at":"9999-12-31T23:59:60Z"}}"#,
    ),
    ("escapes", r#"{"plain":{"text":"\ud83d\ude00\u0000\/\b"}}"#),
    ("lone-surrogate", r#"{"plain":{"text":"\ud83d"}}"#),
    (
        "extension",
        r#"{"legacy":{"id":"x","[test.v1.labels]":["a"]}}"#,
    ),
];
