//! The schemas, compiled once: the bundled ones, and the one with every shape of field.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use sidewire_protocol::schema::{BundledSchema, Schema};

/// The default bundled schema.
pub(crate) static BUNDLED: LazyLock<Arc<Schema>> =
    LazyLock::new(|| Arc::new(Schema::bundled().expect("the bundled schema is one")));

/// The bundled schema for applications without one of their own.
pub(crate) static GENERIC: LazyLock<Schema> = LazyLock::new(|| {
    let generic = BundledSchema::by_name("generic").and_then(|it| it.compile());
    generic.expect("the bundled schema is one")
});

/// The schema of `torture.proto`.
pub(crate) static TORTURE: LazyLock<Schema> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let includes = [
        root.join("crates/sidewire-protocol/src/schema/tests"),
        root.join("proto"),
    ];
    let mut compiler = protox::Compiler::new(includes).expect("the directories are there");
    compiler.include_imports(true);
    compiler.open_file("torture.proto").expect("it is a schema");
    Schema::compile(&compiler.descriptor_pool(), "test.v1.Envelope").expect("it has an envelope")
});
