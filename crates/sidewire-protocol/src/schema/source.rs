//! The source of a schema: the relay itself, .proto files, or a compiled descriptor set.
//! Reads files; knows nothing about the configuration file.

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use super::{
    BundledSchema, Schema, SchemaError,
    compile::SchemaDraft,
    descriptor_set,
    diagnostic::Diagnostics,
    link::SourceFiles,
    proto_files::{self, DiskFiles},
    read::SchemaReadBudget,
    report::SchemaReport,
};

/// The source of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaSource {
    /// A bundled schema, by name; `None` for the default one.
    Bundled(Option<String>),
    /// .proto files, which are compiled when the schema is loaded.
    Files {
        /// The files with the envelope and everything that it does not import.
        files: Vec<PathBuf>,
        /// The directories that are searched for imports.
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
    /// Fails if a file cannot be read or compiled, or if the result is not a valid schema
    /// for the relay.
    pub fn load(&self) -> Result<Schema, SchemaError> {
        let begun = Instant::now();
        let mut schema = match self {
            Self::Bundled(None) => BundledSchema::load_default()?.compile()?,
            Self::Bundled(Some(name)) => BundledSchema::by_name(name)?.compile()?,
            Self::Files {
                files,
                include,
                envelope,
            } => {
                let mut found = Diagnostics::default();
                let mut disk = DiskFiles::new(files, include, &mut found);
                let parsed = proto_files::parse_files(disk.own_names(), &mut disk, &mut found);
                compile_files(&parsed, envelope, found)?
            }
            Self::DescriptorSet { file, envelope } => {
                let shown = file.display().to_string();
                let bytes = SchemaReadBudget::default().read_file(file);
                let bytes = bytes.map_err(|error| error.into_diagnostic(shown.clone()))?;
                compile_set(&bytes, &shown, envelope)?
            }
        };
        schema.compile_time = begun.elapsed();
        Ok(schema)
    }
}

/// Compiles the files. `found` are the findings from reading them.
fn compile_files(
    files: &SourceFiles,
    envelope: &str,
    mut found: Diagnostics,
) -> Result<Schema, SchemaError> {
    let pool = files.link(&mut found);
    let draft = SchemaDraft {
        pool: &pool,
        envelope,
        topics_in_calls: false,
        report: SchemaReport::new(files.file_names(), found),
    };
    draft.compile()
}

/// Compiles .proto files in memory. Each pair is the name by which other files import it,
/// and its text.
pub(super) fn compile_texts(files: &[(&str, &str)], envelope: &str) -> Result<Schema, SchemaError> {
    let mut found = Diagnostics::default();
    let mut library: BTreeMap<_, _> = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    let names: Vec<_> = library.keys().cloned().collect();
    let parsed = proto_files::parse_files(names, &mut library, &mut found);
    compile_files(&parsed, envelope, found)
}

/// Compiles a FileDescriptorSet. `shown` is its name in messages.
pub(super) fn compile_set(
    bytes: &[u8],
    shown: &str,
    envelope: &str,
) -> Result<Schema, SchemaError> {
    let mut found = Diagnostics::default();
    let parsed = descriptor_set::parse_set(bytes, shown, &mut found);
    compile_files(&parsed, envelope, found)
}
