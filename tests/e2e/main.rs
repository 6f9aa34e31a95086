//! Tests the relay from outside, over real sockets, as clients, backends and operators use it.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stderr,
    clippy::let_underscore_must_use,
    clippy::string_slice,
    reason = "a test may fail loudly"
)]

mod client;
mod json_client;
mod raw;
mod support;
mod vocabulary;

mod generic;
mod smoke;
mod source_words;

mod admin;
mod bench;
mod bench_faults;
mod claimed_topics;
mod client_events;
mod closing;
mod connection_listing;
mod conversation;
mod desktop;
mod docs;
mod endings;
mod fanout;
mod frames;
mod handshake;
mod heartbeat;
mod json_clients;
mod kept_presence;
mod key_sets;
mod limits;
mod measures;
mod openapi;
mod refused_handshakes;
mod scenarios;
mod slow;
mod slow_handshakes;
mod subscribe_backend;
mod token_matrix;
mod token_renewal;
mod transport;
mod visible_refusals;
mod web_pages;
mod wildcards;

mod event_bytes;
mod event_streams;
mod events;
mod idempotency;
mod ingest_answers;
mod ingest_batches;
mod ingest_http;
mod ingest_json_limits;
mod ingest_limits;
mod ingest_order;
mod ingest_query;
mod ingest_refusals;
mod ingest_spellings;
mod ingest_support;
mod inspector;
mod polls;
mod preconditions;
mod presence_listing;

mod response_support;
mod resume;
mod resume_load;
