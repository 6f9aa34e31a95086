//! Follows a client's bytes from frame to frame (RFC 6455, 5.2), to know when no
//! message is begun. Checks nothing: that is tungstenite's business.

/// Two bytes, 8 of length and 4 of mask.
const HEADER_BYTES_MAX: usize = 14;

const FIN: u8 = 0x80;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// Where in the client's frames the bytes have come to.
#[derive(Debug, Default)]
pub(super) struct FrameWalk {
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    payload_left: u64,
    in_message: bool,
}

impl FrameWalk {
    /// Goes on over these bytes.
    pub(super) fn walk(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let len = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
                let skipped = bytes.len().min(len);
                self.payload_left -= skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
            } else {
                self.take_header_byte(*first);
                bytes = rest;
            }
        }
    }

    /// Whether the bytes end where a message ends, or before the first.
    pub(super) fn is_between_messages(&self) -> bool {
        self.header_len == 0 && self.payload_left == 0 && !self.in_message
    }

    fn take_header_byte(&mut self, byte: u8) {
        if let Some(place) = self.header.get_mut(self.header_len) {
            *place = byte;
            self.header_len += 1;
        }
        let [first, second, rest @ ..] = self.header;
        let (length_len, length) = match second & LENGTH {
            126 => (2, u64::from(u16::from_be_bytes([rest[0], rest[1]]))),
            127 => (
                8,
                rest.first_chunk().map_or(0, |it| u64::from_be_bytes(*it)),
            ),
            short => (0, u64::from(short)),
        };
        let mask_len = if second & MASKED == 0 { 0 } else { 4 };
        if self.header_len >= 2 && self.header_len == 2 + length_len + mask_len {
            self.header_len = 0;
            self.payload_left = length;
            if first & CONTROL == 0 {
                self.in_message = first & FIN == 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::wire_testing::{BINARY, CONTINUATION, frame, ping};

    #[test]
    fn every_byte_but_a_messages_last_is_within_a_message() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![0xff; len];
            for message in [
                vec![frame(BINARY, true, &payload)],
                vec![
                    frame(BINARY, false, &payload),
                    ping(b"between"),
                    frame(CONTINUATION, false, b""),
                    frame(CONTINUATION, true, &payload),
                ],
            ] {
                let bytes = message.concat();
                let mut walk = FrameWalk::default();
                for _ in 0..2 {
                    assert!(walk.is_between_messages());
                    let (last, others) = bytes.split_last().unwrap();
                    for byte in others {
                        walk.walk(&[*byte]);
                        assert!(!walk.is_between_messages(), "{len}");
                    }
                    walk.walk(&[*last]);
                }
                assert!(walk.is_between_messages());

                let mut at_once = FrameWalk::default();
                at_once.walk(&[&bytes[..], &bytes].concat());
                assert!(at_once.is_between_messages());
            }
        }
    }

    #[test]
    fn what_is_no_length_that_could_be_is_walked_all_the_same() {
        let mut walk = FrameWalk::default();
        walk.walk(&[0xff; 100]);
        assert!(!walk.is_between_messages());
    }
}
