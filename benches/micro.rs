//! Measures the time of the pure parts of an event's path, and of the check of a token.
//!
//! `cargo bench -p sidewire --bench micro -- [PART OF A NAME]`
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark may fail loudly"
)]

mod cases;

use std::time::{Duration, Instant};

use criterion::Criterion;

use cases::{Subject, in_rounds};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for case in cases::all() {
        let mut made = None;
        criterion.bench_function(case.name(), |bencher| {
            let subject = made.get_or_insert_with(|| case.make());
            bencher.iter_custom(|operations| time(subject.as_mut(), operations));
        });
    }
    criterion.final_summary();
}

/// Returns how long this many operations take. The clock is read twice per round.
fn time(subject: &mut dyn Subject, operations: u64) -> Duration {
    let mut sum = Duration::ZERO;
    in_rounds(subject, operations, |subject, round| {
        let begun = Instant::now();
        for _ in 0..round {
            subject.operate();
        }
        sum += begun.elapsed();
    });
    sum
}
