//! Invalid protobuf, protobuf that does not match the schema, and random bytes.

use sidewire_testing::protobuf::{self, FIXED32, FIXED64, GROUP, GROUP_END, VARINT};

use super::{
    BATCH, CREATED, EXTRA_TOPICS, ID, PING, POSITION, PROJECTS, RESUME, SUBSCRIBE, Said, TIMESTAMP,
    TOPICS, UNSUBSCRIBE, Wanted, ping, said, subscribe,
};
use crate::{campaign::Mutator, forge::Forge};

/// Invalid protobuf, or protobuf that does not match the schema.
pub(super) fn malformed() -> Vec<Mutator<Said>> {
    let mut mutators = Vec::new();
    let faults: [(&str, &[u8]); 20] = [
        ("a tag that is cut", b"\x80"),
        ("field number 0", b"\x00\x01"),
        ("a field number above 2^29", b"\x80\x80\x80\x80\x10\x01"),
        (
            "a field number of 64 bits",
            b"\xf8\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01",
        ),
        ("wire type 6", b"\xa6\x06"),
        ("wire type 7", b"\xa7\x06"),
        ("a value that is missing", b"\x08"),
        (
            "a varint of 11 bytes",
            b"\x40\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
        ),
        (
            "a varint of 65 bits",
            b"\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        ),
        ("a length beyond the end", b"\xa2\x06\x05ab"),
        ("a length of 2^31", b"\xa2\x06\x80\x80\x80\x80\x08"),
        ("a length of 2^32", b"\xa2\x06\x80\x80\x80\x80\x10"),
        (
            "a length of 2^63",
            b"\xa2\x06\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        ),
        (
            "a length of 2^64-1",
            b"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ),
        ("four bytes of which three are there", b"\xa5\x06\0\0\0"),
        (
            "eight bytes of which seven are there",
            b"\xa1\x06\0\0\0\0\0\0\0",
        ),
        ("a group", b"\xa3\x06\xa4\x06"),
        ("a group without an end", b"\xa3\x06"),
        ("the end of a group", b"\xa4\x06"),
        ("a message of a byte too few", b"\x72\x02\x08"),
    ];
    for (name, fault) in faults {
        mutators.push(said(name, Wanted::undecodable(), move |_| {
            vec![fault.to_vec()]
        }));
        let name = format!("{name}, in a payload");
        mutators.push(said(name, Wanted::undecodable(), move |forge| {
            let number = forge.pick(&[SUBSCRIBE, UNSUBSCRIBE, PING]);
            vec![protobuf::bytes(number, fault)]
        }));
    }
    mutators.push(said("groups in groups", Wanted::undecodable(), |forge| {
        let levels = forge.between(2, 9000);
        let opened = protobuf::key(100, GROUP).repeat(levels);
        vec![opened, protobuf::key(100, GROUP_END).repeat(levels), ping()]
    }));
    mutators.push(said(
        "a known field of another type",
        Wanted::undecodable(),
        |forge| {
            let number = forge.pick(&[TIMESTAMP, POSITION, SUBSCRIBE, PING, CREATED, EXTRA_TOPICS]);
            let wire_type = match number {
                TIMESTAMP => forge.pick(&[FIXED32, FIXED64]),
                _ => forge.pick(&[VARINT, FIXED32, FIXED64]),
            };
            vec![protobuf::key(number, wire_type), vec![1; 8]]
        },
    ));
    mutators.push(said(
        "text that is not UTF-8",
        Wanted::undecodable(),
        |forge| {
            let bad = forge.pick(&[&b"\xff"[..], b"\xc3(", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]);
            let list = forge.pick(&[PROJECTS, 2, 3, TOPICS]);
            vec![subscribe(&[protobuf::bytes(list, bad)])]
        },
    ));
    mutators.push(Mutator::new("a message id that is not UTF-8", |forge| {
        let bytes = [protobuf::bytes(ID, b"a\xff"), ping()].concat();
        Said::bare(bytes, forge, Wanted::undecodable())
    }));
    mutators.push(said(
        "a position in a subscribe that is none",
        Wanted::undecodable(),
        |forge| {
            let bad = forge.pick(&[
                protobuf::number(RESUME, 5),
                protobuf::bytes(RESUME, b"\x12\x01"),
                protobuf::bytes(RESUME, &protobuf::number(1, 1)),
                protobuf::bytes(RESUME, &protobuf::bytes(1, b"\xff")),
            ]);
            vec![subscribe(&[bad])]
        },
    ));
    mutators.push(said("batches in batches", Wanted::undecodable(), |forge| {
        let mut inner = ping();
        for _ in 0..forge.between(101, 2000) {
            inner = protobuf::bytes(BATCH, &protobuf::bytes(1, &inner));
        }
        vec![inner]
    }));
    mutators.push(Mutator::new("an envelope that is cut", |forge| {
        let topic = format!("project:{}", forge.id());
        let whole = [
            protobuf::text(ID, &forge.message_id),
            subscribe(&[protobuf::text(TOPICS, &topic)]),
        ]
        .concat();
        let id_len = protobuf::text(ID, &forge.message_id).len();
        let len = forge.between(id_len + 1, whole.len() - 1);
        Said::bare(whole[..len].to_vec(), forge, Wanted::undecodable())
    }));
    mutators
}

pub(super) fn chance() -> Vec<Mutator<Said>> {
    let faulty = |name: &str, whole: fn(&mut Forge) -> Vec<u8>| {
        Mutator::new(name, move |forge: &mut Forge| {
            let whole = whole(forge);
            let mut bytes = forge.mutated(&whole);
            bytes.truncate(60_000);
            Said::bare(bytes, forge, Wanted::Something)
        })
    };
    vec![
        faulty("a ping with faults", |forge| {
            [protobuf::text(ID, &forge.message_id), ping()].concat()
        }),
        faulty("a subscribe with faults", |forge| {
            let lists = [
                protobuf::text(PROJECTS, &forge.id()),
                protobuf::text(TOPICS, "sprint:1"),
                protobuf::bytes(RESUME, &protobuf::number(2, 7)),
            ];
            [protobuf::text(ID, &forge.message_id), subscribe(&lists)].concat()
        }),
        faulty("an event with faults", |forge| forge.event()),
        Mutator::new("rubbish", |forge| {
            let len = forge.between(0, 300);
            let bytes = forge.bytes(len);
            Said::bare(bytes, forge, Wanted::Something)
        }),
    ]
}
