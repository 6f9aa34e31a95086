//! Where things stand in their files.

use prost_reflect::prost_types::FileDescriptorProto;

/// The line, from 1, of the byte at this offset.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    before
        .filter(|byte| *byte == b'\n')
        .count()
        .saturating_add(1)
}

/// The line, from 1, of the declaration with this path in the descriptor. `None` where
/// the descriptor has no source information.
pub(super) fn line_of(file: &FileDescriptorProto, path: &[i32]) -> Option<usize> {
    let locations = &file.source_code_info.as_ref()?.location;
    let location = locations.iter().find(|location| location.path == path)?;
    let line = usize::try_from(*location.span.first()?).ok()?;
    line.checked_add(1)
}
