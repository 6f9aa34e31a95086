//! What tests and the fuzzer hold an envelope against: prost-reflect's verdict on it.
//! And random envelopes, random schemas.

mod random;
mod reference;
mod schemas;

pub use self::{
    reference::{Deliberate, Found, Verdict, judge, naive_topics, reflected_from_json},
    schemas::{ENVELOPE, SchemaText, random_schema},
};

use self::random::{Tape, damage, envelope};
use super::Schema;

/// An envelope of the schema, written from the tape.
#[must_use]
pub fn random_envelope(schema: &Schema, tape: &[u8]) -> Vec<u8> {
    envelope(&mut Tape::new(tape), &schema.envelope)
}

/// The same, harmed as the second tape says.
#[must_use]
pub fn damaged_envelope(schema: &Schema, tape: &[u8], harm: &[u8]) -> Vec<u8> {
    let mut bytes = random_envelope(schema, tape);
    damage(&mut Tape::new(harm), &mut bytes);
    bytes
}
