//! The schema against prost-reflect and against the cases that it must refuse.

mod against_prost;
mod any_schema;
mod bad;
mod batches;
mod bundled;
mod compatibility;
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

use super::{Fault, Inspected, Schema, WireError};

const TORTURE: &str = include_str!("torture.proto");

/// The descriptors of a file with this text, which may import the relay's files
/// and `legacy.proto`.
fn pool_of(text: &str) -> DescriptorPool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("test.proto"), text).unwrap();
    let includes = [
        dir.path().to_owned(),
        root.join("src/schema/tests"),
        root.join("proto"),
    ];
    let mut compiler = protox::Compiler::new(includes).unwrap();
    compiler.include_imports(true);
    compiler.open_file("test.proto").unwrap();
    // The way of a compiled schema: encoded, with imports and annotations.
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
}

/// The schema of `torture.proto`.
fn torture() -> Schema {
    Schema::compile(&pool_of(TORTURE), "test.v1.Envelope").unwrap()
}

fn topics(inspected: &Inspected<'_>) -> Vec<String> {
    inspected.topics.iter().map(ToString::to_string).collect()
}

/// Why the envelope is refused, and at which field.
fn refusal(schema: &Schema, envelope: &[u8]) -> Option<(Fault, Option<String>)> {
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
fn an_error_says_what_where_and_at_which_byte() {
    let error = WireError::new(Fault::Utf8, 7)
        .within("tags", Some(2))
        .within("tree", None);
    assert_eq!(error.to_string(), "tree.tags[2] is not UTF-8 (at byte 7)");
    assert_eq!(
        WireError::unplaced(Fault::Wildcard).to_string(),
        "the message is `*`, which is no id"
    );
}

#[test]
fn threads_may_share_a_schema() {
    fn assert_shared<T: Send + Sync + 'static>(_: &T) {}
    assert_shared(&Schema::bundled().unwrap());
}
