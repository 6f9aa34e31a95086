//! The administrative calls: `GET /v1/tenants/{tenant}` and
//! `DELETE …/users/{user}/connections`.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use sidewire_protocol::{ErrorCode, TenantName, UserName};

use super::answer::AnswerPosition;
use crate::{
    http::{HttpProblem, HttpResponse, json_response},
    hub::{ShardTimeout, TenantView},
    ops::SHARD_TIMEOUT,
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

/// Closes all connections of a user.
pub(super) async fn disconnect_user(
    relay: &Relay,
    tenant: &TenantName,
    user: &UserName,
) -> Result<HttpResponse, HttpProblem> {
    let admin = relay.publisher.admin();
    let closed = admin
        .disconnect_user(tenant, user, SHARD_TIMEOUT)
        .await
        .map_err(shard_silent)?;
    if closed > 0 {
        tracing::info!(%tenant, %user, closed, "backend disconnected a user");
    } else {
        tracing::debug!(%tenant, %user, "backend disconnected a user without connections");
    }
    Ok(json_response(StatusCode::OK, &DisconnectAnswer { closed }))
}

fn shard_silent(error: ShardTimeout) -> HttpProblem {
    log_repeated!(RepeatedLine::ShardSilent, %error);
    HttpProblem::unavailable(
        ErrorCode::InternalError,
        "a shard did not respond in time",
        RETRY_AFTER,
    )
}
