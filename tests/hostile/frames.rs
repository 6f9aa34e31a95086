//! Frames that no client may send, or that look as if: each is answered, or ends
//! its connection with the right code. Each case has a connection of its own.

use std::sync::Arc;

use prost::Message;

use crate::{
    campaign::{Attacker, Mutator},
    forge::{Forge, Site},
    handshakes::good,
    socket::{
        BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Socket, TEXT, binary, close, frame, header,
        masked,
    },
    wire::{self, Envelope},
};

/// The most bytes of a message: `client.message_max`, its default.
const MESSAGE_MAX: u64 = 64 * 1024;

const OPCODES: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// How a connection may end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// By a Close frame with one of these codes.
    Closed(Vec<u16>),
    /// Not at all: a Ping gets its Pong.
    Alive,
    /// When the client ends, without a word: a frame was not finished.
    Cut,
}

pub(crate) struct Frames {
    bytes: Vec<u8>,
    cuts: Vec<usize>,
    /// The payloads of the pings, of which the last is answered in any case.
    pings: Vec<Vec<u8>>,
    /// How many envelopes are answered.
    envelopes: usize,
    ends: Vec<End>,
    /// Whether anything may be in it, also what is answered.
    is_chance: bool,
}

impl Frames {
    fn new(bytes: Vec<u8>, ends: Vec<End>) -> Self {
        Self {
            bytes,
            cuts: vec![],
            pings: vec![],
            envelopes: 0,
            ends,
            is_chance: false,
        }
    }

    /// In which anything may be, and which the client ends.
    fn chance(bytes: Vec<u8>) -> Self {
        Self {
            is_chance: true,
            ..Self::new(bytes, vec![End::Cut])
        }
    }

    /// Which is to be closed with this code.
    fn closed(bytes: Vec<u8>, code: u16) -> Self {
        Self::new(bytes, vec![End::Closed(vec![code])])
    }

    /// Which leaves the connection as it was.
    fn harmless(bytes: Vec<u8>) -> Self {
        Self::new(bytes, vec![End::Alive])
    }

    /// Which gets so many envelopes in answer.
    fn answered(bytes: Vec<u8>, envelopes: usize) -> Self {
        Self {
            envelopes,
            ..Self::harmless(bytes)
        }
    }
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    pongs: Vec<Vec<u8>>,
    envelopes: usize,
}

/// The timestamp of the Ping that asks for a sign of life.
const ALIVE: u64 = 0x5157_3157;

pub(crate) struct FrameAttacker(Arc<Site>);

impl Attacker for FrameAttacker {
    const FAMILY: &'static str = "frames";
    type Case = Frames;

    fn mutators() -> Vec<Mutator<Frames>> {
        let mut mutators = lengths();
        for group in [
            headers(),
            fragments(),
            controls(),
            closes(),
            texts(),
            streams(),
        ] {
            mutators.extend(group);
        }
        mutators
    }

    fn new(site: &Arc<Site>) -> Self {
        Self(Arc::clone(site))
    }

    async fn attempt(&mut self, case: &Frames) -> Result<(), String> {
        let mut socket = Socket::connect(self.0.client).await?;
        let forge = Forge::new(&self.0, 0, Self::FAMILY, 0);
        socket.send(&good(&forge).bytes()).await;
        socket.send_cut(&case.bytes, &case.cuts).await;
        if case.ends.contains(&End::Cut) {
            socket.half_close().await;
        } else if case.ends.contains(&End::Alive) {
            let ping = wire::bytes(14, &wire::number(1, ALIVE));
            socket.send(&binary(&ping)).await;
        }
        match socket.answer(true).await? {
            Some(answer) if answer.status == 101 => {}
            // Who ends at once need not be let in.
            None if case.ends.contains(&End::Cut) => return Ok(()),
            other => return Err(format!("not let in: {other:?}")),
        }
        let (seen, end) = watch(&mut socket).await?;
        case.check(&seen, &end)
    }
}

/// What comes, up to the end or a sign of life; and sees to it that it ends.
async fn watch(socket: &mut Socket) -> Result<(Seen, End), String> {
    let mut seen = Seen::default();
    loop {
        let Some(frame) = socket.frame().await? else {
            return Ok((seen, End::Cut));
        };
        match frame.opcode {
            PONG => seen.pongs.push(frame.payload),
            CLOSE => {
                socket.send(&close(1000)).await;
                socket.ended().await?;
                return Ok((seen, End::Closed(vec![frame.close_code()])));
            }
            BINARY if is_sign_of_life(&frame.payload)? => {
                leave(socket).await?;
                return Ok((seen, End::Alive));
            }
            BINARY => seen.envelopes += 1,
            _ => return Err(format!("{frame:?}")),
        }
    }
}

fn is_sign_of_life(payload: &[u8]) -> Result<bool, String> {
    let envelope = Envelope::decode(payload).map_err(|error| error.to_string())?;
    let timestamp = envelope.pong.map(|pong| pong.client_timestamp);
    Ok(timestamp == Some(ALIVE.cast_signed()))
}

async fn leave(socket: &mut Socket) -> Result<(), String> {
    socket.send(&close(1000)).await;
    match socket.frame().await? {
        Some(frame) if frame.opcode == CLOSE && frame.close_code() == 1000 => socket.ended().await,
        other => Err(format!("{other:?} to a Close")),
    }
}

impl Frames {
    fn check(&self, seen: &Seen, end: &End) -> Result<(), String> {
        if self.is_chance {
            return Ok(());
        }
        let ended_well = self.ends.iter().any(|wanted| match (wanted, end) {
            (End::Closed(codes), End::Closed(code)) => code.iter().all(|code| codes.contains(code)),
            (wanted, end) => wanted == end,
        });
        // Of those that came before a breach some may not get their answers.
        let answered = *end != End::Alive
            || seen.envelopes == self.envelopes && seen.pongs.last() == self.pings.last();
        let all_asked_for = seen.envelopes <= self.envelopes
            && seen.pongs.iter().all(|pong| self.pings.contains(pong));
        if ended_well && answered && all_asked_for {
            Ok(())
        } else {
            Err(format!("{end:?} after {seen:?}, not {:?}", self.ends))
        }
    }
}

fn mutator(
    name: impl Into<String>,
    make: impl Fn(&mut Forge) -> Frames + Send + Sync + 'static,
) -> Mutator<Frames> {
    Mutator::new(name, make)
}

/// An envelope that is answered with another.
fn ping(forge: &mut Forge) -> Vec<u8> {
    wire::bytes(14, &wire::number(1, forge.number() >> 40))
}

/// Each length that is a border, with a mask and without, for every opcode.
fn lengths() -> Vec<Mutator<Frames>> {
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

/// A frame of this length, whole where it may have it, else only its header.
fn of_length(forge: &mut Forge, opcode: u8, len: u64, is_masked: bool) -> Frames {
    let mut bytes = header(FIN | opcode, is_masked, len);
    let is_reserved = matches!(opcode, 3..=7 | 11..=15);
    if len > MESSAGE_MAX {
        // Which of its faults is named is the relay's choice.
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

fn headers() -> Vec<Mutator<Frames>> {
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
        // RFC 6455, 5.2 forbids it to senders and says nothing to receivers.
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

fn fragments() -> Vec<Mutator<Frames>> {
    vec![
        mutator("an envelope in fragments", |forge| {
            let mut payload = ping(forge);
            // A field that nobody knows.
            let len = forge.between(1, 2000);
            payload.extend(wire::bytes(100, &forge.bytes(len)));
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

/// The payload in so many frames, with these bytes between each two.
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

fn controls() -> Vec<Mutator<Frames>> {
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

fn closes() -> Vec<Mutator<Frames>> {
    let mut mutators = Vec::new();
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 10_000, 65_535,
    ] {
        mutators.push(mutator(format!("a close with {code}"), move |forge| {
            let len = forge.below(20);
            let payload = [&u16::to_be_bytes(code)[..], forge.word(len).as_bytes()].concat();
            let bytes = frame(FIN | CLOSE, &payload);
            // 1004 is reserved and means nothing; other relays let it pass.
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

fn texts() -> Vec<Mutator<Frames>> {
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

fn streams() -> Vec<Mutator<Frames>> {
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
