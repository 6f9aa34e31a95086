//! Sidewire, a pub/sub relay daemon.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test may fail loudly"
    )
)]

pub mod clock;
pub mod event;
pub mod hub;
pub mod log;
pub mod outbox;
pub mod protocol;
pub mod random;
pub mod tally;
