//! Forged senders, in every encoding that a decoder might take for the sender.

use sidewire_testing::protobuf::{self, DELIMITED, FIXED32, FIXED64, GROUP, GROUP_END, varint};

use super::{ATTACKER, Case, PayloadType, refused, relayed};
use crate::{campaign::Mutator, forge::Forge, refusal::Refusal};

/// Makes the fields that forge the sender, whose field has this number.
type Forgery = fn(&mut Forge, u32) -> Vec<u8>;

/// Senders that the relay replaces, and fields that are none and stay.
const FORGERIES: [(&str, Forgery); 12] = [
    ("a forged sender", |_, sender| {
        protobuf::text(sender, "wendy")
    }),
    ("its own name", |_, sender| protobuf::text(sender, ATTACKER)),
    ("an empty sender", |_, sender| protobuf::text(sender, "")),
    ("a forged sender of 300 bytes", |forge, sender| {
        protobuf::text(sender, &forge.word(300))
    }),
    ("300 forged senders", |_, sender| {
        protobuf::text(sender, "x").repeat(300)
    }),
    ("a sender that is an odd text", |forge, sender| {
        protobuf::text(sender, &forge.odd_text())
    }),
    ("a sender that is a topic", |_, sender| {
        protobuf::text(sender, "project:elsewhere")
    }),
    (
        "a sender whose key is longer than it need be",
        |_, sender| [long_varint(u64::from(sender << 3 | DELIMITED)), text("eve")].concat(),
    ),
    (
        "a sender whose length is longer than it need be",
        |_, sender| {
            [
                protobuf::key(sender, DELIMITED),
                long_varint(3),
                b"eve".to_vec(),
            ]
            .concat()
        },
    ),
    ("a sender in an unknown field", |forge, sender| {
        let number = forge.between(50, 1000) as u32;
        protobuf::bytes(number, &protobuf::text(sender, "eve"))
    }),
    ("a sender deep in unknown fields", |forge, sender| {
        let levels = forge.between(2, 100);
        let inner = protobuf::text(sender, "eve");
        (0..levels).fold(inner, |inner, _| protobuf::bytes(100, &inner))
    }),
    ("senders and unknown fields in turn", |forge, sender| {
        let pair = [
            protobuf::text(sender, "eve"),
            protobuf::number(100, forge.number()),
        ];
        pair.concat().repeat(20)
    }),
];

/// Fields in place of the sender that make the whole envelope undecodable.
const MALFORMED: [(&str, Forgery); 10] = [
    ("a sender that is a varint", |forge, sender| {
        protobuf::number(sender, forge.number())
    }),
    ("a sender of 4 bytes", |forge, sender| {
        [protobuf::key(sender, FIXED32), forge.bytes(4)].concat()
    }),
    ("a sender of 8 bytes", |forge, sender| {
        [protobuf::key(sender, FIXED64), forge.bytes(8)].concat()
    }),
    ("a sender that is a group", |_, sender| {
        [
            protobuf::key(sender, GROUP),
            protobuf::key(sender, GROUP_END),
        ]
        .concat()
    }),
    ("a sender of wire type 6", |_, sender| {
        [protobuf::key(sender, 6), text("eve")].concat()
    }),
    ("a sender that is not UTF-8", |forge, sender| {
        let bad = forge.pick(&[
            &b"\xff"[..],
            b"eve\xc3(",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
        ]);
        protobuf::bytes(sender, bad)
    }),
    ("a sender and another that is not UTF-8", |_, sender| {
        [
            protobuf::text(sender, "eve"),
            protobuf::bytes(sender, b"\xc0\x80"),
        ]
        .concat()
    }),
    ("a sender that is longer than the payload", |_, sender| {
        [protobuf::key(sender, DELIMITED), varint(3000)].concat()
    }),
    ("a sender of a length of 2^64-1", |_, sender| {
        [protobuf::key(sender, DELIMITED), varint(u64::MAX)].concat()
    }),
    (
        // Decoders that cut the key to 32 bits read a sender.
        "a sender whose number has 33 bits",
        |_, sender| {
            let key = 1 << 32 | u64::from(sender << 3 | DELIMITED);
            [varint(key), text("eve")].concat()
        },
    ),
];

pub(super) fn forged(payload: &'static PayloadType) -> Vec<Mutator<Case>> {
    let topic = || payload.project("shared");
    let mut mutators = vec![
        relayed(payload, "a forged sender before the topic", move |_| {
            [protobuf::text(payload.sender, "eve"), topic()].concat()
        }),
        relayed(payload, "a forged sender after the topic", move |_| {
            [topic(), protobuf::text(payload.sender, "eve")].concat()
        }),
    ];
    for (name, make) in FORGERIES {
        let name = format!("{name}, anywhere");
        mutators.push(relayed(payload, &name, move |forge| {
            let forgery = make(forge, payload.sender);
            let places = [
                [forgery.clone(), topic()].concat(),
                [topic(), forgery.clone()].concat(),
                [forgery.clone(), topic(), forgery].concat(),
            ];
            forge.pick(&places)
        }));
    }
    mutators
}

pub(super) fn malformed(payload: &'static PayloadType) -> Vec<Mutator<Case>> {
    let mutators = MALFORMED.iter().map(|(name, make)| {
        refused(payload, name, Refusal::undecodable(), move |forge| {
            let sender = make(forge, payload.sender);
            let topic = payload.project("shared");
            match forge.flag() {
                true => [topic, sender].concat(),
                false => [protobuf::text(payload.sender, "eve"), topic, sender].concat(),
            }
        })
    });
    mutators.collect()
}

/// Encodes a number in ten bytes.
fn long_varint(number: u64) -> Vec<u8> {
    let mut bytes = varint(number);
    if let Some(last) = bytes.last_mut() {
        *last |= 0x80;
    }
    bytes.resize(9, 0x80);
    bytes.push(0);
    bytes
}

/// Returns text with its length, as after a key.
fn text(text: &str) -> Vec<u8> {
    [&varint(text.len() as u64), text.as_bytes()].concat()
}
