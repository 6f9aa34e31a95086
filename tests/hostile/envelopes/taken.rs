//! Unusual envelopes that are valid.

use sidewire_testing::protobuf::{self, FIXED32, FIXED64};

use super::{ID, PING, PROJECTS, Said, TOPICS, UNSUBSCRIBE, Wanted, ping, said, subscribe};
use crate::campaign::Mutator;

pub(super) fn good_ones() -> Vec<Mutator<Said>> {
    vec![
        Mutator::new("a ping", |forge| {
            let stamp = forge.number();
            let ping = protobuf::bytes(PING, &protobuf::number(1, stamp));
            Said::new(forge, &[ping], Wanted::Pong(stamp.cast_signed()))
        }),
        said("an empty ping", Wanted::Pong(0), |_| vec![ping()]),
        said("a subscribe", Wanted::Subscribed, |forge| {
            let ids: Vec<_> = (1..4)
                .map(|list| protobuf::text(list, &forge.id()))
                .collect();
            vec![subscribe(&ids)]
        }),
        said("an empty subscribe", Wanted::Subscribed, |_| {
            vec![subscribe(&[])]
        }),
        said(
            "the same topic in a hundred places",
            Wanted::Subscribed,
            |forge| {
                let id = forge.id();
                let lists = [
                    protobuf::text(PROJECTS, &id),
                    protobuf::text(TOPICS, &format!("project:{id}")),
                ];
                vec![subscribe(&[lists.concat().repeat(100)])]
            },
        ),
        said("as many topics as may be", Wanted::Subscribed, |_| {
            let ids: Vec<_> = (0..1000)
                .map(|id| protobuf::text(2, &format!("s{id}")))
                .collect();
            vec![subscribe(&ids)]
        }),
        said("the longest topic", Wanted::Subscribed, |forge| {
            vec![subscribe(&[protobuf::text(PROJECTS, &forge.word(256))])]
        }),
        said(
            "a topic of a kind that no schema names",
            Wanted::Subscribed,
            |forge| {
                vec![subscribe(&[protobuf::text(
                    TOPICS,
                    &format!("odd_kind:{}", forge.id()),
                )])]
            },
        ),
        said("an id full of colons", Wanted::Subscribed, |forge| {
            vec![subscribe(&[protobuf::text(
                TOPICS,
                &format!("project::a:*:{}", forge.id()),
            )])]
        }),
        said("a wildcard of a granted kind", Wanted::Subscribed, |_| {
            vec![subscribe(&[protobuf::text(TOPICS, "odd_kind:*")])]
        }),
        said("an unsubscribe", Wanted::Unsubscribed, |forge| {
            vec![protobuf::bytes(
                UNSUBSCRIBE,
                &protobuf::text(PROJECTS, &forge.id()),
            )]
        }),
        said(
            "an unsubscribe of what nobody has",
            Wanted::Unsubscribed,
            |forge| {
                let topic = format!("nothing:{}", forge.word(100));
                vec![protobuf::bytes(
                    UNSUBSCRIBE,
                    &protobuf::text(TOPICS, &topic),
                )]
            },
        ),
        said("fields that nobody knows", Wanted::Pong(0), |forge| {
            let field = forge.between(100, (1 << 29) - 1) as u32;
            let unknown = [
                protobuf::number(field, forge.number()),
                protobuf::bytes(field, &forge.bytes(30)),
                [protobuf::key(field, FIXED64), forge.bytes(8)].concat(),
                [protobuf::key(field, FIXED32), forge.bytes(4)].concat(),
            ];
            vec![forge.pick(&unknown), ping()]
        }),
        said(
            "an unknown field that looks like a bomb",
            Wanted::Pong(0),
            |forge| {
                let levels = forge.between(100, 3000);
                vec![protobuf::bytes(100, &protobuf::nested(1, levels)), ping()]
            },
        ),
        said("thousands of unknown fields", Wanted::Pong(0), |_| {
            vec![protobuf::number(100, 1).repeat(9000), ping()]
        }),
        said("varints longer than they need be", Wanted::Pong(5), |_| {
            vec![protobuf::bytes(PING, b"\x08\x85\x80\x80\x80\x00")]
        }),
        Mutator::new("no message id", |forge| {
            Said::bare(ping(), forge, Wanted::Pong(0))
        }),
        Mutator::new("an empty message id", |forge| {
            let bytes = [protobuf::text(ID, ""), ping()].concat();
            Said::bare(bytes, forge, Wanted::Pong(0))
        }),
    ]
}
