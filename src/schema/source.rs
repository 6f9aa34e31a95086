//! Where a schema comes from: the program itself, .proto files, or a compiled
//! descriptor set. Reads files; knows no configuration file.

use std::{path::PathBuf, time::Instant};

use super::{Bundled, Schema, SchemaError};

/// Where a schema comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaSource {
    /// The program carries it; by name, or the default one.
    Bundled(Option<String>),
    /// .proto files, which are compiled when the schema is loaded.
    Files {
        /// The files with the envelope and all that it does not import.
        files: Vec<PathBuf>,
        /// The directories in which imports are looked for.
        include: Vec<PathBuf>,
        /// The envelope's full name.
        envelope: String,
    },
    /// A FileDescriptorSet, as protoc and buf write it.
    DescriptorSet {
        /// The file.
        file: PathBuf,
        /// The envelope's full name.
        envelope: String,
    },
}

impl Default for SchemaSource {
    fn default() -> Self {
        Self::Bundled(None)
    }
}

impl SchemaSource {
    /// Reads and compiles the schema.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or compiled, or the result is no schema for the relay.
    pub fn load(&self) -> Result<Schema, SchemaError> {
        let begun = Instant::now();
        let mut schema = match self {
            Self::Bundled(None) => Bundled::load()?.schema()?,
            Self::Bundled(Some(name)) => Bundled::named(name)?.schema()?,
            Self::Files { .. } | Self::DescriptorSet { .. } => {
                return Err(SchemaError::Bundled {
                    reason: "only bundled schemas can be loaded".to_owned(),
                });
            }
        };
        schema.compile_time = begun.elapsed();
        Ok(schema)
    }
}
