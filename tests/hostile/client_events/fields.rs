//! The fields of the envelope beside the payload, unknown fields, and sizes.

use sidewire_testing::protobuf::{self, FIXED32, FIXED64};

use super::{
    Case, PayloadType, Wanted,
    payload_types::{ALL, BundledSchema},
    refused as refused_payload, relayed,
};
use crate::{campaign::Mutator, forge::Forge, refusal::Refusal};

/// Field numbers of the envelope.
const ID: u32 = 1;
const TIMESTAMP: u32 = 8;
const POSITION: u32 = 9;
const PING: u32 = 14;
const BATCH: u32 = 17;
const EXTRA_TOPICS: u32 = 18;

/// The topic field, which makes a whole payload.
fn topic(payload: &PayloadType) -> Vec<u8> {
    payload.project("shared")
}

/// Makes a mutator of envelopes with a good payload, of which nothing but the id and the payload
/// goes on.
fn cut(
    payload: &'static PayloadType,
    name: &str,
    make: impl Fn(&mut Forge, Vec<u8>) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> Mutator<Case> {
    Mutator::new(format!("{}: {name}", payload.name), move |forge| {
        let fields = make(forge, payload.field(&topic(payload)));
        Case::new(payload, forge, &fields, Wanted::Relayed(topic(payload)))
    })
}

/// Makes a mutator of envelopes with a good payload that are refused.
fn refused_envelope(
    payload: &'static PayloadType,
    name: &str,
    refusal: Refusal,
    make: impl Fn(&mut Forge, Vec<u8>) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> Mutator<Case> {
    Mutator::new(format!("{}: {name}", payload.name), move |forge| {
        let fields = make(forge, payload.field(&topic(payload)));
        let wanted = Wanted::Refused(refusal.clone());
        Case::new(payload, forge, &fields, wanted)
    })
}

/// Returns an unknown field of any wire type.
fn unknown(forge: &mut Forge) -> Vec<u8> {
    let number = forge.between(50, (1 << 29) - 1) as u32;
    let fields = [
        protobuf::number(number, forge.number()),
        protobuf::bytes(number, &forge.bytes(30)),
        protobuf::bytes(number, b""),
        [protobuf::key(number, FIXED64), forge.bytes(8)].concat(),
        [protobuf::key(number, FIXED32), forge.bytes(4)].concat(),
    ];
    forge.pick(&fields)
}

/// Returns a payload that makes the envelope `len` bytes long.
fn filled(payload: &PayloadType, forge: &Forge, len: usize) -> Vec<u8> {
    let envelope = |filler: usize| {
        let bytes = [topic(payload), protobuf::bytes(100, &vec![7; filler])].concat();
        let id = protobuf::text(ID, &forge.message_id);
        (id.len() + payload.field(&bytes).len(), bytes)
    };
    let sizes = (0..=len).rev().map(envelope);
    let fitting = sizes.take(100).find(|(size, _)| *size == len);
    fitting.unwrap().1
}

/// Envelopes and payloads that are taken.
pub(super) fn taken(payload: &'static PayloadType) -> Vec<Mutator<Case>> {
    vec![
        relayed(payload, "nothing special", move |_| topic(payload)),
        relayed(payload, "unknown fields of the payload", move |forge| {
            [unknown(forge), topic(payload), unknown(forge)].concat()
        }),
        relayed(payload, "fields nested in the payload", move |forge| {
            let levels = forge.between(100, 500);
            let nested = protobuf::bytes(100, &protobuf::nested(1, levels));
            [nested, topic(payload)].concat()
        }),
        relayed(payload, "the largest envelope", move |forge| {
            filled(payload, forge, payload.bytes_max)
        }),
        cut(payload, "unknown fields of the envelope", |forge, field| {
            vec![unknown(forge), field, unknown(forge), unknown(forge)]
        }),
        cut(payload, "a forged position", |forge, field| {
            let epoch = protobuf::text(1, &"0".repeat(32));
            let position = [epoch, protobuf::number(2, forge.number())].concat();
            let position = protobuf::bytes(POSITION, &position);
            match forge.flag() {
                true => vec![position, field],
                false => vec![field, position],
            }
        }),
        cut(payload, "an empty position", |_, field| {
            vec![field, protobuf::bytes(POSITION, b"")]
        }),
        cut(payload, "a forged timestamp", |forge, field| {
            let stamp = forge.pick(&[0, 1, u64::MAX, 1 << 63, 4_000_000_000]);
            vec![protobuf::number(TIMESTAMP, stamp), field]
        }),
        cut(payload, "topics beside the payload", |forge, field| {
            let topics = [
                "project:elsewhere",
                "tenant:*",
                "user:wendy",
                "project:*",
                "*",
                "",
            ];
            let topic = forge.pick(&topics);
            let topics = protobuf::text(EXTRA_TOPICS, topic);
            vec![topics.clone(), field, topics]
        }),
        cut(
            payload,
            "hundreds of topics beside the payload",
            |_, field| vec![protobuf::text(EXTRA_TOPICS, "a:1").repeat(200), field],
        ),
        cut(
            payload,
            "everything that is cut, at once",
            |forge, field| {
                vec![
                    protobuf::number(TIMESTAMP, 5),
                    unknown(forge),
                    protobuf::bytes(POSITION, &protobuf::number(2, 7)),
                    field,
                    protobuf::text(EXTRA_TOPICS, "project:elsewhere"),
                    unknown(forge),
                ]
            },
        ),
        Mutator::new(
            format!("{}: the payload before the id", payload.name),
            move |forge| {
                let id = protobuf::text(ID, &forge.message_id);
                let envelope = [payload.field(&topic(payload)), id].concat();
                Case::bare(payload, forge, envelope, Wanted::Relayed(topic(payload)))
            },
        ),
        unnamed(payload, "no message id", vec![]),
        unnamed(payload, "an empty message id", protobuf::text(ID, "")),
    ]
}

/// An envelope whose id the relay makes.
fn unnamed(payload: &'static PayloadType, name: &str, id: Vec<u8>) -> Mutator<Case> {
    Mutator::new(format!("{}: {name}", payload.name), move |forge| {
        let envelope = [&id[..], &payload.field(&topic(payload))].concat();
        let wanted = Wanted::Relayed(topic(payload));
        Case {
            is_unnamed: true,
            ..Case::bare(payload, forge, envelope, wanted)
        }
    })
}

/// Relay fields that are refused, and those that no schema may declare.
pub(super) fn relay_fields(payload: &'static PayloadType) -> Vec<Mutator<Case>> {
    let envelope = |name: &str, refusal, make: fn(&mut Forge, Vec<u8>) -> Vec<Vec<u8>>| {
        refused_envelope(payload, name, refusal, make)
    };
    let mut mutators = vec![
        envelope(
            "two message ids",
            Refusal {
                names_request: None,
                ..Refusal::invalid("message_id")
            },
            |forge, field| vec![field, protobuf::text(ID, &forge.message_id)],
        ),
        envelope(
            "two timestamps",
            Refusal::invalid("timestamp"),
            |_, field| vec![protobuf::number(TIMESTAMP, 5).repeat(2), field],
        ),
        envelope("two positions", Refusal::invalid("position"), |_, field| {
            vec![protobuf::bytes(POSITION, b"").repeat(2), field]
        }),
        envelope(
            "a relay field of another type",
            Refusal::undecodable(),
            |forge, field| {
                let fields = [
                    protobuf::text(TIMESTAMP, "5"),
                    protobuf::number(POSITION, 5),
                    protobuf::number(EXTRA_TOPICS, 5),
                    protobuf::bytes(EXTRA_TOPICS, b"\xff"),
                ];
                vec![field, forge.pick(&fields)]
            },
        ),
    ];
    for number in 21..=31 {
        let name = format!("reserved field {number}");
        let refusal = Refusal::invalid_somewhere();
        mutators.push(refused_envelope(
            payload,
            &name,
            refusal,
            move |forge, field| {
                let reserved = [
                    protobuf::number(number, forge.number()),
                    protobuf::text(number, "wendy"),
                    protobuf::bytes(number, b""),
                ];
                let reserved = forge.pick(&reserved);
                match forge.flag() {
                    true => vec![reserved, field],
                    false => vec![field, reserved],
                }
            },
        ));
    }
    mutators
}

/// Payloads that are too many or too large, and faults anywhere.
pub(super) fn refused(payload: &'static PayloadType) -> Vec<Mutator<Case>> {
    let second = |name: &str, make: fn(&mut Forge, Vec<u8>) -> Vec<Vec<u8>>| {
        refused_envelope(payload, name, Refusal::invalid_somewhere(), make)
    };
    let too_large = match payload.presence {
        Some(_) => Refusal {
            codes: &["RATE_LIMIT_EXCEEDED"],
            ..Refusal::invalid(payload.name)
        },
        None => Refusal::invalid(payload.name),
    };
    let mut mutators = vec![
        second("the payload twice", |_, field| vec![field.repeat(2)]),
        second("the payload and a ping", |forge, field| {
            let ping = protobuf::bytes(PING, b"");
            match forge.flag() {
                true => vec![ping, field],
                false => vec![field, ping],
            }
        }),
        refused_envelope(
            payload,
            "another client event",
            Refusal::invalid_somewhere(),
            move |forge, field| {
                let other = ALL.iter().find(|it| it.is_beside(payload)).unwrap();
                let other = other.field(&other.project("shared"));
                match forge.flag() {
                    true => vec![other, field],
                    false => vec![field, other],
                }
            },
        ),
        refused_envelope(
            payload,
            "in a batch",
            Refusal::invalid("batch"),
            |_, field| vec![protobuf::bytes(BATCH, &protobuf::bytes(1, &field))],
        ),
        refused_payload(payload, "an envelope too large", too_large, move |forge| {
            let more = forge.pick(&[1, 2, 100, 40_000]);
            filled(payload, forge, payload.bytes_max + more)
        }),
    ];
    if payload.schema == BundledSchema::Generic {
        let refusal = Refusal::invalid_somewhere();
        mutators.push(refused_payload(
            payload,
            "a number that JSON has not",
            refusal,
            move |forge| {
                let number = forge.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
                let value = [protobuf::key(2, FIXED64), number.to_le_bytes().to_vec()];
                [topic(payload), protobuf::bytes(2, &value.concat())].concat()
            },
        ));
    }
    if payload.presence.is_none() {
        mutators.push(Mutator::new(
            format!("{}: with faults", payload.name),
            move |forge| {
                let sender = protobuf::text(payload.sender, "eve");
                let field = payload.field(&[sender, topic(payload)].concat());
                let whole = [protobuf::text(ID, &forge.message_id), field].concat();
                let envelope = forge.mutated(&whole);
                Case::bare(payload, forge, envelope, Wanted::Something)
            },
        ));
    }
    mutators
}
