//! What is refused of a schema, and that the error names the culprit.

use super::{Schema, TORTURE, pool_of};

/// The error of the test schema in which one text stands in place of another.
fn error(from: &str, to: &str) -> String {
    assert!(TORTURE.contains(from), "{from}");
    let pool = pool_of(&TORTURE.replacen(from, to, 1));
    let compiled = Schema::compile(&pool, "test.v1.Envelope");
    compiled.expect_err(to).to_string()
}

/// A schema with lists of its own, to be spoiled likewise.
fn list_error(subscribe: &str, confirmed: &str) -> String {
    let messages = format!(
        "message Subscribe {{ {subscribe} repeated string topics = 16; \
           sidewire.v1.Position resume_from = 17; }}\n\
         message SubscriptionConfirmed {{ {confirmed} repeated string topics = 16; \
           sidewire.v1.Position position = 17; bool recovered = 18; \
           string request_message_id = 19; uint64 replayed = 20; }}\n\
         message Batch {{"
    );
    let text = TORTURE
        .replace("sidewire.v1.Subscri", "Subscri")
        .replace("message Batch {", &messages);
    match Schema::compile(&pool_of(&text), "test.v1.Envelope") {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_envelope_that_does_not_exist_is_named() {
    let error = Schema::compile(&pool_of(TORTURE), "Envelope").unwrap_err();
    assert!(
        error.to_string().contains("no message `Envelope`"),
        "{error}"
    );
}

#[test]
fn each_of_the_relays_fields_is_required_as_it_is() {
    for (from, to, says) in [
        (
            "string message_id = 1;",
            "",
            "Envelope lacks the relay's field `string message_id = 1`",
        ),
        (
            "string message_id = 1;",
            "bytes message_id = 1;",
            "must be declared as `string message_id = 1`",
        ),
        (
            "string message_id = 1;",
            "string id = 1;",
            "test.v1.Envelope.id must be",
        ),
        (
            "string message_id = 1;",
            "repeated string message_id = 1;",
            "message_id must be",
        ),
        (
            "int64 timestamp = 8;",
            "int32 timestamp = 8;",
            "`int64 timestamp = 8`",
        ),
        (
            "sidewire.v1.Position position = 9;",
            "Plain position = 9;",
            "`sidewire.v1.Position position = 9`",
        ),
        (
            "repeated string topics = 18;",
            "string topics = 18;",
            "`repeated string topics = 18`",
        ),
        (
            "sidewire.v1.Subscribe subscribe = 10;",
            "",
            "`message subscribe = 10`",
        ),
        (
            "sidewire.v1.Subscribe subscribe = 10;",
            "Plain subscribe = 10;",
            "test.v1.Plain lacks the relay's field `repeated string topics = 16`",
        ),
        (
            "sidewire.v1.Ping ping = 14;",
            "sidewire.v1.Pong ping = 14;",
            "`sidewire.v1.Ping ping = 14`",
        ),
        (
            "sidewire.v1.ErrorResponse error = 16;",
            "",
            "`sidewire.v1.ErrorResponse error = 16`",
        ),
        (
            "Batch batch = 17;",
            "Plain batch = 17;",
            "`repeated test.v1.Envelope messages = 1`",
        ),
        (
            "Batch batch = 17;",
            "Batch lot = 17;",
            "test.v1.Envelope.lot must be",
        ),
        (
            "oneof payload {",
            "sidewire.v1.Ping x = 30; oneof payload {",
            "test.v1.Envelope.x has a number that belongs to the relay",
        ),
        (
            "Plain plain = 4;",
            "string plain = 4;",
            "test.v1.Envelope.plain is a payload, so it must be a message",
        ),
        (
            "oneof payload {",
            "oneof body {",
            "subscribe must be a member of `oneof payload`",
        ),
        (
            "string message_id = 1;",
            "oneof o { string message_id = 1; }",
            "message_id must not be a member of a oneof",
        ),
    ] {
        let error = error(from, to);
        assert!(error.contains(says), "{to}: {error}");
    }
}

#[test]
fn a_message_id_may_be_optional() {
    let text = TORTURE.replace("string message_id = 1;", "optional string message_id = 1;");
    assert!(Schema::compile(&pool_of(&text), "test.v1.Envelope").is_ok());
}

#[test]
fn an_annotation_that_means_nothing_is_refused() {
    let plain = "message Plain {";
    for (field, says) in [
        (
            "string x = 8 [(sidewire.v1.topic) = \"Project\"];",
            "test.v1.Plain.x is annotated with the topic kind `Project`",
        ),
        (
            "string x = 8 [(sidewire.v1.topic) = \"\"];",
            "test.v1.Plain.x is annotated with the topic kind ``",
        ),
        (
            "string x = 8 [(sidewire.v1.topic) = \"tenant\"];",
            "`tenant`, which is the relay's own",
        ),
        (
            "int32 x = 8 [(sidewire.v1.topic) = \"a\"];",
            "test.v1.Plain.x is annotated with a topic, so",
        ),
        (
            "map<string, string> x = 8 [(sidewire.v1.topic) = \"a\"];",
            "test.v1.Plain.x is annotated with a topic, so",
        ),
        (
            "string x = 8 [(sidewire.v1.sender) = true];",
            "test.v1.Plain.x is annotated with sender",
        ),
        (
            "option (sidewire.v1.client_publish) = true; bytes x = 8 [(sidewire.v1.sender) = true];",
            "test.v1.Plain.x is annotated with sender",
        ),
        (
            "google.protobuf.Any x = 8;",
            "test.v1.Plain.x is a google.protobuf.Any",
        ),
    ] {
        let to = format!("{plain} {field}");
        let text = TORTURE.replace(
            "import \"legacy",
            "import \"google/protobuf/any.proto\"; import \"legacy",
        );
        let pool = pool_of(&text.replacen(plain, &to, 1));
        let error = Schema::compile(&pool, "test.v1.Envelope")
            .expect_err(field)
            .to_string();
        assert!(error.contains(says), "{field}: {error}");
    }
}

#[test]
fn a_topic_of_a_user_may_be_annotated() {
    let to = "message Plain { string x = 8 [(sidewire.v1.topic) = \"user\"];";
    let pool = pool_of(&TORTURE.replacen("message Plain {", to, 1));
    assert!(Schema::compile(&pool, "test.v1.Envelope").is_ok());
}

#[test]
fn a_schema_without_annotations_compiles_and_names_nothing() {
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
fn an_option_of_another_making_is_refused() {
    let text = "syntax = \"proto3\"; package sidewire.v1; \
        import \"google/protobuf/descriptor.proto\"; \
        extend google.protobuf.FieldOptions { int32 topic = 50510; }";
    let pool = pool_of(text);
    let error = super::super::annotations::Annotations::of(&pool)
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("sidewire.v1.topic is not the one"),
        "{error}"
    );
}

#[test]
fn a_group_is_refused_where_an_event_could_have_it() {
    let error = error("Legacy legacy = 32;", "Grouped legacy = 32;");
    assert!(
        error.contains("test.v1.Grouped.inner is a group"),
        "{error}"
    );
}

#[test]
fn lists_must_be_annotated_and_confirmed() {
    let list = "repeated string ids = 3 [(sidewire.v1.topic) = \"a\"];";
    let answer = "repeated string subscribed_ids = 3;";
    assert_eq!(list_error(list, answer), "");
    for (subscribe, confirmed, says) in [
        (
            "repeated string ids = 3;",
            answer,
            "test.v1.Subscribe.ids must be a repeated string annotated",
        ),
        (
            "string id = 3 [(sidewire.v1.topic) = \"a\"];",
            answer,
            "test.v1.Subscribe.id must be a repeated string",
        ),
        (
            "repeated string ids = 3 [(sidewire.v1.topic) = \"user\"];",
            answer,
            "to which clients cannot subscribe",
        ),
        (
            list,
            "",
            "test.v1.SubscriptionConfirmed must have a repeated string number 3, to confirm test.v1.Subscribe.ids",
        ),
        (
            list,
            "string subscribed_ids = 3;",
            "must have a repeated string number 3",
        ),
        (
            "string x = 20;",
            "",
            "test.v1.Subscribe.x has a number that belongs to the relay",
        ),
        (
            "",
            "string x = 40;",
            "test.v1.SubscriptionConfirmed.x has a number that belongs",
        ),
    ] {
        let error = list_error(subscribe, confirmed);
        assert!(error.contains(says), "{subscribe} {confirmed}: {error}");
    }
}
