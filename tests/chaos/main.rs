//! Chaos tests of the real program: connections that are reset, closed, stalled, delayed
//! and cut in mid-frame while backends publish, clients that never read, a relay that is
//! killed or asked to stop under load, a noisy tenant, and a peak of memory. The
//! acknowledged events are compared with those that each client received.
//!
//! ```text
//! cargo test --test chaos               # some seconds
//! cargo test --release -p sidewire --test chaos     # the gate runs the largest items, which take minutes, by themselves
//!
//! # before a release
//! SIDEWIRE_RECONNECTS=10000 SIDEWIRE_STALLED=1000 SIDEWIRE_SECONDS=60 SIDEWIRE_CLIENTS=10000 SIDEWIRE_SLOW=5000 SIDEWIRE_DESCRIPTORS=1024 \
//!   cargo test --release -p sidewire --test chaos -- --nocapture --test-threads=1
//! SIDEWIRE_NOISY_SECONDS=10 SIDEWIRE_NOISY_ROUNDS=7 \
//!   cargo test --release -p sidewire --test chaos noisy -- --nocapture --test-threads=1
//! SIDEWIRE_LARGEST_SECONDS=3 \
//!   cargo test --release -p sidewire --test chaos largest -- --nocapture --test-threads=1
//! ```
//!
//! `SIDEWIRE_RECONNECTS` is the number of connections that are broken, with 100 events for
//! each. `SIDEWIRE_STALLED` is the number of clients that never read, beside a tenth of
//! that (at least 20) that do, and `SIDEWIRE_SECONDS` how long that lasts.
//! `SIDEWIRE_CLIENTS` is the number of clients when the relay is asked to stop.
//! `SIDEWIRE_SLOW` is the number of peers that send nothing instead of a handshake, and of
//! those that send it byte by byte. `SIDEWIRE_DESCRIPTORS` is the relay's limit on file
//! descriptors; there are twice as many clients. `SIDEWIRE_NOISY_SECONDS` is the length of
//! each phase of a quiet tenant alone and beside a noisy one, and `SIDEWIRE_NOISY_ROUNDS`
//! the number of pairs of phases. `SIDEWIRE_LARGEST_SECONDS` is how long each of the
//! largest items is sent, then by 100 connections. A run prints the seed from which its
//! faults are derived; `SIDEWIRE_SEED` repeats the faults, but not their exact times.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test may fail loudly, and this one reports"
)]

mod backend;
mod descriptors;
mod ends;
mod follower;
mod kernel;
mod largest;
mod ledger;
mod noisy;
mod order;
mod peak;
mod proxy;
mod resume;
mod silent;
mod site;
mod slowloris;
mod stalled;
mod wire;
