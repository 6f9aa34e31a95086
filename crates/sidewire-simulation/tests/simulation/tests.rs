//! The tests that run simulations.
#![expect(clippy::print_stdout, reason = "for who runs one by hand")]

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use sidewire::planted::{PlantedFault, plant, seen};

use super::run::{RunOutcome, run};

const SEEDS: u64 = 1_000;
const THREADS: usize = 2;

/// Occurrences that the seeds must produce, and their required frequency.
const SCHEDULES: &[&str] = &[
    "resumed",
    "refused",
    "4003",
    "4001",
    "4004",
    "4005",
    "limited",
    "ping",
    "reset in mid-frame",
    "first connection while published to",
    "a tenant that came back to a full inbox",
    "a Subscribe that waited for its tenant's deliveries",
    "a Pong with a position",
    "eviction during a replay",
    "503 for a full inbox",
    "drain",
    "duplicate",
    "conflict",
    "read to the end",
    "a precondition that held",
    "a precondition that did not hold",
    "an event with three times its bytes in JSON",
    "an event with twenty times its bytes in JSON",
    "an event whose JSON is larger than an outbox",
    "an event whose schema was reloaded before a client had it as JSON",
    "4003 of a client that speaks JSON",
    "a token that subscribes",
    "a token whose topics were resumed",
    "an event that only a wildcard brought",
    "an event of another client",
    "presence",
    "absent",
    "a presence message beyond a bound",
    "a newer token",
    "a newer token that expires earlier",
    "a newer token that ends subscriptions",
    "a newer token that is refused",
    "a Subscribe beyond a narrower grant",
    "subscriptions that a backend has ended",
    "4002",
    "4006 for a new token",
    "4006 for a replay that lost a topic",
    "a Subscribe that a backend allowed",
    "a Subscribe that an earlier answer allowed",
    "a Subscribe that a backend denied",
    "a Subscribe that no backend answered",
    "an answer that is older than the end of a subscription",
    "a newer token while a Subscribe waits for a backend",
    "a user who is seen at rest",
    "a user who is seen at rest and has several connections",
    "a poll with events",
    "a poll without events",
    "a stream that resumed",
    "a gap without a WebSocket",
    "a comment",
    "a response that is cut off",
];
const OCCURRENCES_MIN: u64 = 75;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
    )
}

/// Runs a seed. Returns its outcome, or the message of the panic.
fn attempt(seed: u64, fault: Option<PlantedFault>) -> Result<RunOutcome, String> {
    plant(fault);
    seen();
    catch_unwind(AssertUnwindSafe(|| run(seed))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("a panic").to_owned()
    })
}

/// Runs the seeds with the fault planted until one fails. Returns the occurrences of all runs.
fn run_all(seeds: u64, fault: Option<PlantedFault>) -> Result<BTreeMap<&'static str, u64>, String> {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let counts = Mutex::new(BTreeMap::new());
    let failure = Mutex::new(None);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            match attempt(seed, fault) {
                Ok(outcome) => {
                    for (what, count) in outcome.counts {
                        *counts.lock().unwrap().entry(what).or_default() += count;
                    }
                }
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    failure.lock().unwrap().get_or_insert(format!(
                        "seed {seed}: {error}\n\
                         (SIDEWIRE_SEED={seed} cargo test --test simulation runs it again)"
                    ));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    match failure.into_inner().unwrap() {
        Some(failure) => Err(failure),
        None => Ok(counts.into_inner().unwrap()),
    }
}

#[test]
fn the_relay_keeps_its_contract_whatever_happens() {
    if let Some(seed) = from_environment("SIDEWIRE_SEED") {
        println!("{:?}", run(seed));
        return;
    }
    let seeds = from_environment("SIDEWIRE_SEEDS").unwrap_or(SEEDS);
    let counts = run_all(seeds, None).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{seeds} seeds: {counts:#?}");
    if seeds >= SEEDS {
        for schedule in SCHEDULES {
            let count = counts.get(*schedule).copied().unwrap_or_default();
            assert!(count > OCCURRENCES_MIN, "{schedule}: only {count} times");
        }
    }
}

fn assert_found(fault: PlantedFault) {
    let found = run_all(SEEDS, Some(fault)).expect_err("it is found");
    println!("{fault:?}: {found}");
}

macro_rules! planted {
    ($($test:ident: $fault:ident,)*) => {
        $(#[test]
        fn $test() {
            assert_found(PlantedFault::$fault);
        })*
    };
}

planted! {
    a_live_event_that_is_dropped_in_a_resume_is_found: DropsOwedEvents,
    a_subscribe_confirmed_at_the_head_is_found: ConfirmsTheHead,
    a_subscribe_confirmed_below_the_head_is_found: ConfirmsBelowTheHead,
    a_pong_with_the_heads_position_is_found: PongsTheHead,
    a_position_that_is_taken_too_late_is_found: TakesThePositionLate,
    an_eviction_that_is_ignored_is_found: SkipsAnEviction,
    an_event_delivered_once_per_topic_is_found: DeliversTwice,
    an_index_entry_left_behind_is_found: LeavesAnIndexEntry,
    a_replay_of_delivered_events_is_found: ReplaysDeliveredEvents,
    a_resume_without_the_implicit_topics_is_found: ForgetsImplicitTopics,
    an_event_of_another_tenant_is_found: CrossesTenants,
    a_wildcard_of_an_implicit_kind_is_found: TakesUserWildcard,
    a_wildcard_that_matches_in_another_tenant_is_found: MatchesWildcardAcrossTenants,
    a_responsive_client_that_is_given_up_is_found: GivesUpTheLiving,
    a_rate_that_is_not_enforced_is_found: ForgetsToCharge,
    a_message_that_is_charged_twice_is_found: ChargesTwice,
    an_append_before_the_permits_are_reserved_is_found: AppendsTooEarly,
    json_rendered_by_the_current_schema_is_found: RendersByTheCurrentSchema,
    json_that_an_outbox_skips_is_found: SkipsJsonOnOverflow,
    json_that_is_counted_twice_is_found: CountsJsonTwice,
    a_revoked_topic_that_is_kept_is_found: KeepsRevokedTopics,
    an_old_tokens_expiry_that_is_kept_is_found: KeepsTheOldDeadline,
    a_denied_topic_that_is_remembered_as_allowed_is_found: RemembersDenialsAsAllowed,
    an_answer_about_another_user_that_is_used_is_found: UsesAnswersOfOthers,
    an_answer_older_than_a_revocation_that_is_used_is_found: UsesOutdatedAnswers,
    an_event_that_its_sender_receives_is_found: EchoesToTheSender,
    an_event_without_its_sender_is_found: SkipsTheStamp,
    an_absence_that_is_told_to_those_who_see_the_user_is_found: SendsAbsentToThoseWhoSee,
    owed_presence_that_is_forgotten_is_found: ForgetsOwedPresence,
    presence_on_a_topic_after_its_unsubscribe_is_found: KeepsUnsubscribedPresence,
    presence_that_lingers_forever_is_found: ForgetsToEndLingering,
    a_hand_over_by_topic_only_is_found: HandsOverByTopicOnly,
    a_refused_presence_message_that_ends_the_earlier_one_is_found: RefusesAndForgets,
    events_before_a_replay_that_stay_are_found: KeepsWhatCameBefore,
    a_position_beyond_an_answer_that_was_cut_is_found: SkipsBehindTheBound,
    a_comment_ahead_of_queued_events_is_found: PingsTheHead,
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1).trace, run(2).trace);
}
