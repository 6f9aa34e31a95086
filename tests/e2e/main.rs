//! The relay from outside: over real sockets, as clients, backends and operators
//! meet it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test may fail loudly"
)]

mod support;

mod endings;
mod scenarios;
mod slow;
