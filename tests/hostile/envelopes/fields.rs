//! The envelope's fields and its payloads.

use sidewire_testing::protobuf;

use super::{BATCH, CREATED, ID, POSITION, Said, TIMESTAMP, Wanted, ping, said, subscribe};
use crate::{campaign::Mutator, refusal::Refusal};

pub(super) fn relay_fields() -> Vec<Mutator<Said>> {
    let mut mutators = Vec::new();
    for (name, id) in [("long", "x".repeat(129)), ("very long", "ü".repeat(9000))] {
        mutators.push(unnamed(format!("a {name} message id"), id));
    }
    for (name, id) in [
        ("NUL", "a\0b"),
        ("a newline", "a\nb"),
        ("DEL", "a\u{7f}"),
        ("a control character beyond ASCII", "\u{85}"),
        ("an escape", "\u{1b}[31m"),
    ] {
        mutators.push(unnamed(format!("{name} in the message id"), id.to_owned()));
    }
    mutators.push(said("two message ids", any_id("message_id"), |forge| {
        vec![protobuf::text(ID, &forge.message_id), ping()]
    }));
    mutators.push(said(
        "two timestamps",
        Wanted::invalid("timestamp"),
        |forge| {
            let stamp = protobuf::number(TIMESTAMP, forge.number());
            vec![stamp.clone(), stamp, ping()]
        },
    ));
    mutators.push(said("two positions", Wanted::invalid("position"), |_| {
        vec![protobuf::bytes(POSITION, b"").repeat(2), ping()]
    }));
    mutators.push(said("an odd timestamp", Wanted::Pong(0), |forge| {
        let stamp = forge.pick(&[0, u64::MAX, 1 << 63, i64::MAX as u64]);
        vec![protobuf::number(TIMESTAMP, stamp), ping()]
    }));
    for number in 21..=31 {
        let wanted = Wanted::Refused(Refusal::invalid_somewhere());
        mutators.push(said(
            format!("reserved field {number}"),
            wanted,
            move |forge| {
                let field = [
                    protobuf::number(number, forge.number()),
                    protobuf::text(number, &forge.word(9)),
                ];
                vec![forge.pick(&field), ping()]
            },
        ));
    }
    mutators
}

/// An invalid message id, which is not repeated in the answer.
fn unnamed(name: String, id: String) -> Mutator<Said> {
    let wanted = Wanted::Refused(Refusal {
        names_request: Some(false),
        ..Refusal::invalid("message_id")
    });
    Mutator::new(name, move |forge| {
        let payload = forge.pick(&[ping(), subscribe(&[])]);
        Said::bare(
            [protobuf::text(ID, &id), payload].concat(),
            forge,
            wanted.clone(),
        )
    })
}

/// Expects an error about this field, when the id itself may be invalid too.
fn any_id(field: &str) -> Wanted {
    Wanted::Refused(Refusal {
        names_request: None,
        ..Refusal::invalid(field)
    })
}

pub(super) fn payloads() -> Vec<Mutator<Said>> {
    let mut mutators = vec![
        said("no payload", Wanted::invalid("payload"), |forge| {
            let fields = [
                vec![],
                protobuf::number(TIMESTAMP, 5),
                protobuf::text(100, "x"),
            ];
            vec![forge.pick(&fields)]
        }),
        said("two payloads", second_payload(), |forge| {
            let payloads = [ping(), subscribe(&[]), protobuf::bytes(CREATED, b"")];
            vec![forge.pick(&payloads), forge.pick(&payloads)]
        }),
        said("a thousand payloads", second_payload(), |_| {
            vec![ping().repeat(1000)]
        }),
        said(
            "a payload of a number beyond the schema",
            Wanted::invalid("payload"),
            |forge| {
                let number = forge.between(46, 1000) as u32;
                vec![protobuf::bytes(number, b"")]
            },
        ),
        said("an empty batch", Wanted::invalid("batch"), |_| {
            vec![protobuf::bytes(BATCH, b"")]
        }),
        said("a batch of pings", Wanted::invalid("batch"), |_| {
            vec![protobuf::bytes(
                BATCH,
                &protobuf::bytes(1, &ping()).repeat(500),
            )]
        }),
    ];
    for number in (2..=6).chain(32..=44) {
        let wanted = Wanted::Refused(Refusal::invalid_somewhere());
        mutators.push(said(
            format!("event {number} from a client"),
            wanted,
            move |_| vec![protobuf::bytes(number, b"")],
        ));
    }
    for (number, name) in [
        (11, "subscription_confirmed"),
        (13, "unsubscribe_confirmed"),
        (15, "pong"),
        (16, "error"),
        (20, "authenticated"),
    ] {
        let mutator = said(
            format!("{name} from a client"),
            Wanted::invalid(name),
            move |_| vec![protobuf::bytes(number, b"")],
        );
        mutators.push(mutator);
    }
    for (number, item, name) in [(7, 3, "user_presence"), (45, 2, "user_typing")] {
        mutators.push(said(
            format!("{name} without a subscription"),
            Wanted::unauthorized(),
            move |forge| {
                vec![protobuf::bytes(
                    number,
                    &protobuf::text(item, &forge.word(100)),
                )]
            },
        ));
    }
    mutators
}

fn second_payload() -> Wanted {
    Wanted::Refused(Refusal::invalid_somewhere())
}
