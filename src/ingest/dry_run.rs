//! What the relay would say to one posted event, found out without a relay: by the
//! functions that ingest itself decides by, in its order.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    body::too_large,
    draft::Admissible,
    json::{check_json, no_json},
    parameters::topic_parameter,
};
use crate::{
    config::{Ingest, Limits},
    event::{Draft, DraftParts},
    http::Problem,
    protocol::{MessageId, Topic},
    schema::Schema,
};

/// One event, and what would be posted with it.
#[derive(Debug, Clone, Copy)]
pub struct Posted<'a> {
    /// The body of the call.
    pub body: &'a [u8],
    /// The body is proto3 JSON, not Protocol Buffers.
    pub is_json: bool,
    /// The values of `?topic=`.
    pub topics: &'a [String],
}

/// An event that the relay would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The envelope's bytes.
    pub envelope: Vec<u8>,
    /// The topics that its field 18 holds, as they stand there.
    pub field_18: Vec<String>,
    /// All topics of the event, each once.
    pub topics: Vec<Topic>,
}

/// Takes the event as `POST …/events` does, up to where it would be stored.
///
/// # Errors
///
/// When the relay would refuse it, with the problem that it would answer.
pub fn dry_run(
    schema: &Arc<Schema>,
    ingest: &Ingest,
    limits: &Limits,
    posted: Posted<'_>,
) -> Result<Taken, Problem> {
    let topics = posted.topics.iter().map(|text| topic_parameter(text));
    let topics: Vec<_> = topics.collect::<Result<_, _>>()?;
    if posted.body.len() > ingest.body_max {
        return Err(too_large(ingest.body_max));
    }
    let envelope = if posted.is_json {
        schema.envelope_from_json(posted.body).map_err(no_json)?
    } else {
        posted.body.to_vec()
    };
    let admissible = Admissible::check(schema, limits, &envelope, &topics)?;
    if admissible.inspected.json_is_in_doubt(limits.json_max) {
        check_json(&draft(schema, &admissible)?, limits.json_max)?;
    }
    let extra = admissible.inspected.extra_topics.iter();
    Ok(Taken {
        field_18: extra.map(|topic| (*topic).to_owned()).collect(),
        topics: admissible.topics,
        envelope,
    })
}

/// The event as ingest would have it, with a message id and a timestamp as long as those
/// that the relay makes.
fn draft(schema: &Arc<Schema>, admissible: &Admissible<'_>) -> Result<Draft, Problem> {
    let message_id = match &admissible.message_id {
        Some(id) => id.clone(),
        None => MessageId::parse(&Uuid::nil().to_string())
            .map_err(|error| Problem::invalid(error.to_string()))?,
    };
    let kept: Vec<_> = admissible.inspected.kept().collect();
    Ok(Draft::new(DraftParts {
        kept: &kept,
        message_id,
        append_message_id: admissible.message_id.is_none(),
        append_timestamp: admissible
            .inspected
            .timestamp
            .is_none()
            .then_some(i64::from(i32::MAX)),
        topics: admissible.topics.clone().into(),
        schema: Arc::clone(schema),
    }))
}
