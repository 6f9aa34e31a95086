//! Lists tenants, and the connections and topics of one.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use sidewire_protocol::{ErrorCode, TenantName};

use super::{query::CallQuery, run_apart, shard_silent};
use crate::{
    http::{HttpProblem, HttpResponse, json_response},
    hub::{SHARD_TIMEOUT, TenantView},
    ingest::{AnswerPosition, ConnectionSummary, ConnectionsParameters},
    relay::Relay,
};

/// Tenants and topics that are listed at once.
const LISTED_MAX: usize = 100;

#[derive(Serialize)]
struct TenantsAnswer {
    tenants: Vec<TenantSummary>,
    found: usize,
    all: usize,
    listed_max: usize,
}

#[derive(Serialize)]
struct TenantSummary {
    tenant: String,
    connections: u64,
    users: usize,
    topics: usize,
    head: AnswerPosition,
    tail: AnswerPosition,
}

impl TenantSummary {
    fn new(name: &TenantName, view: TenantView) -> Self {
        Self {
            tenant: name.to_string(),
            connections: view.connections,
            users: view.users,
            topics: view.topics,
            head: view.head.into(),
            tail: view.tail.into(),
        }
    }
}

#[derive(Serialize)]
struct ConnectionsAnswer<'a> {
    connections: Vec<ConnectionSummary<'a>>,
    next: Option<String>,
}

#[derive(Serialize)]
struct TopicsAnswer {
    topics: Vec<TopicSummary>,
    partial: bool,
    listed_max: usize,
}

/// A topic, and the number of subscriptions that match its events.
#[derive(Serialize)]
pub(super) struct TopicSummary {
    pub(super) topic: String,
    pub(super) subscriptions: usize,
}

/// Lists the tenants whose name contains `?search=`, those with most connections first, without
/// the first `?skip=` of them.
pub(super) async fn list(
    relay: &Arc<Relay>,
    query: Option<&str>,
) -> Result<HttpResponse, HttpProblem> {
    let query = CallQuery::parse(query, &["search", "skip"], &[])?;
    let skip = query.value("skip", "a number")?.unwrap_or(0);
    let listing = run_apart(relay, move |relay| {
        let search = query.text("search").unwrap_or_default();
        let admin = relay.publisher.admin();
        admin.list_tenants(search, skip, LISTED_MAX)
    });
    let listing = listing.await?;
    let tenants = listing.tenants.into_iter();
    let answer = TenantsAnswer {
        tenants: tenants
            .map(|it| TenantSummary::new(&it.name, it.view))
            .collect(),
        found: listing.found,
        all: listing.all,
        listed_max: LISTED_MAX,
    };
    Ok(json_response(StatusCode::OK, &answer))
}

/// Shows one tenant.
pub(super) fn show(relay: &Relay, tenant: &TenantName) -> Result<HttpResponse, HttpProblem> {
    let view = relay.publisher.admin().view_tenant(tenant);
    let view = view.ok_or_else(|| {
        HttpProblem::new(
            StatusCode::NOT_FOUND,
            ErrorCode::NotFound,
            "the tenant has neither a connection nor an event",
        )
    })?;
    Ok(json_response(
        StatusCode::OK,
        &TenantSummary::new(tenant, view),
    ))
}

/// Lists connections, with the query of `GET /v1/tenants/{tenant}/connections`.
pub(super) async fn list_connections(
    relay: &Relay,
    tenant: &TenantName,
    query: Option<&str>,
) -> Result<HttpResponse, HttpProblem> {
    let ConnectionsParameters {
        filter,
        limit,
        after,
    } = ConnectionsParameters::parse(query)?;
    let admin = relay.publisher.admin();
    let limit = limit.min(LISTED_MAX);
    let page = admin.list_connections(tenant, filter, after, limit, SHARD_TIMEOUT);
    let page = page.await.map_err(shard_silent)?;
    let answer = ConnectionsAnswer {
        connections: page.connections.iter().map(Into::into).collect(),
        next: page.next.map(|key| key.to_string()),
    };
    Ok(json_response(StatusCode::OK, &answer))
}

/// Lists the busiest topics whose text contains `?search=`.
pub(super) async fn list_topics(
    relay: &Relay,
    tenant: &TenantName,
    query: Option<&str>,
) -> Result<HttpResponse, HttpProblem> {
    let query = CallQuery::parse(query, &["search"], &[])?;
    let search = query.text("search").unwrap_or_default();
    let admin = relay.publisher.admin();
    let listing = admin.list_topics(tenant, search, LISTED_MAX, SHARD_TIMEOUT);
    let listing = listing.await.map_err(shard_silent)?;
    let topics = listing.topics.into_iter().map(|it| TopicSummary {
        topic: it.topic.to_string(),
        subscriptions: it.subscriptions,
    });
    let answer = TopicsAnswer {
        topics: topics.collect(),
        partial: listing.is_partial,
        listed_max: LISTED_MAX,
    };
    Ok(json_response(StatusCode::OK, &answer))
}
