//! `POST …/events` and `POST …/events:batch`: from a body to events in the log.

#[cfg(fuzzing)]
pub mod fuzzing;

use bytes::Bytes;
use hyper::{Request, body::Incoming};

use super::{
    answer::{Accepted, answer},
    body::{self, Format},
    draft::draft,
    parameters::Parameters,
    refused::{batch_invalid, not_appended, too_many},
    route::{Call, Route},
};
use crate::{
    event::Draft,
    http::{ItemProblem, Problem, Response},
    limits::EventBudget,
    protocol::Topic,
    relay::{Relay, Shard},
    schema::{BatchError, JsonError},
};

/// Takes the events of a call in.
pub(super) async fn publish(
    shard: &Shard,
    route: &Route,
    budget: &EventBudget,
    request: Request<Incoming>,
) -> Result<Response, Problem> {
    let relay = &*shard.relay;
    let format = Format::of(request.headers())?;
    // For longer than a moment: the body is waited for.
    let live = relay.live.load_full();
    let (ingest, limits) = (&live.config.ingest, &live.config.limits);
    let query = request.uri().query();
    let parameters = Parameters::parse(query, route.call, limits.topics_per_event)?;
    let drafts = match route.call {
        Call::Event => {
            let body = body::read(request, ingest.body_max).await?;
            vec![single(relay, &body, format, &parameters.topics)?]
        }
        Call::Batch => {
            let body = body::read(request, ingest.batch_body_max).await?;
            batch(relay, &body, format, &parameters.topics)?
        }
    };
    budget
        .charge_rest(drafts.len())
        .map_err(|exceeded| too_many(relay, exceeded))?;
    let accepted: Vec<_> = drafts.iter().map(Accepted::of).collect();
    let appended = relay
        .publisher
        .append_if(&route.tenant, drafts, &parameters.conditions)
        .await
        .map_err(|error| not_appended(relay, route.call, &accepted, error))?;
    // Before the wait for the shards: a backend that goes away meanwhile ends this
    // call, and not its events.
    relay
        .metrics
        .ingested(appended.new_len() as u64, appended.duplicates_len() as u64);
    // This shard's part of the receipt, at once: a backend that posts one event
    // behind the other then has many queued before the first is written.
    shard.hub.take_waiting_of(&route.tenant);
    Ok(answer(
        route.call,
        &accepted,
        &appended.acknowledged().await,
    ))
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
        .batch_messages(batch, relay.live().config.ingest.batch_events_max)
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
        Err(batch_invalid(errors))
    }
}

fn no_json(error: JsonError) -> Problem {
    Problem::invalid(error.to_string()).with_field(error.field())
}

/// The first event that cannot be read ends the reading, so it alone is told of.
fn no_json_batch(error: JsonError) -> Problem {
    match error.in_message() {
        Some((index, error)) => batch_invalid(vec![no_json(error).of_item(index)]),
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
