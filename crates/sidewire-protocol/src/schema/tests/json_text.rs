//! Events as JSON text: canonical, deterministic and parseable.

use std::sync::LazyLock;

use proptest::{collection::vec, prelude::*};
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::Value;

use super::{
    super::{BundledSchema, oracle::random_envelope},
    Schema, torture,
};

static TORTURE: LazyLock<Schema> = LazyLock::new(torture);
static BUNDLED: LazyLock<Schema> = LazyLock::new(|| Schema::bundled().unwrap());
static GENERIC: LazyLock<Schema> = LazyLock::new(|| {
    BundledSchema::by_name("generic")
        .unwrap()
        .compile()
        .unwrap()
});

/// A random envelope that the relay accepts.
fn envelopes(schema: &'static Schema) -> impl Strategy<Value = Vec<u8>> {
    let envelope = vec(any::<u8>(), 0..600).prop_map(|tape| random_envelope(schema, &tape));
    envelope.prop_filter("the relay takes it", |it| schema.inspect(it).is_ok())
}

/// Returns the JSON of prost-reflect's own serializer.
fn by_prost_reflect(schema: &Schema, envelope: &[u8]) -> Option<Value> {
    let message = DynamicMessage::decode(schema.envelope.clone(), envelope).unwrap();
    let options = SerializeOptions::new();
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .ok()
}

/// Returns true if two values of JSON are equivalent: prost-reflect writes integers in
/// doubles with a fraction of zero, and a float with all its digits as a double.
fn is_same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(ours), Value::Number(theirs)) => {
            let float = |number: &serde_json::Number| number.to_string().parse::<f32>().unwrap();
            ours.as_f64() == theirs.as_f64() || float(ours) == float(theirs)
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            let is_there = |(name, value)| theirs.get(name).is_some_and(|it| is_same(value, it));
            ours.len() == theirs.len() && ours.iter().all(is_there)
        }
        _ => ours == theirs,
    }
}

/// Asserts that the text is deterministic, equivalent to that of prost-reflect, and
/// unchanged by a round trip.
fn judge(schema: &Schema, envelope: &[u8]) {
    let Ok(text) = schema.envelope_to_json_text(envelope) else {
        assert!(schema.envelope_to_json(envelope).is_err());
        return;
    };
    assert_eq!(schema.envelope_to_json_text(envelope).unwrap(), text);
    let value = schema.envelope_to_json(envelope).unwrap();
    let is_finite = !text.contains("NaN") && !text.contains("Infinity");
    if let Some(expected) = by_prost_reflect(schema, envelope).filter(|_| is_finite) {
        assert!(is_same(&value, &expected), "{value} is not {expected}");
    }
    let bytes = schema.envelope_from_json(text.as_bytes()).unwrap();
    assert_eq!(schema.envelope_to_json_text(&bytes).unwrap(), text);
    assert_eq!(schema.envelope_from_json(text.as_bytes()).unwrap(), bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn json_of_a_random_envelope_of_any_shape_is_stable(envelope in envelopes(&TORTURE)) {
        judge(&TORTURE, &envelope);
    }

    #[test]
    fn json_of_a_random_envelope_of_the_bundled_schema_is_stable(envelope in envelopes(&BUNDLED)) {
        judge(&BUNDLED, &envelope);
    }

    #[test]
    fn json_of_a_random_envelope_of_the_generic_schema_is_stable(envelope in envelopes(&GENERIC)) {
        judge(&GENERIC, &envelope);
    }

    #[test]
    fn every_double_and_every_float_can_be_read_back(double in any::<u64>(), float in any::<u32>()) {
        judge_numbers(f64::from_bits(double), f32::from_bits(float));
    }
}

fn judge_numbers(double: f64, float: f32) {
    let mut scalars = Vec::new();
    prost::encoding::double::encode(1, &double, &mut scalars);
    prost::encoding::float::encode(2, &float, &mut scalars);
    prost::encoding::double::encode_packed(101, &[double, -0.0], &mut scalars);
    prost::encoding::float::encode_packed(102, &[float, -0.0], &mut scalars);
    let wrapped = super::field(21, &float_field(float));
    judge(&TORTURE, &super::field(3, &scalars));
    judge(&TORTURE, &super::field(34, &wrapped));
}

fn float_field(float: f32) -> Vec<u8> {
    let mut wrapper = Vec::new();
    prost::encoding::float::encode(1, &float, &mut wrapper);
    wrapper
}

#[test]
fn extreme_numbers_can_be_read_back() {
    for double in [
        0.0,
        -0.0,
        f64::MIN_POSITIVE,
        5e-324,
        f64::MAX,
        f64::MIN,
        f64::NAN,
    ] {
        for float in [
            f32::MAX,
            f32::MIN,
            1e-45,
            0.1,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
        ] {
            judge_numbers(double, float);
        }
    }
}

#[test]
fn integers_in_doubles_and_floats_are_written_as_integers() {
    let text = |double: f64, float: f32| {
        let mut scalars = Vec::new();
        prost::encoding::double::encode(1, &double, &mut scalars);
        prost::encoding::float::encode(2, &float, &mut scalars);
        let text = TORTURE
            .envelope_to_json_text(&super::field(3, &scalars))
            .unwrap();
        let numbers = text.strip_prefix(r#"{"scalars":{"a":"#).unwrap();
        numbers.strip_suffix("}}").unwrap().replace(r#""b":"#, "")
    };
    assert_eq!(text(7.0, 7.0), "7,7");
    assert_eq!(text(-7.5, 0.1), "-7.5,0.1");
    assert_eq!(
        text(9_007_199_254_740_991.0, 16_777_216.0),
        "9007199254740991,16777216"
    );
    // Doubles of this size skip integers, so its digits would be inexact.
    assert_eq!(text(9_007_199_254_740_992.0, 1.0), "9007199254740992.0,1");
    // -0 is not an integer.
    let mut negative_zero = Vec::new();
    prost::encoding::double::encode_packed(101, &[-0.0, 0.0], &mut negative_zero);
    let envelope = super::field(3, &negative_zero);
    assert_eq!(
        TORTURE.envelope_to_json_text(&envelope).unwrap(),
        r#"{"scalars":{"packedA":[-0.0,0]}}"#
    );
    let posted = r#"{"event":{"data":{"a":7,"b":[-1,0,0.5]}}}"#;
    let envelope = GENERIC.envelope_from_json(posted.as_bytes()).unwrap();
    assert_eq!(GENERIC.envelope_to_json_text(&envelope).unwrap(), posted);
}

#[test]
fn a_float_has_the_same_digits_as_text_and_as_a_value() {
    let envelope = TORTURE
        .envelope_from_json(br#"{"scalars":{"b":0.1}}"#)
        .unwrap();
    let value = TORTURE.envelope_to_json(&envelope).unwrap();
    assert_eq!(value.to_string(), r#"{"scalars":{"b":0.1}}"#);
}

#[test]
fn json_is_canonical() {
    for (schema, text) in [
        (
            &*BUNDLED,
            r#"{"messageId":"m","timestamp":"-7","position":{"epoch":"e","offset":"18446744073709551615"}}"#,
        ),
        (
            &*TORTURE,
            r#"{"scalars":{"a":"NaN","b":"-Infinity","f":"1","m":true,"o":"AP/+","p":"COLOUR_RED","maybe":0,"packedA":[1,"Infinity",1e+300],"packedP":["COLOUR_RED",7],"byText":{"":"","a":"\"\u0001","b":"é\u001f"},"byFlag":{"false":"0","true":"-1"},"byNumber":{"-5":"","3":"AA=="},"byFixed":{"1":"COLOUR_UNSPECIFIED"},"byUnsigned":{"0":"NaN"}}}"#,
        ),
        (
            &*TORTURE,
            r#"{"anything":{"record":{"a":{"c":null,"d":[1.5,true,{}]},"b":""},"at":"9999-12-31T23:59:59.999999999Z","lasts":"-0.500s","times":{"a":"0001-01-01T00:00:00Z","b":"1970-01-01T00:00:00.000001Z"},"byNumber":{"-1":null},"mask":"a,bC.dE","value":null,"list":[],"empty":{},"nothing":null,"values":[null,[null]],"floatValue":"NaN","doubleValue":0,"int32Value":0,"int64Value":"0","uint32Value":0,"uint64Value":"0","boolValue":false,"stringValue":"","bytesValue":"","floatValues":[3.5]}}"#,
        ),
        (&*TORTURE, r#"{"legacy":{"id":"l","[test.v1.label]":"x"}}"#),
        (
            &*GENERIC,
            r#"{"event":{"type":"order.shipped","data":{"a":[],"b":{},"n":7}}}"#,
        ),
    ] {
        let bytes = schema.envelope_from_json(text.as_bytes()).unwrap();
        assert_eq!(schema.envelope_to_json_text(&bytes).unwrap(), text);
    }
}

#[test]
fn unknown_fields_are_not_in_the_json() {
    let known = BUNDLED
        .envelope_from_json(br#"{"messageId": "m"}"#)
        .unwrap();
    let unknown = [known, super::field(500, b"x")].concat();
    let text = BUNDLED.envelope_to_json_text(&unknown).unwrap();
    assert_eq!(text, r#"{"messageId":"m"}"#);
}

#[test]
fn a_value_without_a_kind_is_null() {
    let value = [super::field(8, b""), super::field(12, b"")].concat();
    let text = TORTURE
        .envelope_to_json_text(&super::field(34, &value))
        .unwrap();
    assert_eq!(text, r#"{"anything":{"value":null,"values":[null]}}"#);
}
