//! Conditions on events, evaluated on the JSON of events.

use super::torture;
use crate::schema::{BundledSchema, EventCondition, Schema};

fn holds(schema: &Schema, condition: &str, event: &str) -> bool {
    let envelope = schema.envelope_from_json(event.as_bytes()).unwrap();
    let json = schema.envelope_to_json(&envelope).unwrap();
    EventCondition::parse(schema, condition)
        .unwrap()
        .is_met_by(&json)
}

#[test]
fn a_condition_accepts_both_styles_of_names_and_matches_any_list_element() {
    let event = r#"{"messageId": "m", "timestamp": "5", "scalars": {
        "b": 1.5, "d": "-7", "m": true, "n": "text", "p": "COLOUR_RED", "packedC": [1, 2],
        "packedA": [0.1], "packedB": [0.1],
        "strings": ["x", "y"], "byText": {"env": "prod"}, "byFlag": {"true": "4"}
    }}"#;
    for condition in [
        "message_id=m",
        "messageId=m",
        "timestamp=5",
        "scalars.b=1.5",
        "scalars.b=1.50",
        "scalars.packed_b=0.1",
        "scalars.packed_b=0.100000001",
        "scalars.packed_a=0.1",
        "scalars.d=-7",
        "scalars.m=true",
        "scalars.n=text",
        "scalars.p=COLOUR_RED",
        "scalars.p=1",
        "scalars.packed_c=2",
        "scalars.packedC[]=1",
        "scalars.strings=y",
        "scalars.by_text.env=prod",
        "scalars.byFlag.true=4",
        // The defaults are not in the JSON.
        "scalars.c=0",
        "scalars.c=-0",
        "scalars.a=0.0",
        "scalars.j=00",
        "scalars.o=",
        "scalars.maybe=3",
    ] {
        let expected = condition != "scalars.maybe=3";
        assert_eq!(holds(&torture(), condition, event), expected, "{condition}");
    }
    for condition in [
        "scalars.n=Text",
        "scalars.n=",
        "scalars.m=false",
        "scalars.p=0",
        "scalars.packed_c=0",
        "scalars.packed_c=3",
        "scalars.packed_a=0.100000001",
        "scalars.a=0.1",
        "scalars.by_text.env=test",
        "scalars.by_text.host=prod",
        "scalars.maybe=0",
        "tree.id=",
        "tree.id=a",
    ] {
        assert!(!holds(&torture(), condition, event), "{condition}");
    }
}

#[test]
fn each_name_of_an_enum_value_matches_it() {
    let text = include_str!("bad/chat.proto").replace(
        "enum Status {\n",
        "enum Status {\n  option allow_alias = true;\n  STATUS_UNKNOWN = 0;\n",
    );
    let text = text.replace(
        "  STATUS_AWAY = 2;",
        "  STATUS_AWAY = 2;\n  STATUS_GONE = 2;",
    );
    let chat = Schema::from_texts(&[("chat.proto", &text)], "chat.v1.Envelope").unwrap();
    let event = r#"{"presence": {"room": "r", "status": "STATUS_AWAY"}}"#;
    for name in ["STATUS_AWAY", "STATUS_GONE", "2"] {
        let condition = format!("presence.status={name}");
        assert!(holds(&chat, &condition, event), "{name}");
    }
    for name in ["STATUS_UNKNOWN", "STATUS_UNSPECIFIED", "0"] {
        let condition = format!("presence.status={name}");
        assert!(holds(&chat, &condition, r#"{"presence": {}}"#), "{name}");
    }
}

#[test]
fn a_condition_searches_lists_of_messages_and_application_json() {
    let tree = r#"{"tree": {"children": [{"id": "a"}, {"id": "b", "tags": ["t"]}]}}"#;
    assert!(holds(&torture(), "tree.children.id=b", tree));
    assert!(holds(&torture(), "tree.children[].tags[]=t", tree));
    assert!(!holds(&torture(), "tree.children.id=c", tree));

    let generic = BundledSchema::by_name("generic")
        .unwrap()
        .compile()
        .unwrap();
    let event = r#"{"event": {"data": {"order": 7, "lines": [{"sku": "a=b"}], "gone": null}}}"#;
    for condition in [
        "event.data.order=7",
        "event.data.lines.sku=a=b",
        "event.data.gone=null",
    ] {
        assert!(holds(&generic, condition, event), "{condition}");
    }
    assert!(!holds(&generic, "event.data.order=8", event));
    assert!(!holds(&generic, "event.data.none=", event));
}

#[test]
fn a_condition_that_can_never_hold_is_refused_with_a_reason() {
    for (condition, reason) in [
        ("tree.id", "has no `=` between a field and a value"),
        (
            "tre.id=a",
            "test.v1.Envelope has no field `tre`; did you mean `tree`?",
        ),
        (
            "choice.idea=1",
            "test.v1.Choice has no field `idea`; it has name, tree, plain, nothing, number, blob",
        ),
        ("tree.id.more=a", "`more` has no fields"),
        ("tree=a", "`tree` is a message; name one of its fields"),
        (
            "scalars.by_text=a",
            "`scalars.by_text` is a map; name one of its keys",
        ),
        (
            "scalars.m=yes",
            "`scalars.m` cannot be `yes`: it is true or false",
        ),
        ("scalars.c=x", "`scalars.c` cannot be `x`: it is a number"),
        (
            "scalars.p=RED",
            "`scalars.p` cannot be `RED`: it is one of COLOUR_UNSPECIFIED, COLOUR_RED",
        ),
        ("anything.at.seconds=1", "`seconds` has no fields"),
    ] {
        let error = EventCondition::parse(&torture(), condition).unwrap_err();
        assert_eq!(error.to_string(), reason, "{condition}");
    }
}
