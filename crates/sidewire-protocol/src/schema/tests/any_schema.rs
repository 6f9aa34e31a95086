//! Random schemas: the routing table, the explanation for users, and a naive walk over the
//! message decoded by prost-reflect agree on the topics of random envelopes. Their JSON is
//! equivalent to their bytes and stable.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};
use prost_reflect::{DynamicMessage, SerializeOptions};

use super::super::{
    Schema, WalkMode,
    oracle::{Verdict, damaged_envelope, judge, random_envelope, random_schema},
    walk_envelope,
};

/// Number of schemas to test, unless `SIDEWIRE_SCHEMAS` is set.
const SCHEMAS: u32 = 300;

/// Number of envelopes to test with each schema.
const ENVELOPES: usize = 8;

/// A schema's tape, and for each of its envelopes a tape and one that damages it.
type Tapes = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

fn tapes() -> impl Strategy<Value = Tapes> {
    let tape = |bytes_max| vec(any::<u8>(), 0..bytes_max);
    let harm = prop_oneof![4 => Just(Vec::new()), 1 => tape(24)];
    (tape(1_500), vec((tape(500), harm), ENVELOPES))
}

/// Number of occurrences of each case.
type Counts = BTreeMap<&'static str, u32>;

/// Runs all checks on one random schema.
fn check((schema_tape, envelopes): &Tapes, counts: &mut Counts) {
    let text = random_schema(schema_tape);
    let schema = text
        .compile()
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", text.main, text.legacy));
    for (tape, harm) in envelopes {
        let envelope = if harm.is_empty() {
            random_envelope(&schema, tape)
        } else {
            damaged_envelope(&schema, tape, harm)
        };
        let mut saw = |what, occurs| *counts.entry(what).or_default() += u32::from(occurs);
        check_topics(&schema, &envelope, &mut saw);
        check_json(&schema, &envelope, &mut saw);
    }
}

fn check_topics(schema: &Schema, envelope: &[u8], saw: &mut impl FnMut(&'static str, bool)) {
    match judge(schema, envelope) {
        Verdict::Taken => saw("taken", true),
        Verdict::RefusedByBoth => saw("refused by both", true),
        Verdict::RefusedByChoice(_) => saw("refused by choice", true),
    }
    let Ok(inspected) = schema.inspect(envelope) else {
        assert!(schema.explain_topics(envelope).is_err());
        return;
    };
    let explained = schema.explain_topics(envelope).unwrap();
    let explained: BTreeSet<_> = explained.into_iter().filter_map(|it| it.topic).collect();
    assert_eq!(explained, inspected.topics.iter().cloned().collect());
    saw("several topics", inspected.topics.len() > 1);
    let everyone = inspected.topics.iter().any(|topic| topic.is_everyone());
    saw("a whole topic", everyone);
    let walked =
        walk_envelope(&schema.table, envelope, WalkMode::Route, usize::MAX).unwrap_or_default();
    saw("decided by order", walked.is_ambiguous);
}

fn decode(schema: &Schema, envelope: &[u8]) -> DynamicMessage {
    DynamicMessage::decode(schema.envelope.clone(), envelope).unwrap()
}

/// Returns the JSON that prost-reflect writes for the message.
fn reflected(message: &DynamicMessage, options: &SerializeOptions) -> Option<String> {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut text);
    message
        .serialize_with_options(&mut serializer, options)
        .ok()?;
    Some(String::from_utf8(text).unwrap())
}

/// Bytes → JSON → bytes → JSON: the first JSON is that of prost-reflect, and the second is
/// the same.
fn check_json(schema: &Schema, envelope: &[u8], saw: &mut impl FnMut(&'static str, bool)) {
    if schema.inspect(envelope).is_err() {
        return;
    }
    let Ok(text) = schema.envelope_to_json_text(envelope) else {
        saw("without JSON", true);
        return;
    };
    saw("with JSON", true);
    let message = decode(schema, envelope);
    let theirs = reflected(&message, &SerializeOptions::new()).expect("prost-reflect has JSON");
    let (ours, theirs) = (parsed(&text), parsed(&theirs));
    assert_eq!(comparable(&ours), comparable(&theirs));

    let bytes = schema
        .envelope_from_json(text.as_bytes())
        .unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(schema.envelope_to_json_text(&bytes).unwrap(), text);
    assert_eq!(schema.envelope_from_json(text.as_bytes()).unwrap(), bytes);
    check_same_event(schema, envelope, &bytes);

    // In a different order, with whitespace.
    let other = serde_json::to_string_pretty(&ours).unwrap();
    let again = schema.envelope_from_json(other.as_bytes()).unwrap();
    assert_eq!(again, bytes, "{other} as against {text}");
    if text.contains("NaN") || text.contains("Infinity") {
        return;
    }
    let message = decode(schema, &bytes);
    for options in [
        SerializeOptions::new().use_proto_field_name(true),
        SerializeOptions::new().use_enum_numbers(true),
        SerializeOptions::new().stringify_64_bit_integers(false),
        SerializeOptions::new().skip_default_fields(false),
    ] {
        let other = reflected(&message, &options).unwrap();
        let again = schema.envelope_from_json(other.as_bytes()).unwrap();
        assert_eq!(again, bytes, "{options:?}: {other} as against {text}");
    }
}

fn parsed(json: &str) -> serde_json::Value {
    serde_json::from_str(json).unwrap()
}

/// Normalizes JSON to hide known differences of prost-reflect: it may write more digits of
/// a float, and writes NaN and infinity in a wrapper as null.
#[expect(clippy::cast_possible_truncation, reason = "a float has few digits")]
fn comparable(json: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match json {
        Value::Number(number) => {
            let bits = number.as_f64().map(|it| (it as f32).to_bits());
            Value::from(bits)
        }
        Value::String(text) if ["NaN", "Infinity", "-Infinity"].contains(&&**text) => Value::Null,
        Value::Array(items) => items.iter().map(comparable).collect(),
        Value::Object(members) => {
            let members = members.iter();
            members
                .map(|(name, it)| (name.clone(), comparable(it)))
                .collect()
        }
        other => other.clone(),
    }
}

/// Asserts that an envelope is routed the same way after a round trip through JSON.
fn check_same_event(schema: &Schema, one: &[u8], other: &[u8]) {
    let topics = |envelope| {
        let inspected = schema.inspect(envelope).unwrap();
        let mut topics: Vec<_> = inspected.topics.iter().map(ToString::to_string).collect();
        topics.sort();
        let number = inspected.payload.map(|payload| payload.number);
        (topics, number, inspected.extra_topics)
    };
    assert_eq!(topics(one), topics(other));
}

#[test]
fn topics_and_json_of_random_schemas_match_a_naive_walk() {
    let schemas = std::env::var("SIDEWIRE_SCHEMAS");
    let schemas = schemas.map_or(SCHEMAS, |it| it.parse().unwrap());
    proptest!(ProptestConfig::with_cases(schemas), |(tapes in tapes())| {
        check(&tapes, &mut Counts::new());
    });
}

/// The test above would pass if everything were refused: counts the cases that occur with a
/// fixed seed.
#[test]
fn random_schemas_cover_every_verdict_and_most_envelopes_have_json() {
    let counts = RefCell::new(Counts::new());
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(300)
    };
    let run = TestRunner::new_with_rng(config, rng).run(&tapes(), |tapes| {
        check(&tapes, &mut counts.borrow_mut());
        Ok(())
    });
    if let Err(TestError::Fail(reason, (tape, envelopes))) = run {
        let text = random_schema(&tape);
        panic!("{reason}: {envelopes:?}\n{}\n{}", text.main, text.legacy);
    }
    let counts = counts.take();
    for (what, min) in [
        ("taken", 1_200),
        ("refused by both", 100),
        ("refused by choice", 50),
        ("several topics", 30),
        ("a whole topic", 3),
        ("decided by order", 50),
        ("with JSON", 1_000),
        ("without JSON", 1),
    ] {
        let count = counts.get(what).copied().unwrap_or_default();
        assert!(count >= min, "{what}: only {count} of {counts:?}");
    }
}
