//! Sidewire, a pub/sub relay daemon: a backend POSTs events, WebSocket clients get
//! those that relate to their topics, inside their tenant, in order, as Protocol
//! Buffers.
//!
//! ```text
//!  backend ──POST──▶ ingest ─▶ schema ─▶ log ─▶ shard ─▶ outbox ─▶ connection ──▶ client
//!                    who may?  which     what    who     what        how it is
//!                              topics?   order?  gets it? waits?     written
//!  client ──frames─▶ connection ─▶ (subscribe) ─▶ shard's topic index
//! ```
//!
//! Data goes one way. No module calls back up the line; each hands the next one a
//! value. `docs/architecture.md` says what always holds, and why.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        reason = "a test may fail loudly"
    )
)]

// What everything speaks of.
pub mod protocol;
pub mod schema;

// The path of an event, in its order.
pub mod connection;
pub mod event;
pub mod hub;
pub mod ingest;
pub mod log;
pub mod outbox;

// Who may, and what the operator decided.
pub mod auth;
mod bounded_file;
pub mod config;
pub mod limits;

// What holds it together.
pub mod relay;
pub mod server;
pub mod setup;

// The other ends: for people, for tests, and for scripts.
pub mod bench;
pub mod cli;
pub mod client;

// How it is watched, and what all of it stands on.
pub mod clock;
pub mod http;
pub mod memory;
pub mod ops;
pub mod random;
mod repeated;
pub mod scheduler;
mod shorten;
mod suggest;
pub mod tally;
pub mod tls;
pub mod turn_meter;

mod planted;
#[cfg(test)]
mod simulation;
