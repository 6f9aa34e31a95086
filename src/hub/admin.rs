//! Calls to shards outside the path of an event: pings, and requests to disconnect a user. Each
//! kind has an inbox of its own, so that it never waits behind events, and pings never wait
//! behind anything. Knows no HTTP.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use sidewire_protocol::{Position, TenantName, Topic, UserName};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    ListedPresence, PageCursor, ShardId, TenantRegistry, audience::AudienceTotals,
    presence::TenantPresence,
};

/// Most calls of each kind that may wait for a shard.
const CALLS_MAX: usize = 64;

/// A request to end the connections of a user. The answer is the number of connections.
#[derive(Debug)]
pub(super) struct DisconnectRequest {
    pub(super) tenant: TenantName,
    pub(super) user: UserName,
    pub(super) answer: oneshot::Sender<u64>,
}

/// The sending end of a shard's call inboxes.
#[derive(Debug)]
pub(super) struct ShardCaller {
    pings: mpsc::Sender<oneshot::Sender<()>>,
    disconnects: mpsc::Sender<DisconnectRequest>,
}

/// The receiving end of a shard's call inboxes.
#[derive(Debug)]
pub(super) struct ShardCalls {
    pub(super) pings: mpsc::Receiver<oneshot::Sender<()>>,
    pub(super) disconnects: mpsc::Receiver<DisconnectRequest>,
}

/// Creates the call inboxes of a shard.
pub(super) fn call_channels() -> (ShardCaller, ShardCalls) {
    let (ping_sender, pings) = mpsc::channel(CALLS_MAX);
    let (disconnect_sender, disconnects) = mpsc::channel(CALLS_MAX);
    let caller = ShardCaller {
        pings: ping_sender,
        disconnects: disconnect_sender,
    };
    (caller, ShardCalls { pings, disconnects })
}

/// A snapshot of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantView {
    /// Number of connections.
    pub connections: u64,
    /// Number of users with at least one connection.
    pub users: usize,
    /// Number of distinct subscribed topics; implicit topics are not counted.
    pub topics: usize,
    /// The newest event's position.
    pub head: Position,
    /// The position after which the log has every event.
    pub tail: Position,
}

/// A shard has not answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shard {0} does not answer")]
pub struct ShardTimeout(pub ShardId);

/// Makes calls to all shards. Clones share all state.
#[derive(Debug, Clone)]
pub struct HubAdmin {
    registry: Arc<TenantRegistry>,
    shards: Arc<[ShardCaller]>,
}

impl HubAdmin {
    pub(super) fn new(registry: Arc<TenantRegistry>, shards: Arc<[ShardCaller]>) -> Self {
        Self { registry, shards }
    }

    /// Checks that every shard answers within `timeout`.
    ///
    /// # Errors
    ///
    /// When a shard does not answer in time.
    pub async fn ping(&self, timeout: Duration) -> Result<(), ShardTimeout> {
        let ask = async |shard: &ShardCaller, answer| shard.pings.send(answer).await.ok();
        self.ask_all(timeout, ask).await.map(drop)
    }

    /// Ends the connections of a user. Returns their number, not counting connections that were
    /// ending already.
    ///
    /// # Errors
    ///
    /// When a shard does not answer in time. Connections on other shards may have ended.
    pub async fn disconnect_user(
        &self,
        tenant: &TenantName,
        user: &UserName,
        timeout: Duration,
    ) -> Result<u64, ShardTimeout> {
        let ask = async |shard: &ShardCaller, answer| {
            let call = DisconnectRequest {
                tenant: tenant.clone(),
                user: user.clone(),
                answer,
            };
            shard.disconnects.send(call).await.ok()
        };
        Ok(self.ask_all(timeout, ask).await?.into_iter().sum())
    }

    /// Returns a snapshot of the tenant, if it has a connection or an event. Makes no call to a
    /// shard.
    #[must_use]
    pub fn view_tenant(&self, name: &TenantName) -> Option<TenantView> {
        let tenant = self.registry.find(name)?;
        let log = tenant.log_view(Instant::now());
        let AudienceTotals {
            connections,
            users,
            topics,
        } = tenant.audience().totals();
        (connections > 0 || log.head != log.tail).then_some(TenantView {
            connections,
            users,
            topics,
            head: log.head,
            tail: log.tail,
        })
    }

    /// Lists up to `limit` users who are present on these topics of the tenant, behind `after`. A
    /// tenant that does not exist has none. Makes no call to a shard.
    #[must_use]
    pub fn list_presence(
        &self,
        name: &TenantName,
        topics: &[Topic],
        after: Option<&PageCursor>,
        limit: usize,
    ) -> ListedPresence {
        match self.registry.find(name) {
            Some(tenant) => tenant.presence().page(topics, after, limit),
            None => TenantPresence::default().page(topics, after, limit),
        }
    }

    /// Calls `ask` for every shard concurrently, and waits for all answers.
    async fn ask_all<T>(
        &self,
        timeout: Duration,
        ask: impl AsyncFn(&ShardCaller, oneshot::Sender<T>) -> Option<()>,
    ) -> Result<Vec<T>, ShardTimeout> {
        let deadline = Instant::now() + timeout;
        let asked = self.shards.iter().enumerate().map(async |(id, shard)| {
            let (sender, answer) = oneshot::channel();
            let answered = timeout_at(deadline, async {
                ask(shard, sender).await?;
                answer.await.ok()
            });
            answered.await.ok().flatten().ok_or(ShardTimeout(id))
        });
        join_all(asked).await.into_iter().collect()
    }
}
