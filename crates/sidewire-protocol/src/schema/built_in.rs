//! The .proto files built into the relay, which every schema can import: the relay's own
//! and Google's. They take precedence over the user's files.

use std::collections::BTreeMap;

use prost_reflect::{
    DescriptorPool,
    prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto},
};
use protox::file::File;

use super::diagnostic::Diagnostic;

/// A built-in .proto file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltInFile {
    /// The name by which it is imported.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// The relay's own files.
const FILES: [BuiltInFile; 2] = [
    BuiltInFile {
        name: "sidewire/v1/options.proto",
        text: include_str!("../../../../proto/sidewire/v1/options.proto"),
    },
    BuiltInFile {
        name: "sidewire/v1/relay.proto",
        text: include_str!("../../../../proto/sidewire/v1/relay.proto"),
    },
];

/// Google's types with a special JSON form. A message with one of these names and a
/// different shape could not be converted.
const WELL_KNOWN: [&str; 7] = [
    "google/protobuf/any.proto",
    "google/protobuf/duration.proto",
    "google/protobuf/empty.proto",
    "google/protobuf/field_mask.proto",
    "google/protobuf/struct.proto",
    "google/protobuf/timestamp.proto",
    "google/protobuf/wrappers.proto",
];

impl BuiltInFile {
    /// Returns the relay's own files, which a schema imports.
    #[must_use]
    pub fn relay_files() -> &'static [Self] {
        &FILES
    }
}

/// Finds the built-in file with this name.
pub(super) fn find_file(name: &str) -> Option<FileDescriptorProto> {
    if let Some(file) = FILES.iter().find(|file| file.name == name) {
        // A test checks that both files parse.
        return File::from_source(name, file.text).ok().map(Into::into);
    }
    let file = DescriptorPool::global().get_file_by_name(name)?;
    Some(file.file_descriptor_proto().clone())
}

/// Returns true if there is a built-in file with this name.
pub(super) fn is_built_in(name: &str) -> bool {
    FILES.iter().any(|file| file.name == name)
        || DescriptorPool::global().get_file_by_name(name).is_some()
}

/// Returns the full names of the relay's options and messages, each with its file.
pub(super) fn relay_names() -> Vec<(String, &'static str)> {
    let mut names = Vec::new();
    for file in &FILES {
        let Some(descriptor) = find_file(file.name) else {
            continue;
        };
        let options = descriptor.extension.iter().map(|it| it.name());
        let messages = descriptor.message_type.iter().map(|it| it.name());
        for name in options.chain(messages) {
            names.push((format!("{}.{name}", descriptor.package()), file.name));
        }
    }
    names
}

/// Checks the user's copy of the built-in file `name`; `shown` is the path to display.
/// Comments, file options and order may differ. Google's files outside of `WELL_KNOWN` may
/// be of any release. The copy may lack messages and fields, because a descriptor set made
/// with an earlier release contains that release's files.
pub(super) fn check_copy(
    name: &str,
    shown: &str,
    copy: &FileDescriptorProto,
) -> Option<Diagnostic> {
    let is_relays = FILES.iter().any(|file| file.name == name);
    if !is_relays && !WELL_KNOWN.contains(&name) {
        return None;
    }
    let built_in = find_file(name)?;
    if FileShape::of_file(&built_in).contains(&FileShape::of_file(copy)) {
        return None;
    }
    let hint = if is_relays {
        "remove this copy, or export the files of this release with `sidewire schema --export DIR`"
    } else {
        "remove this copy: the relay has Google's types built in"
    };
    let message =
        format!("this is not the {name} that is built into the relay, which imports use instead");
    Some(
        Diagnostic::error(message)
            .in_file(shown, None)
            .with_hint(hint),
    )
}

/// The parts of a file that matter to its importers: its fields, by message and number.
#[derive(Debug, Default, PartialEq, Eq)]
struct FileShape(BTreeMap<String, BTreeMap<i32, FieldSignature>>);

/// A field's name, label, type if it is a scalar, and whether it is `optional` in proto3.
type FieldSignature = (String, Option<i32>, Option<i32>, bool);

impl FileShape {
    fn of_file(file: &FileDescriptorProto) -> Self {
        let mut shape = Self::default();
        for message in &file.message_type {
            shape.add_message(file.package(), message);
        }
        for extension in &file.extension {
            // The compiler writes a full name with a leading dot; the parser keeps the
            // source text.
            let extendee = extension.extendee().trim_start_matches('.');
            shape.add_field(format!("extend {extendee}"), extension);
        }
        shape
    }

    /// Returns true if all messages and fields of the other shape are in this one.
    fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|(message, fields)| {
            self.0.get(message).is_some_and(|known| {
                fields
                    .iter()
                    .all(|(number, field)| known.get(number) == Some(field))
            })
        })
    }

    fn add_message(&mut self, parent: &str, message: &DescriptorProto) {
        let name = format!("{parent}.{}", message.name());
        self.0.entry(name.clone()).or_default();
        for field in &message.field {
            self.add_field(name.clone(), field);
        }
        for nested in &message.nested_type {
            self.add_message(&name, nested);
        }
    }

    fn add_field(&mut self, place: String, field: &FieldDescriptorProto) {
        use prost_reflect::prost_types::field_descriptor_proto::Type;
        // The parser does not know yet whether a name refers to a message or an enum.
        let named = [Type::Message as i32, Type::Enum as i32];
        let scalar = field.r#type.filter(|kind| !named.contains(kind));
        let shape = (
            field.name().to_owned(),
            field.label,
            scalar,
            field.proto3_optional(),
        );
        self.0
            .entry(place)
            .or_default()
            .insert(field.number(), shape);
    }
}
