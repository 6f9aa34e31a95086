//! The program as an operator uses it: commands, config files, signals, output.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

mod bench;
mod check;
mod client_events;
mod clients;
mod dev;
mod generate;
mod help;
mod inspector;
mod keys;
mod large_schema;
mod log;
mod operators;
mod paused;
mod reload;
mod schema;
mod schema_reload;
mod secrets;
mod serve;
mod sockets;
mod tail;
mod unit_file;
mod window_file;
