//! `POST …/events` and `POST …/events:batch`: from a body to events in the log,
//! and the answer that says where they are.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;

use super::{
    body::{self, Format},
    draft::{draft, parse_topic},
    route::{Call, Route},
};
use crate::{
    event::Draft,
    http::{ItemProblem, Problem, Response, query_pairs},
    hub::{PlacedEvent, PublishError, Published},
    protocol::{ErrorCode, MessageId, Topic},
    relay::Relay,
    schema::{BatchError, JsonError},
};

/// Takes the events of a call in.
pub(super) async fn publish(
    relay: &Relay,
    route: &Route,
    request: Request<Incoming>,
) -> Result<Response, Problem> {
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
    let published = relay
        .publisher
        .publish(&route.tenant, drafts)
        .await
        .map_err(|error| no_room(relay, error))?;
    relay.metrics.ingested(published.events.len() as u64);
    Ok(answer(route.call, accepted, &published))
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
            encoded = relay.schema.batch_from_json(body).map_err(no_json)?;
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
        return Ok(drafts);
    }
    let detail = format!("{} of the batch's events are refused", errors.len());
    Err(Problem::invalid(detail).with_errors(errors))
}

fn no_json(error: JsonError) -> Problem {
    Problem::invalid(error.to_string()).with_field(error.field())
}

fn no_batch(error: BatchError) -> Problem {
    let field = match &error {
        BatchError::Wire(error) => error.field().map(str::to_owned),
        BatchError::TooMany { .. } | BatchError::Unsupported => None,
    };
    Problem::invalid(error.to_string()).with_field(field.as_deref())
}

fn no_room(relay: &Relay, error: PublishError) -> Problem {
    Problem::unavailable(
        ErrorCode::RateLimitExceeded,
        error.to_string(),
        relay.config.ingest.inbox_timeout,
    )
}

/// What an answer repeats of an event.
struct Accepted {
    message_id: MessageId,
    topics: Vec<Topic>,
}

impl Accepted {
    fn of(draft: &Draft) -> Self {
        Self {
            message_id: draft.message_id().clone(),
            topics: draft.topics().to_vec(),
        }
    }
}

/// An event's part of an answer.
#[derive(Serialize)]
struct Answer<'a> {
    message_id: &'a str,
    position: AnswerPosition,
    topics: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<u64>,
    duplicate: bool,
}

/// As in proto3 JSON, where 64-bit integers are strings.
#[derive(Serialize)]
struct AnswerPosition {
    epoch: String,
    offset: String,
}

#[derive(Serialize)]
struct BatchAnswer<'a> {
    results: Vec<Answer<'a>>,
}

impl<'a> Answer<'a> {
    fn new(accepted: &'a Accepted, placed: &PlacedEvent) -> Self {
        Self {
            message_id: accepted.message_id.as_str(),
            position: AnswerPosition {
                epoch: placed.position.epoch.to_string(),
                offset: placed.position.offset.to_string(),
            },
            topics: accepted.topics.iter().map(Topic::as_str).collect(),
            matched: placed.matched,
            duplicate: false,
        }
    }
}

fn answer(call: Call, accepted: Vec<Accepted>, published: &Published) -> Response {
    let mut answers: Vec<_> = accepted
        .iter()
        .zip(&published.events)
        .map(|(accepted, placed)| Answer::new(accepted, placed))
        .collect();
    let body = match (call, answers.pop()) {
        (Call::Event, Some(only)) => serde_json::to_vec(&only),
        (_, last) => {
            answers.extend(last);
            serde_json::to_vec(&BatchAnswer { results: answers })
        }
    };
    // Strings and numbers: there is nothing in it that JSON could not hold.
    let mut response = Response::new(Full::new(Bytes::from(body.unwrap_or_default())));
    *response.status_mut() = if published.acknowledged {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
