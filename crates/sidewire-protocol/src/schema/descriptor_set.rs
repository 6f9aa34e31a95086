//! Reads a compiled FileDescriptorSet, as protoc and buf write it.

use prost::Message as _;
use prost_reflect::prost_types::{DescriptorProto, FileDescriptorProto};

use super::{
    built_in,
    diagnostic::{Diagnostic, Diagnostics},
    link::{SourceContent, SourceFile, SourceFiles, import_line},
    wire::{WireFields, WireType},
};

/// Field number of the files in a FileDescriptorSet.
const FILE: u32 = 1;

/// Returns the files of the set and the built-in ones that it imports. `shown` is the name
/// of the set in messages.
pub(super) fn parse_set(bytes: &[u8], shown: &str, found: &mut Diagnostics) -> SourceFiles {
    let mut files = SourceFiles::default();
    match decode_files(bytes) {
        Some(decoded) if !decoded.is_empty() => {
            for file in decoded {
                add_file(&mut files, file, shown, found);
            }
            add_imports(&mut files, found);
        }
        Some(_) => found.push(
            Diagnostic::error("the descriptor set has no file in it")
                .in_file(shown, None)
                .with_hint(HOW_TO_MAKE),
        ),
        None => found.push(
            Diagnostic::error(describe_content(bytes))
                .in_file(shown, None)
                .with_hint(HOW_TO_MAKE),
        ),
    }
    files
}

const HOW_TO_MAKE: &str = "make it with `protoc --include_imports --include_source_info --descriptor_set_out=FILE …` or `buf build -o FILE.binpb`";

/// Describes what the file appears to be instead of a descriptor set.
fn describe_content(bytes: &[u8]) -> &'static str {
    let text = bytes.trim_ascii_start();
    if text.starts_with(b"{") {
        "the file is JSON, not a binary FileDescriptorSet"
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        "the file is compressed; an uncompressed FileDescriptorSet is expected"
    } else if [&b"syntax"[..], b"//", b"/*", b"package", b"edition"]
        .iter()
        .any(|start| text.starts_with(start))
    {
        "the file is a .proto file, which belongs in `files`, not a binary FileDescriptorSet"
    } else {
        "the file is not a FileDescriptorSet, or it is truncated"
    }
}

/// A file of the set: its bytes, which preserve the options, and its decoded descriptor.
type DecodedFile = (Vec<u8>, FileDescriptorProto);

/// Returns the files of the set; `None` if the bytes are malformed.
fn decode_files(bytes: &[u8]) -> Option<Vec<DecodedFile>> {
    let mut files = Vec::new();
    for field in WireFields::new(bytes, &(0..bytes.len())) {
        let field = field.ok()?;
        if field.number != FILE {
            continue;
        }
        if field.wire_type != WireType::Delimited {
            return None;
        }
        let bytes = bytes.get(field.value)?;
        files.push((bytes.to_vec(), FileDescriptorProto::decode(bytes).ok()?));
    }
    Some(files)
}

fn add_file(
    files: &mut SourceFiles,
    (bytes, descriptor): DecodedFile,
    set: &str,
    found: &mut Diagnostics,
) {
    let name = descriptor.name().to_owned();
    let shown = format!("{set}: {name}");
    if add_built_in(files, &name) {
        found.extend(built_in::check_copy(&name, &shown, &descriptor));
        return;
    }
    if let Some(problem) = unsupported_reason(&descriptor) {
        found.push(problem.in_file(shown, None));
        files.mark_unusable(name);
        return;
    }
    let file = SourceFile {
        shown,
        descriptor,
        content: SourceContent::Encoded(bytes),
    };
    match files.get(&name) {
        Some(earlier) if earlier.descriptor != file.descriptor => found.push(
            Diagnostic::error("the descriptor set has two different files of this name")
                .in_file(file.shown, None)
                .with_hint(HOW_TO_MAKE),
        ),
        _ => files.insert(name, file),
    }
}

/// Returns the reason why the file cannot be passed to prost-reflect: 0.16 would panic on
/// it.
fn unsupported_reason(file: &FileDescriptorProto) -> Option<Diagnostic> {
    if !matches!(file.syntax(), "" | "proto2" | "proto3") {
        let syntax = match file.syntax() {
            "editions" => "an edition of Protocol Buffers",
            _ => "an unknown syntax",
        };
        let message = format!("the file uses {syntax}, which the relay does not support");
        return Some(
            Diagnostic::error(message)
                .with_hint("write `syntax = \"proto3\";` or `syntax = \"proto2\";` in the .proto file, and compile it again"),
        );
    }
    let entry = broken_map_entry(&file.message_type)?;
    let message = format!(
        "{entry} is marked as a map entry, but its fields are not `key = 1` and `value = 2`"
    );
    Some(Diagnostic::error(message).with_hint(HOW_TO_MAKE))
}

/// Returns the first message, at any depth, that is marked as a map entry but lacks its two
/// fields.
fn broken_map_entry(messages: &[DescriptorProto]) -> Option<&str> {
    messages.iter().find_map(|message| {
        let is_entry = message.options.as_ref().is_some_and(|it| it.map_entry());
        let numbers: Vec<_> = message.field.iter().map(|field| field.number()).collect();
        if is_entry && numbers != [1, 2] && numbers != [2, 1] {
            return Some(message.name());
        }
        broken_map_entry(&message.nested_type)
    })
}

/// Adds the built-in file with this name. Returns false if there is none.
fn add_built_in(files: &mut SourceFiles, name: &str) -> bool {
    let Some(descriptor) = built_in::find_file(name) else {
        return false;
    };
    let file = SourceFile {
        shown: name.to_owned(),
        descriptor,
        content: SourceContent::BuiltIn,
    };
    files.insert(name.to_owned(), file);
    true
}

/// Adds the built-in files that are imported but missing, and reports all other missing
/// imports.
fn add_imports(files: &mut SourceFiles, found: &mut Diagnostics) {
    let mut missing = files.missing_imports();
    // A built-in file may import another built-in file.
    while missing
        .iter()
        .any(|import| add_built_in(files, &import.name))
    {
        missing = files.missing_imports();
    }
    for import in missing {
        let Some(file) = files.get(&import.importer) else {
            continue;
        };
        let message = format!(
            "it imports {}, which is not in the descriptor set",
            import.name
        );
        found.push(
            Diagnostic::error(message)
                .in_file(&file.shown, import_line(&file.descriptor, import.index))
                .with_hint(
                    "pass --include_imports to protoc; buf build includes imports by default",
                ),
        );
    }
}
