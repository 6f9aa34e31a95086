//! Making random secrets, and writing files that only their owner can read.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
};

use sidewire_protocol::random::RandomSource;

/// Returns 256 random bits as hexadecimal digits.
pub(super) fn random_hex(random: &RandomSource) -> String {
    let mut bytes = [0; 32];
    random.fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file that only its owner can read.
///
/// # Errors
///
/// Fails if the file exists or cannot be written.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    create_private(path)?.write_all(text.as_bytes())
}

/// Writes a file that its owner and the members of a group can read. The content is on the disk
/// when this returns.
///
/// # Errors
///
/// Fails if the file exists, or cannot be written or given to the group. Then no file is left
/// behind.
pub(super) fn write_for_group(path: &Path, text: &str, group: Option<u32>) -> io::Result<()> {
    let file = create_private(path)?;
    fill_for_group(file, text, group).inspect_err(|_| {
        // The first error is the one to report.
        drop(fs::remove_file(path));
    })
}

fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn fill_for_group(mut file: File, text: &str, group: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        fchown(&file, None, group)?;
        // In addition to the mode given to open(2), which the umask restricts.
        file.set_permissions(Permissions::from_mode(0o640))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
