//! Checks one event as ingest would, without a relay: it uses ingest's own functions, in the
//! same order.

mod client;
mod report;

use sidewire_protocol::{Topic, schema::Schema};

pub use self::{
    client::DescribedClient,
    report::{RefusedEvent, RouteReport},
};

use super::{
    body::too_large, draft::AdmissibleEnvelope, json::json_problem, parameters::topic_parameter,
};
use crate::{
    config::{IngestSection, LimitsSection},
    event::write_envelope,
    http::HttpProblem,
};

/// A single event to check, with the topics of its call.
#[derive(Debug, Clone, Copy)]
pub struct DryRunRequest<'a> {
    /// The body of the call.
    pub body: &'a [u8],
    /// True if the body is proto3 JSON, false if it is Protocol Buffers.
    pub is_json: bool,
    /// The values of `?topic=`.
    pub topics: &'a [String],
}

/// An event that the relay would accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRunEvent {
    /// The envelope's bytes.
    pub envelope: Vec<u8>,
    /// The topics in its field 18, unchanged.
    pub field_18: Vec<String>,
    /// All topics of the event, without repeats.
    pub topics: Vec<Topic>,
}

/// A message id of the length that the relay generates.
const FRESH_MESSAGE_ID: &str = "01234567-89ab-7def-8123-456789abcdef";

/// A timestamp with as many digits as the present time.
const FRESH_TIMESTAMP: i64 = 2_000_000_000;

/// Returns the bytes that would be stored, without the position. Adds a message id and a
/// timestamp if the event has none, as the relay does.
fn stored_envelope(admissible: &AdmissibleEnvelope<'_>) -> Vec<u8> {
    let inspected = &admissible.inspected;
    let kept: Vec<_> = inspected.kept_bytes().collect();
    let id = admissible.message_id.is_none().then_some(FRESH_MESSAGE_ID);
    let timestamp = inspected.timestamp.is_none().then_some(FRESH_TIMESTAMP);
    let mut envelope = Vec::new();
    write_envelope(&kept, id, timestamp, &mut envelope);
    envelope
}

/// Checks the event as `POST …/events` does, up to the point where it would be stored.
///
/// # Errors
///
/// If the relay would refuse the event; returns the problem that it would answer with.
pub fn dry_run(
    schema: &Schema,
    ingest: &IngestSection,
    limits: &LimitsSection,
    posted: DryRunRequest<'_>,
) -> Result<DryRunEvent, HttpProblem> {
    let topics = posted.topics.iter().map(|text| topic_parameter(text));
    let topics: Vec<_> = topics.collect::<Result<_, _>>()?;
    if posted.body.len() > ingest.body_max {
        return Err(too_large(ingest.body_max));
    }
    let envelope = if posted.is_json {
        schema
            .envelope_from_json(posted.body)
            .map_err(json_problem)?
    } else {
        posted.body.to_vec()
    };
    let admissible = AdmissibleEnvelope::check(schema, limits, &envelope, &topics)?;
    let inspected = &admissible.inspected;
    if inspected.json_is_in_doubt(limits.json_max) {
        schema
            .check_json(&stored_envelope(&admissible), limits.json_max)
            .map_err(json_problem)?;
    }
    let extra = inspected.extra_topics.iter();
    Ok(DryRunEvent {
        field_18: extra.map(|topic| (*topic).to_owned()).collect(),
        topics: admissible.topics,
        envelope,
    })
}
