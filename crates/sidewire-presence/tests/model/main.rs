//! Compares the book with a naive model of the contract's section "Presence", in random schedules:
//! at rest each client knows of every other user what the contract's definition says.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may fail loudly"
)]

mod client;
mod connection;
mod message;
mod pages;
mod relay;
mod replica;
mod schedule;
mod truth;
mod world;

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use relay::Fault;
use schedule::{Step, schedules};

#[test]
fn at_rest_each_client_sees_what_the_contract_says() {
    let outcome = run_schedules(3_000, None);
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
}

#[test]
fn a_snapshot_ahead_of_the_shard_is_found() {
    assert_found(Fault::SnapshotAhead);
}

#[test]
fn a_snapshot_that_ends_after_its_first_part_is_found() {
    assert_found(Fault::SnapshotCut);
}

#[test]
fn an_owed_absent_message_that_is_forgotten_is_found() {
    assert_found(Fault::OwedAbsentForgotten);
}

#[test]
fn an_unsubscribe_that_does_not_send_what_is_seen_instead_is_found() {
    assert_found(Fault::UnsubscribeNotLookedThrough);
}

#[test]
fn an_unsubscribe_that_trusts_the_client_to_forget_an_older_message_is_found() {
    // Bob's second message hides his first one from Ann before she has been sent it, and while she
    // knows the first one, which then ends. Random schedules hardly ever come to that.
    let (ann, bob, bob_again, payload) = (0, 2, 3, 0);
    let (item, room) = (0b0001, 0b1000);
    let steps = [
        Step::Toggle { place: ann },
        Step::Toggle { place: bob },
        Step::Toggle { place: bob_again },
        Step::Subscribe {
            place: ann,
            topics: room,
        },
        Step::Subscribe {
            place: bob,
            topics: room,
        },
        Step::Subscribe {
            place: bob_again,
            topics: item,
        },
        Step::Set {
            place: bob,
            payload,
            named: room,
        },
        Step::Settle,
        Step::Set {
            place: bob_again,
            payload,
            named: item,
        },
        Step::Apply { shard: 0 },
        Step::Subscribe {
            place: ann,
            topics: item,
        },
        Step::Withdraw {
            place: bob,
            payload,
        },
        Step::Apply { shard: 0 },
        Step::Unsubscribe {
            place: ann,
            topics: item,
        },
    ];
    assert_eq!(world::run(&steps, None), Ok(()));
    assert!(world::run(&steps, Some(Fault::UnsubscribeTrusted)).is_err());
}

#[test]
fn an_unsubscribe_without_absent_messages_is_found() {
    assert_found(Fault::UnsubscribeSilent);
}

#[test]
fn a_message_that_outlives_its_senders_unsubscribe_is_found() {
    assert_found(Fault::UnsubscribeOfSenderIgnored);
}

#[test]
fn a_wildcard_without_transitions_is_found() {
    assert_found(Fault::WildcardForgotten);
}

#[test]
fn the_end_of_a_linger_that_overtakes_a_return_is_found() {
    assert_found(Fault::LingerEndsUser);
}

#[test]
fn an_absent_message_in_place_of_a_hand_over_is_found() {
    assert_found(Fault::HandOverIsAbsent);
}

fn assert_found(fault: Fault) {
    assert!(
        run_schedules(3_000, Some(fault)).is_err(),
        "{fault:?} is not found"
    );
}

fn run_schedules(cases: u32, fault: Option<Fault>) -> Result<(), String> {
    let config = Config {
        cases,
        failure_persistence: None,
        // A planted fault need not be shown in its shortest form.
        max_shrink_iters: if fault.is_some() { 0 } else { 10_000 },
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let outcome = runner.run(&schedules(), |steps| {
        world::run(&steps, fault).map_err(TestCaseError::fail)
    });
    outcome.map_err(|error| error.to_string())
}
