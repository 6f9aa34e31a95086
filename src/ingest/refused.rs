//! Problems returned for refused events: invalid batches, exceeded limits, lack of memory or
//! room, message ids already in use, and failed preconditions.

use hyper::StatusCode;
use serde_json::{Value, json};
use sidewire_protocol::ErrorCode;

use super::{answer::AcceptedEvent, route::PostKind};
use crate::{
    http::{HttpProblem, ItemProblem},
    hub::AppendError,
    limits::{Limit, LimitExceeded},
    log::UnmetCondition,
    relay::Relay,
    telemetry::ConflictReason,
};

/// 404: the call does not exist under a schema without batches.
pub(super) fn no_batches() -> HttpProblem {
    HttpProblem::new(
        StatusCode::NOT_FOUND,
        ErrorCode::NotFound,
        "the schema does not support batches: its envelope has no field 17",
    )
}

/// Returns the problem for a batch with malformed events.
pub(super) fn batch_invalid(errors: Vec<ItemProblem>) -> HttpProblem {
    batch_refused(StatusCode::BAD_REQUEST, ErrorCode::ValidationError, errors)
}

/// Returns the problem for a batch with refused events: a batch is accepted whole or not at all.
pub(super) fn batch_refused(
    status: StatusCode,
    code: ErrorCode,
    errors: Vec<ItemProblem>,
) -> HttpProblem {
    let detail = match errors.as_slice() {
        [only] => format!(
            "event {} of the batch is refused: {}",
            only.index, only.message
        ),
        several => format!("{} of the batch's events are refused", several.len()),
    };
    HttpProblem::new(status, code, detail).with_errors(errors)
}

/// Returns the problem for events that the hub has not appended, and counts exceeded limits and
/// conflicts.
pub(super) fn not_appended(
    relay: &Relay,
    call: PostKind,
    accepted: &[AcceptedEvent],
    error: AppendError,
) -> HttpProblem {
    if matches!(error, AppendError::TenantsFull(_)) {
        relay.metrics.limit_exceeded(Limit::Tenants);
    }
    match error {
        AppendError::NoRoom | AppendError::NoMemory | AppendError::TenantsFull(_) => {
            HttpProblem::unavailable(
                ErrorCode::RateLimitExceeded,
                error.to_string(),
                relay.live().config.ingest.inbox_timeout,
            )
        }
        AppendError::Conflicts(drafts) => {
            relay.metrics.ingest_conflict(ConflictReason::MessageId);
            let of_draft = |index: usize| Some((index, accepted.get(index)?));
            message_id_conflicts(call, drafts.into_iter().filter_map(of_draft))
        }
        AppendError::Unmet(unmet) => {
            relay.metrics.ingest_conflict(ConflictReason::Precondition);
            unmet_preconditions(&unmet)
        }
    }
}

/// Counts an exceeded limit and returns the problem for it.
pub(super) fn limit_problem(relay: &Relay, exceeded: LimitExceeded) -> HttpProblem {
    relay.metrics.limit_exceeded(exceeded.limit);
    HttpProblem::too_many_requests(exceeded.to_string(), exceeded.retry_after)
}

fn message_id_conflicts<'a>(
    call: PostKind,
    drafts: impl Iterator<Item = (usize, &'a AcceptedEvent)>,
) -> HttpProblem {
    let mut problems =
        drafts.map(|(index, accepted)| {
            let id = accepted.message_id();
            (index, conflict_problem(format!(
            "message_id {id:?} was already used for an event with another body or other topics"
        ))
        .with_field(Some("message_id")))
        });
    match call {
        PostKind::Event => problems.next().map_or_else(
            || conflict_problem("the message_id was already used".to_owned()),
            |(_, problem)| problem,
        ),
        PostKind::Batch => batch_refused(
            StatusCode::CONFLICT,
            ErrorCode::Conflict,
            problems
                .map(|(index, problem)| problem.into_item_problem(index))
                .collect(),
        ),
    }
}

fn unmet_preconditions(unmet: &[UnmetCondition]) -> HttpProblem {
    let topics: Vec<_> = unmet.iter().map(|unmet| unmet.topic.as_str()).collect();
    let detail = format!(
        "precondition failed for {}; see `current`",
        topics.join(", ")
    );
    conflict_problem(detail)
        .with_field(Some("if_last"))
        .with_member("current", unmet.iter().map(current_position).collect())
}

/// Describes the state of a topic for a failed precondition. Positions are as in proto3 JSON,
/// where 64-bit integers are strings.
fn current_position(unmet: &UnmetCondition) -> Value {
    json!({
        "topic": unmet.topic.as_str(),
        "epoch": unmet.epoch.map(|epoch| epoch.to_string()),
        "position": unmet.position.map(|position| json!({
            "epoch": position.epoch.to_string(),
            "offset": position.offset.to_string(),
        })),
    })
}

fn conflict_problem(detail: String) -> HttpProblem {
    HttpProblem::new(StatusCode::CONFLICT, ErrorCode::Conflict, detail)
}
