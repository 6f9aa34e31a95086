//! Random envelopes, written in wire format field by field from a tape of random
//! bytes, and damaged by a second tape. A shorter tape gives a smaller envelope, so what
//! proptest shrinks stays readable.

mod client_event;
mod well_known;

use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor};

pub(super) use self::client_event::client_event;
use super::reference::{is_payload_field, topic_option};

/// The envelope's field for topics that a backend adds.
const TOPICS: u32 = 18;

/// A source of random bytes that is read once and then yields zeros.
pub(super) struct Tape<'a>(&'a [u8]);

impl<'a> Tape<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        let number = usize::from(self.byte()) << 8 | usize::from(self.byte());
        number % bound.max(1)
    }

    /// True in one of `odds` cases, and never at the end of the tape.
    pub(super) fn one_in(&mut self, odds: usize) -> bool {
        !self.0.is_empty() && self.below(odds) == 0
    }

    pub(super) fn pick<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[self.below(items.len())]
    }

    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => self.byte().into(),
            2 => u64::MAX - u64::from(self.byte()),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }
}

/// Writes a well-formed envelope, mostly with one payload.
pub(super) fn envelope(tape: &mut Tape<'_>, descriptor: &MessageDescriptor) -> Vec<u8> {
    let fields: Vec<_> = descriptor.fields().collect();
    let (payloads, plain): (Vec<_>, Vec<_>) = fields.into_iter().partition(is_payload_field);
    let mut parts = Vec::new();
    for field in &plain {
        let several = field.is_list() && tape.one_in(2);
        let mut member = Member::from(field);
        member.is_topic |= member.number == TOPICS;
        for _ in 0..usize::from(tape.one_in(2)) + usize::from(several) {
            parts.push(encoded(tape, &member, 1));
        }
    }
    let count = if tape.one_in(20) { 2 } else { 1 };
    for _ in 0..count {
        let payload = &payloads[tape.below(payloads.len())];
        parts.push(encoded(tape, &Member::from(payload), 0));
    }
    shuffle(tape, &mut parts);
    parts.concat()
}

fn shuffle<T>(tape: &mut Tape<'_>, items: &mut [T]) {
    for index in (1..items.len()).rev() {
        items.swap(index, tape.below(index + 1));
    }
}

/// The encoding of a field or an extension.
struct Member {
    number: u32,
    kind: Kind,
    is_list: bool,
    is_map: bool,
    /// Its values are whole topics.
    is_topic: bool,
}

impl From<&FieldDescriptor> for Member {
    fn from(field: &FieldDescriptor) -> Self {
        Self {
            number: field.number(),
            kind: field.kind(),
            is_list: field.is_list(),
            is_map: field.is_map(),
            is_topic: topic_option(&field.options()).as_deref() == Some("*"),
        }
    }
}

impl From<&ExtensionDescriptor> for Member {
    fn from(field: &ExtensionDescriptor) -> Self {
        Self {
            number: field.number(),
            kind: field.kind(),
            is_list: field.is_list(),
            is_map: false,
            is_topic: topic_option(&field.options()).as_deref() == Some("*"),
        }
    }
}

/// Writes up to six fields of a message, often one several times.
fn message(tape: &mut Tape<'_>, descriptor: &MessageDescriptor, depth: usize) -> Vec<u8> {
    if !tape.one_in(12)
        && let Some(bytes) = well_known::message(tape, descriptor, depth)
    {
        return bytes;
    }
    let mut members: Vec<_> = descriptor
        .fields()
        .map(|field| Member::from(&field))
        .collect();
    members.extend(descriptor.extensions().map(|field| Member::from(&field)));
    if depth > 4 {
        members.retain(|member| member.kind.as_message().is_none());
    }
    let mut out = Vec::new();
    let mut chosen = 0;
    for _ in 0..tape.below(7) {
        if tape.one_in(12) || members.is_empty() {
            unknown(tape, &mut out);
        } else {
            if !tape.one_in(3) {
                chosen = tape.below(members.len());
            }
            let member = &members[chosen];
            out.append(&mut encoded(tape, member, depth));
        }
    }
    out
}

/// Writes one occurrence of a field, packed or unpacked if both are valid.
fn encoded(tape: &mut Tape<'_>, member: &Member, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let wire_type = member.kind.wire_type();
    if member.is_list && wire_type != WireType::LengthDelimited && tape.one_in(2) {
        let mut packed = Vec::new();
        for _ in 0..tape.below(4) {
            scalar(tape, &member.kind, &mut packed);
        }
        key(tape, member.number, WireType::LengthDelimited, &mut out);
        delimited(tape, &packed, &mut out);
        return out;
    }
    let tagged = match member.is_map && tape.one_in(30) {
        true => [
            WireType::Varint,
            WireType::SixtyFourBit,
            WireType::ThirtyTwoBit,
        ][tape.below(3)],
        false => wire_type,
    };
    key(tape, member.number, tagged, &mut out);
    match &member.kind {
        Kind::Message(inner) if member.is_map => {
            let entry = map_entry(tape, inner, depth);
            delimited(tape, &entry, &mut out);
        }
        Kind::Message(inner) => {
            let inner = message(tape, inner, depth + 1);
            delimited(tape, &inner, &mut out);
        }
        Kind::String if member.is_topic => {
            let topic = topic(tape);
            delimited(tape, &topic, &mut out);
        }
        kind => scalar(tape, kind, &mut out),
    }
    out
}

/// Writes a map entry: mostly a key and a value, sometimes reordered, duplicated or
/// missing.
fn map_entry(tape: &mut Tape<'_>, descriptor: &MessageDescriptor, depth: usize) -> Vec<u8> {
    if tape.one_in(4) {
        return message(tape, descriptor, depth);
    }
    let key = Member::from(&descriptor.map_entry_key_field());
    let value = Member::from(&descriptor.map_entry_value_field());
    [encoded(tape, &key, depth), encoded(tape, &value, depth)].concat()
}

fn scalar(tape: &mut Tape<'_>, kind: &Kind, out: &mut Vec<u8>) {
    match kind {
        Kind::String => {
            let text = string(tape);
            delimited(tape, &text, out);
        }
        Kind::Bytes => {
            let bytes: Vec<_> = (0..tape.below(4)).map(|_| tape.byte()).collect();
            delimited(tape, &bytes, out);
        }
        kind => match kind.wire_type() {
            WireType::ThirtyTwoBit => out.extend(&tape.number().to_le_bytes()[..4]),
            WireType::SixtyFourBit => out.extend(tape.number().to_le_bytes()),
            _ => {
                let number = tape.number();
                varint(tape, number, out);
            }
        },
    }
}

/// Generates an id, usually a short one, so that ids repeat often.
fn string(tape: &mut Tape<'_>) -> Vec<u8> {
    match tape.below(80) {
        0 => b"*".to_vec(),
        1 => b"a\nb".to_vec(),
        2 => vec![b'x'; 257],
        3 => vec![b'x'; 256],
        4 => b"\xff".to_vec(),
        5..=20 => Vec::new(),
        21..=30 => "\u{fc}:1".into(),
        number => vec![b"abcd"[number % 4]],
    }
}

/// Generates a value that is usually a whole topic.
fn topic(tape: &mut Tape<'_>) -> Vec<u8> {
    let malformed: [&[u8]; 7] = [
        b"a",
        b"A:1",
        b"a:",
        b"a:*",
        b":1",
        b"tenant:1",
        b"k23456789012345678901234567890123:1",
    ];
    match tape.below(60) {
        number @ 0..7 => malformed[number].to_vec(),
        7..12 => Vec::new(),
        12..16 => b"tenant:*".to_vec(),
        16..20 => b"user:a".to_vec(),
        20..24 => "project:\u{fc}:1".into(),
        number => format!("{}:{}", ["project", "item", "a"][number % 3], number % 4).into(),
    }
}

fn unknown(tape: &mut Tape<'_>, out: &mut Vec<u8>) {
    let number = [77, 15_000, 19_500, (1 << 29) - 2][tape.below(4)];
    let kinds = [Kind::Int64, Kind::Fixed32, Kind::Fixed64, Kind::Bytes];
    let kind = &kinds[tape.below(4)];
    key(tape, number, kind.wire_type(), out);
    scalar(tape, kind, out);
}

fn key(tape: &mut Tape<'_>, number: u32, wire_type: WireType, out: &mut Vec<u8>) {
    if tape.one_in(40) {
        varint(tape, u64::from(number) << 3 | wire_type as u64, out);
    } else {
        encode_key(number, wire_type, out);
    }
}

/// A whole length-delimited field.
fn field(tape: &mut Tape<'_>, number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    key(tape, number, WireType::LengthDelimited, &mut out);
    delimited(tape, bytes, &mut out);
    out
}

/// A whole field with a varint.
fn varint_field(tape: &mut Tape<'_>, number: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    key(tape, number, WireType::Varint, &mut out);
    varint(tape, value, &mut out);
    out
}

fn delimited(tape: &mut Tape<'_>, bytes: &[u8], out: &mut Vec<u8>) {
    varint(tape, bytes.len() as u64, out);
    out.extend(bytes);
}

/// Writes a varint, sometimes longer than necessary.
fn varint(tape: &mut Tape<'_>, number: u64, out: &mut Vec<u8>) {
    let start = out.len();
    encode_varint(number, out);
    if out.len() - start < 9 && tape.one_in(20) {
        *out.last_mut().unwrap() |= 0x80;
        out.extend([0x80, 0][usize::from(tape.one_in(2))..].iter());
    }
}

/// Damages the bytes up to three times.
pub(super) fn damage(tape: &mut Tape<'_>, bytes: &mut Vec<u8>) {
    for _ in 0..=tape.below(3) {
        let at = tape.below(bytes.len() + 1);
        let end = at + tape.below((bytes.len() - at).min(20) + 1);
        match tape.below(10) {
            0 => bytes.truncate(at),
            1 | 2 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << tape.below(8);
                }
            }
            3 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = tape.byte();
                }
            }
            4 => drop(bytes.drain(at..end)),
            5 => {
                let piece = bytes[at..end].to_vec();
                let to = tape.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            6 => double_a_field(tape, bytes),
            7 | 8 => {
                let tags: [&[u8]; 5] = [
                    b"\xa3\x06\xa4\x06",
                    b"\x0b",
                    b"\x98\x01\x01",
                    b"\x06",
                    b"\x00",
                ];
                bytes.splice(at..at, tags[tape.below(5)].iter().copied());
            }
            _ => drop(bytes.splice(at..at, [0xff; 10])),
        }
    }
}

/// Appends a copy of one of the envelope's fields, sometimes with a different wire type.
fn double_a_field(tape: &mut Tape<'_>, bytes: &mut Vec<u8>) {
    let Some(fields) = super::reference::top_level(bytes) else {
        return;
    };
    if let Some(field) = fields.get(tape.below(fields.len())) {
        let mut copy = bytes[field.range.clone()].to_vec();
        if tape.one_in(8) {
            copy[0] ^= 2;
        }
        bytes.append(&mut copy);
    }
}
