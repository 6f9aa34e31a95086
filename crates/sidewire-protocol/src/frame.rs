//! WebSocket frames as a server sends them (RFC 6455, 5.2): unmasked, one frame per message.

use bytes::BufMut;

/// Maximum size of a frame's header, in bytes.
pub const HEADER_BYTES_MAX: usize = 10;

const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const PING: u8 = 0x9;

/// An empty ping (RFC 6455, 5.5.2).
pub const EMPTY_PING: [u8; 2] = [FIN | PING, 0];

/// Returns the header of a binary frame, right-aligned in the array, and its length. That way it
/// directly precedes a payload that was written behind room for the longest header.
#[must_use]
pub fn binary_header(payload_len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    frame_header(BINARY, payload_len)
}

/// Returns the header of a text frame, right-aligned in the array, and its length.
#[must_use]
pub fn text_header(payload_len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    frame_header(TEXT, payload_len)
}

fn frame_header(opcode: u8, payload_len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    let written = {
        let mut rest = &mut header[..];
        rest.put_u8(FIN | opcode);
        match (u8::try_from(payload_len), u16::try_from(payload_len)) {
            (Ok(short @ 0..=125), _) => rest.put_u8(short),
            (_, Ok(medium)) => {
                rest.put_u8(126);
                rest.put_u16(medium);
            }
            _ => {
                rest.put_u8(127);
                rest.put_u64(payload_len as u64);
            }
        }
        HEADER_BYTES_MAX - rest.len()
    };
    header.rotate_right(HEADER_BYTES_MAX - written);
    (header, written)
}

/// Returns the payload as a whole binary frame.
#[must_use]
pub fn binary_frame(payload: &[u8]) -> Box<[u8]> {
    whole_frame(binary_header(payload.len()), payload)
}

/// Returns the payload as a whole text frame.
#[must_use]
pub fn text_frame(payload: &str) -> Box<[u8]> {
    whole_frame(text_header(payload.len()), payload.as_bytes())
}

fn whole_frame((header, header_len): ([u8; HEADER_BYTES_MAX], usize), payload: &[u8]) -> Box<[u8]> {
    let mut frame = Vec::with_capacity(header_len + payload.len());
    frame.extend(header.iter().skip(HEADER_BYTES_MAX - header_len));
    frame.extend_from_slice(payload);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_written_in_the_shortest_form() {
        for (len, header) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = binary_frame(&vec![7; len]);
            assert_eq!(&frame[..header.len()], header, "{len}");
            assert_eq!(frame.len(), header.len() + len);
            assert!(frame[header.len()..].iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_text_frame_differs_only_by_its_opcode() {
        for len in [0, 125, 126, 65_536] {
            let text = text_frame(&"x".repeat(len));
            let mut binary = binary_frame(&vec![b'x'; len]);
            binary[0] = 0x81;
            assert_eq!(text, binary);
        }
    }
}
