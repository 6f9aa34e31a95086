//! Unusual envelopes that are valid.

use super::{ID, PING, PROJECTS, Said, TOPICS, UNSUBSCRIBE, Wanted, ping, said, subscribe};
use crate::{
    campaign::Mutator,
    wire::{self, FIXED32, FIXED64},
};

pub(super) fn good_ones() -> Vec<Mutator<Said>> {
    vec![
        Mutator::new("a ping", |forge| {
            let stamp = forge.number();
            let ping = wire::bytes(PING, &wire::number(1, stamp));
            Said::new(forge, &[ping], Wanted::Pong(stamp.cast_signed()))
        }),
        said("an empty ping", Wanted::Pong(0), |_| vec![ping()]),
        said("a subscribe", Wanted::Subscribed, |forge| {
            let ids: Vec<_> = (1..4).map(|list| wire::text(list, &forge.id())).collect();
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
                    wire::text(PROJECTS, &id),
                    wire::text(TOPICS, &format!("project:{id}")),
                ];
                vec![subscribe(&[lists.concat().repeat(100)])]
            },
        ),
        said("as many topics as may be", Wanted::Subscribed, |_| {
            let ids: Vec<_> = (0..1000)
                .map(|id| wire::text(2, &format!("s{id}")))
                .collect();
            vec![subscribe(&ids)]
        }),
        said("the longest topic", Wanted::Subscribed, |forge| {
            vec![subscribe(&[wire::text(PROJECTS, &forge.word(256))])]
        }),
        said(
            "a topic of a kind that no schema names",
            Wanted::Subscribed,
            |forge| {
                vec![subscribe(&[wire::text(
                    TOPICS,
                    &format!("odd_kind:{}", forge.id()),
                )])]
            },
        ),
        said("an id full of colons", Wanted::Subscribed, |forge| {
            vec![subscribe(&[wire::text(
                TOPICS,
                &format!("project::a:*:{}", forge.id()),
            )])]
        }),
        said("an unsubscribe", Wanted::Unsubscribed, |forge| {
            vec![wire::bytes(UNSUBSCRIBE, &wire::text(PROJECTS, &forge.id()))]
        }),
        said(
            "an unsubscribe of what nobody has",
            Wanted::Unsubscribed,
            |forge| {
                let topic = format!("nothing:{}", forge.word(100));
                vec![wire::bytes(UNSUBSCRIBE, &wire::text(TOPICS, &topic))]
            },
        ),
        said("fields that nobody knows", Wanted::Pong(0), |forge| {
            let field = forge.between(100, (1 << 29) - 1) as u32;
            let unknown = [
                wire::number(field, forge.number()),
                wire::bytes(field, &forge.bytes(30)),
                [wire::key(field, FIXED64), forge.bytes(8)].concat(),
                [wire::key(field, FIXED32), forge.bytes(4)].concat(),
            ];
            vec![forge.pick(&unknown), ping()]
        }),
        said(
            "an unknown field that looks like a bomb",
            Wanted::Pong(0),
            |forge| {
                let levels = forge.between(100, 3000);
                vec![wire::bytes(100, &wire::nested(1, levels)), ping()]
            },
        ),
        said("thousands of unknown fields", Wanted::Pong(0), |_| {
            vec![wire::number(100, 1).repeat(9000), ping()]
        }),
        said("varints longer than they need be", Wanted::Pong(5), |_| {
            vec![wire::bytes(PING, b"\x08\x85\x80\x80\x80\x00")]
        }),
        Mutator::new("no message id", |forge| {
            Said::bare(ping(), forge, Wanted::Pong(0))
        }),
        Mutator::new("an empty message id", |forge| {
            let bytes = [wire::text(ID, ""), ping()].concat();
            Said::bare(bytes, forge, Wanted::Pong(0))
        }),
    ]
}
