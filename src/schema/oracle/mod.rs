//! What an envelope is held against in tests and by the fuzzer: prost-reflect's
//! opinion of it, and envelopes at random.

mod random;
mod reference;

pub use self::reference::{Deliberate, Verdict, judge};

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
