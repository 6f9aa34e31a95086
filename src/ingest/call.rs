//! What every call goes through, in this order: who calls, may they call for this
//! tenant, is there such a call, does the relay take any.

use hyper::{Method, Request, StatusCode, body::Incoming};

use super::{
    events,
    refused::too_many,
    route::{Path, Route},
};
use crate::{
    auth::{IngestKey, IngestKeys},
    http::{Problem, Response, bearer_token},
    limits::EventBudget,
    protocol::ErrorCode,
    relay::{Relay, Shard},
};

/// Carries a call out.
pub(super) async fn answer(shard: &Shard, request: Request<Incoming>) -> Result<Response, Problem> {
    let (route, budget) = admit(&shard.relay, &request)?;
    events::publish(shard, &route, &budget, request).await
}

fn admit(relay: &Relay, request: &Request<Incoming>) -> Result<(Route, EventBudget), Problem> {
    let live = relay.live();
    let key = authenticate(relay, &live.ingest_keys, request)?;
    let path = Path::parse(request.uri().path()).ok_or_else(Problem::no_such_path)?;
    let tenant = path.tenant()?;
    if key.is_some_and(|key| !key.allows(&tenant)) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            ErrorCode::AuthorizationFailed,
            "the key is not for this tenant",
        ));
    }
    let call = path.call.ok_or_else(Problem::no_such_path)?;
    if request.method() != Method::POST {
        return Err(Problem::method_not_allowed("POST"));
    }
    if relay.is_draining() {
        return Err(Problem::unavailable(
            ErrorCode::InternalError,
            "the relay is shutting down",
            relay.retry_after(),
        )
        .closing());
    }
    let key = key.map(IngestKey::name);
    // Before the body is read, of which the relay may have no need.
    let budget = relay
        .limits
        .call(&tenant, key)
        .map_err(|exceeded| too_many(relay, exceeded))?;
    tracing::debug!(key, %tenant, ?call, "a backend calls");
    Ok((Route { tenant, call }, budget))
}

/// The key that the caller shows; `None` where nobody has to show one.
fn authenticate<'a>(
    relay: &Relay,
    keys: &'a IngestKeys,
    request: &Request<Incoming>,
) -> Result<Option<&'a IngestKey>, Problem> {
    if keys.is_empty() {
        return Ok(None);
    }
    let refuse = |reason, detail: String| {
        relay.metrics.backend_not_authenticated(reason);
        Problem::unauthenticated(detail)
    };
    let presented = bearer_token(request.headers())
        .map_err(|error| refuse("malformed", error.to_string()))?
        .ok_or_else(|| {
            refuse(
                "missing",
                "an ingest key is needed: Authorization: Bearer <key>".to_owned(),
            )
        })?;
    keys.authenticate(presented.as_bytes())
        .map(Some)
        .ok_or_else(|| refuse("unknown_key", "the ingest key is not known".to_owned()))
}
