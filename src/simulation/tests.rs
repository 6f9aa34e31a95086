//! What is held of simulations.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use super::run::{Outcome, run};

const SEEDS: u64 = 1_000;
const THREADS: usize = 2;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
    )
}

/// The run, or what went wrong.
fn attempt(seed: u64) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("a panic").to_owned()
    })
}

/// Runs the seeds, until one fails; what has occurred in all.
fn run_all(seeds: u64) -> Result<BTreeMap<&'static str, u64>, String> {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let counts = Mutex::new(BTreeMap::new());
    let failure = Mutex::new(None);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            match attempt(seed) {
                Ok(outcome) => {
                    for (what, count) in outcome.counts {
                        *counts.lock().unwrap().entry(what).or_default() += count;
                    }
                }
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    failure.lock().unwrap().get_or_insert(format!(
                        "seed {seed}: {error}\n\
                         (SIDEWIRE_SEED={seed} cargo test simulation runs it again)"
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
#[expect(clippy::print_stdout, reason = "for who runs one seed")]
fn the_relay_keeps_its_contract_whatever_happens() {
    if let Some(seed) = from_environment("SIDEWIRE_SEED") {
        println!("{:?}", run(seed));
        return;
    }
    let seeds = from_environment("SIDEWIRE_SEEDS").unwrap_or(SEEDS);
    match run_all(seeds) {
        Ok(counts) => println!("{seeds} seeds: {counts:#?}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1).trace, run(2).trace);
}
