//! Unusual valid schemas, and the choice of the envelope. Refused schemas are in `bad.rs`.

use super::{Schema, TORTURE, pool_of};

#[test]
fn a_message_id_may_be_optional() {
    let text = TORTURE.replace("string message_id = 1;", "optional string message_id = 1;");
    assert!(Schema::compile(&pool_of(&text), "test.v1.Envelope").is_ok());
}

#[test]
fn a_topic_of_a_user_may_be_annotated() {
    let to = "message Plain { string x = 8 [(sidewire.v1.topic) = \"user\"];";
    let pool = pool_of(&TORTURE.replacen("message Plain {", to, 1));
    assert!(Schema::compile(&pool, "test.v1.Envelope").is_ok());
}

#[test]
fn a_schema_without_annotations_compiles_and_names_no_topics() {
    let text = TORTURE
        .replace("import \"sidewire/v1/options.proto\";", "")
        .replace("import \"legacy.proto\";", "")
        .replace("    Legacy legacy = 32;\n", "");
    let mut bare = String::new();
    for line in text.lines() {
        let end = if line.contains("[(sidewire") {
            ";\n"
        } else {
            "\n"
        };
        bare.push_str(line.split(" [(sidewire").next().unwrap());
        bare.push_str(end);
    }
    let schema = Schema::compile(&pool_of(&bare), "test.v1.Envelope").unwrap();
    let envelope = super::field(2, &super::field(1, b"a"));
    assert_eq!(schema.inspect(&envelope).unwrap().topics, []);
}

#[test]
fn two_extensions_of_a_message_with_one_number_are_refused() {
    let twice = "syntax = \"proto2\"; package test.v1; import \"legacy.proto\";\n\
                 extend Legacy {\n optional string a = 150;\n optional sint64 b = 150;\n}";
    let legacy = include_str!("legacy.proto");
    let files = |twice| {
        [
            ("test.proto", TORTURE),
            ("legacy.proto", legacy),
            ("twice.proto", twice),
        ]
    };
    let error = Schema::from_texts(&files(twice), "test.v1.Envelope").unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("test.v1.Legacy has two extensions with the number 150"),
        "{text}"
    );
    assert_eq!(error.error_count(), 1, "{text}");
    let once = twice.replace("b = 150", "b = 151");
    assert!(Schema::from_texts(&files(&once), "test.v1.Envelope").is_ok());
}

/// Returns the error of a schema with this text and envelope.
fn error(text: &str, envelope: &str) -> String {
    let compiled = Schema::from_texts(&[("test.proto", text)], envelope);
    compiled.expect_err(text).to_string()
}

#[test]
fn an_error_about_an_unknown_envelope_suggests_the_nearest_name() {
    let text = "syntax = \"proto3\"; package chat.v1; \
        message Frame { oneof payload { Said said = 2; } } \
        message Said { map<string, string> x = 1; }";
    for (envelope, hint) in [
        ("Frame", "did you mean `chat.v1.Frame`?"),
        ("chat.v2.frame", "did you mean `chat.v1.Frame`?"),
        ("chat.v1.Fram", "did you mean `chat.v1.Frame`?"),
        ("chat.v1.Sayd", "did you mean `chat.v1.Said`?"),
        // The only message with payloads.
        ("x", "did you mean `chat.v1.Frame`?"),
    ] {
        let expected = format!(
            "error: there is no message `{envelope}` to use as the envelope\n  hint: {hint}"
        );
        assert_eq!(error(text, envelope), expected);
    }
    let none = error("syntax = \"proto3\"; message A {}", "zzzzzz");
    assert!(
        none.ends_with(
            "hint: give the full name of the message with the oneof `payload`, package included"
        ),
        "{none}"
    );
    let empty = Schema::from_texts(&[], "a.B").unwrap_err().to_string();
    assert!(
        empty.starts_with("error: there is no message `a.B`"),
        "{empty}"
    );
}

#[test]
fn an_envelope_in_a_broken_file_is_not_reported_as_missing() {
    let text = "syntax = \"proto3\";\npackage chat.v1;\nmessage Frame { oneof payload { Gone gone = 2; } }";
    assert_eq!(
        error(text, "chat.v1.Frame"),
        "test.proto:3: error: name 'Gone' is not defined\n  \
         hint: declare it, or import the file that does"
    );
}

#[test]
fn an_option_with_another_definition_is_refused() {
    let text = "syntax = \"proto3\"; package sidewire.v1; \
        import \"google/protobuf/descriptor.proto\"; \
        extend google.protobuf.FieldOptions { int32 topic = 50510; }";
    let error = Schema::compile(&pool_of(text), "a.B").unwrap_err();
    assert!(
        error.to_string().starts_with(
            "test.proto: error: the option sidewire.v1.topic is not the one of sidewire/v1/options.proto\n  \
             hint: remove it, and import \"sidewire/v1/options.proto\""
        ),
        "{error}"
    );
}

#[test]
fn without_source_information_the_file_and_the_field_are_named() {
    let text = TORTURE.replacen("string message_id = 1;", "bytes message_id = 1;", 1);
    let error = Schema::compile(&pool_of(&text), "test.v1.Envelope").unwrap_err();
    let first = error.to_string();
    assert!(
        first.starts_with("test.proto: error: test.v1.Envelope.message_id is `bytes message_id = 1`, and the relay needs `string message_id = 1`"),
        "{first}"
    );
}
