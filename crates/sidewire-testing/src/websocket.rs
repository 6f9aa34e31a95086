//! WebSocket frames (RFC 6455, 5.2): those of a client, which may also be wrong, and a strict
//! parser for those of the relay.

use std::ops::Range;

/// The opcodes.
pub const CONTINUATION: u8 = 0x0;
/// A text message.
pub const TEXT: u8 = 0x1;
/// A binary message.
pub const BINARY: u8 = 0x2;
/// The end of the connection.
pub const CLOSE: u8 = 0x8;
/// A ping.
pub const PING: u8 = 0x9;
/// The answer to a ping.
pub const PONG: u8 = 0xa;

/// The FIN bit of a message's last frame.
pub const FIN: u8 = 0x80;

const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Returns a frame's header, with the length in its shortest form. It may announce more than
/// follows.
#[must_use]
pub fn header(first: u8, is_masked: bool, len: u64) -> Vec<u8> {
    let (short, long) = match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..=125), _) => (short, vec![]),
        (_, Ok(medium)) => (126, medium.to_be_bytes().to_vec()),
        _ => (127, len.to_be_bytes().to_vec()),
    };
    let (bit, mask) = if is_masked {
        (MASKED, &MASK[..])
    } else {
        (0, &[][..])
    };
    [&[first, bit | short], &long[..], mask].concat()
}

/// Returns the payload as it is sent after a masked header.
#[must_use]
pub fn masked(payload: &[u8]) -> Vec<u8> {
    let mask = MASK.into_iter().cycle();
    payload
        .iter()
        .zip(mask)
        .map(|(byte, bits)| byte ^ bits)
        .collect()
}

/// Returns a client's frame with this first byte.
#[must_use]
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, true, payload.len() as u64);
    frame.extend(masked(payload));
    frame
}

/// Returns a frame without a mask.
#[must_use]
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&header(first, false, payload.len() as u64), payload].concat()
}

/// Returns a client's whole message in one frame.
#[must_use]
pub fn binary(payload: &[u8]) -> Vec<u8> {
    frame(FIN | BINARY, payload)
}

/// Returns a client's whole message of text in one frame.
#[must_use]
pub fn text(text: &str) -> Vec<u8> {
    frame(FIN | TEXT, text.as_bytes())
}

/// Returns a client's ping.
#[must_use]
pub fn ping(payload: &[u8]) -> Vec<u8> {
    frame(FIN | PING, payload)
}

/// Returns a client's Close frame with this code.
#[must_use]
pub fn close(code: u16) -> Vec<u8> {
    frame(FIN | CLOSE, &code.to_be_bytes())
}

/// A frame from the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The opcode.
    pub opcode: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Returns the code of a Close frame, 1005 if it has none.
    #[must_use]
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        let code = self.payload.first_chunk::<2>();
        code.map_or(1005, |code| u16::from_be_bytes(*code))
    }

    /// Returns the reason of a Close frame.
    #[must_use]
    pub fn close_reason(&self) -> &str {
        str::from_utf8(self.payload.get(2..).unwrap_or_default()).unwrap()
    }
}

/// Returns the opcode of the first frame and the place of its payload, which may be incomplete;
/// `None` if the header is. Fails on a frame that a relay never sends: one that is masked, a
/// fragment, too long for its opcode, or not in the shortest form.
pub fn parse_header(bytes: &[u8]) -> Result<Option<(u8, Range<usize>)>, String> {
    let Some((&[first, second], rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let length = match second {
        126 => rest
            .first_chunk()
            .map(|it| (4, u16::from_be_bytes(*it).into())),
        127 => rest.first_chunk().map(|it| (10, u64::from_be_bytes(*it))),
        short => Some((2, u64::from(short))),
    };
    let opcode = first & 0x0f;
    let is_known = matches!(opcode, TEXT | BINARY | CLOSE | PING | PONG);
    if first & 0xf0 != FIN || second & MASKED != 0 || !is_known {
        return Err(format!("a frame that begins {first:#04x} {second:#04x}"));
    }
    let Some((begin, length)) = length else {
        return Ok(None);
    };
    let is_shortest = match begin {
        2 => true,
        4 => length > 125,
        _ => length > 0xffff,
    };
    if !is_shortest || opcode >= CLOSE && length > 125 {
        return Err(format!(
            "a frame with opcode {opcode:#x} of {length} bytes in {begin}"
        ));
    }
    let end = begin + usize::try_from(length).unwrap();
    Ok(Some((opcode, begin..end)))
}

/// Removes the first frame and returns it; `None` while it is incomplete.
///
/// Fails on a frame that a relay never sends.
pub fn take_frame(bytes: &mut Vec<u8>) -> Result<Option<Frame>, String> {
    let Some((opcode, place)) = parse_header(bytes)? else {
        return Ok(None);
    };
    let Some(payload) = bytes.get(place.clone()).map(<[u8]>::to_vec) else {
        return Ok(None);
    };
    bytes.drain(..place.end);
    Ok(Some(Frame { opcode, payload }))
}

/// Returns the only frame in these bytes.
///
/// # Panics
///
/// When there is less or more than one frame.
#[must_use]
pub fn only_frame(bytes: &[u8]) -> Frame {
    let mut bytes = bytes.to_vec();
    let frame = take_frame(&mut bytes).unwrap().expect("a whole frame");
    assert_eq!(bytes, b"", "more than one frame");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_any_length_are_parsed_in_pieces() {
        for len in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![7; len];
            let bytes = unmasked(FIN | BINARY, &payload);
            let (last, begin) = bytes.split_last().unwrap();
            let mut pending = begin.to_vec();
            assert_eq!(take_frame(&mut pending).unwrap(), None);
            pending.extend([*last, 0x89]);
            let opcode = BINARY;
            assert_eq!(
                take_frame(&mut pending).unwrap(),
                Some(Frame { opcode, payload })
            );
            assert_eq!(pending, [0x89]);
        }
    }

    #[test]
    fn a_clients_frame_is_masked() {
        let bytes = frame(FIN | TEXT, b"ab");
        assert_eq!(
            bytes,
            [0x81, 0x82, 0x37, 0xfa, 0x21, 0x3d, b'a' ^ 0x37, b'b' ^ 0xfa]
        );
    }

    #[test]
    fn frames_that_a_relay_never_sends_are_refused() {
        for bytes in [
            &b"\x82\x80\0\0\0\0"[..],
            b"\x02\0",
            b"\x80\0",
            b"\x83\0",
            b"\xc2\0",
            b"\x82\x7e\0\x7d",
            b"\x82\x7f\0\0\0\0\0\0\xff\xff",
            b"\x89\x7e\0\x7e",
        ] {
            assert!(parse_header(bytes).is_err(), "{bytes:x?}");
        }
    }
}
