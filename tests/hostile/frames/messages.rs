//! Messages of one or several frames, and random bytes.

use sidewire_testing::{
    protobuf,
    websocket::{BINARY, CONTINUATION, FIN, PING, TEXT, binary, frame},
};

use super::{End, Frames, mutator, ping};
use crate::{campaign::Mutator, forge::Forge, handshakes::good};

pub(super) fn fragments() -> Vec<Mutator<Frames>> {
    vec![
        mutator("an envelope in fragments", |forge| {
            let mut payload = ping(forge);
            // An unknown field.
            let len = forge.between(1, 2000);
            payload.extend(protobuf::bytes(100, &forge.bytes(len)));
            let pieces = forge.between(2, 40);
            Frames::answered(fragmented(forge, BINARY, &payload, pieces, &[]), 1)
        }),
        mutator("pings between fragments", |forge| {
            let payload = ping(forge);
            let word = forge.word(9).into_bytes();
            let bytes = fragmented(forge, BINARY, &payload, 6, &frame(FIN | PING, &word));
            Frames {
                pings: vec![word],
                ..Frames::answered(bytes, 1)
            }
        }),
        mutator("empty fragments", |forge| {
            let payload = ping(forge);
            let empty = frame(CONTINUATION, b"").repeat(forge.between(1, 300));
            let last = frame(FIN | CONTINUATION, b"");
            Frames::answered([frame(BINARY, &payload), empty, last].concat(), 1)
        }),
        mutator("a continuation of nothing", |forge| {
            let fin = forge.pick(&[FIN, 0]);
            Frames::closed(frame(fin | CONTINUATION, &ping(forge)), 1002)
        }),
        mutator("a message in the middle of another", |forge| {
            let second = forge.pick(&[TEXT, BINARY]) | forge.pick(&[FIN, 0]);
            let payload = ping(forge);
            let bytes = [frame(BINARY, &payload), frame(second, &payload)].concat();
            Frames::closed(bytes, 1002)
        }),
        mutator("fragments without end", |forge| {
            let first = forge.pick(&[TEXT, BINARY]);
            let piece = vec![b'x'; 20_000];
            let more = frame(CONTINUATION, &piece).repeat(3);
            Frames::closed([frame(first, &piece), more].concat(), 1009)
        }),
        mutator("small fragments without end", |forge| {
            let piece = vec![0; forge.between(400, 700)];
            let count = 70_000 / piece.len();
            let more = frame(CONTINUATION, &piece).repeat(count);
            Frames::closed([frame(BINARY, &piece), more].concat(), 1009)
        }),
        mutator("a message as long as may be, in two", |forge| {
            let place = forge.between(1, 65_535);
            let payload = vec![0xff; 65_536];
            let (first, rest) = payload.split_at(place);
            let bytes = [frame(BINARY, first), frame(FIN | CONTINUATION, rest)].concat();
            Frames::answered(bytes, 1)
        }),
        mutator("one byte more than may be, in two", |forge| {
            let place = forge.between(1, 65_535);
            let payload = vec![0xff; 65_537];
            let (first, rest) = payload.split_at(place);
            let bytes = [frame(BINARY, first), frame(FIN | CONTINUATION, rest)].concat();
            Frames::closed(bytes, 1009)
        }),
        mutator("a message that is not finished", |forge| {
            let payload = ping(forge);
            Frames::new(frame(BINARY, &payload), vec![End::Cut])
        }),
    ]
}

/// Returns the payload in this many frames, with these bytes between each two.
fn fragmented(
    forge: &mut Forge,
    opcode: u8,
    payload: &[u8],
    pieces: usize,
    between: &[u8],
) -> Vec<u8> {
    let cuts = forge.cuts(payload.len(), pieces);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([payload.len()]);
    let mut bytes = Vec::new();
    for (index, (start, end)) in starts.zip(ends).enumerate() {
        let opcode = if index == 0 { opcode } else { CONTINUATION };
        let fin = if index + 1 == pieces { FIN } else { 0 };
        bytes.extend(frame(fin | opcode, &payload[start..end]));
        if fin == 0 {
            bytes.extend(between);
        }
    }
    bytes
}

pub(super) fn texts() -> Vec<Mutator<Frames>> {
    vec![
        mutator("JSON on a binary connection", |forge| {
            let json = format!(r#"{{"ping":{{"timestamp":"{}"}}}}"#, forge.below(1000));
            Frames::closed(frame(FIN | TEXT, json.as_bytes()), 1003)
        }),
        mutator("text in fragments", |forge| {
            let text = forge.word(60);
            let bytes = fragmented(forge, TEXT, text.as_bytes(), 5, &[]);
            Frames::closed(bytes, 1003)
        }),
        mutator("text that is not UTF-8", |forge| {
            let bad = forge.pick(&[&b"\xff"[..], b"\xc3(", b"\xed\xa0\x80", b"\xc0\x80"]);
            let ends = vec![End::Closed(vec![1003, 1007])];
            Frames::new(frame(FIN | TEXT, bad), ends)
        }),
        mutator("empty text", |_| {
            Frames::closed(frame(FIN | TEXT, b""), 1003)
        }),
        mutator("text that is too long", |forge| {
            let len = forge.between(65_537, 80_000);
            let ends = vec![End::Closed(vec![1003, 1009])];
            Frames::new(frame(FIN | TEXT, &vec![b'x'; len]), ends)
        }),
    ]
}

pub(super) fn streams() -> Vec<Mutator<Frames>> {
    vec![
        mutator("an empty message", |_| Frames::answered(binary(b""), 1)),
        mutator("a message of rubbish", |forge| {
            let len = forge.between(1, 3000);
            Frames::answered(binary(&forge.bytes(len)), 1)
        }),
        mutator("many messages at once", |forge| {
            let count = forge.between(2, 100);
            let bytes = (0..count).flat_map(|_| binary(&ping(forge))).collect();
            Frames::answered(bytes, count)
        }),
        mutator("messages cut anywhere", |forge| {
            let bytes: Vec<_> = (0..5).flat_map(|_| binary(&ping(forge))).collect();
            Frames {
                cuts: forge.cuts(bytes.len(), 12),
                ..Frames::answered(bytes, 5)
            }
        }),
        mutator("a good message and then a breach", |forge| {
            let payload = ping(forge);
            let bytes = [binary(&payload), frame(FIN | 0x70, b"")].concat();
            Frames {
                envelopes: 1,
                ..Frames::closed(bytes, 1002)
            }
        }),
        mutator("HTTP where frames should be", |forge| {
            let request = good(forge).bytes();
            Frames::closed(request, 1002)
        }),
        mutator("gone without a word", |_| {
            Frames::new(vec![], vec![End::Cut])
        }),
        mutator("nothing but bytes", |forge| {
            let len = forge.between(1, 2000);
            Frames::chance(forge.bytes(len))
        }),
        mutator("frames with faults", |forge| {
            let bytes: Vec<_> = (0..3).flat_map(|_| binary(&ping(forge))).collect();
            Frames::chance(forge.mutated(&bytes))
        }),
    ]
}
