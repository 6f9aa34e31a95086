//! Reads files named by an operator: whole, up to a maximum size, and regular files only,
//! since a device may be endless and a named pipe may never have a writer.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use bytesize::ByteSize;

/// Returns the bytes of a regular file.
///
/// # Errors
///
/// Fails if the file cannot be read, is not a regular file, or has more than `bytes_max` bytes.
pub(crate) fn read_bytes(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    // Checked before opening, since opening a named pipe waits for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(bytes_max.saturating_add(1) as u64)
        .read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {}", ByteSize(bytes_max as u64)),
        ));
    }
    Ok(bytes)
}

/// Returns the text of a regular file.
///
/// # Errors
///
/// Fails as [`read_bytes`] does, and if the file is not UTF-8.
pub(crate) fn read_text(path: &Path, bytes_max: usize) -> io::Result<String> {
    String::from_utf8(read_bytes(path, bytes_max)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_cap_and_refused_beyond_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, [b'x'; 2048]).unwrap();
        assert_eq!(read_bytes(&path, 2048).unwrap().len(), 2048);
        let refused = read_bytes(&path, 2047).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(
            read_text(&path, 1).unwrap_err().to_string(),
            "it is not UTF-8"
        );
    }

    #[test]
    fn a_path_that_is_not_a_regular_file_is_refused_without_being_opened() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for path in [&pipe, Path::new("/dev/zero"), directory.path()] {
            let refused = read_bytes(path, 1).unwrap_err().to_string();
            assert_eq!(refused, "it is not a regular file", "{}", path.display());
        }
    }
}
