//! The text of the .proto files that the program carries in itself, for whoever wants
//! to write them to a directory.

use super::{Bundled, SchemaError};

// `EMBEDDED`: the names and texts of all files under `proto/`, written by build.rs.
include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The directory of the files that every schema imports.
const RELAYS_OWN: &str = "sidewire/";

/// A .proto file that the program carries in itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedFile {
    /// The name by which it is imported: a relative path.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl EmbeddedFile {
    /// The files that every schema imports.
    pub fn relays_own() -> impl Iterator<Item = Self> {
        Self::all().filter(|file| file.name.starts_with(RELAYS_OWN))
    }

    /// These, and the files of a bundled schema.
    ///
    /// # Errors
    ///
    /// When the schema cannot be compiled, which no program does that passed its tests.
    pub fn of_bundled(bundled: &Bundled) -> Result<Vec<Self>, SchemaError> {
        let envelope = bundled.schema()?.envelope;
        let mut wanted = vec![envelope.parent_file()];
        let mut names = Vec::new();
        while let Some(file) = wanted.pop() {
            if !names.iter().any(|name| name == file.name()) {
                names.push(file.name().to_owned());
                wanted.extend(file.dependencies());
            }
        }
        let is_wanted = |file: &Self| {
            file.name.starts_with(RELAYS_OWN) || names.iter().any(|it| it == file.name)
        };
        Ok(Self::all().filter(is_wanted).collect())
    }

    fn all() -> impl Iterator<Item = Self> {
        EMBEDDED.iter().map(|(name, text)| Self { name, text })
    }
}
