//! Explains an event without publishing it: its topics, why it has them, and who would get it.
//! Also shows the schema with an example of each event.

use std::{iter, sync::Arc};

use hyper::{Request, StatusCode, body::Incoming};
use serde::Serialize;
use serde_json::Value;
use sidewire_protocol::{
    ErrorCode, TenantName, Topic,
    schema::{PayloadKind, Schema},
};

use super::{query::CallQuery, run_apart, shard_silent, tenants::TopicSummary};
use crate::{
    http::{HttpProblem, HttpResponse, json_response},
    hub::{EventAudience, SHARD_TIMEOUT},
    ingest::{
        BodyFormat, ConnectionSummary, DryRunRequest, RefusedEvent, RouteReport, dry_run,
        no_memory, read_body,
    },
    memory::MemoryUse,
    relay::Relay,
};

/// Connections of an audience that are listed.
const LISTED_MAX: usize = 50;

/// The report on an event that would be accepted, with its audience.
#[derive(Serialize)]
struct RouteAnswer<'a> {
    #[serde(flatten)]
    report: RouteReport,
    audience: AudienceSummary<'a>,
}

#[derive(Serialize)]
struct AudienceSummary<'a> {
    topics: Vec<TopicSummary>,
    /// The number of connections; `None` if there are too many to count.
    matched: Option<usize>,
    connections: Vec<ConnectionSummary<'a>>,
    listed_max: usize,
}

impl<'a> AudienceSummary<'a> {
    fn new(topics: &[Topic], audience: &'a EventAudience) -> Self {
        let counted = iter::zip(topics, &audience.subscriptions);
        Self {
            topics: counted
                .map(|(topic, subscriptions)| TopicSummary {
                    topic: topic.to_string(),
                    subscriptions: *subscriptions,
                })
                .collect(),
            matched: audience.matched,
            connections: audience.connections.iter().map(Into::into).collect(),
            listed_max: LISTED_MAX,
        }
    }
}

/// A payload that is an event, with an example.
#[derive(Serialize)]
struct EventType {
    name: String,
    json_name: String,
    message: String,
    client_publish: bool,
    presence: bool,
    example: Value,
    topics: Vec<String>,
    topic_in_call: Option<String>,
}

/// Reports on the event in the body, with the topics of `?topic=`, as `sidewire route` does, and
/// counts who would get it. Nothing is published.
pub(super) async fn route(
    relay: &Arc<Relay>,
    tenant: &TenantName,
    request: Request<Incoming>,
) -> Result<HttpResponse, HttpProblem> {
    let query = CallQuery::parse(request.uri().query(), &[], &["topic"])?;
    let in_call: Vec<_> = query.all("topic").map(str::to_owned).collect();
    let bytes_max = relay.live().config.ingest.body_max;
    require_json(&request)?;
    let (body, _memory) = read_body(request, bytes_max, relay).await?;
    let account = Arc::clone(relay.publisher.memory());
    let decoding = account.reserve(MemoryUse::Decoding, Schema::json_memory_max(&body));
    let decoding = decoding.map_err(|_| no_memory(relay))?;
    let routed = run_apart(relay, move |relay| {
        let live = relay.live();
        let posted = DryRunRequest {
            body: &body,
            is_json: true,
            topics: &in_call,
        };
        let taken = dry_run(
            &live.schema,
            &live.config.ingest,
            &live.config.limits,
            posted,
        )
        .map_err(RefusedEvent::from)?;
        let report =
            RouteReport::for_event(&live.schema, &taken, ("?topic=", posted.topics), None)?;
        Ok::<_, RefusedEvent>((report, Arc::<[Topic]>::from(taken.topics)))
    });
    let routed = routed.await?;
    drop(decoding);
    let (report, topics) = match routed {
        Ok(routed) => routed,
        Err(refused) => return Ok(json_response(StatusCode::OK, &refused)),
    };
    let admin = relay.publisher.admin();
    let audience = admin.count_audience(tenant, &topics, LISTED_MAX, SHARD_TIMEOUT);
    let audience = audience.await.map_err(shard_silent)?;
    let answer = RouteAnswer {
        report,
        audience: AudienceSummary::new(&topics, &audience),
    };
    Ok(json_response(StatusCode::OK, &answer))
}

/// Shows the events of the schema in force, each with an example.
pub(super) async fn show_schema(relay: &Arc<Relay>) -> Result<HttpResponse, HttpProblem> {
    let events = run_apart(relay, |relay| event_types(&relay.live().schema)).await?;
    Ok(json_response(StatusCode::OK, &events))
}

fn event_types(schema: &Schema) -> Vec<EventType> {
    let events = schema.events().map(|payload| {
        let sample = schema.sample_event(payload);
        let client_publish = payload.kind
            == PayloadKind::Event {
                client_publish: true,
            };
        EventType {
            name: payload.name.clone(),
            json_name: schema.json_name(payload),
            message: payload.message.clone(),
            client_publish,
            presence: payload.presence,
            example: sample.event,
            topics: sample.topics.iter().map(ToString::to_string).collect(),
            topic_in_call: sample.topic_in_call.map(|topic| topic.to_string()),
        }
    });
    events.collect()
}

/// Checks that the body of a request is JSON. A page of another site cannot send that without
/// asking first, and the relay allows nobody.
pub(super) fn require_json(request: &Request<Incoming>) -> Result<(), HttpProblem> {
    match BodyFormat::from_headers(request.headers())? {
        BodyFormat::Json => Ok(()),
        BodyFormat::Protobuf => Err(HttpProblem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ErrorCode::ValidationError,
            "the Content-Type must be application/json",
        )),
    }
}
