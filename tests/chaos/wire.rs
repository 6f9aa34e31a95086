//! Parses what the relay sends on one connection, in pieces of any size: the head of its
//! answer, then frames.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;
use sidewire_client::{ControlMessage, Envelope};
use sidewire_testing::websocket::{BINARY, CLOSE, parse_header};

use crate::order::Order;

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
        loop {
            match self.next_frame() {
                Ok(Some((opcode, payload))) => self.frame(opcode, payload, seen),
                Ok(None) => return,
                Err(fault) => return seen.faults.push(fault),
            }
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

    /// Returns the next whole frame: its opcode and its payload.
    fn next_frame(&mut self) -> Result<Option<(u8, Bytes)>, String> {
        let Some((opcode, place)) = parse_header(&self.pending)? else {
            return Ok(None);
        };
        if self.pending.len() < place.end {
            return Ok(None);
        }
        let frame = self.pending.split_to(place.end).freeze();
        Ok(Some((opcode, frame.slice(place))))
    }

    fn frame(&mut self, opcode: u8, payload: Bytes, seen: &mut Seen) {
        match opcode {
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

#[cfg(test)]
mod tests {
    use sidewire_protocol::wire::Position;
    use sidewire_testing::websocket::{FIN, unmasked};

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
        unmasked(FIN | BINARY, &envelope.encode_to_vec())
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
