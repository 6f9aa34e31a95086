//! Secrets that must not be printed, and the reading of key files. Does not know what the
//! bytes are used for.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::bounded_file;

/// Maximum size of a key file in bytes. A larger file is certainly not a key file.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// A secret. Its `Debug` output is masked.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Creates a secret of exactly these bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Reads a secret from a file. One newline (`\n` or `\r\n`) at the end is removed, since
    /// editors and `echo` add it. Nothing else is: neither spaces nor a second newline.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read; the error has its path.
    pub fn from_file(path: &Path) -> Result<Self, KeyFileError> {
        let mut bytes = read_file(path)?;
        if bytes.pop_if(|last| *last == b'\n').is_some() {
            bytes.pop_if(|last| *last == b'\r');
        }
        Ok(Self(bytes))
    }

    /// Returns the bytes, for computing only; never print them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(masked)")
    }
}

/// A key file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the key file {}: {source}", path.display())]
pub struct KeyFileError {
    path: PathBuf,
    source: io::Error,
}

/// Returns the bytes of a key file: PEM, JWKS or a secret.
///
/// # Errors
///
/// Fails if the file cannot be read, is not a regular file, or has more than 1 MiB; the error
/// has its path.
pub fn read_file(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    bounded_file::read_bytes(path, FILE_BYTES_MAX).map_err(|source| KeyFileError {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_trailing_newline_is_stripped_from_a_secret_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        for (content, secret) in [
            (&b"s3cret"[..], &b"s3cret"[..]),
            (b"s3cret\n", b"s3cret"),
            (b"s3cret\r\n", b"s3cret"),
            (b"s3cret\n\n", b"s3cret\n"),
            (b" s3cret \r", b" s3cret \r"),
            (b"\xff\x00\n", b"\xff\x00"),
            (b"", b""),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(Secret::from_file(&path).unwrap().as_bytes(), secret);
        }
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent.key");
        let message = Secret::from_file(&path).unwrap_err().to_string();
        assert!(message.contains("absent.key"), "{message}");
    }

    #[test]
    fn a_file_larger_than_a_mebibyte_is_refused_as_a_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("big.key");
        std::fs::write(&path, vec![b'x'; 1024 * 1024]).unwrap();
        assert_eq!(read_file(&path).unwrap().len(), 1024 * 1024);
        std::fs::write(&path, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(read_file(&path).is_err());
    }

    #[test]
    fn debug_output_masks_a_secret() {
        let output = format!("{:?} {:#?}", Secret::new("hunter2"), Secret::new("hunter2"));
        assert_eq!(output, "Secret(masked) Secret(masked)");
    }
}
