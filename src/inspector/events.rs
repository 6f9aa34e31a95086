//! The events of a tenant as they pass. Reads the log: the path of an event stays as it is, and
//! what is not in the log, events of clients and presence, is not shown. A call returns the newest
//! events and the number of those that it leaves out.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use sidewire_protocol::{ErrorCode, Position, TenantName, Topic};

use super::{
    not_answered,
    query::{CallQuery, invalid},
    run_apart,
};
use crate::{
    event::{Event, JsonFrame},
    http::{HttpProblem, HttpResponse, json_text_response},
    hub::{EventSearch, NewestEvents},
    ingest::AnswerPosition,
    relay::Relay,
};

/// Most events of an answer: more than a person can read until the next.
pub(super) const EVENTS_MAX: usize = 50;

/// Most events that are looked at for an answer about one topic.
const LOOKED_AT_MAX: usize = 2_000;

/// Most bytes of an event whose JSON is part of a list. That of a larger one is fetched when a
/// person opens it.
const LISTED_EVENT_BYTES_MAX: usize = 16 * 1024;

/// Bytes of JSON after which a list has no further events.
const LIST_BYTES: usize = 256 * 1024;

/// An event of a list, without its JSON.
#[derive(Serialize)]
struct EventSummary<'a> {
    position: AnswerPosition,
    payload: Option<&'a str>,
    topics: Vec<&'a str>,
    /// Milliseconds since the Unix epoch.
    at_ms: u64,
    bytes: usize,
    /// True if the event is so large that its JSON must be asked for.
    large: bool,
}

#[derive(Serialize)]
struct ListHead {
    head: Option<AnswerPosition>,
    skipped: u64,
}

/// Lists the newest events of the tenant, or of `?topic=`, after the position `?after=`.
pub(super) async fn list_newest(
    relay: &Arc<Relay>,
    tenant: TenantName,
    query: Option<&str>,
) -> Result<HttpResponse, HttpProblem> {
    let query = CallQuery::parse(query, &["topic", "after"], &[])?;
    let topic = query.text("topic").map(|text| {
        Topic::parse(text).map_err(|error| invalid("topic", &format!("{text:?} {error}")))
    });
    let search = EventSearch {
        topic: topic.transpose()?,
        after: query.value("after", "<epoch>:<offset>")?,
        count: EVENTS_MAX,
        looked_at_max: LOOKED_AT_MAX,
    };
    let document = run_apart(relay, move |relay| {
        let admin = relay.publisher.admin();
        let found = admin.find_newest_events(&tenant, &search);
        found.map(|found| list_document(relay, found))
    });
    let document = document.await?.unwrap_or_else(|| {
        let nothing = ListHead {
            head: None,
            skipped: 0,
        };
        document_of(&nothing, &[])
    });
    Ok(json_text_response(StatusCode::OK, document))
}

/// Shows one event whole.
pub(super) async fn show(
    relay: &Arc<Relay>,
    tenant: TenantName,
    position: Position,
) -> Result<HttpResponse, HttpProblem> {
    let json = run_apart(relay, move |relay| {
        let event = relay.publisher.admin().find_event(&tenant, position)?;
        Some(JsonFrame::render_event(&event).map(|json| json.text().to_vec()))
    });
    match json.await? {
        Some(Ok(json)) => Ok(json_text_response(StatusCode::OK, json)),
        Some(Err(error)) => Err(not_answered(&error.to_string())),
        None => Err(HttpProblem::new(
            StatusCode::NOT_FOUND,
            ErrorCode::NotFound,
            "the log has no event at this position",
        )),
    }
}

/// Makes the document with as many of the newest events as fit.
fn list_document(relay: &Relay, found: NewestEvents) -> Vec<u8> {
    let mut parts = Vec::new();
    let mut bytes = 0;
    let now_ms = relay.clock.since_unix_epoch().as_millis();
    for event in found.events.iter().rev() {
        if bytes >= LIST_BYTES {
            break;
        }
        let part = event_document(event, now_ms);
        bytes += part.len();
        parts.push(part);
    }
    parts.reverse();
    let left_out = found.events.len() - parts.len();
    let head = ListHead {
        head: Some(found.head.into()),
        skipped: found.skipped.saturating_add(left_out as u64),
    };
    document_of(&head, &parts)
}

fn document_of(head: &ListHead, events: &[Vec<u8>]) -> Vec<u8> {
    let members = [(
        &b"events"[..],
        [&b"["[..], &events.join(&b','), b"]"].concat(),
    )];
    with_members(head, &members)
}

fn event_document(event: &Event, now_ms: u128) -> Vec<u8> {
    let inspected = event.schema().inspect(event.envelope_without_position());
    let payload = inspected.ok().and_then(|inspected| inspected.payload);
    let bytes = event.frame().len();
    let is_large = bytes > LISTED_EVENT_BYTES_MAX;
    let at_ms = now_ms.saturating_sub(event.placed_at().elapsed().as_millis());
    let summary = EventSummary {
        position: event.position().into(),
        payload: payload.map(|payload| payload.name),
        topics: event.topics().iter().map(Topic::as_str).collect(),
        at_ms: u64::try_from(at_ms).unwrap_or(u64::MAX),
        bytes,
        large: is_large,
    };
    let json = (!is_large).then(|| JsonFrame::render_event(event));
    let json = json.and_then(Result::ok);
    let json = json.map_or_else(|| b"null".to_vec(), |json| json.text().to_vec());
    with_members(&summary, &[(b"event", json)])
}

/// Returns the JSON of an object with further members, whose values are JSON already.
fn with_members(object: &impl Serialize, members: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    // Cannot fail: all values can be represented in JSON.
    let mut text = serde_json::to_vec(object).unwrap_or_default();
    text.pop();
    for (name, value) in members {
        text.extend_from_slice(&[b",\"", *name, b"\":", value].concat());
    }
    text.push(b'}');
    text
}
