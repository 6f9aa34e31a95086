//! The administrative calls: `GET /v1/tenants/{tenant}` and
//! `DELETE …/users/{user}/connections`.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use super::answer::AnswerPosition;
use crate::{
    http::{Problem, Response, json},
    hub::{ShardSilent, TenantView},
    ops::SHARD_TIMEOUT,
    protocol::{ErrorCode, TenantName, UserName},
    relay::Relay,
    repeated::{RepeatedLine, log_repeated},
};

/// `Retry-After` of a call that failed because a shard did not respond.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Tenant<'a> {
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
struct Disconnected {
    closed: u64,
}

/// Returns the connections, users, topics and log bounds of a tenant.
pub(super) fn look(relay: &Relay, name: &TenantName) -> Result<Response, Problem> {
    let TenantView {
        connections,
        users,
        topics,
        head,
        tail,
    } = relay.publisher.admin().look(name).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            ErrorCode::NotFound,
            "the tenant has neither a connection nor an event",
        )
    })?;
    Ok(json(
        StatusCode::OK,
        &Tenant {
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
pub(super) async fn disconnect(
    relay: &Relay,
    tenant: &TenantName,
    user: &UserName,
) -> Result<Response, Problem> {
    let admin = relay.publisher.admin();
    let closed = admin
        .disconnect(tenant, user, SHARD_TIMEOUT)
        .await
        .map_err(silent)?;
    if closed > 0 {
        tracing::info!(%tenant, %user, closed, "backend disconnected a user");
    } else {
        tracing::debug!(%tenant, %user, "backend disconnected a user without connections");
    }
    Ok(json(StatusCode::OK, &Disconnected { closed }))
}

fn silent(error: ShardSilent) -> Problem {
    log_repeated!(RepeatedLine::ShardSilent, %error);
    Problem::unavailable(
        ErrorCode::InternalError,
        "a shard did not respond in time",
        RETRY_AFTER,
    )
}
