//! Events to measure with: one of each kind of the bundled schema, as a backend
//! would send it, and a payload that nobody looks into.

/// The payload's name and the envelope as JSON, one kind a line, in the order of
/// the schema.
const EVENTS: &str = include_str!("events.txt");

/// The bytes of a payload that is only passed on.
const PAYLOAD_BYTES: u8 = 200;

pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    EVENTS.lines().map(|line| line.split_once(' ').unwrap())
}

/// An envelope's payload: field 100, length-delimited, which is the application's.
pub(super) fn payload() -> Vec<u8> {
    let mut payload = vec![0xa2, 0x06, PAYLOAD_BYTES, 0x01];
    payload.resize(payload.len() + usize::from(PAYLOAD_BYTES), 7);
    payload
}
