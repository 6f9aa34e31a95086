//! Random and damaged envelopes: the same topics and the same verdict as prost-reflect,
//! except for the deliberate refusals.

use std::{cell::RefCell, collections::BTreeMap, sync::LazyLock};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use prost_reflect::DynamicMessage;

use super::{
    super::{
        Schema, WalkMode, json,
        oracle::{
            Deliberate, Verdict, damaged_envelope as damaged, judge, random_envelope as random,
        },
        walk_envelope,
    },
    torture,
};

static TORTURE: LazyLock<Schema> = LazyLock::new(torture);
static BUNDLED: LazyLock<Schema> = LazyLock::new(|| Schema::bundled().unwrap());

fn tape(bytes_max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..bytes_max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6000))]

    #[test]
    fn a_random_envelope_of_the_bundled_schema_is_judged_as_prost_reflect_does(tape in tape(300)) {
        judge(&BUNDLED, &random(&BUNDLED, &tape));
    }

    #[test]
    fn a_random_envelope_of_any_shape_is_judged_as_prost_reflect_does(tape in tape(600)) {
        judge(&TORTURE, &random(&TORTURE, &tape));
    }

    #[test]
    fn a_damaged_envelope_of_the_bundled_schema_is_judged_as_prost_reflect_does(
        tape in tape(300),
        harm in tape(24),
    ) {
        judge(&BUNDLED, &damaged(&BUNDLED, &tape, &harm));
    }

    #[test]
    fn a_damaged_envelope_of_any_shape_is_judged_as_prost_reflect_does(
        tape in tape(600),
        harm in tape(24),
    ) {
        judge(&TORTURE, &damaged(&TORTURE, &tape, &harm));
    }

    #[test]
    fn a_message_encoded_with_sorted_maps_is_the_same_message(tape in tape(600)) {
        let decode = |bytes: &[u8]| DynamicMessage::decode(TORTURE.envelope.clone(), bytes);
        if let Ok(message) = decode(&random(&TORTURE, &tape)) {
            let bytes = json::encode_sorted(&message);
            let again = decode(&bytes).unwrap();
            prop_assert_eq!(json::encode_sorted(&again), bytes);
            prop_assert_eq!(json::render_value(&again), json::render_value(&message));
        }
    }

    #[test]
    fn bytes_that_are_not_an_envelope_are_judged_as_prost_reflect_does(bytes in tape(60)) {
        judge(&TORTURE, &bytes);
    }
}

/// The tests above would pass if everything were refused: counts the cases that occur with
/// a fixed seed.
#[test]
fn the_random_envelopes_cover_every_verdict_and_every_deliberate_refusal() {
    let taken = RefCell::new(0);
    let refused = RefCell::new(0);
    let ambiguous = RefCell::new(0);
    let chosen = RefCell::new(BTreeMap::<Deliberate, u32>::new());
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(12_000)
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tapes = (tape(600), prop_oneof![Just(Vec::new()), tape(24)]);
    let run = runner.run(&tapes, |(tape, harm)| {
        let bytes = match harm.as_slice() {
            [] => random(&TORTURE, &tape),
            harm => damaged(&TORTURE, &tape, harm),
        };
        match judge(&TORTURE, &bytes) {
            Verdict::Taken => *taken.borrow_mut() += 1,
            Verdict::RefusedByBoth => *refused.borrow_mut() += 1,
            Verdict::RefusedByChoice(reason) => {
                *chosen.borrow_mut().entry(reason).or_default() += 1;
            }
        }
        let walked = walk_envelope(&TORTURE.table, &bytes, WalkMode::Route, usize::MAX);
        *ambiguous.borrow_mut() += u32::from(walked.is_ok_and(|found| found.is_ambiguous));
        Ok(())
    });
    run.unwrap();
    let (taken, refused, ambiguous) = (taken.take(), refused.take(), ambiguous.take());
    let chosen = chosen.take();
    assert!(
        taken > 5000 && refused > 2000,
        "taken {taken}, refused {refused}"
    );
    assert!(
        (100..taken / 2).contains(&ambiguous),
        "ambiguous {ambiguous}"
    );
    for reason in Deliberate::ALL {
        assert!(chosen.contains_key(&reason), "{reason:?} was never met");
    }
}
