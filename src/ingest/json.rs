//! JSON of calls: converts JSON bodies to Protocol Buffers, and refuses events that cannot be
//! rendered as JSON or exceed the limit, so that JSON clients and binary clients always get
//! the same events.

use std::{mem, sync::Arc};

use bytes::Bytes;
use hyper::StatusCode;
use sidewire_protocol::{
    ErrorCode,
    schema::{BatchError, InspectedEnvelope, JsonError, Schema},
};

use super::{body::no_memory, refused::batch_refused, route::PostKind};
use crate::{
    event::EventDraft,
    http::HttpProblem,
    memory::{MemoryAccount, MemoryExceeded, MemoryUse, run_with_memory},
    relay::{LiveSettings, Relay},
    scheduler::{Cost, TenantWork},
};

/// Maximum weight of JSON that the shard reads itself: 500 values, which take at most 0.9 ms,
/// or 5 KB of ordinary events.
const JSON_READ_AT_ONCE_WEIGHT_MAX: usize = 32 * 1024;

/// Maximum size of an event that the shard checks itself, in bytes. The check takes at most
/// 0.9 ms. The worst case is empty lists in a google.protobuf.Value, which have 4 bytes and take
/// 0.9 µs each. Numbers in one have 11 bytes and take as long.
const CHECKED_AT_ONCE_MAX: usize = 4 * 1024;

/// Converts JSON to Protocol Buffers. JSON that takes long to read is read on another thread.
pub(super) async fn json_to_protobuf(
    relay: &Arc<Relay>,
    work: &TenantWork,
    json: Bytes,
    call: PostKind,
) -> Result<Bytes, HttpProblem> {
    let read: fn(&_, &_) -> _ = match call {
        PostKind::Event => envelope_from_json,
        PostKind::Batch => batch_from_json,
    };
    let weight = Schema::json_weight(&json, JSON_READ_AT_ONCE_WEIGHT_MAX);
    if weight <= JSON_READ_AT_ONCE_WEIGHT_MAX {
        work.wait_for_quantum().await;
        work.charge(Cost::JSON_BYTE.times(weight));
        return read(relay, &json).map(Bytes::from);
    }
    let mut needed = None;
    let job = move |relay: &Relay, memory: &Arc<MemoryAccount>| {
        let bytes = *needed.get_or_insert_with(|| match call {
            PostKind::Event => Schema::json_memory_max(&json),
            PostKind::Batch => {
                let bytes_max = relay.live().config.ingest.batch_body_max;
                Schema::json_batch_memory_max(&json, bytes_max)
            }
        });
        let _memory = memory.reserve(MemoryUse::Decoding, bytes)?;
        Ok(read(relay, &json))
    };
    let bytes = run_offloaded(relay, work, job).await??;
    Ok(Bytes::from(bytes))
}

/// Runs a long job on another thread, one job at a time for each tenant. The job reserves the
/// memory that it needs, and is retried if there is too little.
pub(super) async fn run_offloaded<T: Send + 'static>(
    relay: &Arc<Relay>,
    work: &TenantWork,
    mut job: impl FnMut(&Relay, &Arc<MemoryAccount>) -> Result<T, MemoryExceeded> + Send + 'static,
) -> Result<T, HttpProblem> {
    let working = Arc::clone(relay);
    let job = move |memory: &Arc<MemoryAccount>| job(&working, memory);
    let memory = relay.publisher.memory();
    let timeout = relay.live().config.ingest.inbox_timeout;
    let done = run_with_memory(memory, timeout, job, async |job| work.offload(job).await).await;
    done.ok_or_else(|| HttpProblem::shutting_down(relay.retry_after()))?
        .map_err(|MemoryExceeded| no_memory(relay))
}

pub(super) fn envelope_from_json(relay: &Relay, json: &[u8]) -> Result<Vec<u8>, HttpProblem> {
    relay
        .live()
        .schema
        .envelope_from_json(json)
        .map_err(json_problem)
}

pub(super) fn batch_from_json(relay: &Relay, json: &[u8]) -> Result<Vec<u8>, HttpProblem> {
    let live = relay.live();
    let ingest = &live.config.ingest;
    live.schema
        .check_json_batch_len(json, ingest.batch_events_max)
        .map_err(batch_problem)?;
    live.schema
        .batch_from_json(json, ingest.batch_body_max)
        .map_err(json_batch_problem)
}

/// Result of checking an event's JSON on the shard.
pub(super) enum JsonCheck {
    /// The event can be rendered as JSON, within the limit.
    Passed,
    /// The event might not be renderable, and is too large to be checked on the shard.
    InDoubt,
    /// The event cannot be rendered as JSON, or exceeds the limit.
    Refused(HttpProblem),
}

/// Checks an event's JSON if it might not be renderable and is small. Also returns the cost.
pub(super) fn check_small_json(
    live: &LiveSettings,
    draft: &EventDraft,
    inspected: &InspectedEnvelope<'_>,
) -> (JsonCheck, Cost) {
    if !inspected.json_is_in_doubt(live.config.limits.json_max) {
        return (JsonCheck::Passed, Cost::ZERO);
    }
    let bytes = draft.envelope_len();
    if bytes > CHECKED_AT_ONCE_MAX {
        return (JsonCheck::InDoubt, Cost::ZERO);
    }
    let checked = check_draft_json(live, draft);
    let cost = Cost::CHECKED_FIELD.times(inspected.fields)
        + Cost::STEP.times(inspected.packed_values)
        + Cost::BYTE.times(bytes);
    (
        checked.map_or_else(JsonCheck::Refused, |()| JsonCheck::Passed),
        cost,
    )
}

/// Checks an event's JSON, whatever the event's size.
pub(super) fn check_draft_json(live: &LiveSettings, draft: &EventDraft) -> Result<(), HttpProblem> {
    draft
        .check_json(live.config.limits.json_max)
        .map_err(json_problem)
}

/// An event that still needs a check of its JSON.
pub(super) struct UncheckedEvent {
    /// Its index in the call.
    pub(super) index: usize,
    /// Its index among the drafts, which leave out events refused so far.
    pub(super) draft: usize,
}

/// Checks large events on another thread. Returns all drafts, and the problems of those that are
/// refused, by index in the call.
pub(super) async fn check_large_json(
    relay: &Arc<Relay>,
    work: &TenantWork,
    drafts: Vec<EventDraft>,
    in_doubt: Vec<UncheckedEvent>,
) -> Result<(Vec<EventDraft>, Vec<(usize, HttpProblem)>), HttpProblem> {
    if in_doubt.is_empty() {
        return Ok((drafts, Vec::new()));
    }
    let mut drafts = drafts;
    run_offloaded(relay, work, move |relay, memory| {
        let checked = in_doubt.iter().filter_map(|it| drafts.get(it.draft));
        // They are checked one at a time, so the largest one decides.
        let bytes = checked.map(EventDraft::decoded_memory_max).max();
        let _memory = memory.reserve(MemoryUse::Decoding, bytes.unwrap_or_default())?;
        let live = relay.live();
        let refused = in_doubt.iter().filter_map(|it| {
            let problem = check_draft_json(&live, drafts.get(it.draft)?).err()?;
            Some((it.index, problem))
        });
        let refused = refused.collect();
        Ok((mem::take(&mut drafts), refused))
    })
    .await
}

pub(super) fn json_problem(error: JsonError) -> HttpProblem {
    let status = match error.is_too_large() {
        true => StatusCode::PAYLOAD_TOO_LARGE,
        false => StatusCode::BAD_REQUEST,
    };
    HttpProblem::new(status, ErrorCode::ValidationError, error.to_string())
        .with_field(error.field())
}

/// Returns the problem of a JSON batch. Reading stops at the first event that cannot be read, so
/// only that one is reported.
fn json_batch_problem(error: JsonError) -> HttpProblem {
    match error.in_message() {
        Some((index, error)) => {
            let problem = json_problem(error);
            batch_refused(
                problem.status(),
                problem.code(),
                vec![problem.into_item_problem(index)],
            )
        }
        None => json_problem(error),
    }
}

pub(super) fn batch_problem(error: BatchError) -> HttpProblem {
    let field = match &error {
        BatchError::Wire(error) => error.field().map(str::to_owned),
        BatchError::TooMany { .. } | BatchError::UnknownFields { .. } | BatchError::Unsupported => {
            None
        }
    };
    HttpProblem::bad_request(error.to_string()).with_field(field.as_deref())
}
