//! Unusual calls that are valid.

use sidewire_testing::protobuf;

use super::{Call, as_json, call, chunked, good, is, json_event, last, posted, target};
use crate::{
    campaign::Mutator,
    forge::{Forge, INGEST_TENANT},
};

pub(super) fn taken() -> Vec<Mutator<Call>> {
    let pieces = |name: &str, of: fn(&mut Forge, usize) -> Vec<usize>| {
        Mutator::new(name, move |forge: &mut Forge| {
            let bytes = good(forge).bytes();
            let cuts = of(forge, bytes.len());
            Call {
                cuts,
                ..Call::new(bytes, is(&[200]))
            }
        })
    };
    vec![
        call("a good one", is(&[200]), |good, _| good),
        pieces("in pieces", |forge, len| forge.cuts(len, 8)),
        pieces("byte by byte", |_, len| (1..len).collect()),
        call("a chunked body", is(&[200]), |good, forge| {
            let event = forge.event();
            let pieces = forge.between(1, 9);
            chunked(good, &event, pieces, forge)
        }),
        call("100-continue", is(&[200]), |good, _| {
            good.and("Expect", "100-continue")
        }),
        call("an odd tenant", is(&[200, 403]), |good, forge| {
            let tenants = [
                "a%2Fb", "%C3%A4", "..", "a%20b", "%2e%2e", "events", "*", "a+b", "%25",
            ];
            good.to(target(forge.pick(&tenants), "events"))
        }),
        call("topics that the call names", is(&[200]), |good, forge| {
            let topics: Vec<_> = (0..forge.between(1, 90))
                .map(|_| format!("topic=odd_kind:{}", forge.word(4)))
                .collect();
            good.to(format!(
                "{}?{}",
                target(INGEST_TENANT, "events"),
                topics.join("&")
            ))
        }),
        last("the connection is not to be kept", is(&[200]), |good, _| {
            good.and("Connection", "close")
        }),
        last("HTTP/1.0", is(&[200]), |good, _| {
            good.in_version("HTTP/1.0").and("Connection", "close")
        }),
        call("JSON", is(&[200]), |_, forge| {
            let event = json_event(forge.below(50));
            as_json(forge, &event)
        }),
        call(
            "JSON in the other style of names",
            is(&[200]),
            |_, forge| {
                let text = r#"{"work_item_created":{"work_item":{"project_id":"p"}}}"#;
                as_json(forge, text)
            },
        ),
        call("a client's event from a backend", is(&[200]), |_, forge| {
            let typing = [protobuf::text(1, "ann"), protobuf::text(2, &forge.id())].concat();
            posted("events", forge).with_body(protobuf::bytes(45, &typing))
        }),
        call("unknown fields", is(&[200]), |_, forge| {
            let len = forge.below(5000);
            let event = [forge.event(), protobuf::bytes(100, &forge.bytes(len))].concat();
            posted("events", forge).with_body(event)
        }),
    ]
}
