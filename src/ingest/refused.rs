//! Problems returned for refused events: invalid batches, exceeded limits, lack of memory or
//! room, message ids already in use, and failed preconditions.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::{answer::Accepted, route::Call};
use crate::{
    http::{ItemProblem, Problem},
    hub::PublishError,
    limits::{Exceeded, Limit},
    log::Unmet,
    ops::Conflict,
    protocol::ErrorCode,
    relay::Relay,
};

/// Returns the problem for a batch with malformed events.
pub(super) fn batch_invalid(errors: Vec<ItemProblem>) -> Problem {
    batch_refused(StatusCode::BAD_REQUEST, ErrorCode::ValidationError, errors)
}

/// Returns the problem for a batch with refused events: a batch is accepted whole or not at all.
pub(super) fn batch_refused(
    status: StatusCode,
    code: ErrorCode,
    errors: Vec<ItemProblem>,
) -> Problem {
    let detail = match errors.as_slice() {
        [only] => format!(
            "event {} of the batch is refused: {}",
            only.index, only.message
        ),
        several => format!("{} of the batch's events are refused", several.len()),
    };
    Problem::new(status, code, detail).with_errors(errors)
}

/// Returns the problem for events that the hub has not appended, and counts exceeded limits and
/// conflicts.
pub(super) fn not_appended(
    relay: &Relay,
    call: Call,
    accepted: &[Accepted],
    error: PublishError,
) -> Problem {
    if matches!(error, PublishError::TenantsFull(_)) {
        relay.metrics.exceeded(Limit::Tenants);
    }
    match error {
        PublishError::NoRoom | PublishError::NoMemory | PublishError::TenantsFull(_) => {
            Problem::unavailable(
                ErrorCode::RateLimitExceeded,
                error.to_string(),
                relay.live().config.ingest.inbox_timeout,
            )
        }
        PublishError::Conflicts(drafts) => {
            relay.metrics.conflict(Conflict::MessageId);
            let of_draft = |index: usize| Some((index, accepted.get(index)?));
            conflicts(call, drafts.into_iter().filter_map(of_draft))
        }
        PublishError::Unmet(unmet) => {
            relay.metrics.conflict(Conflict::Precondition);
            preconditions(&unmet)
        }
    }
}

/// Counts an exceeded limit and returns the problem for it.
pub(super) fn too_many(relay: &Relay, exceeded: Exceeded) -> Problem {
    relay.metrics.exceeded(exceeded.limit);
    Problem::too_many(exceeded.to_string(), exceeded.retry_after)
}

fn conflicts<'a>(call: Call, drafts: impl Iterator<Item = (usize, &'a Accepted)>) -> Problem {
    let mut problems =
        drafts.map(|(index, accepted)| {
            let id = accepted.message_id();
            (index, conflict(format!(
            "message_id {id:?} was already used for an event with another body or other topics"
        ))
        .with_field(Some("message_id")))
        });
    match call {
        Call::Event => problems.next().map_or_else(
            || conflict("the message_id was already used".to_owned()),
            |(_, problem)| problem,
        ),
        Call::Batch => batch_refused(
            StatusCode::CONFLICT,
            ErrorCode::Conflict,
            problems
                .map(|(index, problem)| problem.of_item(index))
                .collect(),
        ),
    }
}

fn preconditions(unmet: &[Unmet]) -> Problem {
    let topics: Vec<_> = unmet.iter().map(|unmet| unmet.topic.as_str()).collect();
    let detail = format!(
        "precondition failed for {}; see `current`",
        topics.join(", ")
    );
    conflict(detail)
        .with_field(Some("if_last"))
        .with_member("current", unmet.iter().map(current).collect())
}

/// Describes the state of a topic for a failed precondition. Positions are as in proto3 JSON,
/// where 64-bit integers are strings.
fn current(unmet: &Unmet) -> Value {
    json!({
        "topic": unmet.topic.as_str(),
        "epoch": unmet.epoch.map(|epoch| epoch.to_string()),
        "position": unmet.position.map(|position| json!({
            "epoch": position.epoch.to_string(),
            "offset": position.offset.to_string(),
        })),
    })
}

fn conflict(detail: String) -> Problem {
    Problem::new(StatusCode::CONFLICT, ErrorCode::Conflict, detail)
}
