//! Events for measurements: one of each kind of the bundled schema, as a backend would send
//! it, and an opaque payload.

/// The payload's name and the envelope as JSON, one kind per line, in the order of the schema.
const EVENTS: &str = include_str!("events.txt");

/// Bytes of a payload that is only passed on.
const PAYLOAD_BYTES: u8 = 200;

pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    EVENTS.lines().map(|line| line.split_once(' ').unwrap())
}

/// Returns an envelope's payload: field 100, length-delimited, which belongs to the application.
pub(super) fn payload() -> Vec<u8> {
    let mut payload = vec![0xa2, 0x06, PAYLOAD_BYTES, 0x01];
    payload.resize(payload.len() + usize::from(PAYLOAD_BYTES), 7);
    payload
}
