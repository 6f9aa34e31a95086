//! `GET /v1/tenants/{tenant}/connections`: lists the connections of a tenant.

use std::vec;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;
use sidewire_presence::ConnectionKey;
use sidewire_protocol::{NamedValues, TenantName};

use super::{
    admin::shard_silent,
    body::reserve_list,
    parameters::ConnectionsParameters,
    parts::{DocumentParts, PART_BYTES, answer_in_parts},
};
use crate::{
    http::{HttpProblem, HttpResponse, RequestId},
    hub::{ConnectionPage, ListedConnection, SHARD_TIMEOUT},
    memory::MemoryReservation,
    relay::ShardContext,
    scheduler::{Cost, QUANTUM},
};

/// Memory that is reserved for each connection of a page, in bytes.
const LISTED_BYTES: usize = 256;

/// Lists connections of the tenant.
pub(super) async fn list_connections(
    shard: &ShardContext,
    tenant: &TenantName,
    parameters: ConnectionsParameters,
    id: &RequestId,
) -> Result<HttpResponse, HttpProblem> {
    let ConnectionsParameters {
        filter,
        limit,
        after,
    } = parameters;
    let memory = reserve_list(&shard.relay, limit, LISTED_BYTES)?;
    let work = shard.hub.work_queue().tenant_work(tenant);
    work.wait_for_quantum().await;
    work.charge(QUANTUM);
    let admin = shard.relay.publisher.admin();
    let page = admin
        .list_connections(tenant, filter, after, limit, SHARD_TIMEOUT)
        .await
        .map_err(|error| shard_silent(error, id))?;
    let answer = ConnectionsAnswer::new(page, memory);
    Ok(answer_in_parts(shard, work, StatusCode::OK, answer))
}

/// A connection as an answer shows it.
#[derive(Serialize)]
pub(crate) struct ConnectionSummary<'a> {
    id: String,
    user: &'a str,
    transport: &'static str,
    encoding: &'static str,
    since: i64,
    topics: usize,
    outbox: OutboxSummary,
    address: String,
}

#[derive(Serialize)]
struct OutboxSummary {
    frames: usize,
    bytes: usize,
}

impl<'a> From<&'a ListedConnection> for ConnectionSummary<'a> {
    fn from(connection: &'a ListedConnection) -> Self {
        let profile = &connection.profile;
        Self {
            id: connection.key.to_string(),
            user: profile.user.as_str(),
            transport: profile.transport.name(),
            encoding: connection.encoding.name(),
            since: profile.since,
            topics: connection.topics,
            outbox: OutboxSummary {
                frames: connection.outbox_frames,
                bytes: connection.outbox_bytes,
            },
            address: profile.address.to_string(),
        }
    }
}

/// The JSON document that lists connections, made in parts: a page may have 1,000, which take more
/// than a quantum to render.
struct ConnectionsAnswer {
    connections: vec::IntoIter<ListedConnection>,
    next: Option<ConnectionKey>,
    is_begun: bool,
    is_complete: bool,
    _memory: MemoryReservation,
}

impl ConnectionsAnswer {
    fn new(page: ConnectionPage, memory: MemoryReservation) -> Self {
        Self {
            connections: page.connections.into_iter(),
            next: page.next,
            is_begun: false,
            is_complete: false,
            _memory: memory,
        }
    }
}

impl DocumentParts for ConnectionsAnswer {
    fn next_part(&mut self) -> Option<Bytes> {
        if self.is_complete {
            return None;
        }
        let mut part = Vec::new();
        while part.len() < PART_BYTES {
            let separator: &[u8] = match self.is_begun {
                true => b",",
                false => br#"{"connections":["#,
            };
            let Some(connection) = self.connections.next() else {
                if !self.is_begun {
                    part.extend_from_slice(separator);
                }
                part.extend_from_slice(br#"],"next":"#);
                let next = self.next.map(|key| key.to_string());
                // Cannot fail: all values can be represented in JSON.
                drop(serde_json::to_writer(&mut part, &next));
                part.push(b'}');
                self.is_complete = true;
                break;
            };
            part.extend_from_slice(separator);
            self.is_begun = true;
            let summary = ConnectionSummary::from(&connection);
            drop(serde_json::to_writer(&mut part, &summary));
        }
        Some(part.into())
    }

    fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn making_cost(bytes: usize) -> Cost {
        Cost::JSON_BYTE.times(bytes)
    }
}
