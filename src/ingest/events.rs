//! `POST …/events` and `POST …/events:batch`: from a body to events in the log.

#[cfg(fuzzing)]
pub mod fuzzing;

use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, body::Incoming};

use super::{
    answer::{Accepted, answer},
    body::{self, Format},
    draft::{draft, parse_topic},
    route::{Call, Route},
};
use crate::{
    event::Draft,
    http::{ItemProblem, Problem, Response, query_pairs},
    hub::PublishError,
    protocol::{ErrorCode, Topic},
    relay::{Relay, Shard},
    schema::{BatchError, JsonError},
};

/// Takes the events of a call in.
pub(super) async fn publish(
    shard: &Shard,
    route: &Route,
    request: Request<Incoming>,
) -> Result<Response, Problem> {
    let relay = &*shard.relay;
    let format = Format::of(request.headers())?;
    let more_topics = call_topics(request.uri().query())?;
    let ingest = &relay.config.ingest;
    let drafts = match route.call {
        Call::Event => {
            let body = body::read(request, ingest.body_max).await?;
            vec![single(relay, &body, format, &more_topics)?]
        }
        Call::Batch => {
            let body = body::read(request, ingest.batch_body_max).await?;
            batch(relay, &body, format, &more_topics)?
        }
    };
    let accepted: Vec<_> = drafts.iter().map(Accepted::of).collect();
    let appended = relay
        .publisher
        .append(&route.tenant, drafts)
        .await
        .map_err(|error| not_appended(error, ingest.inbox_timeout))?;
    // Before the wait for the shards: a backend that goes away meanwhile ends this
    // call, and not its events.
    relay.metrics.ingested(appended.len() as u64);
    // This shard's part of the receipt, at once: a backend that posts one event
    // behind the other then has many queued before the first is written.
    shard.hub.take_waiting();
    Ok(answer(
        route.call,
        &accepted,
        &appended.acknowledged().await,
    ))
}

/// The topics that the query names: `?topic=`, as often as one likes.
fn call_topics(query: Option<&str>) -> Result<Vec<Topic>, Problem> {
    let refuse = |reason: String| Problem::invalid(reason).with_field(Some("topic"));
    query_pairs(query)
        .map_err(|error| refuse(format!("the query {error}")))?
        .into_iter()
        .map(|(name, value)| match name.as_str() {
            "topic" => {
                parse_topic(&value).map_err(|reason| refuse(format!("topic {value:?} {reason}")))
            }
            _ => Err(refuse_parameter(&name)),
        })
        .collect()
}

/// A parameter that this call does not have is refused: were it passed over, its
/// sender would believe that it has its effect.
fn refuse_parameter(name: &str) -> Problem {
    Problem::invalid(format!("there is no query parameter {name:?} here")).with_field(Some(name))
}

fn single(
    relay: &Relay,
    body: &Bytes,
    format: Format,
    more_topics: &[Topic],
) -> Result<Draft, Problem> {
    match format {
        Format::Protobuf => draft(relay, body, more_topics),
        Format::Json => {
            let envelope = relay.schema.envelope_from_json(body).map_err(no_json)?;
            draft(relay, &envelope, more_topics)
        }
    }
}

fn batch(
    relay: &Relay,
    body: &Bytes,
    format: Format,
    more_topics: &[Topic],
) -> Result<Vec<Draft>, Problem> {
    let encoded;
    let batch: &[u8] = match format {
        Format::Protobuf => body,
        Format::Json => {
            encoded = relay.schema.batch_from_json(body).map_err(no_json_batch)?;
            &encoded
        }
    };
    let envelopes = relay
        .schema
        .batch_messages(batch, relay.config.ingest.batch_events_max)
        .map_err(no_batch)?;
    if envelopes.is_empty() {
        return Err(Problem::invalid("the batch is empty"));
    }
    let mut drafts = Vec::with_capacity(envelopes.len());
    let mut errors: Vec<ItemProblem> = Vec::new();
    for (index, envelope) in envelopes.into_iter().enumerate() {
        match draft(relay, envelope, more_topics) {
            Ok(draft) => drafts.push(draft),
            Err(problem) => errors.push(problem.of_item(index)),
        }
    }
    if errors.is_empty() {
        Ok(drafts)
    } else {
        Err(batch_refused(errors))
    }
}

/// A batch is taken whole or not at all.
fn batch_refused(errors: Vec<ItemProblem>) -> Problem {
    let detail = match errors.as_slice() {
        [only] => format!(
            "event {} of the batch is refused: {}",
            only.index, only.message
        ),
        several => format!("{} of the batch's events are refused", several.len()),
    };
    Problem::invalid(detail).with_errors(errors)
}

fn no_json(error: JsonError) -> Problem {
    Problem::invalid(error.to_string()).with_field(error.field())
}

/// The first event that cannot be read ends the reading, so it alone is told of.
fn no_json_batch(error: JsonError) -> Problem {
    match error.in_message() {
        Some((index, error)) => batch_refused(vec![no_json(error).of_item(index)]),
        None => no_json(error),
    }
}

fn no_batch(error: BatchError) -> Problem {
    let field = match &error {
        BatchError::Wire(error) => error.field().map(str::to_owned),
        BatchError::TooMany { .. } | BatchError::Unsupported => None,
    };
    Problem::invalid(error.to_string()).with_field(field.as_deref())
}

fn not_appended(error: PublishError, retry_after: Duration) -> Problem {
    Problem::unavailable(ErrorCode::RateLimitExceeded, error.to_string(), retry_after)
}

#[cfg(test)]
mod tests {
    use hyper::header::RETRY_AFTER;

    use super::*;
    use crate::hub::TenantsFull;

    #[test]
    fn want_of_room_is_a_503_that_says_when_to_come_again() {
        for error in [PublishError::NoRoom, PublishError::TenantsFull(TenantsFull)] {
            let response = not_appended(error, Duration::from_millis(2500)).into_response();
            assert_eq!(response.status(), 503);
            assert_eq!(response.headers()[RETRY_AFTER], "3");
        }
    }
}
