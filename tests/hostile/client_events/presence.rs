//! Presence messages with and without the value that says that the user is absent.

use sidewire_testing::protobuf::{self, DELIMITED, FIXED32, VARINT, varint};

use super::{Case, PayloadType, Wanted, payload_types::PresenceField, refused, relayed};
use crate::{campaign::Mutator, forge::Forge, refusal::Refusal};

pub(super) fn presence(payload: &'static PayloadType) -> Vec<Mutator<Case>> {
    let Some(field) = payload.presence else {
        return Vec::new();
    };
    let mut mutators = present(payload, field);
    for (name, make) in WITHDRAWALS {
        mutators.push(Mutator::new(
            format!("{}: {name}, with nothing to withdraw", payload.name),
            move |forge| {
                let bytes = make(forge, payload, field);
                let field = payload.field(&bytes);
                Case::new(payload, forge, &[field], Wanted::Nothing)
            },
        ));
        mutators.push(Mutator::new(
            format!("{}: {name}", payload.name),
            move |forge| {
                let withdrawal = payload.field(&make(forge, payload, field));
                let shown = payload.project("shared");
                let envelope = payload.field(&shown);
                Case {
                    withdrawal,
                    ..Case::new(payload, forge, &[envelope], Wanted::Relayed(shown))
                }
            },
        ));
    }
    let wrong = "a wrong wire type in place of the absent value";
    mutators.push(refused(
        payload,
        wrong,
        Refusal::undecodable(),
        move |forge| {
            let fields = [
                protobuf::text(field.number, "absent"),
                [protobuf::key(field.number, FIXED32), vec![0; 4]].concat(),
                [protobuf::key(field.number, DELIMITED), varint(99)].concat(),
            ];
            [payload.project("shared"), forge.pick(&fields)].concat()
        },
    ));
    mutators
}

/// Messages that say that the user is present: the last value counts.
fn present(payload: &'static PayloadType, field: PresenceField) -> Vec<Mutator<Case>> {
    let shared = || payload.project("shared");
    let value = move |value: u64| protobuf::number(field.number, value);
    vec![
        relayed(payload, "present", move |_| {
            [value(field.present), shared()].concat()
        }),
        relayed(payload, "absent, then present", move |_| {
            [value(field.absent), shared(), value(field.present)].concat()
        }),
        relayed(payload, "absent and present in turn", move |_| {
            let pair = [value(field.absent), value(field.present)].concat();
            [shared(), pair.repeat(30)].concat()
        }),
        relayed(payload, "absent in an unknown field", move |_| {
            let nested = protobuf::bytes(100, &value(field.absent));
            [shared(), nested].concat()
        }),
        relayed(payload, "present in a long varint", move |_| {
            [shared(), padded(field, field.present)].concat()
        }),
    ]
}

/// Makes a payload that withdraws the presence of its client.
type Withdrawal = fn(&mut Forge, &PayloadType, PresenceField) -> Vec<u8>;

const WITHDRAWALS: [(&str, Withdrawal); 10] = [
    ("absent", |_, payload, _| payload.absent()),
    ("absent, with the topic", |_, payload, _| {
        [payload.project("shared"), payload.absent()].concat()
    }),
    ("absent, with a topic of others", |_, payload, _| {
        [payload.project("elsewhere"), payload.absent()].concat()
    }),
    ("absent, with a topic outside the grant", |_, payload, _| {
        [payload.absent(), payload.project("secret")].concat()
    }),
    ("absent twice", |_, payload, _| payload.absent().repeat(2)),
    ("present, then absent", |_, payload, field| {
        [
            protobuf::number(field.number, field.present),
            payload.project("shared"),
            payload.absent(),
        ]
        .concat()
    }),
    ("absent, with a forged sender", |_, payload, _| {
        [protobuf::text(payload.sender, "wendy"), payload.absent()].concat()
    }),
    ("absent, with unknown fields", |forge, payload, _| {
        [
            protobuf::bytes(100, &forge.bytes(20)),
            payload.absent(),
            protobuf::number(200, forge.number()),
        ]
        .concat()
    }),
    ("absent in a long varint", |_, _, field| {
        padded(field, field.absent)
    }),
    // Decoders take the lower half of an enum, and any bool that is not 0.
    ("absent in 64 bits", |_, _, field| {
        protobuf::number(field.number, 1 << 40 | field.absent)
    }),
];

/// Returns the field with a value in as many bytes as a varint may have.
fn padded(field: PresenceField, value: u64) -> Vec<u8> {
    let mut bytes = [protobuf::key(field.number, VARINT), varint(value | 1 << 63)].concat();
    // The highest bit is not set after all.
    if let Some(last) = bytes.last_mut() {
        *last = 0;
    }
    bytes
}
