//! Finds a server's frames (RFC 6455, section 5.2) in the bytes that were read, without
//! copying. Knows nothing about sockets and payloads.

use sidewire_protocol::frame::{BINARY, CLOSE, MASKED, PING, PONG, TEXT, payload_len};

/// A fragmented or masked frame, which a relay never sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame starts with {0:#04x} {1:#04x}, which a relay never sends")]
pub(super) struct UnexpectedFrame(u8, u8);

/// Iterates over the complete frames in a buffer.
#[derive(Debug)]
pub(super) struct FrameWalker<'a> {
    bytes: &'a [u8],
}

/// A complete frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServerFrame<'a> {
    /// The first byte.
    pub(super) kind: u8,
    pub(super) payload: &'a [u8],
}

impl<'a> FrameWalker<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Returns the next complete frame; `None` if there is no other.
    #[inline]
    pub(super) fn next_frame(&mut self) -> Result<Option<ServerFrame<'a>>, UnexpectedFrame> {
        let Some((&[kind, length], rest)) = self.bytes.split_first_chunk() else {
            return Ok(None);
        };
        if length & MASKED != 0 || !matches!(kind, TEXT | BINARY | CLOSE | PING | PONG) {
            return Err(UnexpectedFrame(kind, length));
        }
        let payload = payload_len(length, rest).and_then(|(len, extended)| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            rest.get(extended..)?.split_at_checked(len)
        });
        let Some((payload, rest)) = payload else {
            return Ok(None);
        };
        self.bytes = rest;
        Ok(Some(ServerFrame { kind, payload }))
    }

    /// Returns the remaining bytes, the start of an incomplete frame.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use sidewire_protocol::frame;

    /// Returns the payloads of all complete frames, and the rest.
    fn walk(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut frames = FrameWalker::new(bytes);
        let mut found = Vec::new();
        while let Some(frame) = frames.next_frame().unwrap() {
            found.push(frame.payload.to_vec());
        }
        (found, frames.rest().to_vec())
    }

    proptest! {
        #[test]
        fn frames_are_parsed_alike_wherever_reads_end(
            lens in prop::collection::vec(prop_oneof![0..300usize, 65_500..65_600usize], 1..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let payloads: Vec<Vec<u8>> =
                (0..).zip(&lens).map(|(at, len)| vec![at; *len]).collect();
            let bytes: Vec<u8> = payloads.iter().flat_map(|it| frame::binary_frame(it)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|it| it.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let (mut found, mut left) = (Vec::new(), Vec::new());
            for pair in cuts.windows(2) {
                left.extend(&bytes[pair[0]..pair[1]]);
                let (more, rest) = walk(&left);
                found.extend(more);
                left = rest;
            }
            prop_assert_eq!(found, payloads);
            prop_assert!(left.is_empty());
        }
    }

    #[test]
    fn a_frame_that_no_relay_sends_is_an_error() {
        for bytes in [[0x82, 0x80], [0x02, 1], [0x80, 1], [0x01, 1], [0xc2, 1]] {
            assert!(FrameWalker::new(&bytes).next_frame().is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn a_frame_of_unreachable_length_stays_incomplete() {
        let bytes = [&[0x82, 127][..], &[0xff; 8], &[0; 100]].concat();
        assert_eq!(walk(&bytes), (vec![], bytes.clone()));
    }
}
