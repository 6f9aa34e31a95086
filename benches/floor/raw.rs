//! Publishing without HTTP: `u32` length of the rest, `u32` topic number, both
//! little-endian, and the envelope.

use crate::publishers::Published;

/// Answer to each publish.
pub(crate) const ANSWER: &[u8] = b"\x06";

/// Returns the first publish if it has arrived completely.
pub(crate) fn published(bytes: &[u8]) -> Option<Published<'_>> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    let (topic, envelope) = rest.get(..len)?.split_first_chunk::<4>()?;
    Some(Published {
        topic: u32::from_le_bytes(*topic) as usize,
        envelope,
        len: 4 + len,
    })
}
