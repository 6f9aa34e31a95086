//! The identifier of a schema's content: two schemas that are equivalent to clients, the
//! log and the relay have the same revision, however their files are organized.

use std::fmt;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::outline::SchemaOutline;

/// A hash of everything that an envelope can contain. Displays as the first 12 hexadecimal
/// digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SchemaRevision([u8; SHA256_OUTPUT_LEN]);

impl SchemaRevision {
    pub(super) fn of_outline(outline: &SchemaOutline) -> Self {
        // The whole outline is sorted, so its text is canonical. Serializing it cannot
        // fail.
        let text = serde_json::to_vec(outline).unwrap_or_default();
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, &text).as_ref());
        Self(hash)
    }
}

/// Number of bytes that are displayed.
const SHOWN_LEN: usize = 6;

impl fmt::Display for SchemaRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.iter().take(SHOWN_LEN);
        shown.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SchemaRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({self})")
    }
}
