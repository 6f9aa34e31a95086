//! Exports the .proto files that are built into the program.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sidewire_protocol::schema::{BuiltInFile, SchemaSource};

use crate::cli::{CommandFailure, schema_args};

/// Writes the files that a schema from this source imports. Returns a line for each file.
pub(super) fn export_files(
    source: &SchemaSource,
    directory: &Path,
    force: bool,
) -> Result<Vec<String>, CommandFailure> {
    let files = match schema_args::find_bundled(source)? {
        Some(bundled) => BuiltInFile::of_bundled(&bundled).map_err(CommandFailure::new)?,
        None => BuiltInFile::relay_files().to_vec(),
    };
    let files: Vec<_> = files
        .into_iter()
        .map(|file| (directory.join(file.name), file.text))
        .collect();
    let states = files
        .iter()
        .map(|(path, text)| FileState::compare_file(path, text));
    let states: Vec<_> = states.collect::<Result<_, _>>()?;
    if !force {
        refuse_to_replace(&files, &states)?;
    }
    let written = files.iter().zip(states);
    written
        .map(|((path, text), state)| {
            let shown = path.display();
            if state == FileState::Same {
                return Ok(format!("{shown} is up to date"));
            }
            write_file(path, text).map_err(|error| file_failure("write", path, &error))?;
            Ok(format!("{shown} written"))
        })
        .collect()
}

/// Fails if a file would be overwritten, before any is written.
fn refuse_to_replace(
    files: &[(PathBuf, &str)],
    states: &[FileState],
) -> Result<(), CommandFailure> {
    let different: Vec<_> = files
        .iter()
        .zip(states)
        .filter(|(_, state)| **state == FileState::Different)
        .map(|((path, _), _)| path.display().to_string())
        .collect();
    if different.is_empty() {
        return Ok(());
    }
    Err(CommandFailure::new(format!(
        "these files exist and differ: {}; --force overwrites them",
        different.join(", ")
    )))
}

/// The state of a file in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileState {
    Missing,
    Same,
    Different,
}

impl FileState {
    fn compare_file(path: &Path, text: &str) -> Result<Self, CommandFailure> {
        match fs::read(path) {
            Ok(found) if found == text.as_bytes() => Ok(Self::Same),
            Ok(_) => Ok(Self::Different),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Missing),
            Err(error) => Err(file_failure("read", path, &error)),
        }
    }
}

fn write_file(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, text)
}

fn file_failure(what: &str, path: &Path, error: &io::Error) -> CommandFailure {
    CommandFailure::new(format!("cannot {what} {}: {error}", path.display()))
}
