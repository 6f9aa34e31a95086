//! Events without JSON or with too much of it, and the bound due to which most events need
//! no check.

use std::sync::LazyLock;

use proptest::{collection::vec, prelude::*};

use super::{
    super::{BundledSchema, oracle::random_envelope},
    Schema, field, torture,
};

static TORTURE: LazyLock<Schema> = LazyLock::new(torture);
static BUNDLED: LazyLock<Schema> = LazyLock::new(|| Schema::bundled().unwrap());

/// Maximum bytes of a message_id and a timestamp added by the relay.
const ADDED: usize =
    r#""messageId":"0199f0a4-7c5e-7d3b-9a51-3f0c8e6b2d00","timestamp":"-9223372036854775808","#
        .len();

/// The longest position, with the comma before it.
const POSITION: &str = concat!(
    r#","position":{"epoch":"0123456789abcdef0123456789abcdef","#,
    r#""offset":"18446744073709551615"}"#
);

/// Asserts that the check passes if the event has JSON and it is not too long, and that no
/// event would fail the check that the bound exempts from it.
fn judge(schema: &Schema, envelope: &[u8], beyond: usize) {
    let Ok(inspected) = schema.inspect(envelope) else {
        return;
    };
    let text = schema.envelope_to_json_text(envelope);
    let len = text.as_ref().map_or(0, String::len) + POSITION.len();
    for max in [len.saturating_sub(beyond), len, len + beyond] {
        let is_right = text.is_ok() && len <= max;
        assert_eq!(
            schema.check_json(envelope, max).is_ok(),
            is_right,
            "{text:?}"
        );
    }
    if inspected.json_is_in_doubt(usize::MAX >> 1) {
        return;
    }
    // The lowest limit at which it needs no check.
    let (mut doubt, mut sure) = (0, usize::MAX >> 1);
    while sure - doubt > 1 {
        let middle = usize::midpoint(doubt, sure);
        match inspected.json_is_in_doubt(middle) {
            true => doubt = middle,
            false => sure = middle,
        }
    }
    assert!(text.is_ok(), "{text:?}");
    assert!(len + ADDED <= sure, "{len} is over {sure}: {text:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_check_of_an_event_of_any_shape_agrees_with_its_json(tape in vec(any::<u8>(), 0..600), beyond in 0_usize..9) {
        judge(&TORTURE, &random_envelope(&TORTURE, &tape), beyond);
    }

    #[test]
    fn the_check_of_an_event_of_the_bundled_schema_agrees_with_its_json(tape in vec(any::<u8>(), 0..600), beyond in 0_usize..9) {
        judge(&BUNDLED, &random_envelope(&BUNDLED, &tape), beyond);
    }
}

#[test]
fn the_bound_holds_for_the_fields_that_grow_most() {
    let many = |one: &[u8]| one.repeat(2000);
    let packed = |number, byte| field(3, &field(number, &[byte; 2000]));
    for envelope in [
        // Control characters, enums, booleans, numbers, empty strings and messages.
        field(3, &field(14, &[1; 2000])),
        packed(116, 1),
        packed(116, 0),
        packed(113, 0),
        packed(103, 0x7f),
        packed(108, 0x7f),
        packed(101, 0xff),
        packed(101, 0x81),
        packed(102, 0x81),
        field(3, &many(&field(214, b""))),
        field(3, &many(&field(215, b"\xff"))),
        field(2, &many(&field(4, b""))),
        field(4, &many(&field(3, b""))),
        // Map entries with only a key.
        field(
            3,
            &(0..100)
                .flat_map(|key| field(304, &[9, key, 0, 0, 0, 0, 0, 0, 0]))
                .collect::<Vec<_>>(),
        ),
        field(3, &field(302, b"")),
        field(
            3,
            &(0..100)
                .flat_map(|key| field(301, &field(1, &[key])))
                .collect::<Vec<_>>(),
        ),
    ] {
        TORTURE.inspect(&envelope).unwrap();
        judge(&TORTURE, &envelope, 1);
    }
}

#[test]
fn an_event_of_the_bundled_schema_needs_no_check_at_its_usual_size() {
    for payload in BUNDLED.payloads() {
        let envelope = field(payload.number, &field(1, &[b'x'; 60_000]));
        if let Ok(inspected) = BUNDLED.inspect(&envelope) {
            assert!(!inspected.json_is_in_doubt(4 << 20), "{}", payload.name);
        }
    }
    let long = field(45, &field(1, &[1; 700_000]));
    assert!(BUNDLED.inspect(&long).unwrap().json_is_in_doubt(4 << 20));
    assert_eq!(
        BUNDLED.envelope_to_json_text(&long).unwrap().len() / 700_000,
        6
    );
    let error = BUNDLED.check_json(&long, 4 << 20).unwrap_err();
    assert_eq!(error.field(), Some("user_typing"));
    assert!(error.to_string().contains("4194304"), "{error}");
    assert!(BUNDLED.check_json(&long, 5 << 20).is_ok());
}

#[test]
fn only_events_with_types_that_may_have_no_json_are_always_checked() {
    let in_doubt = |schema: &Schema, number| {
        let envelope = field(number, b"");
        schema.inspect(&envelope).unwrap().json_is_in_doubt(1 << 20)
    };
    let generic = BundledSchema::by_name("generic")
        .unwrap()
        .compile()
        .unwrap();
    assert!(in_doubt(&generic, 32));
    // A tree may contain an envelope, and thus anything.
    for (number, expected) in [
        (2, true),
        (3, false),
        (4, false),
        (32, false),
        (33, true),
        (34, true),
    ] {
        assert_eq!(in_doubt(&TORTURE, number), expected, "{number}");
    }
}

/// A field with a varint, which is also the form of negative numbers on the wire.
fn varint(number: u32, value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::int64::encode(number, &value, &mut out);
    out
}

fn number(value: f64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::double::encode(2, &value, &mut out);
    out
}

#[test]
fn a_value_without_json_is_refused_with_its_path() {
    let time = |seconds, nanos| [varint(1, seconds), varint(2, nanos)].concat();
    let (ok, late) = (time(7, 7), time(253_402_300_800, 0));
    let entry = |value: &[u8]| field(4, &[field(1, b"k"), field(2, value)].concat());
    let nan = field(
        6,
        &field(
            1,
            &field(
                5,
                &field(1, &[field(1, b"k"), field(2, &number(f64::NAN))].concat()),
            ),
        ),
    );
    for (anything, path) in [
        (field(2, &late), "at"),
        (field(2, &time(-62_135_596_801, 0)), "at"),
        (field(2, &time(0, -1)), "at"),
        (field(2, &time(0, 1_000_000_000)), "at"),
        (field(3, &time(315_576_000_001, 0)), "lasts"),
        (field(3, &time(1, -1)), "lasts"),
        (field(3, &time(0, 1_000_000_000)), "lasts"),
        (field(7, &field(1, b"aB")), "mask"),
        (field(7, &field(1, b"a__b")), "mask"),
        (field(7, &field(1, b"a_1")), "mask"),
        (field(7, &field(1, b"a_")), "mask"),
        (field(7, &field(1, b"a,b")), "mask"),
        (field(7, &[field(1, b"a"), field(1, b"")].concat()), "mask"),
        (
            [field(13, &ok), field(13, &ok), field(13, &late)].concat(),
            "due[2]",
        ),
        ([entry(&ok), entry(&late)].concat(), "times.value"),
        (field(8, &number(f64::NAN)), "value"),
        (field(8, &nan), "value"),
        (field(12, &number(f64::INFINITY)), "values[0]"),
        (
            field(
                1,
                &field(
                    1,
                    &[field(1, b"k"), field(2, &number(f64::NEG_INFINITY))].concat(),
                ),
            ),
            "record",
        ),
    ] {
        let envelope = field(34, &anything);
        assert!(
            TORTURE
                .inspect(&envelope)
                .unwrap()
                .json_is_in_doubt(1 << 20)
        );
        let error = TORTURE.check_json(&envelope, 1 << 20).unwrap_err();
        let path = format!("anything.{path}");
        assert_eq!(error.field(), Some(path.as_str()), "{error}");
        assert!(
            error.to_string().starts_with(&format!("{path}: ")),
            "{error}"
        );
        assert_eq!(TORTURE.envelope_to_json_text(&envelope), Err(error));
    }
    // Merged, the two are in range.
    let envelope = field(34, &[field(2, &late), field(2, &time(7, 0))].concat());
    assert!(TORTURE.check_json(&envelope, 1 << 20).is_ok());
}

#[test]
fn a_value_at_the_maximum_depth_has_json() {
    let mut value = varint(4, 1);
    for _ in 0..48 {
        value = field(6, &field(1, &value));
    }
    let envelope = field(34, &field(8, &value));
    TORTURE.inspect(&envelope).unwrap();
    assert!(TORTURE.check_json(&envelope, 1 << 20).is_ok());
    let text = TORTURE.envelope_to_json_text(&envelope).unwrap();
    let again = TORTURE.envelope_from_json(text.as_bytes()).unwrap();
    assert_eq!(TORTURE.envelope_to_json_text(&again).unwrap(), text);
}

#[test]
fn the_relay_fields_are_counted_by_their_names_in_the_schema() {
    let named = |name: &str| {
        let text = super::TORTURE.replace(
            "sidewire.v1.Position position = 9;",
            &format!("sidewire.v1.Position position = 9 [json_name = \"{name}\"];"),
        );
        Schema::compile(&super::pool_of(&text), "test.v1.Envelope").unwrap()
    };
    let envelope = field(3, &varint(3, 7));
    let text = TORTURE.envelope_to_json_text(&envelope).unwrap();
    for name in ["p", "position", "where_it_stands_in_the_log"] {
        let schema = named(name);
        let max = text.len() + POSITION.len() - "position".len() + name.len();
        assert!(schema.check_json(&envelope, max).is_ok());
        assert!(schema.check_json(&envelope, max - 1).is_err());
    }
}
