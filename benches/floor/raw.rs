//! Publishing without HTTP: `u32` length of what follows, `u32` topic number, both
//! little-endian, and the envelope.

use crate::publishers::Published;

/// What each publish is answered with.
pub(crate) const ANSWER: &[u8] = b"\x06";

/// The first publish, if it is there whole.
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
