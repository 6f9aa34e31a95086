//! The headers of WebSocket frames (RFC 6455, 5.2), and whole frames as they are sent: one frame
//! per message.

use bytes::BufMut;

/// Maximum size of a header without a mask, in bytes.
pub const HEADER_BYTES_MAX: usize = 10;

/// The FIN bit in a frame's first byte: the frame ends its message.
pub const FIN: u8 = 0x80;

/// The bits of the opcode in a frame's first byte.
pub const OPCODE: u8 = 0x0f;

/// The bit of a control frame in its first byte.
pub const CONTROL: u8 = 0x08;

/// The bit of a frame's second byte that says that a mask follows the length.
pub const MASKED: u8 = 0x80;

/// Length of a mask, in bytes.
pub const MASK_BYTES: usize = 4;

/// The first byte of a whole text message.
pub const TEXT: u8 = FIN | 0x1;

/// The first byte of a whole binary message.
pub const BINARY: u8 = FIN | 0x2;

/// The first byte of a Close frame.
pub const CLOSE: u8 = FIN | 0x8;

/// The first byte of a ping.
pub const PING: u8 = FIN | 0x9;

/// The first byte of a pong.
pub const PONG: u8 = FIN | 0xa;

/// An empty ping (RFC 6455, 5.5.2).
pub const EMPTY_PING: [u8; 2] = [PING, 0];

/// Returns the length of a payload, in bytes, and of the extended length in which it may be
/// written, from a header's second byte and the bytes after it; `None` while these are incomplete.
#[inline]
#[must_use]
pub fn payload_len(second: u8, rest: &[u8]) -> Option<(u64, usize)> {
    match second & !MASKED {
        126 => Some((u16::from_be_bytes(*rest.first_chunk()?).into(), 2)),
        127 => Some((u64::from_be_bytes(*rest.first_chunk()?), 8)),
        short => Some((short.into(), 0)),
    }
}

/// Returns the header of a binary frame, right-aligned in the array, and its length. That way it
/// directly precedes a payload that was written behind room for the longest header.
#[must_use]
pub fn binary_header(payload_len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    frame_header(BINARY, 0, payload_len)
}

/// Returns the header of a text frame, right-aligned in the array, and its length.
#[must_use]
pub fn text_header(payload_len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    frame_header(TEXT, 0, payload_len)
}

fn frame_header(first: u8, mask_bit: u8, payload_len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    let written = {
        let mut rest = &mut header[..];
        rest.put_u8(first);
        match (u8::try_from(payload_len), u16::try_from(payload_len)) {
            (Ok(short @ 0..=125), _) => rest.put_u8(mask_bit | short),
            (_, Ok(medium)) => {
                rest.put_u8(mask_bit | 126);
                rest.put_u16(medium);
            }
            _ => {
                rest.put_u8(mask_bit | 127);
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
    whole_frame(binary_header(payload.len()), &[], payload)
}

/// Returns the payload as a whole text frame.
#[must_use]
pub fn text_frame(payload: &str) -> Box<[u8]> {
    whole_frame(text_header(payload.len()), &[], payload.as_bytes())
}

/// Returns a frame of the relay with this first byte.
#[must_use]
pub fn relay_frame(first: u8, payload: &[u8]) -> Box<[u8]> {
    whole_frame(frame_header(first, 0, payload.len()), &[], payload)
}

/// Returns the relay's Close frame. The reason has at most 123 bytes (RFC 6455, 5.5).
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Box<[u8]> {
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    relay_frame(CLOSE, &payload)
}

/// Returns a client's frame with this first byte. It is masked with zeros, which leaves the
/// payload as it is: masks protect proxies, so this is for connections without one.
#[must_use]
pub fn client_frame(first: u8, payload: &[u8]) -> Box<[u8]> {
    let header = frame_header(first, MASKED, payload.len());
    whole_frame(header, &[0; MASK_BYTES], payload)
}

fn whole_frame(
    (header, header_len): ([u8; HEADER_BYTES_MAX], usize),
    mask: &[u8],
    payload: &[u8],
) -> Box<[u8]> {
    let mut frame = Vec::with_capacity(header_len + mask.len() + payload.len());
    frame.extend(header.iter().skip(HEADER_BYTES_MAX - header_len));
    frame.extend_from_slice(mask);
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
    fn a_clients_frame_has_a_mask_of_zeros() {
        let short = client_frame(TEXT, b"ab");
        assert_eq!(*short, [0x81, 0x82, 0, 0, 0, 0, b'a', b'b']);
        let medium = client_frame(BINARY, &[7; 200]);
        assert_eq!(medium[..8], [0x82, 0xfe, 0, 200, 0, 0, 0, 0]);
        let long = client_frame(BINARY, &[7; 70_000]);
        assert_eq!(long[..10], [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }

    #[test]
    fn a_close_frame_holds_the_code_and_the_reason() {
        assert_eq!(*close_frame(4401, "no"), [0x88, 4, 0x11, 0x31, b'n', b'o']);
    }

    #[test]
    fn a_length_is_parsed_once_it_is_complete() {
        assert_eq!(payload_len(0x80 | 125, b""), Some((125, 0)));
        assert_eq!(payload_len(126, &[1]), None);
        assert_eq!(payload_len(0xfe, &[1, 2, 9]), Some((258, 2)));
        assert_eq!(payload_len(127, &[0; 7]), None);
        assert_eq!(
            payload_len(127, &[0, 0, 0, 0, 0, 1, 0, 0]),
            Some((65_536, 8))
        );
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
