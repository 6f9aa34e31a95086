//! Control frames.

use sidewire_testing::websocket::{CLOSE, CONTINUATION, FIN, PING, PONG, binary, close, frame};

use super::{End, Frames, mutator, ping};
use crate::campaign::Mutator;

pub(super) fn controls() -> Vec<Mutator<Frames>> {
    let mut mutators = Vec::new();
    for (name, opcode) in [("ping", PING), ("pong", PONG), ("close", CLOSE)] {
        mutators.push(mutator(format!("a {name} in fragments"), move |forge| {
            let len = forge.below(125);
            let payload = forge.bytes(len);
            let rest = frame(FIN | CONTINUATION, &payload);
            Frames::closed([frame(opcode, &payload), rest].concat(), 1002)
        }));
        mutators.push(mutator(
            format!("a {name} that is too long"),
            move |forge| {
                let len = forge.between(126, 5000);
                let payload = forge.bytes(len);
                Frames::closed(frame(FIN | opcode, &payload), 1002)
            },
        ));
    }
    mutators.push(mutator("pongs that nobody asked for", |forge| {
        let len = forge.below(125);
        let payload = forge.bytes(len);
        Frames::harmless(frame(FIN | PONG, &payload).repeat(forge.between(1, 50)))
    }));
    mutators.push(mutator("a flood of pings", |forge| {
        let pings: Vec<_> = (0..forge.between(2, 200)).map(|_| forge.bytes(9)).collect();
        let bytes = pings
            .iter()
            .flat_map(|ping| frame(FIN | PING, ping))
            .collect();
        Frames {
            pings,
            ..Frames::harmless(bytes)
        }
    }));
    mutators
}

pub(super) fn closes() -> Vec<Mutator<Frames>> {
    let mut mutators = Vec::new();
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 10_000, 65_535,
    ] {
        mutators.push(mutator(format!("a close with {code}"), move |forge| {
            let len = forge.below(20);
            let payload = [&u16::to_be_bytes(code)[..], forge.word(len).as_bytes()].concat();
            let bytes = frame(FIN | CLOSE, &payload);
            // 1004 is reserved and has no meaning; other relays accept it.
            let codes = if code == 1004 {
                vec![1002, 1004]
            } else {
                vec![1002]
            };
            Frames::new(bytes, vec![End::Closed(codes)])
        }));
    }
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        mutators.push(mutator(
            format!("a close with {code}, which may be"),
            move |forge| {
                let len = forge.below(123);
                let payload = [&u16::to_be_bytes(code)[..], forge.word(len).as_bytes()].concat();
                Frames::new(frame(FIN | CLOSE, &payload), vec![End::Closed(vec![code])])
            },
        ));
    }
    mutators.push(mutator("an empty close", |_| {
        Frames::closed(frame(FIN | CLOSE, b""), 1005)
    }));
    mutators.push(mutator("a close of one byte", |forge| {
        Frames::closed(frame(FIN | CLOSE, &forge.bytes(1)), 1002)
    }));
    mutators.push(mutator("a close whose reason is not UTF-8", |forge| {
        let reason = forge.pick(&[&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"]);
        let payload = [&1000_u16.to_be_bytes()[..], reason].concat();
        Frames::closed(frame(FIN | CLOSE, &payload), 1007)
    }));
    mutators.push(mutator("frames behind a close", |forge| {
        let payload = ping(forge);
        let more = binary(&payload).repeat(forge.between(1, 9));
        Frames::closed([close(1000), more].concat(), 1000)
    }));
    mutators
}
