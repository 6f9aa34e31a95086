//! `POST …/events` and `POST …/events:batch`: from a body to events in the log.

#[cfg(fuzzing)]
pub mod fuzzing;

use std::{iter::Enumerate, panic::resume_unwind, sync::Arc, vec};

use bytes::Bytes;
use hyper::{Request, body::Incoming};
use tokio::task::{spawn_blocking, yield_now};

use super::{
    answer::{Accepted, answer},
    body::{self, Format},
    draft::draft,
    parameters::Parameters,
    refused::{batch_invalid, not_appended, too_many},
    route::{Call, Route},
    turns::Turn,
};
use crate::{
    event::Draft,
    http::{ItemProblem, Problem, Response},
    limits::EventBudget,
    protocol::Topic,
    relay::{Relay, Shard},
    schema::{BatchError, JsonError},
};

/// How much of a batch is read before others have their turn, in topics of events, which
/// take 0.24 µs each. A turn more takes as long as a dozen small envelopes: with 32 of
/// them a turn, batches of 100 took 2.4 µs an event, and 1.8 µs whole.
const TOPICS_A_TURN: usize = 1024;

/// What an envelope takes beside its topics and bytes, in topics.
const ENVELOPE_WORK: usize = 6;

/// What a call takes for one event, likewise: 8 µs.
const EVENT_WORK: usize = 32;

/// So many bytes of an envelope take as long as a topic.
const BYTES_A_TOPIC: usize = 256;

/// The most bytes of JSON that the shard reads itself.
const JSON_READ_AT_ONCE_MAX: usize = 16 * 1024;

/// Takes the events of a call in.
pub(super) async fn publish(
    shard: &Shard,
    route: &Route,
    budget: &EventBudget,
    request: Request<Incoming>,
) -> Result<Response, Problem> {
    let relay = &shard.relay;
    let format = Format::of(request.headers())?;
    // For longer than a moment: the body is waited for.
    let live = relay.live.load_full();
    let (ingest, limits) = (&live.config.ingest, &live.config.limits);
    let query = request.uri().query();
    let parameters = Parameters::parse(query, route.call, limits.topics_per_event)?;
    let turn = shard.turns.of(&shard.hub, &route.tenant);
    let drafts = match route.call {
        Call::Event => {
            let body = body::read(request, ingest.body_max).await?;
            turn.comes().await;
            turn.did(EVENT_WORK + body.len() / BYTES_A_TOPIC);
            let envelope = match format {
                Format::Protobuf => body,
                Format::Json => encoded(relay, &turn, body, envelope_from_json).await?,
            };
            vec![draft(relay, &envelope, &parameters.topics)?]
        }
        Call::Batch => {
            let body = body::read(request, ingest.batch_body_max).await?;
            turn.comes().await;
            let batch = match format {
                Format::Protobuf => body,
                Format::Json => encoded(relay, &turn, body, batch_from_json).await?,
            };
            let mut drafts = Drafts::new(relay, &batch, ingest.batch_events_max)?;
            loop {
                let work = drafts.read_some(relay, &parameters.topics);
                // As much comes behind it: the append, and what that evicts.
                turn.did(2 * work);
                if drafts.is_read() {
                    break;
                }
                yield_now().await;
                turn.comes().await;
            }
            drafts.finish()?
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
    let published = appended.acknowledged().await;
    Ok(answer(route.call, accepted, published).await)
}

/// The bytes that the JSON says. What takes long to read is read on another thread, of
/// each tenant one at a time.
async fn encoded(
    relay: &Arc<Relay>,
    turn: &Turn<'_>,
    json: Bytes,
    read: fn(&Relay, &[u8]) -> Result<Vec<u8>, Problem>,
) -> Result<Bytes, Problem> {
    if json.len() <= JSON_READ_AT_ONCE_MAX {
        return read(relay, &json).map(Bytes::from);
    }
    let _elsewhere = turn.elsewhere().await;
    let reading = Arc::clone(relay);
    match spawn_blocking(move || read(&reading, &json)).await {
        Ok(read) => read.map(Bytes::from),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(Problem::shutting_down(relay.retry_after())),
        },
    }
}

fn envelope_from_json(relay: &Relay, json: &[u8]) -> Result<Vec<u8>, Problem> {
    relay.schema.envelope_from_json(json).map_err(no_json)
}

fn batch_from_json(relay: &Relay, json: &[u8]) -> Result<Vec<u8>, Problem> {
    relay.schema.batch_from_json(json).map_err(no_json_batch)
}

/// What becomes of the envelopes of a batch.
struct Drafts<'a> {
    envelopes: Enumerate<vec::IntoIter<&'a [u8]>>,
    drafts: Vec<Draft>,
    errors: Vec<ItemProblem>,
}

impl<'a> Drafts<'a> {
    fn new(relay: &Relay, batch: &'a [u8], events_max: usize) -> Result<Self, Problem> {
        let envelopes = relay
            .schema
            .batch_messages(batch, events_max)
            .map_err(no_batch)?;
        if envelopes.is_empty() {
            return Err(Problem::invalid("the batch is empty"));
        }
        Ok(Self {
            drafts: Vec::with_capacity(envelopes.len()),
            errors: Vec::new(),
            envelopes: envelopes.into_iter().enumerate(),
        })
    }

    /// Reads as many as one may before others have their turn, and says what work that
    /// was, in topics.
    fn read_some(&mut self, relay: &Relay, more_topics: &[Topic]) -> usize {
        let mut work = 0;
        for (index, envelope) in self.envelopes.by_ref() {
            work += ENVELOPE_WORK + envelope.len() / BYTES_A_TOPIC;
            match draft(relay, envelope, more_topics) {
                Ok(draft) => {
                    work += draft.topics().len();
                    self.drafts.push(draft);
                }
                Err(problem) => self.errors.push(problem.of_item(index)),
            }
            if work >= TOPICS_A_TURN {
                break;
            }
        }
        work
    }

    /// Whether none is left.
    fn is_read(&self) -> bool {
        self.envelopes.len() == 0
    }

    /// All of them, or what is wrong with which.
    fn finish(self) -> Result<Vec<Draft>, Problem> {
        if self.errors.is_empty() {
            Ok(self.drafts)
        } else {
            Err(batch_invalid(self.errors))
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::testing::{Bench, simulate};

    #[test]
    fn a_batch_is_read_in_parts_so_that_others_have_their_turn() {
        simulate(async {
            let bench = Bench::new();
            let relay = &bench.shard.relay;
            let typing = r#"{"userTyping": {"projectId": "p1"}}"#;
            let json = format!(r#"{{"messages": [{}]}}"#, [typing; 300].join(","));
            let batch = batch_from_json(relay, json.as_bytes()).unwrap();
            let mut drafts = Drafts::new(relay, &batch, 300).unwrap();
            let mut read = Vec::new();
            while !drafts.is_read() {
                let work = drafts.read_some(relay, &[]);
                read.push((drafts.drafts.len(), work));
            }
            // Of 6 and 1.
            assert_eq!(read, [(147, 1029), (294, 1029), (300, 42)]);
            assert_eq!(drafts.finish().unwrap().len(), 300);

            let topics: Vec<_> = (0..91).map(|n| format!("board:{n}")).collect();
            let topics: Vec<_> = topics.iter().map(|t| Topic::parse(t).unwrap()).collect();
            let mut drafts = Drafts::new(relay, &batch, 300).unwrap();
            // Of 6 and 92.
            assert_eq!(drafts.read_some(relay, &topics), 11 * 98);
            assert_eq!(drafts.drafts.len(), 11);

            let long = "x".repeat(160_000);
            let item = format!(r#"{{"id": "i", "projectId": "p1", "description": "{long}"}}"#);
            let created = format!(r#"{{"workItemCreated": {{"workItem": {item}}}}}"#);
            let json = format!(r#"{{"messages": [{created}, {created}, {created}]}}"#);
            let batch = batch_from_json(relay, json.as_bytes()).unwrap();
            let mut drafts = Drafts::new(relay, &batch, 300).unwrap();
            // Of 625 and some.
            assert!((1250..1300).contains(&drafts.read_some(relay, &[])));
            assert_eq!(drafts.drafts.len(), 2);
        });
    }
}
