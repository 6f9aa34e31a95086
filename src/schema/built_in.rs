//! The .proto files that every schema can import without having them: the relay's own
//! and Google's. They are found before any file of the user's.

use std::collections::BTreeMap;

use prost_reflect::{
    DescriptorPool,
    prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto},
};
use protox::file::File;

use super::diagnostic::Diagnostic;

/// A file that the program carries in itself.
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
        text: include_str!("../../proto/sidewire/v1/options.proto"),
    },
    BuiltInFile {
        name: "sidewire/v1/relay.proto",
        text: include_str!("../../proto/sidewire/v1/relay.proto"),
    },
];

/// Google's types that have a JSON form of their own. A message of another shape under
/// one of these names could not be converted.
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
    /// The relay's own files, which a schema imports.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &FILES
    }
}

/// The built-in file of this name.
pub(super) fn find(name: &str) -> Option<FileDescriptorProto> {
    if let Some(file) = FILES.iter().find(|file| file.name == name) {
        // A test parses both.
        return File::from_source(name, file.text).ok().map(Into::into);
    }
    let file = DescriptorPool::global().get_file_by_name(name)?;
    Some(file.file_descriptor_proto().clone())
}

/// Whether there is a built-in file of this name.
pub(super) fn is_built_in(name: &str) -> bool {
    FILES.iter().any(|file| file.name == name)
        || DescriptorPool::global().get_file_by_name(name).is_some()
}

/// The full names of the relay's options and messages, each with its file.
pub(super) fn names() -> Vec<(String, &'static str)> {
    let mut names = Vec::new();
    for file in &FILES {
        let Some(descriptor) = find(file.name) else {
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

/// Checks the user's own copy of the built-in file of this name, which `shown` says
/// where to find. Comments, file options and order may differ, and Google's files
/// that are not a part of a message may be of any release. The copy may lack messages and
/// fields, because a descriptor set of an earlier release holds that release's files.
pub(super) fn check_copy(
    name: &str,
    shown: &str,
    copy: &FileDescriptorProto,
) -> Option<Diagnostic> {
    let is_relays = FILES.iter().any(|file| file.name == name);
    if !is_relays && !WELL_KNOWN.contains(&name) {
        return None;
    }
    let built_in = find(name)?;
    if Shape::of(&built_in).contains(&Shape::of(copy)) {
        return None;
    }
    let hint = if is_relays {
        "remove this copy, or export the files of this release with `sidewire schema --export DIR`"
    } else {
        "remove this copy: the relay has Google's types built in"
    };
    let message =
        format!("this is not the {name} that the relay has built in, and imports get that one");
    Some(
        Diagnostic::error(message)
            .in_file(shown, None)
            .with_hint(hint),
    )
}

/// What matters of a file to those who import it: its fields, by message and number.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape(BTreeMap<String, BTreeMap<i32, Field>>);

/// A field's name, label, and type where it is a scalar.
type Field = (String, Option<i32>, Option<i32>, bool);

impl Shape {
    fn of(file: &FileDescriptorProto) -> Self {
        let mut shape = Self::default();
        for message in &file.message_type {
            shape.message(file.package(), message);
        }
        for extension in &file.extension {
            // The compiler writes a full name with a dot in front, the parser what is there.
            let extendee = extension.extendee().trim_start_matches('.');
            shape.field(format!("extend {extendee}"), extension);
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

    fn message(&mut self, parent: &str, message: &DescriptorProto) {
        let name = format!("{parent}.{}", message.name());
        self.0.entry(name.clone()).or_default();
        for field in &message.field {
            self.field(name.clone(), field);
        }
        for nested in &message.nested_type {
            self.message(&name, nested);
        }
    }

    fn field(&mut self, place: String, field: &FieldDescriptorProto) {
        use prost_reflect::prost_types::field_descriptor_proto::Type;
        // The parser does not know yet whether a name is that of a message or an enum.
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
