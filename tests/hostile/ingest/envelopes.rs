//! Calls with one event, as protobuf.

use sidewire_testing::protobuf;

use super::{Call, is, posted};
use crate::{campaign::Mutator, forge::Forge, http::Expected};

/// Makes a mutator of a call's only envelope.
fn envelope(
    name: impl Into<String>,
    expected: Expected,
    bytes: impl Fn(&mut Forge) -> Vec<u8> + Send + Sync + 'static,
) -> Mutator<Call> {
    Mutator::new(name, move |forge| {
        let body = bytes(forge);
        Call::new(
            posted("events", forge).with_body(body).bytes(),
            expected.clone(),
        )
    })
}

pub(super) fn envelopes() -> Vec<Mutator<Call>> {
    let mut mutators = vec![
        envelope("an empty body", is(&[400]), |_| vec![]),
        envelope("rubbish", is(&[400]), |forge| {
            let len = forge.between(1, 2000);
            // Bytes that begin with field 0 are invalid.
            [vec![0], forge.bytes(len)].concat()
        }),
        envelope("no payload", is(&[400]), |forge| {
            protobuf::text(1, &forge.message_id)
        }),
        envelope("two payloads", is(&[400]), |forge| {
            [forge.event(), protobuf::bytes(3, b"")].concat()
        }),
        envelope("the same payload twice", is(&[400]), |forge| {
            forge.event().repeat(2)
        }),
        envelope("no topic", is(&[400]), |_| protobuf::bytes(2, b"")),
        envelope("a position", is(&[400]), |forge| {
            let position = protobuf::number(2, forge.number() >> forge.below(64));
            [
                forge.event(),
                protobuf::bytes(9, &forge.pick(&[position, vec![]])),
            ]
            .concat()
        }),
        envelope("a message id that is too long", is(&[400]), |forge| {
            let len = forge.between(129, 9000);
            with_id(&forge.word(len))
        }),
        envelope(
            "control characters in the message id",
            is(&[400]),
            |forge| with_id(forge.pick(&["a\0", "\n", "\u{7f}", "x\u{85}"])),
        ),
        envelope("a message id that is not UTF-8", is(&[400]), |forge| {
            [protobuf::bytes(1, b"\xff"), forge.event()].concat()
        }),
        envelope("a message id twice", is(&[400]), |forge| {
            [protobuf::text(1, "x"), forge.event()].concat()
        }),
        envelope("a timestamp twice", is(&[400]), |forge| {
            [protobuf::number(8, 5).repeat(2), forge.event()].concat()
        }),
        envelope("a topic in field 18 that is none", is(&[400]), |forge| {
            let bad = [
                "",
                "x",
                ":",
                "project:",
                "Project:1",
                "project:*",
                "tenant:a",
                "a:\0",
            ];
            [forge.event(), protobuf::text(18, forge.pick(&bad))].concat()
        }),
        envelope("too many topics in field 18", is(&[400]), |forge| {
            let topics: Vec<_> = (0..forge.between(101, 5000))
                .map(|id| protobuf::text(18, &format!("a:{id}")))
                .collect();
            [forge.event(), topics.concat()].concat()
        }),
        envelope("an annotated id that is a wildcard", is(&[400]), |_| {
            deleted("*")
        }),
        envelope("an annotated id that is too long", is(&[400]), |forge| {
            let len = forge.between(257, 9000);
            deleted(&forge.word(len))
        }),
        envelope(
            "control characters in an annotated id",
            is(&[400]),
            |forge| deleted(forge.pick(&["\0", "a\nb", "\u{80}"])),
        ),
        envelope("an annotated id that is not UTF-8", is(&[400]), |_| {
            protobuf::bytes(4, &protobuf::bytes(1, b"\xc3\x28"))
        }),
        envelope("a group", is(&[400]), |forge| {
            [forge.event(), b"\xa3\x06\xa4\x06".to_vec()].concat()
        }),
        envelope("a varint of 11 bytes", is(&[400]), |forge| {
            [forge.event(), [&[0x40], &[0x80; 10][..], &[0]].concat()].concat()
        }),
        envelope("a field of another type", is(&[400]), |forge| {
            let number = forge.pick(&[2, 3, 4, 5, 9, 18]);
            [forge.event(), protobuf::number(number, 1)].concat()
        }),
        envelope("batches in batches", is(&[400]), |forge| {
            let mut inner = forge.event();
            for _ in 0..forge.between(1, 2000) {
                inner = protobuf::bytes(17, &protobuf::bytes(1, &inner));
            }
            inner
        }),
        envelope("an event that is cut", is(&[400]), |forge| {
            let id_len = protobuf::text(1, &forge.message_id).len();
            let event = forge.event();
            event[..forge.between(id_len + 1, event.len() - 1)].to_vec()
        }),
        envelope("an event with faults", is(&[200, 400, 409]), |forge| {
            let event = forge.event();
            forge.mutated(&event)
        }),
    ];
    for number in (10..=17).chain(19..=20) {
        mutators.push(envelope(
            format!("control message {number}"),
            is(&[400]),
            move |_| protobuf::bytes(number, b""),
        ));
    }
    for number in 21..=31 {
        mutators.push(envelope(
            format!("reserved field {number}"),
            is(&[400]),
            move |forge| [forge.event(), protobuf::number(number, forge.number())].concat(),
        ));
    }
    mutators
}

/// Returns an event with this message id.
pub(super) fn with_id(id: &str) -> Vec<u8> {
    [protobuf::text(1, id), deleted("p")].concat()
}

/// Returns a WorkItemDeleted of this item.
pub(super) fn deleted(id: &str) -> Vec<u8> {
    protobuf::bytes(4, &protobuf::text(1, id))
}
