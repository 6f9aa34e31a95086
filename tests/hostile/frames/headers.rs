//! Frames with a header that is invalid, or looks like it.

use sidewire_testing::websocket::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, frame, header, masked,
};

use super::{End, Frames, MESSAGE_MAX, OPCODES, mutator, ping};
use crate::{campaign::Mutator, forge::Forge};

/// Every boundary length, masked and unmasked, for every opcode.
pub(super) fn lengths() -> Vec<Mutator<Frames>> {
    let mut mutators = Vec::new();
    for (name, len) in [
        ("125", 125),
        ("126", 126),
        ("65535", 65_535),
        ("65536", 65_536),
        ("2^31", 1 << 31),
        ("2^32", 1 << 32),
        ("2^63", 1 << 63),
        ("2^64-1", u64::MAX),
    ] {
        for is_masked in [true, false] {
            let mask = if is_masked { "masked" } else { "unmasked" };
            mutators.push(mutator(format!("length {name} {mask}"), move |forge| {
                let opcode = forge.pick(&OPCODES);
                of_length(forge, opcode, len, is_masked)
            }));
        }
    }
    for opcode in OPCODES {
        mutators.push(mutator(
            format!("opcode {opcode:x} of a border length"),
            move |forge| {
                let len = forge.pick(&[
                    125,
                    126,
                    65_535,
                    65_536,
                    1 << 31,
                    1 << 32,
                    1 << 63,
                    u64::MAX,
                ]);
                let is_masked = forge.flag();
                of_length(forge, opcode, len, is_masked)
            },
        ));
    }
    mutators
}

/// Returns a frame of this length: whole if the length is allowed, else only its header.
fn of_length(forge: &mut Forge, opcode: u8, len: u64, is_masked: bool) -> Frames {
    let mut bytes = header(FIN | opcode, is_masked, len);
    let is_reserved = matches!(opcode, 3..=7 | 11..=15);
    if len > MESSAGE_MAX {
        // The relay may name either of its faults.
        return Frames::new(bytes, vec![End::Closed(vec![1002, 1009])]);
    }
    let payload = vec![b'x'; usize::try_from(len).unwrap()];
    bytes.extend(if is_masked {
        masked(&payload)
    } else {
        payload.clone()
    });
    match opcode {
        _ if is_reserved || !is_masked => Frames::closed(bytes, 1002),
        CONTINUATION => Frames::closed(bytes, 1002),
        TEXT => Frames::closed(bytes, 1003),
        BINARY => Frames::answered(bytes, 1),
        _ if len > 125 => Frames::closed(bytes, 1002),
        CLOSE => Frames::closed(close_after(bytes, forge), 1002),
        PING => Frames {
            pings: vec![payload],
            ..Frames::harmless(bytes)
        },
        _ => Frames::harmless(bytes),
    }
}

/// A Close frame with the code 0x7878 is one with a code that nobody may use.
fn close_after(close: Vec<u8>, forge: &mut Forge) -> Vec<u8> {
    let more = forge.below(20);
    [close, forge.bytes(more)].concat()
}

pub(super) fn headers() -> Vec<Mutator<Frames>> {
    let mut mutators = Vec::new();
    for bits in 1..8_u8 {
        mutators.push(mutator(format!("reserved bits {bits:03b}"), move |forge| {
            let opcode = forge.pick(&[TEXT, BINARY, PING, PONG, CLOSE]);
            let len = forge.below(100);
            let payload = forge.bytes(len);
            Frames::closed(frame(FIN | bits << 4 | opcode, &payload), 1002)
        }));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        mutators.push(mutator(
            format!("reserved opcode {opcode:x}"),
            move |forge| {
                let fin = forge.pick(&[FIN, 0]);
                let payload = ping(forge);
                Frames::closed(frame(fin | opcode, &payload), 1002)
            },
        ));
    }
    for (name, opcode) in [
        ("binary", BINARY),
        ("ping", PING),
        ("close", CLOSE),
        ("text", TEXT),
    ] {
        mutators.push(mutator(format!("{name} without a mask"), move |forge| {
            let len = forge.below(120);
            let payload = forge.bytes(len);
            let bytes = [header(FIN | opcode, false, len as u64), payload].concat();
            Frames::closed(bytes, 1002)
        }));
    }
    mutators.push(mutator("a length longer than it need be", |forge| {
        let payload = ping(forge);
        let len = payload.len() as u64;
        let mask = [0_u8; 4];
        let wide = [
            &[FIN | BINARY, 0xff],
            &len.to_be_bytes()[..],
            &mask,
            &payload,
        ]
        .concat();
        // RFC 6455, 5.2 forbids it to senders but does not tell receivers what to do.
        let ends = vec![End::Alive, End::Closed(vec![1002])];
        Frames {
            envelopes: 1,
            ..Frames::new(wide, ends)
        }
    }));
    mutators.push(mutator("a frame that is not finished", |forge| {
        let opcode = forge.pick(&[BINARY, TEXT, PING, CLOSE, PONG]);
        let promised = forge.between(10, 125);
        let len = forge.below(10);
        let payload = forge.bytes(len);
        let bytes = [
            header(FIN | opcode, true, promised as u64),
            masked(&payload),
        ]
        .concat();
        Frames::new(bytes, vec![End::Cut])
    }));
    mutators.push(mutator("a header that is not finished", |forge| {
        let opcode = forge.pick(&[BINARY, PING, CLOSE]);
        let len = forge.pick(&[5, 126, 65_536]);
        let mut bytes = header(FIN | opcode, true, len);
        bytes.truncate(forge.between(0, bytes.len() - 1));
        Frames::new(bytes, vec![End::Cut])
    }));
    mutators
}
