//! One or more .proto files of a user: a line `// file: NAME` begins another file. The
//! first line may name the envelope.

use sidewire_protocol::schema::{
    Schema, SchemaError,
    oracle::{judge, random_envelope, random_schema},
};

use crate::seeds::{Seeds, noise, read};

const ENVELOPE: &str = "// envelope: ";
const FILE: &str = "\n// file: ";

/// Compiles them.
pub fn run(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let envelope = text.lines().next().and_then(|it| it.strip_prefix(ENVELOPE));
    let mut files = text.split(FILE);
    let first = ("main.proto", files.next().unwrap_or_default());
    let named = files.map(|file| file.split_once('\n').unwrap_or((file, "")));
    let files: Vec<_> = std::iter::once(first).chain(named).collect();
    let compiled = Schema::from_texts(&files, envelope.unwrap_or("Envelope"));
    match compiled {
        Ok(schema) => check_schema(&schema, input),
        Err(error) => check_error(&error, &files),
    }
}

/// Checks that a compiled schema can be served: its envelopes are routed as prost-reflect
/// decodes them.
pub(crate) fn check_schema(schema: &Schema, tape: &[u8]) {
    let envelope = random_envelope(schema, tape);
    judge(schema, &envelope);
    drop(schema.envelope_to_json(&envelope));
    assert!(!schema.payloads().is_empty());
}

/// Checks that each finding has a message, and a line that exists.
pub(crate) fn check_error(error: &SchemaError, files: &[(&str, &str)]) {
    assert!(error.error_count() > 0, "{error}");
    for finding in error.diagnostics() {
        assert!(!finding.message.is_empty(), "{finding:?}");
        let known = files
            .iter()
            .filter(|(name, _)| finding.file.as_deref() == Some(*name));
        // If two files have the same name, either may be meant.
        let lines = known.map(|(_, text)| 1 + text.bytes().filter(|it| *it == b'\n').count());
        let has_line = match (finding.line, lines.max()) {
            (None, _) => true,
            (Some(line), Some(lines)) => (1..=lines).contains(&line),
            // A built-in file, whose name may also be one of the user's, or the source text
            // of a descriptor set.
            (Some(line), None) => line > 0,
        };
        assert!(has_line, "{finding:?}");
    }
    assert!(!error.to_string().is_empty());
}

/// Returns the bundled schemas, the one with every shape of field, random ones, and faulty ones.
#[must_use]
pub fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    let mut add = |name: &str, envelope: &str, files: &[String]| {
        let text = format!("{ENVELOPE}{envelope}\n{}", files.join(FILE));
        seeds.insert(name.to_owned(), text.into_bytes());
    };
    add(
        "generic",
        "generic.v1.Envelope",
        &[read("proto/generic/v1/envelope.proto")],
    );
    let torture = "crates/sidewire-protocol/src/schema/tests/torture.proto";
    let legacy = read("crates/sidewire-protocol/src/schema/tests/legacy.proto");
    let legacy = format!("legacy.proto\n{legacy}");
    add("torture", "test.v1.Envelope", &[read(torture), legacy]);
    for number in 0..20 {
        let text = random_schema(&noise(number, 60 * usize::try_from(number).unwrap_or(0)));
        let legacy = format!("random_legacy.proto\n{}", text.legacy);
        add(
            &format!("random-{number:02}"),
            "random.v1.Envelope",
            &[text.main, legacy],
        );
    }
    for (name, text) in ODD {
        let text = format!("syntax = \"proto3\";\n{text}");
        add(name, "Envelope", &[text]);
    }
    seeds
}

const ODD: &[(&str, &str)] = &[
    ("odd-empty", ""),
    ("odd-not-closed", "message Envelope {"),
    ("odd-no-field", "message Envelope {}"),
    (
        "odd-import",
        "import \"nowhere.proto\";\nmessage Envelope {}",
    ),
    (
        "odd-import-of-itself",
        "import \"main.proto\";\nmessage Envelope {}",
    ),
    (
        "odd-option",
        "message Envelope { string a = 1 [(nobody.knows) = \"it\"]; }",
    ),
    (
        "odd-group",
        "message Envelope { repeated group G = 1 { string a = 1; } }",
    ),
    (
        "odd-annotations",
        "import \"sidewire/v1/options.proto\";\nmessage Envelope {\n  \
         int32 a = 1 [(sidewire.v1.topic) = \"a\"];\n  \
         string b = 2 [(sidewire.v1.topic) = \"Bad Kind\"];\n  \
         map<string, string> c = 3 [(sidewire.v1.topic) = \"c\"];\n  \
         string d = 4 [(sidewire.v1.sender) = true, (sidewire.v1.absent) = \"x\"];\n}",
    ),
    (
        "odd-literals",
        "option java_package = \"\\x41\\u00e9\\'\" \"b\";\nenum E { A = 0x7fffffff; B = -010; }\n\
         message Envelope { reserved 2 to max; reserved \"x\"; string a = 1; }",
    ),
    (
        "odd-any",
        "import \"google/protobuf/any.proto\";\nmessage Envelope { google.protobuf.Any a = 1; }",
    ),
    (
        "odd-proto2",
        "message Envelope { required int32 a = 1 [default = nan]; extensions 5 to max; }",
    ),
    ("odd-edition", "edition = \"2023\";\nmessage Envelope {}"),
];
