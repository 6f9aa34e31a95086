//! The changes of a schema that a reload may apply; each of the others is reported with a
//! suggested action.

use super::{Schema, pool_of};

pub(super) const CHAT: &str = include_str!("chat.proto");

pub(super) fn schema_of(text: &str) -> Schema {
    Schema::compile(&pool_of(text), "chat.v1.Envelope").unwrap()
}

/// Returns the test schema with texts replaced.
pub(super) fn edited(edits: &[(&str, &str)]) -> Schema {
    let mut text = CHAT.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    schema_of(&text)
}

/// Returns the breaking changes of an edit to the test schema.
pub(super) fn breaks(edits: &[(&str, &str)]) -> Vec<String> {
    let changes = schema_of(CHAT).breaking_changes(&edited(edits));
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn each_breaking_change_is_reported_with_a_remedy() {
    const TYPING_IN_ENVELOPE: &str = "    Typing typing = 4;\n";
    for (from, to, says) in [
        // Fields.
        (
            "string text = 2;\n  Mood",
            "string text = 9;\n  Mood",
            "chat.v1.Post.text had the number 2 and now has 9; restore 2, and declare a new field if another number is wanted",
        ),
        (
            "string text = 2;\n  Mood",
            "string body = 2;\n  Mood",
            "chat.v1.Post.text is now named `body`, which clients that use JSON do not know; restore the name of number 2",
        ),
        (
            "string text = 2;\n  Mood",
            "int32 length = 2;\n  Mood",
            "chat.v1.Post.text was `string text = 2`, and the number now belongs to `int32 length = 2`; restore the old field, and give the new one a number of its own",
        ),
        (
            "string text = 2;\n  Mood",
            "string text = 2 [json_name = \"body\"];\n  Mood",
            "chat.v1.Post.text was `text` in JSON and is now `body`; restore the JSON name",
        ),
        (
            "string text = 2;\n  Mood",
            "bytes text = 2;\n  Mood",
            "chat.v1.Post.text was declared as `string` and is now `bytes`; restore the type, and declare a new field if another one is wanted",
        ),
        (
            "string text = 2;\n  Mood",
            "repeated string text = 2;\n  Mood",
            "chat.v1.Post.text was declared as `string` and is now `repeated string`; restore the type, and declare a new field if another one is wanted",
        ),
        (
            "repeated string tags = 4;",
            "string tags = 4;",
            "chat.v1.Post.tags was declared as `repeated string` and is now `string`; restore the type, and declare a new field if another one is wanted",
        ),
        (
            "int32 size = 50;",
            "int64 size = 50;",
            "chat.v1.Post.size was declared as `int32` and is now `int64`; restore the type, and declare a new field if another one is wanted",
        ),
        (
            "map<string, Person> people",
            "map<int32, Person> people",
            "chat.v1.Post.people was declared as `map<string, chat.v1.Person>` and is now `map<int32, chat.v1.Person>`; restore the type, and declare a new field if another one is wanted",
        ),
        (
            "map<string, Person> people",
            "map<string, string> people",
            "chat.v1.Post.people was declared as `map<string, chat.v1.Person>` and is now `map<string, string>`; restore the type, and declare a new field if another one is wanted",
        ),
        (
            "map<string, Person> people",
            "repeated Person people",
            "chat.v1.Post.people was declared as `map<string, chat.v1.Person>` and is now `repeated chat.v1.Person`; restore the type, and declare a new field if another one is wanted",
        ),
        (
            "Mood mood = 3;",
            "int32 mood = 3;",
            "chat.v1.Post.mood was declared as `chat.v1.Mood` and is now `int32`; restore the type, and declare a new field if another one is wanted",
        ),
        (
            "Person author = 7;",
            "Edit author = 7;",
            "chat.v1.Post.author was declared as `chat.v1.Person` and is now `chat.v1.Edit`; restore the type, and declare a new field if another one is wanted",
        ),
        (
            "google.protobuf.Timestamp at = 8;",
            "Moment at = 8; message Moment { int64 seconds = 1; int32 nanos = 2; }",
            "chat.v1.Post.at was declared as `google.protobuf.Timestamp` and is now `chat.v1.Post.Moment`; restore the type, and declare a new field if another one is wanted",
        ),
        (
            "string text = 2;\n  Mood",
            "Mood",
            "chat.v1.Post.text is missing; restore the field and mark it as deprecated, or reserve its number 2 and its name",
        ),
        (
            "string text = 2;\n  Mood",
            "reserved 2; Mood",
            "chat.v1.Post.text is missing; restore the field and mark it as deprecated, or reserve its number 2 and its name",
        ),
        (
            "string text = 2;\n  Mood",
            "reserved \"text\"; Mood",
            "chat.v1.Post.text is missing; restore the field and mark it as deprecated, or reserve its number 2 and its name",
        ),
        // Oneofs.
        (
            "  string title = 30;\n  string subtitle = 31;",
            "  oneof heading { string title = 30; string subtitle = 31; }",
            "chat.v1.Post.title shares a oneof with other fields than before, so setting it would clear other fields; restore the oneofs\n\
             chat.v1.Post.subtitle shares a oneof with other fields than before, so setting it would clear other fields; restore the oneofs",
        ),
        (
            "  oneof attachment {\n    string link = 20;\n    bytes image = 21;\n  }",
            "  string link = 20;\n  bytes image = 21;",
            "chat.v1.Post.link shares a oneof with other fields than before, so setting it would clear other fields; restore the oneofs\n\
             chat.v1.Post.image shares a oneof with other fields than before, so setting it would clear other fields; restore the oneofs",
        ),
        (
            "bytes image = 21;\n  }\n  string title = 30;",
            "bytes image = 21;\n  string title = 30;\n  }",
            "chat.v1.Post.link shares a oneof with other fields than before, so setting it would clear other fields; restore the oneofs\n\
             chat.v1.Post.image shares a oneof with other fields than before, so setting it would clear other fields; restore the oneofs\n\
             chat.v1.Post.title shares a oneof with other fields than before, so setting it would clear other fields; restore the oneofs",
        ),
        // Payloads.
        (
            TYPING_IN_ENVELOPE,
            "",
            "chat.v1.Envelope.typing is missing from `oneof payload`; restore it, since events of this type may be in the log and on their way",
        ),
        (
            "  oneof payload {\n    Post post = 2;",
            "  reserved 2;\n  reserved \"post\";\n  oneof payload {",
            "chat.v1.Envelope.post is missing from `oneof payload`; restore it, since events of this type may be in the log and on their way",
        ),
        (
            "    Batch batch = 17;\n",
            "",
            "chat.v1.Envelope.batch is missing from `oneof payload`; restore it, since events of this type may be in the log and on their way",
        ),
        (
            TYPING_IN_ENVELOPE,
            "Typing typing = 6;",
            "chat.v1.Envelope.typing had the number 4 and now has 6; restore 4, and declare a new field if another number is wanted",
        ),
        (
            TYPING_IN_ENVELOPE,
            "Typing is_typing = 4;",
            "chat.v1.Envelope.typing is now named `is_typing`, which clients that use JSON do not know; restore the name of number 4",
        ),
        (
            TYPING_IN_ENVELOPE,
            "Edit typing = 4;",
            "chat.v1.Envelope.typing was declared as `chat.v1.Typing` and is now `chat.v1.Edit`; restore the type, and declare a new field if another one is wanted",
        ),
        // Enums.
        (
            "MOOD_SAD = 2;",
            "MOOD_SAD = 4;",
            "chat.v1.Mood.MOOD_SAD had the number 2 and now has 4; restore 2, and declare a new value if another number is wanted",
        ),
        (
            "MOOD_SAD = 2;",
            "MOOD_UNHAPPY = 2;",
            "chat.v1.Mood.MOOD_SAD is now named `MOOD_UNHAPPY`, which clients that use JSON do not know; restore the name of number 2",
        ),
        (
            "MOOD_SAD = 2;",
            "reserved 2; reserved \"MOOD_SAD\";",
            "chat.v1.Mood.MOOD_SAD is missing; restore the value and mark it as deprecated, since JSON would show the bare number 2",
        ),
        // Annotations.
        (
            "string id = 1 [(sidewire.v1.topic) = \"person\"];",
            "string id = 1;",
            "chat.v1.Person.id is no longer annotated with (sidewire.v1.topic) = \"person\"; restore the annotation",
        ),
        (
            "string id = 1 [(sidewire.v1.topic) = \"person\"];",
            "string id = 1 [(sidewire.v1.topic) = \"user\"];",
            "chat.v1.Person.id was annotated with (sidewire.v1.topic) = \"person\" and is now annotated with (sidewire.v1.topic) = \"user\"; restore the annotation, and annotate another field if both are wanted",
        ),
        (
            "string id = 1 [(sidewire.v1.topic) = \"person\"];",
            "string id = 1 [(sidewire.v1.topic) = \"*\"];",
            "chat.v1.Person.id was annotated with (sidewire.v1.topic) = \"person\" and is now annotated with (sidewire.v1.topic) = \"*\"; restore the annotation, and annotate another field if both are wanted",
        ),
        (
            "string id = 1 [(sidewire.v1.topic) = \"person\"];",
            "reserved 1; reserved \"id\";",
            "chat.v1.Person.id is missing, and it was annotated with (sidewire.v1.topic) = \"person\"; restore the field with its annotation",
        ),
        (
            "repeated string room_ids = 1 [(sidewire.v1.topic) = \"room\"];\n",
            "",
            "chat.v1.Subscribe.room_ids is missing, and it was annotated with (sidewire.v1.topic) = \"room\"; restore the field with its annotation",
        ),
        (
            "repeated string room_ids = 1 [(sidewire.v1.topic) = \"room\"];\n",
            "repeated string room_ids = 1 [(sidewire.v1.topic) = \"person\"];\n",
            "chat.v1.Subscribe.room_ids was annotated with (sidewire.v1.topic) = \"room\" and is now annotated with (sidewire.v1.topic) = \"person\"; restore the annotation, and annotate another field if both are wanted",
        ),
        (
            " [(sidewire.v1.sender) = true]",
            "",
            "chat.v1.Typing.user_id is no longer annotated with (sidewire.v1.sender) = true; restore the annotation",
        ),
        (
            " [(sidewire.v1.absent) = \"away\"]",
            "",
            "chat.v1.Status.state is no longer annotated with (sidewire.v1.absent) = \"away\"; restore the annotation",
        ),
        (
            "(sidewire.v1.absent) = \"away\"",
            "(sidewire.v1.absent) = \"gone\"",
            "chat.v1.Status.state was annotated with (sidewire.v1.absent) = \"away\" and is now annotated with (sidewire.v1.absent) = \"gone\"; restore the annotation, and annotate another field if both are wanted",
        ),
        (
            "string state = 2 [",
            "optional string state = 2 [",
            "chat.v1.Status.state was declared as `string` and is now `optional string`; restore the type, and declare a new field if another one is wanted",
        ),
    ] {
        assert_eq!(breaks(&[(from, to)]).join("\n"), says, "{to}");
    }
}

#[test]
fn a_message_that_clients_may_send_must_keep_its_annotations() {
    let changes = breaks(&[
        ("  option (sidewire.v1.client_publish) = true;\n", ""),
        (" [(sidewire.v1.sender) = true]", ""),
    ]);
    assert_eq!(
        changes,
        [
            "chat.v1.Typing is no longer annotated with (sidewire.v1.client_publish) = true; restore the annotation",
            "chat.v1.Typing.user_id is no longer annotated with (sidewire.v1.sender) = true; restore the annotation",
        ]
    );
    let changes = breaks(&[
        ("(sidewire.v1.presence)", "(sidewire.v1.client_publish)"),
        (" [(sidewire.v1.absent) = \"away\"]", ""),
    ]);
    assert_eq!(
        changes,
        [
            "chat.v1.Status is no longer annotated with (sidewire.v1.presence) = true; restore the annotation",
            "chat.v1.Status.state is no longer annotated with (sidewire.v1.absent) = \"away\"; restore the annotation",
        ]
    );
}

#[test]
fn a_sender_and_an_absent_value_cannot_move_to_another_field() {
    for (from, to, says) in [
        (
            "string user_id = 2 [(sidewire.v1.sender) = true];",
            "string user_id = 2;\n  string by = 3 [(sidewire.v1.sender) = true];",
            "chat.v1.Typing.user_id is no longer annotated with (sidewire.v1.sender) = true; restore the annotation",
        ),
        (
            "string user_id = 2 [(sidewire.v1.sender) = true];",
            "reserved 2; reserved \"user_id\";",
            "chat.v1.Typing.user_id is missing, and it was annotated with (sidewire.v1.sender) = true; restore the field with its annotation",
        ),
        (
            "string state = 2 [(sidewire.v1.absent) = \"away\"];",
            "string state = 2;\n  bool away = 3 [(sidewire.v1.absent) = \"true\"];",
            "chat.v1.Status.state is no longer annotated with (sidewire.v1.absent) = \"away\"; restore the annotation",
        ),
        (
            "string state = 2 [(sidewire.v1.absent) = \"away\"];",
            "reserved 2; reserved \"state\";",
            "chat.v1.Status.state is missing, and it was annotated with (sidewire.v1.absent) = \"away\"; restore the field with its annotation",
        ),
    ] {
        assert_eq!(breaks(&[(from, to)]).join("\n"), says, "{to}");
    }
}

#[test]
fn all_breaking_changes_are_listed_from_the_envelope_down() {
    let changes = breaks(&[
        ("Edit edit = 3;", ""),
        ("string name = 2;", "bytes name = 2;"),
        ("MOOD_GLAD = 1;", "MOOD_GLAD = 9;"),
        ("string title = 30;", ""),
    ]);
    let places: Vec<_> = changes
        .iter()
        .map(|change| change.split_once(' ').unwrap().0)
        .collect();
    assert_eq!(
        places,
        [
            "chat.v1.Envelope.edit",
            "chat.v1.Post.title",
            "chat.v1.Mood.MOOD_GLAD",
            "chat.v1.Person.name",
        ]
    );
}

#[test]
fn two_fields_that_swap_their_numbers_are_both_named() {
    let changes = breaks(&[
        ("title = 30", "title = 31"),
        ("subtitle = 31", "subtitle = 30"),
    ]);
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(changes[0].starts_with("chat.v1.Post.title had the number 30 and now has 31"));
    assert!(changes[1].starts_with("chat.v1.Post.subtitle had the number 31 and now has 30"));
}

#[test]
fn another_envelope_is_the_only_change_that_is_reported() {
    let pool = pool_of(&CHAT.replace("Envelope", "Frame"));
    let other = Schema::compile(&pool, "chat.v1.Frame").unwrap();
    let changes = schema_of(CHAT).breaking_changes(&other);
    assert_eq!(changes.len(), 1);
    assert_eq!(
        changes[0].to_string(),
        "chat.v1.Envelope is the envelope, and would be replaced by chat.v1.Frame; another envelope needs a restart"
    );
}

#[test]
fn a_reserved_number_or_name_must_stay_reserved() {
    const TEXT: &str = "string text = 2;\n  Mood";
    let changes = |from: &str, to: &str| -> Vec<_> {
        let changes = edited(&[(TEXT, from)]).breaking_changes(&edited(&[(TEXT, to)]));
        changes.iter().map(ToString::to_string).collect()
    };
    let reserved = "reserved 2, 60 to 69; reserved \"text\"; Mood";
    let restore = "which clients may know as a field of another type; restore the reservation";
    assert_eq!(
        changes(reserved, "int32 text = 2; Mood"),
        ["2", "60 to 69", "`text`"]
            .map(|it| format!("chat.v1.Post no longer reserves {it}, {restore}"))
    );
    assert_eq!(
        changes(
            reserved,
            "reserved 2, 60 to 62, 65 to 69; reserved \"text\"; Mood"
        ),
        [format!(
            "chat.v1.Post no longer reserves 63 to 64, {restore}"
        )]
    );
    for wider in [
        "reserved 2, 60 to 64, 65 to 70; reserved \"text\", \"body\"; Mood",
        "reserved 2, 60 to max; reserved \"text\"; Mood",
    ] {
        assert_eq!(changes(reserved, wider), [""; 0], "{wider}");
    }
    let later = "  reserved 19 to 31;\n  oneof payload {";
    let old = edited(&[("  oneof payload {", later)]);
    let renewing = (
        "Pong pong = 15;",
        "Pong pong = 15; sidewire.v1.Authenticate authenticate = 19; sidewire.v1.Authenticated authenticated = 20;",
    );
    assert_eq!(old.breaking_changes(&edited(&[renewing])), []);
}

#[test]
fn the_revision_of_a_schema_is_the_same_in_every_release() {
    assert_eq!(schema_of(CHAT).revision().to_string(), "0992345112ac");
}
