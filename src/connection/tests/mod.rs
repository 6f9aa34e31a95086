//! A client's conversation over a stream in memory, under paused time.

mod any_schema;
mod authorization;
mod certificates;
mod claimed_topics;
mod client_events;
mod conformance;
mod endings;
mod expiry_and_drain;
mod fetched_keys;
mod frame_floods;
mod frames;
mod heartbeat;
mod json;
mod json_events;
mod limits;
mod measures;
mod memory;
mod presence;
mod refused_handshakes;
mod resume;
mod revocation;
mod schedules;
mod slow;
mod tls_handshakes;
mod token_renewal;
mod turns;
