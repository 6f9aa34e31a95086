//! Reads the files of a schema without hanging or exhausting memory: only regular files,
//! and with a limit on the total size.

use std::{fs, io::Read as _, path::Path};

use super::diagnostic::Diagnostic;

/// Maximum total size of the files of a schema, in bytes.
pub(super) const BYTES_MAX: usize = 16 * 1024 * 1024;

/// The number of bytes that may still be read.
pub(super) struct SchemaReadBudget(usize);

impl Default for SchemaReadBudget {
    fn default() -> Self {
        Self(BYTES_MAX)
    }
}

/// The reason why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("is not a regular file")]
    NotAFile,
    #[error("is not UTF-8 text")]
    NotText,
    #[error("is too large: the files of a schema may have at most {BYTES_MAX} bytes in total")]
    TooLarge,
}

impl SchemaReadBudget {
    /// Reads the whole file.
    pub(super) fn read_file(&mut self, path: &Path) -> Result<Vec<u8>, ReadError> {
        // Opening a pipe would block until it has a writer.
        if !fs::metadata(path)?.is_file() {
            return Err(ReadError::NotAFile);
        }
        let mut bytes = Vec::new();
        let limit = u64::try_from(self.0).unwrap_or(u64::MAX);
        let file = fs::File::open(path)?;
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        self.0 = self.0.checked_sub(bytes.len()).ok_or(ReadError::TooLarge)?;
        Ok(bytes)
    }
}

impl ReadError {
    pub(super) fn is_not_found(&self) -> bool {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        matches!(self, Self::Io(error) if matches!(error.kind(), NotFound | NotADirectory))
    }

    /// Converts the error to a finding about the file.
    pub(super) fn into_diagnostic(self, shown: String) -> Diagnostic {
        let hint = match self {
            Self::Io(_) => {
                "the file must exist, and the user that the relay runs as must be allowed to read it"
            }
            Self::NotAFile => "name a file, not a directory, pipe or device",
            Self::NotText => "save the file as UTF-8; set `descriptor_set` for a compiled schema",
            Self::TooLarge => "leave out files that the envelope does not need",
        };
        Diagnostic::error(self.to_string())
            .in_file(shown, None)
            .with_hint(hint)
    }
}
