//! Follows a client's bytes from frame to frame (RFC 6455, 5.2), to know when no message is in
//! progress and how many frames there are. Validates nothing, which is left to tungstenite.

use std::mem;

use sidewire_protocol::frame::{
    CLOSE, CONTROL, FIN, HEADER_BYTES_MAX, MASK_BYTES, MASKED, OPCODE, PONG, payload_len,
};

/// Maximum number of frames taken from a connection in one turn. An empty frame costs about 0.6
/// µs, so these cost 40 µs: while 100 connections flood the relay, an event waits 4 ms for them.
/// Yielding costs about 1 µs.
const FRAMES_PER_TURN: u16 = 64;

/// A fragment with fewer payload bytes than this is charged. Larger ones are bounded by the
/// message size, since each message is charged: there are 512 of them in 64 KiB.
const SMALL_FRAGMENT_BYTES: u64 = 128;

/// Counts the frames of a connection.
#[derive(Debug)]
pub(super) struct FrameCount {
    /// Number of frames that may still be taken in this turn.
    left_in_turn: u16,
    /// Number of frames that are not charged to the client yet.
    uncharged: u16,
    /// Number of frames received since this was last taken.
    taken: u16,
}

impl Default for FrameCount {
    fn default() -> Self {
        Self {
            left_in_turn: FRAMES_PER_TURN,
            uncharged: 0,
            taken: 0,
        }
    }
}

impl FrameCount {
    /// Returns a count with which a walk ends when this many more frames have begun and ended.
    fn with_turn_of(left_in_turn: u16) -> Self {
        Self {
            left_in_turn,
            ..Self::default()
        }
    }

    /// Allows as many frames as a new turn has.
    pub(super) fn begin_turn(&mut self) {
        self.left_in_turn = FRAMES_PER_TURN;
    }

    /// Takes the number of frames to charge that nothing else is charged for: pongs, and small
    /// fragments other than the last of a message. (Each message and each ping is charged
    /// separately.)
    pub(super) fn take_uncharged(&mut self) -> u16 {
        mem::take(&mut self.uncharged)
    }

    /// Takes the number of frames received since the last call.
    pub(super) fn take_count(&mut self) -> usize {
        usize::from(mem::take(&mut self.taken))
    }

    fn record_frame(&mut self, first: u8, payload_len: u64) {
        self.taken = self.taken.saturating_add(1);
        self.left_in_turn = self.left_in_turn.saturating_sub(1);
        let is_charged = if first & CONTROL == 0 {
            first & FIN == 0 && payload_len < SMALL_FRAGMENT_BYTES
        } else {
            first & OPCODE == PONG & OPCODE
        };
        self.uncharged = self.uncharged.saturating_add(u16::from(is_charged));
    }
}

/// The current position in the client's frames.
#[derive(Debug, Default)]
pub(super) struct FrameWalk {
    header: [u8; HEADER_BYTES_MAX + MASK_BYTES],
    header_len: usize,
    payload_left: u64,
    in_message: bool,
    /// Maximum number of bytes that the reader holds of the message in progress.
    begun_bytes: u64,
}

impl FrameWalk {
    /// Advances over these bytes until a frame begins that has to wait for another turn. Returns
    /// the number of bytes for this turn.
    pub(super) fn walk(&mut self, bytes: &[u8], frames: &mut FrameCount) -> usize {
        let mut ahead = bytes;
        while let Some((first, rest)) = ahead.split_first() {
            if self.payload_left > 0 {
                let len = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
                let skipped = ahead.len().min(len);
                self.payload_left -= skipped as u64;
                ahead = ahead.get(skipped..).unwrap_or_default();
            } else if self.header_len == 0 && frames.left_in_turn == 0 {
                break;
            } else {
                self.take_header_byte(*first, frames);
                ahead = rest;
            }
        }
        bytes.len() - ahead.len()
    }

    /// Advances over these bytes, or to the end of the first Close frame. Returns true if a Close
    /// frame ends in them.
    pub(super) fn skip_until_close(&mut self, bytes: &[u8]) -> bool {
        let mut ahead = bytes;
        while !ahead.is_empty() {
            let mut one_frame = FrameCount::with_turn_of(self.is_between_frames().into());
            let walked = self.walk(ahead, &mut one_frame);
            ahead = ahead.get(walked..).unwrap_or_default();
            let [first, ..] = self.header;
            if self.is_between_frames() && first & OPCODE == CLOSE & OPCODE {
                return true;
            }
        }
        false
    }

    fn is_between_frames(&self) -> bool {
        self.header_len == 0 && self.payload_left == 0
    }

    /// Returns true if the bytes end where a message ends, or before the first.
    pub(super) fn is_between_messages(&self) -> bool {
        self.is_between_frames() && !self.in_message
    }

    /// Returns the maximum number of bytes that the reader holds of the message in progress. The
    /// reader makes room for a frame as soon as it knows its length, and joins fragments in a
    /// buffer that doubles as it grows.
    pub(super) fn begun_bytes(&self) -> u64 {
        if self.is_between_messages() {
            0
        } else {
            self.begun_bytes
        }
    }

    fn take_header_byte(&mut self, byte: u8, frames: &mut FrameCount) {
        if let Some(place) = self.header.get_mut(self.header_len) {
            *place = byte;
            self.header_len += 1;
        }
        let [first, second, rest @ ..] = self.header;
        let (length, length_len) = payload_len(second, &rest).unwrap_or_default();
        let mask_len = if second & MASKED == 0 { 0 } else { MASK_BYTES };
        if self.header_len >= 2 && self.header_len == 2 + length_len + mask_len {
            self.header_len = 0;
            self.payload_left = length;
            frames.record_frame(first, length);
            if first & CONTROL == 0 {
                self.begin_data_frame(first & FIN != 0, length);
            }
        }
    }

    fn begin_data_frame(&mut self, is_last: bool, length: u64) {
        self.begun_bytes = match (self.in_message, is_last) {
            (true, _) => self.begun_bytes.saturating_add(length.saturating_mul(2)),
            (false, false) => length.saturating_mul(2),
            (false, true) => length,
        };
        self.in_message = !is_last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::wire_testing::{self, BINARY, CONTINUATION, frame, ping};

    /// Walks over all bytes, in as many turns as it takes. Returns the number of frames to
    /// charge.
    fn walk_all(walk: &mut FrameWalk, mut bytes: &[u8]) -> u16 {
        let mut charged = 0;
        while !bytes.is_empty() {
            let mut frames = FrameCount::default();
            let walked = walk.walk(bytes, &mut frames);
            bytes = &bytes[walked..];
            charged += frames.take_uncharged();
        }
        charged
    }

    #[test]
    fn pongs_and_small_fragments_are_charged_and_other_frames_are_not() {
        let pong = |len| frame(wire_testing::PONG, true, &vec![0; len]);
        for (bytes, charged) in [
            (pong(0), 1),
            (pong(125), 1),
            (ping(b""), 0),
            (wire_testing::close(1000), 0),
            (frame(BINARY, true, b""), 0),
            (frame(BINARY, false, b""), 1),
            (frame(CONTINUATION, false, &[0; 127]), 1),
            (frame(CONTINUATION, false, &[0; 128]), 0),
            (frame(CONTINUATION, true, b""), 0),
        ] {
            assert_eq!(walk_all(&mut FrameWalk::default(), &bytes), charged);
        }
    }

    #[test]
    fn a_turn_ends_before_the_first_frame_over_its_limit() {
        let bytes = ping(b"ping").repeat(usize::from(FRAMES_PER_TURN) + 1);
        let (mut walk, mut frames) = (FrameWalk::default(), FrameCount::default());
        let (turn, last) = bytes.split_at(bytes.len() - ping(b"ping").len());
        assert_eq!(walk.walk(&bytes, &mut frames), turn.len());
        assert_eq!(walk.walk(last, &mut frames), 0);
        frames.begin_turn();
        assert_eq!(walk.walk(last, &mut frames), last.len());
    }

    #[test]
    fn every_byte_but_the_last_of_a_message_is_within_the_message() {
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
                        walk_all(&mut walk, &[*byte]);
                        assert!(!walk.is_between_messages(), "{len}");
                    }
                    walk_all(&mut walk, &[*last]);
                }
                assert!(walk.is_between_messages());

                let mut at_once = FrameWalk::default();
                walk_all(&mut at_once, &[&bytes[..], &bytes].concat());
                assert!(at_once.is_between_messages());
            }
        }
    }

    #[test]
    fn a_begun_message_counts_with_the_length_announced_by_its_frames() {
        let mut walk = FrameWalk::default();
        let whole = frame(BINARY, true, &[0; 1000]);
        walk_all(&mut walk, &whole[..10]);
        assert_eq!(walk.begun_bytes(), 1000);
        walk_all(&mut walk, &whole[10..]);
        assert_eq!(walk.begun_bytes(), 0);
        walk_all(&mut walk, &frame(BINARY, false, &[0; 1000]));
        assert_eq!(walk.begun_bytes(), 2000);
        walk_all(&mut walk, &ping(b"between"));
        assert_eq!(walk.begun_bytes(), 2000);
        let last = frame(CONTINUATION, true, &[0; 10]);
        walk_all(&mut walk, &last[..8]);
        assert_eq!(walk.begun_bytes(), 2020);
        walk_all(&mut walk, &last[8..]);
        assert_eq!(walk.begun_bytes(), 0);
    }

    #[test]
    fn a_close_frame_is_found_at_its_end_and_nowhere_else() {
        let close = wire_testing::close(1000);
        let before = [
            frame(BINARY, true, &close),
            frame(BINARY, false, b""),
            ping(&close),
            frame(CONTINUATION, true, &close.repeat(30)),
        ]
        .concat();
        let end = before.len() + close.len();
        let bytes = [&before[..], &close, b"more"].concat();
        for cut in 0..=bytes.len() {
            let (first, rest) = bytes.split_at(cut);
            let mut walk = FrameWalk::default();
            assert_eq!(walk.skip_until_close(first), cut >= end, "{cut}");
            assert!(cut >= end || walk.skip_until_close(rest), "{cut}");
        }
        assert!(!FrameWalk::default().skip_until_close(&before.repeat(100)));
        assert!(!FrameWalk::default().skip_until_close(&[0xff; 100]));
        assert!(!FrameWalk::default().skip_until_close(b""));
    }

    #[test]
    fn an_impossible_frame_length_does_not_break_the_walk() {
        let mut walk = FrameWalk::default();
        walk_all(&mut walk, &[0xff; 100]);
        assert!(!walk.is_between_messages());
    }
}
