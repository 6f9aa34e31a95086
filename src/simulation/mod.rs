//! The whole relay, run from a seed: ingest, log, a hub with two shards and all
//! connections on one thread, over pipes in memory, with time that stands still and
//! leaps. A seed has three or four tenants that share their names of topics and
//! users, twenty clients that come and go, a third of which speak JSON, 500 events from
//! five backends, and reloads of the schema.
//! Whatever backends and clients sent and heard is held against a model of the
//! contract (`checker`).
//!
//! `SIDEWIRE_SEED=7 cargo test simulation` runs one seed again, exactly;
//! `SIDEWIRE_SEEDS=10000` says how many are run.

mod acts;
mod backend;
mod checker;
mod client;
mod dice;
mod events;
mod gate;
mod history;
mod json;
mod known;
mod messages;
mod pipe;
mod run;
mod schemas;
mod session;
mod socket;
mod stage;
mod tests;
mod topics;
mod world;
