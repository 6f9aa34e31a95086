//! Sidewire, a pub/sub relay daemon: a backend POSTs events, and WebSocket clients of the same
//! tenant get those that relate to their topics, in order, as Protocol Buffers or JSON.
//!
//! ```text
//!  backend ──POST──▶ ingest ─▶ schema ─▶ log ─▶ shard ─▶ outbox ─▶ connection ──▶ client
//!                    allowed?  topics?   order   match   queue       write
//!  client ──frames─▶ connection ─▶ (subscribe) ─▶ shard's topic index
//! ```
//!
//! Data flows one way: each module passes values to the next one, and none calls back.
//! `docs/map.md` says where things are and what always holds.
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

// The path of an event, in order.
pub mod connection;
pub mod event;
pub mod hub;
pub mod ingest;
pub mod log;
pub mod outbox;

// Authentication, authorization, configuration and limits.
pub mod auth;
pub mod authorizer;
pub mod backend;
mod bounded_file;
pub mod config;
pub mod limits;

// Wiring.
pub mod alarms;
pub mod relay;
pub mod server;
pub mod setup;

// The command line.
pub mod cli;

// Monitoring and foundations.
pub mod http;
pub mod inspector;
pub mod memory;
pub mod ops;
mod outgoing_url;
mod repeated;
pub mod scheduler;
pub mod tally;
pub mod telemetry;
pub mod tls;
pub mod transport;
pub mod turn_meter;
pub mod window_file;

#[cfg(any(test, feature = "testing"))]
pub mod planted;
#[cfg(not(any(test, feature = "testing")))]
mod planted;
