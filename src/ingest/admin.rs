//! The administrative calls: `GET /v1/tenants/{tenant}`, `DELETE …/users/{user}/connections` and
//! `DELETE …/users/{user}/subscriptions`.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use sidewire_protocol::{ErrorCode, TenantName, UserName};

use super::answer::AnswerPosition;
use crate::{
    http::{HttpProblem, HttpResponse, RequestId, json_response},
    hub::{RevokedTopics, SHARD_TIMEOUT, ShardTimeout, TenantView},
    limits::UserKey,
    relay::Relay,
    repeated::{RepeatedLine, log_repeated},
};

/// `Retry-After` of a call that failed because a shard did not respond.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct TenantSummary<'a> {
    tenant: &'a str,
    connections: u64,
    users: usize,
    topics: usize,
    log: TenantLog,
}

#[derive(Serialize)]
struct TenantLog {
    head: AnswerPosition,
    tail: AnswerPosition,
}

#[derive(Serialize)]
struct DisconnectAnswer {
    closed: u64,
}

#[derive(Serialize)]
struct RevocationAnswer {
    revoked: u64,
}

/// Returns the connections, users, topics and log bounds of a tenant.
pub(super) fn show_tenant(relay: &Relay, name: &TenantName) -> Result<HttpResponse, HttpProblem> {
    let TenantView {
        connections,
        users,
        topics,
        head,
        tail,
    } = relay.publisher.admin().view_tenant(name).ok_or_else(|| {
        HttpProblem::new(
            StatusCode::NOT_FOUND,
            ErrorCode::NotFound,
            "the tenant has neither a connection nor an event",
        )
    })?;
    Ok(json_response(
        StatusCode::OK,
        &TenantSummary {
            tenant: name.as_str(),
            connections,
            users,
            topics,
            log: TenantLog {
                head: head.into(),
                tail: tail.into(),
            },
        },
    ))
}

/// Closes all connections of a user. `reconnect`: true if the clients are to come back with new
/// tokens.
pub(super) async fn disconnect_user(
    relay: &Relay,
    tenant: &TenantName,
    user: &UserName,
    reconnect: bool,
    id: &RequestId,
) -> Result<HttpResponse, HttpProblem> {
    let admin = relay.publisher.admin();
    let closed = admin
        .disconnect_user(tenant, user, reconnect, SHARD_TIMEOUT)
        .await
        .map_err(|error| shard_silent(error, id))?;
    if closed > 0 {
        tracing::info!(request_id = %id, %tenant, %user, closed, reconnect, "backend disconnected a user");
    } else {
        tracing::debug!(request_id = %id, %tenant, %user, "backend disconnected a user without connections");
    }
    Ok(json_response(StatusCode::OK, &DisconnectAnswer { closed }))
}

/// Ends subscriptions on all connections of a user.
pub(super) async fn end_subscriptions(
    relay: &Relay,
    tenant: &TenantName,
    user: &UserName,
    topics: RevokedTopics,
    id: &RequestId,
) -> Result<HttpResponse, HttpProblem> {
    let who = UserKey {
        tenant: tenant.clone(),
        user: user.clone(),
    };
    // First, so that nothing of it is allowed any more when the shards end the subscriptions.
    relay.authorizer.forget(&who, topics.topics());
    let admin = relay.publisher.admin();
    let revoked = admin
        .end_subscriptions(tenant, user, topics, SHARD_TIMEOUT)
        .await
        .map_err(|error| shard_silent(error, id))?;
    if revoked > 0 {
        tracing::info!(request_id = %id, %tenant, %user, revoked, "backend ended subscriptions of a user");
    } else {
        tracing::debug!(request_id = %id, %tenant, %user, "backend ended subscriptions that a user does not have");
    }
    Ok(json_response(StatusCode::OK, &RevocationAnswer { revoked }))
}

pub(super) fn shard_silent(error: ShardTimeout, id: &RequestId) -> HttpProblem {
    log_repeated!(RepeatedLine::ShardSilent, request_id = %id, %error);
    HttpProblem::unavailable(
        ErrorCode::InternalError,
        "a shard did not respond in time",
        RETRY_AFTER,
    )
}
