//! The events of clients: their topics, the sender, and the value that means absent; compared
//! with prost-reflect, and case by case.

use std::{cell::Cell, sync::LazyLock};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

use super::{
    super::{
        BundledSchema, InspectLimits, InspectedPayload,
        oracle::{
            damaged_envelope, judge_client_event, random_client_event, random_envelope,
            random_schema,
        },
    },
    *,
};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let pool = pool_of(include_str!("client_events.proto"));
    Schema::compile(&pool, "test.v1.Envelope").unwrap()
});
static TRACKER: LazyLock<Schema> = LazyLock::new(|| Schema::bundled().unwrap());
static GENERIC: LazyLock<Schema> = LazyLock::new(|| {
    let generic = BundledSchema::by_name("generic").unwrap();
    generic.compile().unwrap()
});

const LIMITS: InspectLimits = InspectLimits {
    topics: 3,
    decoded_bytes: 100,
};

fn envelope(json: &Value) -> Vec<u8> {
    let bytes = SCHEMA.envelope_from_client_json(json.to_string().as_bytes());
    bytes.unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// Returns the topics of an envelope from a client, or the reason and the place of its refusal.
fn topics_from_client(envelope: &[u8]) -> Result<Vec<String>, (WireFault, Option<String>)> {
    let inspected = SCHEMA.inspect_from_client(envelope, LIMITS);
    let inspected = inspected.map_err(|it| (it.fault(), it.field().map(str::to_owned)))?;
    Ok(topics(&inspected))
}

/// Returns the payload with this name, with these bytes.
fn payload<'a>(name: &'a str, bytes: &'a [u8]) -> InspectedPayload<'a> {
    let payload = SCHEMA.payloads().iter().find(|it| it.name == name).unwrap();
    InspectedPayload {
        number: payload.number,
        name,
        kind: payload.kind,
        bytes,
    }
}

fn varint(number: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::Varint, &mut out);
    prost::encoding::encode_varint(value, &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_random_client_event_is_handled_as_prost_reflect_reads_it(
        tape in vec(any::<u8>(), 0..400),
    ) {
        for schema in [&*SCHEMA, &*TRACKER, &*GENERIC] {
            judge_client_event(schema, &random_client_event(schema, &tape).unwrap());
        }
    }

    #[test]
    fn a_random_envelope_from_a_client_is_handled_as_prost_reflect_reads_it(
        tape in vec(any::<u8>(), 0..400),
        harm in vec(any::<u8>(), 0..24),
    ) {
        judge_client_event(&SCHEMA, &random_envelope(&SCHEMA, &tape));
        judge_client_event(&SCHEMA, &damaged_envelope(&SCHEMA, &tape, &harm));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn client_events_of_random_schemas_are_handled_as_prost_reflect_reads_them(
        schema_tape in vec(any::<u8>(), 0..1_500),
        tapes in vec(vec(any::<u8>(), 0..400), 8),
    ) {
        let schema = random_schema(&schema_tape).compile().unwrap();
        for tape in tapes {
            judge_client_event(&schema, &random_envelope(&schema, &tape));
            if let Some(envelope) = random_client_event(&schema, &tape) {
                judge_client_event(&schema, &envelope);
            }
        }
    }
}

/// The tests above would pass if every event were refused: counts with a fixed seed.
#[test]
fn most_random_client_events_are_accepted() {
    for schema in [&*SCHEMA, &*TRACKER, &*GENERIC] {
        let accepted = Cell::new(0);
        let config = ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(500)
        };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let run = TestRunner::new_with_rng(config, rng).run(&vec(any::<u8>(), 0..400), |tape| {
            let envelope = random_client_event(schema, &tape).unwrap();
            let is_accepted = judge_client_event(schema, &envelope);
            accepted.set(accepted.get() + u32::from(is_accepted));
            Ok(())
        });
        run.unwrap();
        assert!(accepted.get() > 300, "{}", accepted.get());
    }
}

#[test]
fn only_a_payload_that_clients_may_send_names_topics() {
    for (json, expected) in [
        (
            json!({"remark": {"room": "r", "tags": ["a:1"]}}),
            &["room:r", "a:1"][..],
        ),
        (
            json!({"plain": {"room": "r"}, "trace": "t", "topics": ["a:1"]}),
            &["room:r"],
        ),
        (json!({"posted": {"room": "r"}}), &[]),
        (json!({"posted": {"room": "*"}, "trace": "*"}), &[]),
        (json!({"subscribe": {"topics": ["a:1"]}}), &[]),
    ] {
        assert_eq!(
            topics_from_client(&envelope(&json)).unwrap(),
            expected,
            "{json}"
        );
    }
}

#[test]
fn the_sender_that_a_client_sets_names_no_topic() {
    let remark = envelope(&json!({"remark": {"by": "eve", "room": "r"}}));
    assert_eq!(topics_from_client(&remark).unwrap(), ["room:r"]);
    let twice = field(
        3,
        &[field(2, b"*"), field(2, b"eve"), field(1, b"r")].concat(),
    );
    assert_eq!(topics_from_client(&twice).unwrap(), ["room:r"]);
    let posted = SCHEMA.inspect(&remark).unwrap();
    assert_eq!(topics(&posted), ["room:r", "person:eve"]);
}

#[test]
fn a_topic_that_a_later_field_replaces_is_not_named() {
    let remark = field(
        3,
        &[
            field(1, b"*"),
            field(6, b"d"),
            field(1, b"r"),
            field(7, b""),
        ]
        .concat(),
    );
    assert_eq!(topics_from_client(&remark).unwrap(), ["room:r"]);
}

#[test]
fn an_error_about_topics_names_the_field_of_the_payload() {
    let place = |path: &str| Some(path.to_owned());
    let invalid = envelope(&json!({"remark": {"thread": {"id": "*"}}}));
    let refused = topics_from_client(&invalid).unwrap_err();
    assert_eq!(refused, (WireFault::Wildcard, place("remark.thread.id")));
    let many = envelope(&json!({"remark": {"tags": ["a:1", "a:2", "a:3", "a:4"]}}));
    let refused = topics_from_client(&many).unwrap_err();
    assert_eq!(refused, (WireFault::TooManyTopics, place("remark")));
    let long = field(3, &[field(1, &[b'r'; 50]), field(1, &[b'r'; 50])].concat());
    let refused = topics_from_client(&long).unwrap_err();
    assert_eq!(refused, (WireFault::TooLargeToDecode, place("remark")));
}

#[test]
fn a_client_event_keeps_its_fields_in_order_and_has_one_sender() {
    let sent = [
        field(2, b"eve"),
        field(1, b"r"),
        field(999, b"unknown"),
        field(2, b"mallory"),
        field(8, b"blob"),
        varint(2, 7),
    ];
    let mut written = b"before".to_vec();
    SCHEMA.append_client_event(&payload("remark", &sent.concat()), "ann", &mut written);
    let kept = [&*sent[1], &sent[2], &sent[4], &field(2, b"ann")].concat();
    assert_eq!(written, [&b"before"[..], &field(3, &kept)].concat());
}

#[test]
fn a_client_event_without_a_sender_gets_one_only_if_its_type_has_the_field() {
    let write = |name, bytes: &[u8]| {
        let mut written = Vec::new();
        SCHEMA.append_client_event(&payload(name, bytes), "ann", &mut written);
        written
    };
    assert_eq!(write("mood", &[]), field(5, &field(2, b"ann")));
    let plain = field(1, b"r");
    assert_eq!(write("plain", &plain), field(4, &plain));
}

#[test]
fn bytes_that_are_not_well_formed_hide_no_second_sender() {
    let sent = [&field(1, b"r")[..], b"\x0b", &field(2, b"eve")].concat();
    let mut written = Vec::new();
    SCHEMA.append_client_event(&payload("remark", &sent), "ann", &mut written);
    assert_eq!(
        written,
        field(3, &[field(1, b"r"), field(2, b"ann")].concat())
    );
}

#[test]
fn the_sender_of_a_client_event_is_the_last_one_on_the_wire() {
    for (name, bytes, sender) in [
        (
            "remark",
            [field(2, b"eve"), field(1, b"r"), field(2, b"ann")].concat(),
            Some("ann"),
        ),
        ("remark", field(1, b"r"), None),
        ("remark", field(2, b""), None),
        ("plain", field(2, b"ann"), None),
        ("posted", field(2, b"ann"), None),
    ] {
        assert_eq!(
            SCHEMA.sender_of(&payload(name, &bytes)),
            sender,
            "{name} {bytes:?}"
        );
    }
}

#[test]
fn only_payloads_with_the_option_are_presence() {
    let presence = SCHEMA
        .payloads()
        .iter()
        .filter(|it| SCHEMA.is_presence(it.number));
    let presence: Vec<_> = presence.map(|it| it.name.as_str()).collect();
    assert_eq!(presence, ["mood", "away", "gone", "place", "quiet"]);
    assert!(!SCHEMA.is_presence(1));
}

#[test]
fn absent_is_the_last_value_on_the_wire_or_the_default() {
    let away = u64::from(u32::MAX) - 1;
    for (name, bytes, is_absent) in [
        ("mood", varint(3, i64::from(-2_i32).cast_unsigned()), true),
        // Decoders read the lower 32 bits.
        ("mood", varint(3, away), true),
        ("mood", varint(3, 1), false),
        ("mood", Vec::new(), false),
        ("mood", [varint(3, away), varint(3, 1)].concat(), false),
        (
            "mood",
            [varint(3, 1), field(9, b""), varint(3, away)].concat(),
            true,
        ),
        ("away", Vec::new(), true),
        ("away", varint(3, 0), true),
        ("away", varint(3, 1), false),
        ("gone", Vec::new(), false),
        ("gone", varint(200, 1), true),
        ("gone", varint(200, 1 << 40), true),
        ("gone", varint(200, 0), false),
        // An optional field has no value if it is missing.
        ("place", Vec::new(), false),
        ("place", field(2, b""), true),
        ("place", field(2, b"desk"), false),
        ("quiet", Vec::new(), false),
        ("remark", Vec::new(), false),
    ] {
        assert_eq!(
            SCHEMA.is_absent(&payload(name, &bytes)),
            is_absent,
            "{name} {bytes:?}"
        );
    }
}

#[test]
fn an_absent_message_is_the_stored_one_with_only_the_value_replaced() {
    let mood = [
        varint(3, 1),
        field(1, b"r"),
        varint(3, 0),
        field(2, b"ann"),
        field(77, b"unknown"),
    ];
    let stored = [
        field(1, b"id"),
        field(5, &mood.concat()),
        varint(8, 1_800_000_000),
    ]
    .concat();
    let mut written = b"before".to_vec();
    assert!(SCHEMA.append_absent(&stored, &mut written));
    let state = varint(3, i64::from(-2_i32).cast_unsigned());
    let kept = [&*mood[1], &mood[3], &mood[4], &state].concat();
    assert_eq!(written, [&b"before"[..], &field(5, &kept)].concat());
}

#[test]
fn a_message_that_cannot_say_absent_is_not_written() {
    for envelope in [
        field(20_000, b""),
        field(3, b""),
        field(1, b"id"),
        b"\xff".to_vec(),
    ] {
        let mut written = Vec::new();
        assert!(
            !SCHEMA.append_absent(&envelope, &mut written),
            "{envelope:?}"
        );
        assert_eq!(written, b"");
    }
}

#[test]
fn the_relay_takes_control_messages_and_client_events_from_clients() {
    let taken = SCHEMA
        .payloads()
        .iter()
        .filter(|it| it.kind.is_taken_from_clients());
    let taken: Vec<_> = taken.map(|it| it.name.as_str()).collect();
    let control = ["subscribe", "unsubscribe", "ping"];
    let events = ["remark", "plain", "mood", "away", "gone"];
    assert_eq!(taken, [&events[..], &control, &["place", "quiet"]].concat());
}
