//! Repeats the operations of `micro` a given number of times, so that callgrind can count
//! their instructions. `scripts/instructions` runs it; without arguments it lists the
//! cases.
//!
//! `instructions CASE OPERATIONS`
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark may fail loudly, and its list is what it prints"
)]

mod cases;

use std::env;

use cases::{Subject, in_rounds};

fn main() {
    // `cargo bench` passes an option of its own.
    let words: Vec<String> = env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    match words.as_slice() {
        [] => list(),
        [name, operations] => run(name, operations.parse().unwrap()),
        _ => panic!("usage: instructions [CASE OPERATIONS]"),
    }
}

fn list() {
    for case in cases::all() {
        println!("{}", case.name());
    }
}

fn run(name: &str, operations: u64) {
    let case = cases::all().into_iter().find(|case| case.name() == name);
    let mut subject = case.expect("the case is one of the list").make();
    in_rounds(subject.as_mut(), operations, counted);
}

/// Callgrind counts only what happens in this function, which it knows by name.
#[inline(never)]
fn counted(subject: &mut dyn Subject, operations: u64) {
    for _ in 0..operations {
        subject.operate();
    }
}
