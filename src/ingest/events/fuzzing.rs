//! The way from a body to events, for the fuzzer.

use super::{Draft, Drafts, Problem, Relay, Topic, batch_from_json, draft, envelope_from_json};

/// The event of a call's body.
///
/// # Errors
///
/// As the call is refused.
pub fn event(
    relay: &Relay,
    body: &[u8],
    is_json: bool,
    more_topics: &[Topic],
) -> Result<Draft, Problem> {
    if is_json {
        draft(relay, &envelope_from_json(relay, body)?, more_topics)
    } else {
        draft(relay, body, more_topics)
    }
}

/// The events of a batch call's body.
///
/// # Errors
///
/// As the call is refused.
pub fn events(
    relay: &Relay,
    body: &[u8],
    is_json: bool,
    more_topics: &[Topic],
) -> Result<Vec<Draft>, Problem> {
    let encoded;
    let batch = if is_json {
        encoded = batch_from_json(relay, body)?;
        &encoded
    } else {
        body
    };
    let mut drafts = Drafts::new(relay, batch, relay.live().config.ingest.batch_events_max)?;
    while !drafts.is_read() {
        drafts.read_some(relay, more_topics);
    }
    drafts.finish()
}
