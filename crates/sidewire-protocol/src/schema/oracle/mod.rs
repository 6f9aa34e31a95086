//! The oracle of the tests and the fuzzer: prost-reflect's verdict on an envelope. Also
//! generates random envelopes and random schemas.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    reason = "only tests use it, and a test may fail loudly"
)]

mod client_events;
mod random;
mod reference;
mod schemas;

pub use self::{
    client_events::judge_client_event,
    reference::{Deliberate, Found, Verdict, judge, naive_topics, reflected_from_json},
    schemas::{ENVELOPE, SchemaText, random_schema},
};

use self::random::{Tape, client_event, damage, envelope};
use super::Schema;

/// Generates an envelope of the schema from the tape.
#[must_use]
pub fn random_envelope(schema: &Schema, tape: &[u8]) -> Vec<u8> {
    envelope(&mut Tape::new(tape), &schema.envelope)
}

/// Generates an envelope from the first tape and damages it with the second.
#[must_use]
pub fn damaged_envelope(schema: &Schema, tape: &[u8], harm: &[u8]) -> Vec<u8> {
    let mut bytes = random_envelope(schema, tape);
    damage(&mut Tape::new(harm), &mut bytes);
    bytes
}

/// Generates an envelope with an event that clients may send, from the tape; `None` if the
/// schema has none.
#[must_use]
pub fn random_client_event(schema: &Schema, tape: &[u8]) -> Option<Vec<u8>> {
    client_event(&mut Tape::new(tape), &schema.envelope)
}
