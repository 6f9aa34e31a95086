//! Topics that are invalid or not granted to this client, and positions that cannot be
//! resumed from.

use sidewire_testing::protobuf;

use super::{PROJECTS, RESUME, Said, TOPICS, UNSUBSCRIBE, Wanted, said, subscribe};
use crate::{campaign::Mutator, forge::Forge};

pub(super) fn topics() -> Vec<Mutator<Said>> {
    let mut mutators = Vec::new();
    for (name, topic) in [
        ("nothing", ""),
        ("no colon", "project"),
        ("no kind", ":1"),
        ("no id", "project:"),
        ("an upper-case kind", "Project:1"),
        ("a kind that begins with a digit", "1project:1"),
        ("a kind that begins with a blank", " project:1"),
        ("a kind with a dash", "pro-ject:1"),
        ("a kind that is not ASCII", "projekt\u{e4}:1"),
        ("a wildcard kind", "*:1"),
        ("wildcards only", "*:*"),
        ("NUL in the id", "project:a\0"),
        ("a newline in the id", "project:a\nb"),
        (
            "a control character beyond ASCII in the id",
            "project:\u{9f}",
        ),
    ] {
        let wanted = Wanted::invalid("subscribe.topics[1]");
        mutators.push(said(format!("a topic with {name}"), wanted, move |forge| {
            let good = protobuf::text(TOPICS, &format!("project:{}", forge.id()));
            vec![subscribe(&[good, protobuf::text(TOPICS, topic)])]
        }));
    }
    for (name, kind, id) in [("kind", 33, 1), ("id", 1, 257), ("kind and id", 300, 3000)] {
        let wanted = Wanted::invalid("unsubscribe.topics[0]");
        mutators.push(said(
            format!("a topic whose {name} is too long"),
            wanted,
            move |forge| {
                let topic = format!("{}:{}", forge.word(kind), forge.word(id));
                vec![protobuf::bytes(
                    UNSUBSCRIBE,
                    &protobuf::text(TOPICS, &topic),
                )]
            },
        ));
    }
    for (name, id) in [
        ("empty", String::new()),
        ("too long", "x".repeat(257)),
        ("a wildcard", "*".to_owned()),
        ("of control characters", "\u{1}".to_owned()),
    ] {
        for (number, list) in [(1, "project_ids"), (2, "sprint_ids"), (3, "work_item_ids")] {
            let field = format!("subscribe.{list}[1]");
            let id = id.clone();
            let name = format!("an id in {list} that is {name}");
            mutators.push(said(name, Wanted::invalid(field), move |forge| {
                let lists = [
                    protobuf::text(number, &forge.id()),
                    protobuf::text(number, &id),
                ];
                vec![subscribe(&lists)]
            }));
        }
    }
    for topic in [
        "user:ann",
        "user:*",
        "tenant:*",
        "tenant:acme",
        "secret:*",
        "projects:*",
        "secret:1",
        "projects:1",
        "users:ann",
    ] {
        mutators.push(said(
            format!("not granted: {topic}"),
            Wanted::unauthorized(),
            move |forge| {
                let good = protobuf::text(TOPICS, &format!("project:{}", forge.id()));
                vec![subscribe(&[good, protobuf::text(TOPICS, topic)])]
            },
        ));
    }
    mutators.push(said(
        "too many topics",
        Wanted::invalid("subscribe"),
        |forge| {
            let count = forge.between(1001, 5000);
            let list = forge.pick(&[PROJECTS, 2, 3]);
            vec![subscribe(
                &[protobuf::text(list, &forge.id()).repeat(count)],
            )]
        },
    ));
    mutators.push(said(
        "too many topics in four lists",
        Wanted::invalid("subscribe"),
        |forge| {
            let ids: Vec<_> = [1, 2, 3, TOPICS]
                .map(|list| protobuf::text(list, &format!("project:{}", forge.id())).repeat(251))
                .into();
            vec![subscribe(&ids)]
        },
    ));
    mutators.push(said(
        "too many to unsubscribe",
        Wanted::invalid("unsubscribe"),
        |_| {
            vec![protobuf::bytes(
                UNSUBSCRIBE,
                &protobuf::text(PROJECTS, "a").repeat(1001),
            )]
        },
    ));
    mutators.push(said(
        "the relay's numbers that a Subscribe has not",
        Wanted::Something,
        |forge| {
            let number = forge.between(18, 31) as u32;
            vec![subscribe(&[protobuf::number(number, forge.number())])]
        },
    ));
    mutators
}

fn position(epoch: &str, offset: u64) -> Vec<u8> {
    [protobuf::text(1, epoch), protobuf::number(2, offset)].concat()
}

/// Positions that cannot be resumed from.
pub(super) fn resumes() -> Vec<Mutator<Said>> {
    let resume = |name: &str, from: fn(&mut Forge) -> Vec<u8>| {
        said(name, Wanted::Subscribed, move |forge| {
            let topic = protobuf::text(PROJECTS, &forge.id());
            let from = from(forge);
            vec![subscribe(&[topic, protobuf::bytes(RESUME, &from)])]
        })
    };
    let zeros = "0".repeat(32);
    vec![
        resume("from an empty position", |_| vec![]),
        resume("from an offset alone", |forge| {
            protobuf::number(2, forge.number())
        }),
        resume("from an epoch that is none", move |forge| {
            let epochs = ["", "0", "*", "A", "\0", "+0000000000000000000000000000000"];
            position(forge.pick(&epochs), forge.number())
        }),
        resume("from an epoch in upper case", move |_| {
            position(&"A".repeat(32), 1)
        }),
        resume("from a long epoch", |forge| {
            let len = forge.between(33, 9000);
            protobuf::text(1, &forge.word(len))
        }),
        resume("from an epoch that never was", move |forge| {
            let epoch = format!("{:016x}{:016x}", forge.number(), forge.number());
            position(&epoch, forge.number() % 100)
        }),
        said(
            "from the end of all offsets",
            Wanted::Subscribed,
            move |forge| {
                let offset = forge.pick(&[u64::MAX, u64::MAX - 1, 1 << 63, 1 << 32]);
                vec![subscribe(&[protobuf::bytes(
                    RESUME,
                    &position(&zeros, offset),
                )])]
            },
        ),
        resume("from a position with unknown fields", |forge| {
            [protobuf::bytes(9, &forge.bytes(50)), protobuf::number(2, 1)].concat()
        }),
        // The last position counts, or they are merged.
        said("from two positions", Wanted::Something, move |forge| {
            let position = protobuf::bytes(RESUME, &protobuf::number(2, forge.number()));
            vec![subscribe(&[position.repeat(2)])]
        }),
    ]
}
