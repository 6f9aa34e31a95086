//! Compiles `proto/` with protox, so that no protoc is needed: the bundled
//! schemas with their annotations as one descriptor set, and Rust types for the
//! relay's own messages.

use std::{env, error::Error, fs, path::PathBuf};

/// The file that names the bundled schemas and their envelopes.
const BUNDLED: &str = "proto/bundled.toml";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut schema = protox::Compiler::new(["proto"])?;
    schema.include_imports(true);
    for directory in ["proto/tracker/v1", "proto/generic/v1"] {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "proto")
            {
                schema.open_file(path)?;
            }
        }
    }
    // Not `file_descriptor_set()`: prost's types would drop the annotations.
    fs::write(
        out.join("bundled.binpb"),
        schema.encode_file_descriptor_set(),
    )?;
    fs::copy(BUNDLED, out.join("bundled.toml"))?;

    let relay = protox::compile(["sidewire/v1/relay.proto"], ["proto"])?;
    prost_build::Config::new()
        .out_dir(&out)
        .compile_fds(relay)?;
    Ok(())
}
