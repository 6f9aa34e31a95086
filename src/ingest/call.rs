//! Checks that every call passes, in this order: it does not come from a web page, the key is
//! valid, the key allows the tenant, the endpoint exists, the relay is not shutting down.

use std::cell::Cell;

use hyper::{
    Request, StatusCode,
    body::{Body as _, Incoming},
};

use super::{
    admin, events,
    gathered::SMALL_CALL_BYTES,
    parameters::refuse_parameters,
    refused::too_many,
    route::{Path, Route, Target},
};
use crate::{
    auth::{IngestKey, IngestKeys},
    http::{Problem, Response, Via, bearer_token, check_host, check_no_origin},
    limits::EventBudget,
    protocol::{ErrorCode, TenantName, UserName},
    relay::{Relay, Shard},
    scheduler::QUANTUM,
};

/// Advice to operators with backends that look like web pages.
const KEY_NEEDED: &str = "to accept such requests, configure [[ingest.keys]]";

/// A call that has passed all checks.
enum Admitted {
    Publish(Route, EventBudget),
    Look(TenantName),
    Disconnect(TenantName, UserName),
}

/// Handles a call. Sets `authenticated` once the caller is authenticated, which is before the
/// body is read.
pub(super) async fn answer(
    shard: &Shard,
    via: Via,
    authenticated: &Cell<bool>,
    request: Request<Incoming>,
) -> Result<Response, Problem> {
    let admitted = admit(&shard.relay, via, authenticated, &request);
    match admitted.map_err(|problem| unread(problem, request.body()))? {
        Admitted::Publish(route, budget) => events::publish(shard, &route, &budget, request).await,
        Admitted::Look(tenant) => {
            take_turn(shard, &tenant).await;
            admin::look(&shard.relay, &tenant)
        }
        Admitted::Disconnect(tenant, user) => {
            take_turn(shard, &tenant).await;
            admin::disconnect(&shard.relay, &tenant, &user).await
        }
    }
}

/// Prepares the answer to a call with an unread body. If the body is long, hyper closes the
/// connection after the answer, so the answer announces this and no further call is lost.
pub(super) fn unread(problem: Problem, body: &Incoming) -> Problem {
    match is_long(body) {
        true => problem.closing(),
        false => problem,
    }
}

/// Returns true if hyper closes the connection when the body is not read.
fn is_long(body: &Incoming) -> bool {
    let len_max = body.size_hint().upper().unwrap_or(u64::MAX);
    len_max > SMALL_CALL_BYTES as u64
}

/// Waits until the tenant is scheduled and charges a whole quantum: such calls are rare, and
/// their cost depends on the number of connections.
async fn take_turn(shard: &Shard, tenant: &TenantName) {
    let work = shard.hub.work().tenant(tenant);
    work.turn().await;
    work.charge(QUANTUM);
}

fn admit(
    relay: &Relay,
    via: Via,
    authenticated: &Cell<bool>,
    request: &Request<Incoming>,
) -> Result<Admitted, Problem> {
    let live = relay.live();
    if live.ingest_keys.is_empty() && via == Via::Tcp {
        check_host(request, &[], KEY_NEEDED)?;
        check_no_origin(request, KEY_NEEDED)?;
    }
    let key = authenticate(relay, &live.ingest_keys, request)?;
    authenticated.set(true);
    let path = Path::parse(request.uri().path()).ok_or_else(Problem::no_such_path)?;
    let tenant = path.tenant()?;
    if key.is_some_and(|key| !key.allows(&tenant)) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            ErrorCode::AuthorizationFailed,
            "the key does not allow this tenant",
        ));
    }
    let target = path.target.ok_or_else(Problem::no_such_path)?;
    let mut methods = target.methods().split(", ");
    if !methods.any(|method| request.method() == method) {
        return Err(Problem::method_not_allowed(target.methods()));
    }
    if !matches!(target, Target::Events(_)) && is_long(request.body()) {
        return Err(Problem::invalid("this call takes no body"));
    }
    if relay.is_draining() {
        return Err(Problem::shutting_down(relay.retry_after()).closing());
    }
    let key = key.map(IngestKey::name);
    tracing::debug!(key, %tenant, ?target, "backend call");
    Ok(match target {
        Target::Events(call) => {
            // Before the body is read: if the limit is exceeded, it need not be.
            let budget = relay
                .limits
                .call(&tenant, key)
                .map_err(|exceeded| too_many(relay, exceeded))?;
            Admitted::Publish(Route { tenant, call }, budget)
        }
        Target::Tenant => {
            refuse_parameters(request.uri().query())?;
            Admitted::Look(tenant)
        }
        Target::Connections(user) => {
            refuse_parameters(request.uri().query())?;
            Admitted::Disconnect(tenant, user.user()?)
        }
    })
}

/// Finds the key that the caller presents; `None` if no keys are configured.
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
                "an ingest key is required: Authorization: Bearer <key>".to_owned(),
            )
        })?;
    keys.authenticate(presented.as_bytes())
        .map(Some)
        .ok_or_else(|| refuse("unknown_key", "unknown ingest key".to_owned()))
}
