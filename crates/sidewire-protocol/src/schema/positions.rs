//! Positions of declarations in their files, and the names of files in messages.

use std::collections::BTreeMap;

use prost_reflect::{
    ExtensionDescriptor, FieldDescriptor, FileDescriptor, MessageDescriptor, OneofDescriptor,
    prost_types::FileDescriptorProto,
};

/// The names of files as shown in messages, by the names under which the files are
/// imported.
#[derive(Debug, Default)]
pub(super) struct FileNames(BTreeMap<String, String>);

impl FileNames {
    pub(super) fn new(shown: BTreeMap<String, String>) -> Self {
        Self(shown)
    }

    /// Returns the name to show in messages for the file imported as `name`.
    pub(super) fn shown_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }
}

/// A declaration in a file.
pub(super) trait SourceItem {
    /// Returns the file, and the path of the declaration in the file's descriptor.
    fn source_location(&self) -> (FileDescriptor, &[i32]);
}

macro_rules! placed {
    ($($descriptor:ty),*) => {$(
        impl SourceItem for $descriptor {
            fn source_location(&self) -> (FileDescriptor, &[i32]) {
                (self.parent_file(), self.path())
            }
        }
    )*};
}

placed!(
    MessageDescriptor,
    FieldDescriptor,
    ExtensionDescriptor,
    OneofDescriptor
);

/// Returns the line, starting at 1, of the byte at this offset.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    before
        .filter(|byte| *byte == b'\n')
        .count()
        .saturating_add(1)
}

/// Returns the line, starting at 1, of the declaration with this path in the descriptor;
/// `None` if the descriptor has no source information.
pub(super) fn line_of(file: &FileDescriptorProto, path: &[i32]) -> Option<usize> {
    let locations = &file.source_code_info.as_ref()?.location;
    let location = locations.iter().find(|location| location.path == path)?;
    let line = usize::try_from(*location.span.first()?).ok()?;
    line.checked_add(1)
}
