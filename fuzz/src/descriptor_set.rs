//! A compiled descriptor set. The first byte selects the envelope's name.

use std::path::Path;

use sidewire_protocol::schema::Schema;

use crate::{
    proto_file::{check_error, check_schema},
    seeds::Seeds,
};

const ENVELOPES: [&str; 4] = [
    "tracker.v1.WebSocketMessage",
    "generic.v1.Envelope",
    "test.v1.Envelope",
    "Envelope",
];

/// Compiles one.
pub fn run(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else {
        return;
    };
    let envelope = ENVELOPES[usize::from(first % 4)];
    match Schema::from_descriptor_set(bytes, envelope) {
        Ok(schema) => check_schema(&schema, bytes),
        // There are no source texts, so a line cannot be checked.
        Err(error) => check_error(&error, &[]),
    }
}

/// Returns the bundled schemas and the one with every shape of field: with and without
/// imports and source information, and truncated.
#[must_use]
pub fn seeds() -> Seeds {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut seeds = Seeds::new();
    for (envelope, file) in [
        (1, "generic/v1/envelope.proto"),
        (2, "torture.proto"),
        (3, "legacy.proto"),
    ] {
        for (kind, imports, source) in [
            ("alone", false, false),
            ("whole", true, false),
            ("source", false, true),
        ] {
            let includes = [
                root.join("crates/sidewire-protocol/src/schema/tests"),
                root.join("proto"),
            ];
            let mut compiler = protox::Compiler::new(includes).expect("the directories are there");
            compiler
                .include_imports(imports)
                .include_source_info(source);
            compiler.open_file(file).expect("it is a schema");
            let set = compiler.encode_file_descriptor_set();
            let name = file.replace(['/', '.'], "-");
            let seed = [&[envelope][..], &set].concat();
            seeds.insert(
                format!("{name}-{kind}-cut"),
                seed[..seed.len() / 2].to_vec(),
            );
            seeds.insert(format!("{name}-{kind}"), seed);
        }
    }
    seeds.insert("empty".to_owned(), vec![0]);
    seeds
}
