//! Calls with several events.

use sidewire_testing::protobuf;

use super::{
    Call, JSON,
    envelopes::{deleted, with_id},
    is, posted,
};
use crate::{campaign::Mutator, forge::Forge};

pub(super) fn batches() -> Vec<Mutator<Call>> {
    let batch = |name: &str, statuses: &'static [u16], bytes: fn(&mut Forge) -> Vec<u8>| {
        Mutator::new(name, move |forge: &mut Forge| {
            let body = bytes(forge);
            Call::new(
                posted("events:batch", forge).with_body(body).bytes(),
                is(statuses),
            )
        })
    };
    let as_json = |name: &str, text: &'static str| {
        Mutator::new(name, move |forge: &mut Forge| {
            let request = posted("events:batch", forge).set("Content-Type", JSON);
            Call::new(request.with_body(text).bytes(), is(&[400]))
        })
    };
    vec![
        batch("a good batch", &[200], |forge| {
            let count = forge.between(1, 20);
            let ids = (0..count).map(|id| {
                let message_id = format!("{}-{id}", forge.message_id);
                protobuf::bytes(1, &with_id(&message_id))
            });
            ids.collect::<Vec<_>>().concat()
        }),
        batch("an empty batch", &[400], |_| vec![]),
        batch("a batch of nothing but unknown fields", &[400], |_| {
            protobuf::bytes(2, b"x").repeat(9)
        }),
        batch("a batch of empty envelopes", &[400], |forge| {
            protobuf::bytes(1, b"").repeat(forge.between(1, 1000))
        }),
        batch("a batch of too many", &[400], |forge| {
            protobuf::bytes(1, &deleted("p")).repeat(forge.between(1001, 9000))
        }),
        batch("a batch of very many empty ones", &[400], |forge| {
            b"\x0a\x00".repeat(forge.between(10_000, 400_000))
        }),
        batch("one bad event among good ones", &[400], |forge| {
            let mut events = vec![protobuf::bytes(1, &deleted("p")); 9];
            let place = forge.below(9);
            events[place] = protobuf::bytes(1, &deleted("*"));
            events.concat()
        }),
        batch("an event in place of a batch", &[400], |forge| {
            forge.event()
        }),
        batch("messages of another type", &[400], |forge| {
            protobuf::number(1, forge.number())
        }),
        batch("a batch that is cut", &[400], |forge| {
            let whole = protobuf::bytes(1, &forge.event());
            whole[..forge.between(1, whole.len() - 1)].to_vec()
        }),
        batch("a batch in a batch", &[400], |forge| {
            let inner = protobuf::bytes(1, &forge.event());
            protobuf::bytes(1, &protobuf::bytes(17, &inner))
        }),
        batch("a batch with a group", &[400], |_| b"\x0b\x0c".to_vec()),
        batch("a batch with faults", &[200, 400, 409], |forge| {
            let whole = protobuf::bytes(1, &forge.event()).repeat(3);
            forge.mutated(&whole)
        }),
        as_json("a JSON list as batch", "[]"),
        as_json("an empty JSON batch", "{}"),
        as_json("a JSON batch of nothing", r#"{"messages":[]}"#),
        as_json("a JSON batch of nulls", r#"{"messages":[null,null]}"#),
        as_json(
            "a JSON batch of batches",
            r#"{"messages":[{"batch":{"messages":[]}}]}"#,
        ),
        as_json(
            "a JSON batch of something else",
            r#"{"messages":{"workItemDeleted":{}}}"#,
        ),
        as_json(
            "a JSON batch with two lists",
            r#"{"messages":[],"messages":[]}"#,
        ),
    ]
}
