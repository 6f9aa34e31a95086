//! The way from a body to events, for the fuzzer.

use super::{Bytes, Draft, Format, Problem, Relay, Topic, batch, single};

/// The event of a call's body.
///
/// # Errors
///
/// As the call is refused.
pub fn event(
    relay: &Relay,
    body: &Bytes,
    is_json: bool,
    more_topics: &[Topic],
) -> Result<Draft, Problem> {
    single(relay, body, format(is_json), more_topics)
}

/// The events of a batch call's body.
///
/// # Errors
///
/// As the call is refused.
pub fn events(
    relay: &Relay,
    body: &Bytes,
    is_json: bool,
    more_topics: &[Topic],
) -> Result<Vec<Draft>, Problem> {
    batch(relay, body, format(is_json), more_topics)
}

fn format(is_json: bool) -> Format {
    if is_json {
        Format::Json
    } else {
        Format::Protobuf
    }
}
