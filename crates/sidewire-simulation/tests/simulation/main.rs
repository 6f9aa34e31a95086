//! A deterministic simulation of the whole relay: ingest, log, a hub with two shards and all
//! connections run on one thread, over in-memory pipes, with paused time. A seed has three or
//! four tenants that share the names of topics and users, twenty clients that connect and
//! disconnect, a third of which speak JSON, and which send each other events, show their presence
//! and replace their tokens, four clients that take server-sent events or poll, 500 events from five
//! backends, another backend that takes rights away, in half of the seeds one that is asked about
//! each Subscribe, and reloads of the schema. All that backends and clients sent and received is
//! compared with a model of the contract (`checker`).
//!
//! `SIDEWIRE_SEED=7 cargo test --test simulation` reruns one seed exactly;
//! `SIDEWIRE_SEEDS=10000` sets the number of seeds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

mod acts;
mod backend;
mod checker;
mod client;
mod client_messages;
mod dice;
mod events;
mod gate;
mod history;
mod json;
mod known;
mod messages;
mod pipe;
mod record;
mod renewal;
mod response_client;
mod rights;
mod run;
mod schemas;
mod session;
mod socket;
mod stage;
mod subscribe_backend;
mod tests;
mod tokens;
mod topics;
mod world;
