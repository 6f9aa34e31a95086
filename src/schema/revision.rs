//! The name of a schema's content: two schemas that mean the same to clients, to the log
//! and to the relay have the same revision, however their files are laid out.

use std::fmt;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::outline::Outline;

/// A hash of all that an envelope can hold. Shown as the first 12 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Revision([u8; SHA256_OUTPUT_LEN]);

impl Revision {
    pub(super) fn of(outline: &Outline) -> Self {
        // All of the outline is sorted, so its text is canonical. Nothing in it has no JSON.
        let text = serde_json::to_vec(outline).unwrap_or_default();
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, &text).as_ref());
        Self(hash)
    }
}

/// How many bytes are shown.
const SHOWN_LEN: usize = 6;

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.iter().take(SHOWN_LEN);
        shown.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({self})")
    }
}
