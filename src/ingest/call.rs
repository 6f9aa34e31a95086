//! Checks that every call passes, in this order: it does not come from a web page, the key is
//! valid, the key allows the tenant, the endpoint exists, the relay is not shutting down.

use std::cell::Cell;

use hyper::{
    Request, StatusCode,
    body::{Body as _, Incoming},
};
use sidewire_protocol::{ErrorCode, TenantName, UserName};

use super::{
    admin, connections, events,
    gathered::SMALL_CALL_BYTES,
    parameters::{
        ConnectionsParameters, PresenceParameters, parse_reconnect, parse_revoked_topics,
        refuse_parameters,
    },
    presence,
    refused::limit_problem,
    route::{PathTarget, PostRoute, TenantPath},
};
use crate::{
    auth::{IngestKey, IngestKeys},
    http::{
        HttpProblem, HttpResponse, ListenerKind, RequestId, bearer_token, check_host,
        check_no_origin,
    },
    hub::RevokedTopics,
    limits::EventBudget,
    relay::{Relay, ShardContext},
    scheduler::QUANTUM,
    telemetry::IngestKeyRefusal,
};

/// Advice to operators with backends that look like web pages.
const KEY_NEEDED: &str = "to accept such requests, configure [[ingest.keys]]";

/// A call that has passed all checks.
enum AdmittedCall {
    Publish(PostRoute, EventBudget),
    Look(TenantName),
    ListConnections(TenantName, ConnectionsParameters),
    Disconnect {
        tenant: TenantName,
        user: UserName,
        reconnect: bool,
    },
    EndSubscriptions(TenantName, UserName, RevokedTopics),
    ListPresence(TenantName, PresenceParameters),
}

/// Handles a call. Sets `authenticated` once the caller is authenticated, which is before the
/// body is read.
pub(super) async fn handle_call(
    shard: &ShardContext,
    via: ListenerKind,
    authenticated: &Cell<bool>,
    id: &RequestId,
    request: Request<Incoming>,
) -> Result<HttpResponse, HttpProblem> {
    let admitted = admit_call(&shard.relay, via, authenticated, id, &request);
    match admitted.map_err(|problem| with_unread_body(problem, request.body()))? {
        AdmittedCall::Publish(route, budget) => {
            events::publish_events(shard, &route, &budget, request).await
        }
        AdmittedCall::Look(tenant) => {
            spend_quantum(shard, &tenant).await;
            admin::show_tenant(&shard.relay, &tenant)
        }
        AdmittedCall::ListConnections(tenant, parameters) => {
            connections::list_connections(shard, &tenant, parameters, id).await
        }
        AdmittedCall::Disconnect {
            tenant,
            user,
            reconnect,
        } => {
            spend_quantum(shard, &tenant).await;
            admin::disconnect_user(&shard.relay, &tenant, &user, reconnect, id).await
        }
        AdmittedCall::EndSubscriptions(tenant, user, topics) => {
            spend_quantum(shard, &tenant).await;
            admin::end_subscriptions(&shard.relay, &tenant, &user, topics, id).await
        }
        AdmittedCall::ListPresence(tenant, parameters) => {
            presence::list_presence(shard, &tenant, parameters).await
        }
    }
}

/// Prepares the answer to a call with an unread body. If the body is long, hyper closes the
/// connection after the answer, so the answer announces this and no further call is lost.
pub(super) fn with_unread_body(problem: HttpProblem, body: &Incoming) -> HttpProblem {
    match has_long_body(body) {
        true => problem.with_connection_close(),
        false => problem,
    }
}

/// Returns true if hyper closes the connection when the body is not read.
fn has_long_body(body: &Incoming) -> bool {
    let len_max = body.size_hint().upper().unwrap_or(u64::MAX);
    len_max > SMALL_CALL_BYTES as u64
}

/// Waits until the tenant is scheduled and charges a whole quantum: such calls are rare, and
/// their cost depends on the number of connections.
async fn spend_quantum(shard: &ShardContext, tenant: &TenantName) {
    let work = shard.hub.work_queue().tenant_work(tenant);
    work.wait_for_quantum().await;
    work.charge(QUANTUM);
}

fn admit_call(
    relay: &Relay,
    via: ListenerKind,
    authenticated: &Cell<bool>,
    id: &RequestId,
    request: &Request<Incoming>,
) -> Result<AdmittedCall, HttpProblem> {
    let live = relay.live();
    if live.ingest_keys.is_empty() && via == ListenerKind::Tcp {
        check_host(request, &[], KEY_NEEDED)?;
        check_no_origin(request, KEY_NEEDED)?;
    }
    let key = authenticate(relay, &live.ingest_keys, request)?;
    authenticated.set(true);
    let path = TenantPath::parse(request.uri().path()).ok_or_else(HttpProblem::no_such_path)?;
    let tenant = path.parse_tenant()?;
    if key.is_some_and(|key| !key.allows(&tenant)) {
        return Err(HttpProblem::new(
            StatusCode::FORBIDDEN,
            ErrorCode::AuthorizationFailed,
            "the key does not allow this tenant",
        ));
    }
    let target = path.target.ok_or_else(HttpProblem::no_such_path)?;
    let mut methods = target.allowed_methods().split(", ");
    if !methods.any(|method| request.method() == method) {
        return Err(HttpProblem::method_not_allowed(target.allowed_methods()));
    }
    if !matches!(target, PathTarget::Events(_)) && has_long_body(request.body()) {
        return Err(HttpProblem::bad_request("this call takes no body"));
    }
    if relay.is_draining() {
        return Err(HttpProblem::shutting_down(relay.retry_after()).with_connection_close());
    }
    let key = key.map(IngestKey::name);
    let endpoint = target.endpoint().path;
    tracing::debug!(request_id = %id, key, %tenant, endpoint, "backend call");
    Ok(match target {
        PathTarget::Events(call) => {
            // Before the body is read: if the limit is exceeded, it need not be.
            let budget = relay
                .limits
                .charge_call(&tenant, key)
                .map_err(|exceeded| limit_problem(relay, exceeded))?;
            AdmittedCall::Publish(PostRoute { tenant, call }, budget)
        }
        PathTarget::Tenant => {
            refuse_parameters(request.uri().query())?;
            AdmittedCall::Look(tenant)
        }
        PathTarget::Connections => {
            let parameters = ConnectionsParameters::parse(request.uri().query())?;
            AdmittedCall::ListConnections(tenant, parameters)
        }
        PathTarget::UserConnections(user) => {
            let reconnect = parse_reconnect(request.uri().query())?;
            AdmittedCall::Disconnect {
                tenant,
                user: user.parse_user()?,
                reconnect,
            }
        }
        PathTarget::UserSubscriptions(user) => {
            let topics = parse_revoked_topics(request.uri().query())?;
            AdmittedCall::EndSubscriptions(tenant, user.parse_user()?, topics)
        }
        PathTarget::Presence => {
            let parameters = PresenceParameters::parse(request.uri().query())?;
            AdmittedCall::ListPresence(tenant, parameters)
        }
    })
}

/// Finds the key that the caller presents; `None` if no keys are configured.
fn authenticate<'a>(
    relay: &Relay,
    keys: &'a IngestKeys,
    request: &Request<Incoming>,
) -> Result<Option<&'a IngestKey>, HttpProblem> {
    if keys.is_empty() {
        return Ok(None);
    }
    let refuse = |reason, detail: String| {
        relay.metrics.backend_not_authenticated(reason);
        HttpProblem::unauthenticated(detail)
    };
    let presented = bearer_token(request.headers())
        .map_err(|error| refuse(IngestKeyRefusal::Malformed, error.to_string()))?
        .ok_or_else(|| {
            refuse(
                IngestKeyRefusal::Missing,
                "an ingest key is required: Authorization: Bearer <key>".to_owned(),
            )
        })?;
    keys.authenticate(presented.as_bytes())
        .map(Some)
        .ok_or_else(|| {
            refuse(
                IngestKeyRefusal::UnknownKey,
                "unknown ingest key".to_owned(),
            )
        })
}
