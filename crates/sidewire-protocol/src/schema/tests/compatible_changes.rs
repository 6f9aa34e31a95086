//! The changes of a schema that a reload applies, and those that nobody can observe.

use super::{
    Schema,
    compatibility::{CHAT, breaks, edited, schema_of},
    pool_of,
};

#[test]
fn an_addition_breaks_nothing_and_makes_a_new_revision() {
    let old = schema_of(CHAT);
    for edits in [
        // A payload with its own message.
        &[
            ("Edit edit = 3;", "Edit edit = 3; Left left = 6;"),
            (
                "message Edit {",
                "message Left { string room_id = 1 [(sidewire.v1.topic) = \"room\"]; }\nmessage Edit {",
            ),
        ][..],
        &[("int32 size = 50;", "int32 size = 50; string language = 51;")],
        &[("int32 size = 50;", "optional int32 size = 50;")],
        &[("MOOD_SAD = 2;", "MOOD_SAD = 2; MOOD_CALM = 7;")],
        // Annotations.
        &[(
            "string name = 2;",
            "string name = 2 [(sidewire.v1.topic) = \"name\"];",
        )],
        &[(
            "message Edit {",
            "message Edit { option (sidewire.v1.client_publish) = true;",
        )],
        &[(
            "option (sidewire.v1.client_publish) = true;",
            "option (sidewire.v1.presence) = true;",
        )],
        // A message has one sender.
        &[(
            "message Edit {",
            "message Edit { option (sidewire.v1.client_publish) = true; string by = 60 [(sidewire.v1.sender) = true];",
        )],
        // A list of Subscribe.
        &[
            (
                "repeated string room_ids = 1 [(sidewire.v1.topic) = \"room\"];",
                "repeated string room_ids = 1 [(sidewire.v1.topic) = \"room\"];\n  repeated string person_ids = 2 [(sidewire.v1.topic) = \"person\"];",
            ),
            (
                "message SubscriptionConfirmed {",
                "message SubscriptionConfirmed {\n  repeated string person_ids = 2;",
            ),
        ],
        // Lists of Unsubscribe, in place of the relay's own message.
        &[
            (
                "sidewire.v1.Unsubscribe unsubscribe",
                "Unsubscribe unsubscribe",
            ),
            (
                "sidewire.v1.UnsubscribeConfirmed unsubscribe",
                "UnsubscribeConfirmed unsubscribe",
            ),
            (
                "message Post {",
                "message Unsubscribe { repeated string room_ids = 1 [(sidewire.v1.topic) = \"room\"]; repeated string topics = 16; }\n\
                 message UnsubscribeConfirmed { repeated string room_ids = 1; repeated string topics = 16; string request_message_id = 19; }\n\
                 message Post {",
            ),
        ],
        // Oneofs.
        &[("string link = 20;", "string link = 20; string video = 22;")],
        &[(
            "string title = 30;",
            "oneof heading { string title = 30; string logo = 32; }",
        )],
        &[(
            "  oneof single {\n    string footnote = 40;\n  }",
            "string footnote = 40;",
        )],
        &[("oneof attachment", "oneof extra")],
        // Messages and enums with an unchanged layout under another name.
        &[
            ("map<string, Person>", "map<string, Human>"),
            ("Person author", "Human author"),
            ("message Person", "message Human"),
        ],
        &[("Mood mood", "Temper mood"), ("enum Mood", "enum Temper")],
        // A removed field that cannot return with a different type.
        &[(
            "string text = 2;\n  Mood",
            "reserved 2; reserved \"text\"; Mood",
        )],
    ] {
        assert_eq!(breaks(edits), Vec::<String>::new(), "{edits:?}");
        assert_ne!(edited(edits).revision(), old.revision(), "{edits:?}");
    }
}

#[test]
fn a_change_that_clients_cannot_see_keeps_the_revision() {
    let old = schema_of(CHAT);
    assert_eq!(old.revision().to_string().len(), 12);
    let imports = (
        "import \"sidewire/v1/options.proto\";\nimport \"sidewire/v1/relay.proto\";",
        "import \"sidewire/v1/relay.proto\";\nimport \"sidewire/v1/options.proto\";",
    );
    for edit in [
        ("message Person {", "// Who wrote it.\nmessage Person {"),
        imports,
        (
            "message Draft {\n  string text = 1;",
            "message Draft {\n  int32 text = 1;",
        ),
        (
            "  string title = 30;\n  string subtitle = 31;",
            "string subtitle = 31;\nstring title = 30;",
        ),
        ("string name = 2;", "string name = 2 [deprecated = true];"),
        (
            "package chat.v1;",
            "package chat.v1;\noption java_package = \"v1.chat\";",
        ),
    ] {
        assert_eq!(edited(&[edit]).revision(), old.revision(), "{edit:?}");
    }
    let draft = (
        "message Draft {\n  string text = 1;",
        "message Draft {\n  int32 text = 1;",
    );
    assert_eq!(breaks(&[draft]), Vec::<String>::new());
}

#[test]
fn aliases_of_enum_values_may_be_added_but_not_removed() {
    let with = ("MOOD_SAD = 2;", "MOOD_SAD = 2; MOOD_LOW = 2;");
    let (one, two) = (edited(&[]), edited(&[with]));
    let shown = |schema: &Schema| schema.outline().enums["chat.v1.Mood"].names[&2].clone();
    // prost-reflect determines which of the two JSON shows.
    let comes: Vec<_> = one.breaking_changes(&two);
    assert_eq!(comes.is_empty(), shown(&one) == shown(&two), "{comes:?}");
    let goes: Vec<_> = two.breaking_changes(&one);
    assert_eq!(goes.len(), 1, "{goes:?}");
    let goes = goes[0].to_string();
    assert!(goes.contains("chat.v1.Mood.MOOD_LOW is"), "{goes}");
}

#[test]
fn a_schema_of_recursive_messages_is_compatible_with_itself() {
    let torture = super::torture();
    assert_eq!(torture.breaking_changes(&super::torture()), []);
    let renamed = super::TORTURE
        .replace("Tree ", "Shrub ")
        .replace("Tree>", "Shrub>");
    let renamed = Schema::compile(&pool_of(&renamed), "test.v1.Envelope").unwrap();
    assert_eq!(torture.breaking_changes(&renamed), []);
    let spoiled = super::TORTURE
        .replace("Tree ", "Shrub ")
        .replace("Tree>", "Shrub>")
        .replace("repeated Shrub children = 4;", "Shrub children = 4;");
    let spoiled = Schema::compile(&pool_of(&spoiled), "test.v1.Envelope").unwrap();
    let places: Vec<_> = torture
        .breaking_changes(&spoiled)
        .into_iter()
        .map(|change| format!("{}.{}", change.message, change.field.unwrap()))
        .collect();
    assert_eq!(places, ["test.v1.Envelope.tree", "test.v1.Choice.tree"]);
}

#[test]
fn in_proto2_defaults_and_required_fields_count() {
    let legacy = |fields: &str| {
        format!(
            "syntax = \"proto2\"; package chat.v1; import \"sidewire/v1/relay.proto\";\n\
             message Envelope {{ optional string message_id = 1; optional int64 timestamp = 8; \
               optional sidewire.v1.Position position = 9; repeated string topics = 18; \
               oneof payload {{ Old old = 2; sidewire.v1.Subscribe subscribe = 10; \
                 sidewire.v1.SubscriptionConfirmed subscription_confirmed = 11; \
                 sidewire.v1.Unsubscribe unsubscribe = 12; \
                 sidewire.v1.UnsubscribeConfirmed unsubscribe_confirmed = 13; \
                 sidewire.v1.Ping ping = 14; sidewire.v1.Pong pong = 15; \
                 sidewire.v1.ErrorResponse error = 16; }} }}\n\
             message Old {{ {fields} }}"
        )
    };
    let old = schema_of(&legacy("optional int32 count = 1 [default = 3];"));
    for (fields, says) in [
        ("optional int32 count = 1 [default = 3];", ""),
        (
            "optional int32 count = 1;",
            "chat.v1.Old.count had the default `3` and now has `0`; restore the default",
        ),
        (
            "required int32 count = 1 [default = 3];",
            "chat.v1.Old.count was declared as `int32` and is now `required int32`; restore the type, and declare a new field if another one is wanted",
        ),
        (
            "optional int32 count = 1 [default = 3]; required string name = 2;",
            "chat.v1.Old.name is a new required field, which clients and stored events lack; make it optional",
        ),
    ] {
        let changes = old.breaking_changes(&schema_of(&legacy(fields)));
        let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(changes.join("\n"), says);
    }
}
