//! Parses what the relay sends on one connection, in pieces of any size: the head of its
//! answer, then frames.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;
use sidewire_client::{ControlMessage, Envelope};

use crate::order::Order;

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;

/// A connection as seen from the relay's side.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    is_open: bool,
    pending: BytesMut,
    order: Order,
}

/// Observations on the wire.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) events: u64,
    pub(crate) replays: u64,
    pub(crate) too_slow: u64,
    pub(crate) faults: Vec<String>,
}

impl Wire {
    /// Parses the next bytes that were passed on.
    pub(crate) fn read(&mut self, bytes: &[u8], seen: &mut Seen) {
        self.pending.extend_from_slice(bytes);
        if !self.is_open {
            let mut ends = self.pending.windows(4);
            let Some(end) = ends.position(|it| it == b"\r\n\r\n") else {
                return;
            };
            self.pending.advance(end + 4);
            self.is_open = true;
        }
        while let Some((kind, payload)) = self.next_frame() {
            self.frame(kind, payload, seen);
        }
    }

    /// Returns true while the answer's head is incomplete.
    pub(crate) fn is_in_handshake(&self) -> bool {
        !self.is_open
    }

    /// Returns true if part of a frame has been passed on.
    pub(crate) fn is_inside_frame(&self) -> bool {
        self.is_open && !self.pending.is_empty()
    }

    /// Returns the next whole frame: its first byte and its payload.
    fn next_frame(&mut self) -> Option<(u8, Bytes)> {
        let bytes = &self.pending[..];
        let (head, length) = match bytes.get(1)? {
            126 => (4, number(bytes.get(2..4)?)),
            127 => (10, number(bytes.get(2..10)?)),
            length => (2, usize::from(*length)),
        };
        let kind = *bytes.first()?;
        if bytes.len() < head + length {
            return None;
        }
        self.pending.advance(head);
        Some((kind, self.pending.split_to(length).freeze()))
    }

    fn frame(&mut self, kind: u8, payload: Bytes, seen: &mut Seen) {
        match kind {
            BINARY => match Envelope::decode(payload) {
                Ok(envelope) => self.envelope(&envelope, seen),
                Err(error) => seen.faults.push(error.to_string()),
            },
            CLOSE if payload.starts_with(&4003_u16.to_be_bytes()) => seen.too_slow += 1,
            _ => {}
        }
    }

    fn envelope(&mut self, envelope: &Envelope, seen: &mut Seen) {
        match &envelope.control {
            None => seen.events += 1,
            Some(ControlMessage::SubscriptionConfirmed(confirmed)) if confirmed.replayed > 0 => {
                seen.replays += 1;
            }
            Some(ControlMessage::Error(error)) => seen.faults.push(format!("{error:?}")),
            Some(_) => {}
        }
        if let Err(fault) = self.order.take(envelope) {
            seen.faults.push(fault);
        }
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use sidewire_protocol::wire::Position;

    use super::*;

    fn frame(offset: u64) -> Vec<u8> {
        let position = Position {
            epoch: "e".to_owned(),
            offset,
        };
        let envelope = Envelope {
            message_id: "m".repeat(200),
            position: Some(position),
            ..Envelope::default()
        };
        let payload = envelope.encode_to_vec();
        let mut frame = vec![BINARY, 126, 0, payload.len() as u8];
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_are_read_in_pieces_of_any_size() {
        let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
        for offset in [1, 2, 2] {
            bytes.extend(frame(offset));
        }
        for piece in [1, 7, 1000] {
            let (mut wire, mut seen) = (Wire::default(), Seen::default());
            for bytes in bytes.chunks(piece) {
                wire.read(bytes, &mut seen);
            }
            assert_eq!((seen.events, seen.faults.len()), (3, 1));
            assert!(!wire.is_inside_frame());
        }
    }

    #[test]
    fn a_partial_frame_is_noticed() {
        let (mut wire, mut seen) = (Wire::default(), Seen::default());
        assert!(wire.is_in_handshake());
        wire.read(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", &mut seen);
        assert!(!wire.is_in_handshake() && !wire.is_inside_frame());
        wire.read(&frame(1)[..1], &mut seen);
        assert!(wire.is_inside_frame());
    }
}
