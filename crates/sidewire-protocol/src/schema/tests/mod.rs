//! Tests of the schema: comparisons with prost-reflect, and cases that it must refuse.

mod against_prost;
mod any_schema;
mod bad;
mod batches;
mod bundled;
mod client_events;
mod compatibility;
mod compatible_changes;
mod compile;
mod condition;
mod explain;
mod json;
mod json_errors;
mod json_limits;
mod json_text;
mod refusals;
mod routes;
mod source;
mod specimen;

use std::{fs, path::Path};

use prost_reflect::DescriptorPool;

use super::{InspectedEnvelope, Schema, WireError, WireFault};

const TORTURE: &str = include_str!("torture.proto");

/// The descriptors of a file with this text, which may import the relay's files
/// and `legacy.proto`.
fn pool_of(text: &str) -> DescriptorPool {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("test.proto"), text).unwrap();
    let includes = [
        dir.path().to_owned(),
        package.join("src/schema/tests"),
        package.join("../../proto"),
    ];
    let mut compiler = protox::Compiler::new(includes).unwrap();
    compiler.include_imports(true);
    compiler.open_file("test.proto").unwrap();
    // Built like a compiled schema: encoded, with imports and annotations.
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
}

/// The schema of `torture.proto`.
fn torture() -> Schema {
    Schema::compile(&pool_of(TORTURE), "test.v1.Envelope").unwrap()
}

fn topics(inspected: &InspectedEnvelope<'_>) -> Vec<String> {
    inspected.topics.iter().map(ToString::to_string).collect()
}

/// Returns the reason why the envelope is refused, and the field.
fn refusal(schema: &Schema, envelope: &[u8]) -> Option<(WireFault, Option<String>)> {
    let error = schema.inspect(envelope).err()?;
    Some((error.fault(), error.field().map(str::to_owned)))
}

/// A length-delimited field.
fn field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(value.len() as u64, &mut out);
    out.extend(value);
    out
}

#[test]
fn an_error_gives_the_fault_the_path_and_the_byte_offset() {
    let error = WireError::new(WireFault::Utf8, 7)
        .in_field("tags", Some(2))
        .in_field("tree", None);
    assert_eq!(error.to_string(), "tree.tags[2] is not UTF-8 (at byte 7)");
    assert_eq!(
        WireError::without_offset(WireFault::Wildcard).to_string(),
        "the message is `*`, which is not an id"
    );
}

#[test]
fn threads_may_share_a_schema() {
    fn assert_shared<T: Send + Sync + 'static>(_: &T) {}
    assert_shared(&Schema::bundled().unwrap());
}
