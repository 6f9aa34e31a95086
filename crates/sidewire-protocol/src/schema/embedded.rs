//! The text of the bundled schemas' .proto files, for exporting them to a directory.

use super::{BuiltInFile, BundledSchema, SchemaError};

// `EMBEDDED`: the names and texts of the files of the bundled schemas, written by
// build.rs.
include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

impl BuiltInFile {
    /// Returns the relay's own files and those of a bundled schema, sorted by name.
    ///
    /// # Errors
    ///
    /// Fails if the schema cannot be compiled, which cannot happen in a binary that passed
    /// its tests.
    pub fn of_bundled(bundled: &BundledSchema) -> Result<Vec<Self>, SchemaError> {
        let envelope = bundled.compile()?.envelope;
        let mut wanted = vec![envelope.parent_file()];
        let mut names = Vec::new();
        while let Some(file) = wanted.pop() {
            if !names.iter().any(|name| name == file.name()) {
                names.push(file.name().to_owned());
                wanted.extend(file.dependencies());
            }
        }
        let schemas = EMBEDDED.iter().map(|(name, text)| Self { name, text });
        let schemas = schemas.filter(|file| names.iter().any(|name| name == file.name));
        let mut files: Vec<_> = Self::relay_files().iter().copied().chain(schemas).collect();
        files.sort_by_key(|file| file.name);
        Ok(files)
    }
}
