//! Compiles the repository's `proto/` with protox, so that protoc is not needed: the bundled
//! schemas with their annotations as one descriptor set, and Rust types for the relay's own
//! messages.

use std::{env, error::Error, fs, path::PathBuf};

/// The directory with all .proto files, from this package's.
const PROTO: &str = "../../proto";

/// The file that names the bundled schemas and their envelopes.
const BUNDLED: &str = "../../proto/bundled.toml";

/// The directories with the files of the bundled schemas.
const BUNDLED_DIRECTORIES: [&str; 2] = ["../../proto/tracker/v1", "../../proto/generic/v1"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../../proto");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut schema = protox::Compiler::new([PROTO])?;
    schema.include_imports(true);
    let bundled = bundled_files()?;
    for path in &bundled {
        schema.open_file(path)?;
    }
    // Not `file_descriptor_set()`: prost's types would drop the annotations.
    fs::write(
        out.join("bundled.binpb"),
        schema.encode_file_descriptor_set(),
    )?;
    fs::copy(BUNDLED, out.join("bundled.toml"))?;
    fs::write(out.join("embedded.rs"), embedded(&bundled)?)?;

    let relay = protox::compile(["sidewire/v1/relay.proto"], [PROTO])?;
    prost_build::Config::new()
        .out_dir(&out)
        // Its Debug output would show the token.
        .skip_debug(["sidewire.v1.Authenticate"])
        .compile_fds(relay)?;
    Ok(())
}

fn bundled_files() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for directory in BUNDLED_DIRECTORIES {
        for entry in fs::read_dir(directory)? {
            files.push(entry?.path());
        }
    }
    files.retain(|path| path.extension().is_some_and(|it| it == "proto"));
    files.sort();
    Ok(files)
}

/// Returns the names and texts of the bundled schemas' files, as Rust source for a constant.
fn embedded(files: &[PathBuf]) -> Result<String, Box<dyn Error>> {
    let mut code = "const EMBEDDED: &[(&str, &str)] = &[\n".to_owned();
    for path in files {
        let name = path.strip_prefix(PROTO)?;
        let absolute = fs::canonicalize(path)?;
        code += &format!("    ({name:?}, include_str!({absolute:?})),\n");
    }
    Ok(code + "];\n")
}
