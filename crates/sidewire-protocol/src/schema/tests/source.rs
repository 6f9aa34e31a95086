//! Loading schemas from files on disk and from descriptor sets.

use std::{fs, path::PathBuf, process::Command};

use prost_reflect::prost_types::FileDescriptorSet;
use tempfile::TempDir;

use super::{super::SchemaSource, *};

/// An envelope, and an event in a file that it imports.
const CHAT: &str = r#"syntax = "proto3";
package chat.v1;
import "chat/event.proto";
import "sidewire/v1/relay.proto";
message Envelope {
  string message_id = 1;
  int64 timestamp = 8;
  sidewire.v1.Position position = 9;
  repeated string topics = 18;
  oneof payload {
    sidewire.v1.Subscribe subscribe = 10;
    sidewire.v1.SubscriptionConfirmed subscription_confirmed = 11;
    sidewire.v1.Unsubscribe unsubscribe = 12;
    sidewire.v1.UnsubscribeConfirmed unsubscribe_confirmed = 13;
    sidewire.v1.Ping ping = 14;
    sidewire.v1.Pong pong = 15;
    sidewire.v1.ErrorResponse error = 16;
    Said said = 2;
  }
}
"#;
const EVENT: &str = r#"syntax = "proto3";
package chat.v1;
import "google/protobuf/timestamp.proto";
import "sidewire/v1/options.proto";
message Said {
  string room = 1 [(sidewire.v1.topic) = "room"];
  google.protobuf.Timestamp at = 2;
}
"#;

/// A directory with these files.
struct Dir(TempDir);

impl Dir {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = Self(TempDir::new().unwrap());
        for (name, text) in files {
            let path = dir.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Loads the files, with these include directories.
    fn load(&self, files: &[&str], include: &[&str]) -> Result<Schema, String> {
        let paths = |names: &[&str]| names.iter().map(|name| self.path(name)).collect();
        let source = SchemaSource::Files {
            files: paths(files),
            include: paths(include),
            envelope: "chat.v1.Envelope".to_owned(),
        };
        let root = format!("{}/", self.0.path().display());
        source
            .load()
            .map_err(|error| error.to_string().replace(&root, ""))
    }

    /// Loads the bytes as a descriptor set.
    fn load_set(&self, bytes: &[u8]) -> Result<Schema, String> {
        let file = self.path("chat.binpb");
        fs::write(&file, bytes).unwrap();
        let source = SchemaSource::DescriptorSet {
            file,
            envelope: "chat.v1.Envelope".to_owned(),
        };
        let root = format!("{}/", self.0.path().display());
        source
            .load()
            .map_err(|error| error.to_string().replace(&root, ""))
    }
}

fn chat() -> Dir {
    Dir::new(&[("chat/chat.proto", CHAT), ("chat/event.proto", EVENT)])
}

/// Asserts that the schema routes a message by its room.
fn assert_routes(schema: &Schema) {
    let event = schema
        .envelope_from_json(br#"{"said":{"room":"7"}}"#)
        .unwrap();
    assert_eq!(topics(&schema.inspect(&event).unwrap()), ["room:7"]);
}

#[test]
fn files_are_compiled_with_the_built_in_ones() {
    assert_routes(&chat().load(&["chat/chat.proto"], &["."]).unwrap());
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let dir = Dir::new(&[
        ("chat/chat.proto", &format!("\u{feff}{CHAT}")),
        ("chat/event.proto", &format!("\u{feff}{EVENT}")),
    ]);
    assert_routes(&dir.load(&["chat/chat.proto"], &["."]).unwrap());
}

#[test]
fn an_include_directory_that_does_not_exist_is_named() {
    let error = chat().load(&["chat/chat.proto"], &[".", "gone"]);
    assert_eq!(
        error.unwrap_err(),
        "gone: error: the include directory does not exist, or is not a directory\n  \
         hint: correct the path in `include`"
    );
    let error = chat().load(&["absent.proto"], &["chat"]).unwrap_err();
    assert!(
        error.starts_with("absent.proto: error: cannot be read: No such file or directory"),
        "{error}"
    );
}

#[test]
fn without_include_the_directories_of_the_files_are_used() {
    let flat = CHAT.replace("chat/event", "event");
    let dir = Dir::new(&[("chat.proto", &flat), ("event.proto", EVENT)]);
    assert_routes(&dir.load(&["chat.proto"], &[]).unwrap());
    assert_routes(&dir.load(&["event.proto", "chat.proto"], &[]).unwrap());
    let apart = Dir::new(&[("a/chat.proto", &flat), ("b/event.proto", EVENT)]);
    assert_routes(&apart.load(&["a/chat.proto", "b/event.proto"], &[]).unwrap());
}

#[test]
fn schemas_in_memory_are_compiled_in_the_same_way() {
    let files = [("chat/chat.proto", CHAT), ("chat/event.proto", EVENT)];
    assert_routes(&Schema::from_texts(&files, "chat.v1.Envelope").unwrap());
}

#[test]
fn symbolic_links_and_dots_in_paths_are_accepted() {
    // The layout of a ConfigMap mounted by Kubernetes.
    let dir = Dir::new(&[
        ("..data/chat.proto", &CHAT.replace("chat/event", "event")),
        ("..data/event.proto", EVENT),
    ]);
    for name in ["chat.proto", "event.proto"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), dir.path(name)).unwrap();
    }
    fs::create_dir(dir.path("other")).unwrap();
    assert_routes(&dir.load(&["other/../chat.proto"], &["./other/.."]).unwrap());
}

#[test]
fn missing_and_malformed_parts_of_all_files_are_reported_together() {
    let dir = Dir::new(&[
        ("chat.proto", &CHAT.replace("chat/event", "gone/event")),
        (
            "a.proto",
            "syntax = \"proto3\";\nmessage A {\n  strin g x = 1;\n}\n",
        ),
        (
            "b.proto",
            "syntax = \"proto3\";\nmessage B {\n  Missing x = 1;\n  Gone y = 2;\n}\n",
        ),
    ]);
    let error = dir
        .load(&["chat.proto", "a.proto", "b.proto"], &["."])
        .unwrap_err();
    let expected = "a.proto:3: error: expected '=', but found 'x'\n  \
        hint: correct this line, or the end of the one before it\n\
        b.proto:3: error: name 'Missing' is not defined\n  \
        hint: declare it, or import the file that does\n\
        b.proto:4: error: name 'Gone' is not defined\n  \
        hint: declare it, or import the file that does\n\
        chat.proto:3: error: there is no file gone/event.proto to import\n  \
        hint: imports are looked for in the directories of `include`, or, without it, in those of `files`";
    assert_eq!(error, expected);
}

#[test]
fn a_file_with_a_broken_option_does_not_affect_the_files_after_it() {
    let options = "syntax = \"proto2\";\n\
        import \"google/protobuf/descriptor.proto\";\n\
        extend google.protobuf.FieldOptions {\n  optional Missing column = 50000;\n}\n";
    let dir = Dir::new(&[
        ("a.proto", options),
        ("chat.proto", CHAT),
        ("chat/event.proto", EVENT),
    ]);
    let error = dir.load(&["a.proto", "chat.proto"], &["."]).unwrap_err();
    assert_eq!(
        error,
        "a.proto:4: error: name 'Missing' is not defined\n  \
         hint: declare it, or import the file that does"
    );
}

#[test]
fn circular_imports_are_named() {
    let dir = Dir::new(&[
        ("chat.proto", &CHAT.replace("chat/event", "event")),
        ("event.proto", &format!("{EVENT}import \"third.proto\";")),
        (
            "third.proto",
            "syntax = \"proto3\";\nimport \"event.proto\";",
        ),
    ]);
    let error = dir.load(&["chat.proto"], &[]).unwrap_err();
    assert_eq!(
        error,
        "third.proto:2: error: circular import: event.proto → third.proto → event.proto\n  \
         hint: move the declarations that both files need to a third file"
    );
}

#[test]
fn a_copy_of_a_built_in_file_must_not_differ() {
    let [options, relay] = super::super::BuiltInFile::relay_files() else {
        panic!("two files")
    };
    let commented = options.text.replace("//", "// A word.");
    let same = Dir::new(&[
        ("chat/chat.proto", CHAT),
        ("chat/event.proto", EVENT),
        (options.name, &commented),
        (relay.name, &relay.text.replace("Sidewire.V1", "Other")),
    ]);
    assert_routes(&same.load(&["chat/chat.proto"], &["."]).unwrap());

    // A file of an earlier release, which did not have these yet.
    let presence = "  bool presence = 50513;";
    assert!(options.text.contains(presence));
    let earlier = Dir::new(&[
        ("chat/chat.proto", CHAT),
        ("chat/event.proto", EVENT),
        (options.name, &options.text.replace(presence, "")),
        (relay.name, &relay.text.replace("uint64 replayed = 20;", "")),
    ]);
    assert_routes(&earlier.load(&["chat/chat.proto"], &["."]).unwrap());

    let other = Dir::new(&[
        ("chat/chat.proto", CHAT),
        ("chat/event.proto", EVENT),
        (options.name, &options.text.replace("50510", "50590")),
        (
            relay.name,
            &relay.text.replace("string epoch", "bytes epoch"),
        ),
        (
            "google/protobuf/timestamp.proto",
            "syntax = \"proto3\"; package google.protobuf; message Timestamp { int64 ms = 1; }",
        ),
        (
            "google/protobuf/descriptor.proto",
            "syntax = \"proto2\"; package google.protobuf;",
        ),
    ]);
    let error = other.load(&["chat/chat.proto"], &["."]).unwrap_err();
    for name in [options.name, relay.name, "google/protobuf/timestamp.proto"] {
        let says = format!(
            "{name}: error: this is not the {name} that is built into the relay, which imports use instead\n  hint: remove this copy"
        );
        assert!(error.contains(&says), "{error}");
    }
    assert!(!error.contains("descriptor.proto"), "{error}");
}

#[test]
fn an_unreadable_file_is_named() {
    let dir = chat();
    fs::write(dir.path("latin1.proto"), b"// \xe9\n").unwrap();
    let made = Command::new("mkfifo").arg(dir.path("pipe.proto")).status();
    assert!(made.unwrap().success());
    let zero = PathBuf::from("/dev/zero");
    std::os::unix::fs::symlink(zero, dir.path("zero.proto")).unwrap();
    for (file, says) in [
        ("absent.proto", "cannot be read: No such file or directory"),
        ("latin1.proto", "is not UTF-8 text"),
        ("pipe.proto", "is not a regular file"),
        ("zero.proto", "is not a regular file"),
        ("chat", "is not a regular file"),
    ] {
        let error = dir.load(&[file], &[]).unwrap_err();
        assert!(
            error.starts_with(&format!("{file}: error: {says}")),
            "{error}"
        );
        assert!(error.contains("\n  hint: "), "{error}");
    }
}

#[test]
fn the_total_size_of_the_files_of_a_schema_is_bounded() {
    let dir = chat();
    let half = " ".repeat(super::super::read::BYTES_MAX / 2);
    fs::write(dir.path("half.proto"), &half).unwrap();
    fs::write(dir.path("second.proto"), &half).unwrap();
    let error = dir.load(&["half.proto", "second.proto"], &[]).unwrap_err();
    assert!(!error.contains("too large"), "{error}");
    let error = dir
        .load(&["half.proto", "second.proto", "chat/event.proto"], &["."])
        .unwrap_err();
    assert!(
        error.contains("second.proto: error: is too large: the files of a schema may have at most 16777216 bytes in total"),
        "{error}"
    );
}

#[test]
fn files_with_the_same_import_name_are_refused() {
    let dir = Dir::new(&[
        ("a/x.proto", EVENT),
        ("b/x.proto", EVENT),
        ("c/y.proto", EVENT),
    ]);
    let error = dir.load(&["a/x.proto", "b/x.proto"], &[]).unwrap_err();
    assert!(
        error.contains("b/x.proto: error: a/x.proto is imported by the same name, x.proto"),
        "{error}"
    );
    let error = dir.load(&["a/x.proto", "c/y.proto"], &["c"]).unwrap_err();
    assert!(
        error.contains("a/x.proto: error: the file is not in any include directory\n  hint: "),
        "{error}"
    );
}

/// The descriptor set of the schema.
fn set(imports: bool, source_info: bool) -> Vec<u8> {
    let dir = chat();
    let includes = [
        dir.0.path().to_owned(),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto"),
    ];
    let mut compiler = protox::Compiler::new(includes).unwrap();
    compiler
        .include_imports(imports)
        .include_source_info(source_info);
    compiler
        .open_files(["chat/chat.proto", "chat/event.proto"])
        .unwrap();
    compiler.encode_file_descriptor_set()
}

#[test]
fn a_descriptor_set_works_with_and_without_built_in_files_and_source_info() {
    for (imports, source_info) in [(true, true), (true, false), (false, true), (false, false)] {
        assert_routes(&chat().load_set(&set(imports, source_info)).unwrap());
    }
}

#[test]
fn an_error_about_an_invalid_descriptor_set_says_what_the_file_is() {
    let good = set(true, false);
    let cut = &good[..good.len() - 3];
    let hint = "\n  hint: make it with `protoc --include_imports";
    for (bytes, says) in [
        (
            &b"{\"file\":[]}"[..],
            "the file is JSON, not a binary FileDescriptorSet",
        ),
        (
            CHAT.as_bytes(),
            "the file is a .proto file, which belongs in `files`, not a binary FileDescriptorSet",
        ),
        (
            &[0x1f, 0x8b, 8, 0],
            "the file is compressed; an uncompressed FileDescriptorSet is expected",
        ),
        (
            cut,
            "the file is not a FileDescriptorSet, or it is truncated",
        ),
        (
            b"\x0a\x02\xff\xff",
            "the file is not a FileDescriptorSet, or it is truncated",
        ),
        (b"\x10\x01", "the descriptor set has no file in it"),
        (b"", "the descriptor set has no file in it"),
    ] {
        let error = chat().load_set(bytes).unwrap_err();
        assert!(
            error.starts_with(&format!("chat.binpb: error: {says}{hint}")),
            "{error}"
        );
    }
}

#[test]
fn a_descriptor_set_without_a_file_that_it_imports_is_refused() {
    use prost::Message as _;
    let mut without = FileDescriptorSet::decode(set(true, true).as_slice()).unwrap();
    without
        .file
        .retain(|file| file.name() != "chat/event.proto");
    let error = chat().load_set(&without.encode_to_vec()).unwrap_err();
    assert_eq!(
        error,
        "chat.binpb: chat/chat.proto:3: error: it imports chat/event.proto, which is not in the descriptor set\n  \
         hint: pass --include_imports to protoc; buf build includes imports by default"
    );
}

#[test]
fn a_descriptor_set_with_another_version_of_a_relay_file_is_refused() {
    use prost::Message as _;
    let mut other = FileDescriptorSet::decode(set(true, true).as_slice()).unwrap();
    for file in &mut other.file {
        if file.name() == "sidewire/v1/relay.proto" {
            file.message_type[0].field[0].name = Some("era".to_owned());
        }
    }
    let error = chat().load_set(&other.encode_to_vec()).unwrap_err();
    assert!(
        error.contains("chat.binpb: sidewire/v1/relay.proto: error: this is not the sidewire/v1/relay.proto that is built into the relay"),
        "{error}"
    );
}

#[test]
fn a_descriptor_set_with_a_map_entry_that_has_no_value_is_refused() {
    use prost::Message as _;
    use prost_reflect::prost_types::{DescriptorProto, FileDescriptorProto, MessageOptions};
    let entry = DescriptorProto {
        name: Some("TagsEntry".to_owned()),
        options: Some(MessageOptions {
            map_entry: Some(true),
            ..MessageOptions::default()
        }),
        ..DescriptorProto::default()
    };
    let outer = DescriptorProto {
        name: Some("Envelope".to_owned()),
        nested_type: vec![entry],
        ..DescriptorProto::default()
    };
    let set = FileDescriptorSet {
        file: vec![FileDescriptorProto {
            name: Some("chat.proto".to_owned()),
            message_type: vec![outer],
            ..FileDescriptorProto::default()
        }],
    };
    let error = Schema::from_descriptor_set(&set.encode_to_vec(), "Envelope").unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("TagsEntry is marked as a map entry"),
        "{error}"
    );
}

#[test]
fn a_descriptor_set_of_an_edition_is_refused() {
    use prost::Message as _;
    let mut set = FileDescriptorSet::decode(set(true, true).as_slice()).unwrap();
    for file in &mut set.file {
        if file.name() == "chat/event.proto" {
            file.syntax = Some("editions".to_owned());
        }
    }
    let error = chat().load_set(&set.encode_to_vec()).unwrap_err();
    assert!(
        error.starts_with(
            "chat.binpb: chat/event.proto: error: the file uses an edition of Protocol Buffers, \
             which the relay does not support\n  hint: write `syntax = \"proto3\";`"
        ),
        "{error}"
    );
}
