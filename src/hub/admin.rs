//! Calls to shards outside the path of an event: pings, and requests about the connections of a
//! tenant. Each kind has an inbox of its own, so that it never waits behind events, and pings never
//! wait behind anything. Knows no HTTP.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use sidewire_presence::ConnectionKey;
use sidewire_protocol::{Position, TenantName, Topic, UserName, close::CloseReason};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    ListedPresence, PageCursor, RevokedTopics, ShardId, TenantRegistry,
    audience::AudienceTotals,
    inspection::{AudienceRequest, TopicsRequest},
    presence::TenantPresence,
    roster::{ConnectionFilter, ListedConnection, ShardPage},
    subscribers::ConnectionId,
    tenant::Tenant,
};

/// Time limit for a shard to answer a call.
pub const SHARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Most calls of each kind that may wait for a shard.
const CALLS_MAX: usize = 64;

/// A request about the connections of a user.
#[derive(Debug)]
pub(super) struct UserRequest {
    pub(super) tenant: TenantName,
    pub(super) user: UserName,
    pub(super) action: UserAction,
    pub(super) answer: oneshot::Sender<u64>,
}

/// What is done to the connections of a user.
#[derive(Debug, Clone)]
pub(super) enum UserAction {
    /// End them for this reason. The answer is their number.
    Disconnect(CloseReason),
    /// End subscriptions. The answer is the number that ended.
    EndSubscriptions(Arc<RevokedTopics>),
}

/// A request for a page of a tenant's connections on one shard.
#[derive(Debug)]
pub(super) struct PageRequest {
    pub(super) tenant: TenantName,
    pub(super) filter: Arc<ConnectionFilter>,
    /// The page begins behind this connection.
    pub(super) after: ConnectionId,
    pub(super) limit: usize,
    pub(super) answer: oneshot::Sender<ShardPage>,
}

/// A request about the connections of a tenant.
#[derive(Debug)]
pub(super) enum TenantRequest {
    User(UserRequest),
    Page(PageRequest),
    Topics(TopicsRequest),
    Audience(AudienceRequest),
}

/// The sending end of a shard's call inboxes.
#[derive(Debug)]
pub(super) struct ShardCaller {
    pings: mpsc::Sender<oneshot::Sender<()>>,
    tenants: mpsc::Sender<TenantRequest>,
}

/// The receiving end of a shard's call inboxes.
#[derive(Debug)]
pub(super) struct ShardCalls {
    pub(super) pings: mpsc::Receiver<oneshot::Sender<()>>,
    pub(super) tenants: mpsc::Receiver<TenantRequest>,
}

/// Creates the call inboxes of a shard.
pub(super) fn call_channels() -> (ShardCaller, ShardCalls) {
    let (ping_sender, pings) = mpsc::channel(CALLS_MAX);
    let (tenant_sender, tenants) = mpsc::channel(CALLS_MAX);
    let caller = ShardCaller {
        pings: ping_sender,
        tenants: tenant_sender,
    };
    (caller, ShardCalls { pings, tenants })
}

/// Answers a call. The answer is dropped if the caller no longer waits for it.
pub(super) fn send_answer<T>(answer: oneshot::Sender<T>, value: T) {
    drop(answer.send(value));
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

/// One page of a tenant's connections.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ConnectionPage {
    /// The connections, in the order of their ids.
    pub connections: Vec<ListedConnection>,
    /// The page that follows begins behind this id; `None` if there is none.
    pub next: Option<ConnectionKey>,
}

/// A shard has not answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shard {0} does not answer")]
pub struct ShardTimeout(pub ShardId);

/// Makes calls to all shards. Clones share all state.
#[derive(Debug, Clone)]
pub struct HubAdmin {
    pub(super) registry: Arc<TenantRegistry>,
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
        let ask = |shard: &ShardCaller, answer| {
            let pings = shard.pings.clone();
            async move { pings.send(answer).await.ok() }
        };
        self.ask_all(timeout, ask).await.map(drop)
    }

    /// Ends the connections of a user. Returns their number, not counting connections that were
    /// ending already. `reconnect`: true if the clients are to come back with new tokens.
    ///
    /// # Errors
    ///
    /// When a shard does not answer in time. Connections on other shards may have ended.
    pub async fn disconnect_user(
        &self,
        tenant: &TenantName,
        user: &UserName,
        reconnect: bool,
        timeout: Duration,
    ) -> Result<u64, ShardTimeout> {
        let reason = match reconnect {
            true => CloseReason::NewTokenRequested,
            false => CloseReason::Disconnected,
        };
        self.act_on_user(tenant, user, UserAction::Disconnect(reason), timeout)
            .await
    }

    /// Ends subscriptions on all connections of a user. Returns their number. When this returns,
    /// nothing more is queued for the user because of them.
    ///
    /// # Errors
    ///
    /// When a shard does not answer in time. It may still end them.
    pub async fn end_subscriptions(
        &self,
        tenant: &TenantName,
        user: &UserName,
        topics: RevokedTopics,
        timeout: Duration,
    ) -> Result<u64, ShardTimeout> {
        let action = UserAction::EndSubscriptions(Arc::new(topics));
        self.act_on_user(tenant, user, action, timeout).await
    }

    async fn act_on_user(
        &self,
        tenant: &TenantName,
        user: &UserName,
        action: UserAction,
        timeout: Duration,
    ) -> Result<u64, ShardTimeout> {
        let ask = |answer| {
            TenantRequest::User(UserRequest {
                tenant: tenant.clone(),
                user: user.clone(),
                action: action.clone(),
                answer,
            })
        };
        let ended: Vec<u64> = self.ask_shards(timeout, ask).await?;
        Ok(ended.into_iter().sum())
    }

    /// Returns a snapshot of the tenant, if it has a connection or an event. Makes no call to a
    /// shard.
    #[must_use]
    pub fn view_tenant(&self, name: &TenantName) -> Option<TenantView> {
        let tenant = self.registry.find(name)?;
        let view = view_of(&tenant);
        (view.connections > 0 || view.head != view.tail).then_some(view)
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

    /// Lists up to `limit` connections of the tenant, at least one, that match the filter, behind
    /// `after`: shard by shard, and on each in the order in which they connected. A page may have
    /// fewer, even none, although more follow, since it looks only at so many that do not match.
    ///
    /// # Errors
    ///
    /// When a shard does not answer within `timeout`.
    pub async fn list_connections(
        &self,
        tenant: &TenantName,
        filter: ConnectionFilter,
        after: Option<ConnectionKey>,
        limit: usize,
        timeout: Duration,
    ) -> Result<ConnectionPage, ShardTimeout> {
        let limit = limit.max(1);
        let filter = Arc::new(filter);
        let mut page = ConnectionPage::default();
        let mut after = after.unwrap_or(ConnectionKey { shard: 0, id: 0 });
        while let Some(shard) = self.shards.get(after.shard) {
            let (sender, answer) = oneshot::channel();
            let request = PageRequest {
                tenant: tenant.clone(),
                filter: Arc::clone(&filter),
                after: after.id,
                limit: limit.saturating_sub(page.connections.len()),
                answer: sender,
            };
            let asked = shard.ask(TenantRequest::Page(request));
            let deadline = Instant::now() + timeout;
            let part = await_answer(after.shard, asked, answer, deadline).await?;
            page.connections.extend(part.connections);
            if let Some(last) = part.last {
                page.next = Some(ConnectionKey { id: last, ..after });
                break;
            }
            after = ConnectionKey {
                shard: after.shard + 1,
                id: 0,
            };
            if page.connections.len() >= limit {
                // Whether the other shards have more is not known, unless there is none.
                page.next = self.shards.get(after.shard).map(|_| after);
                break;
            }
        }
        Ok(page)
    }

    /// Sends every shard the request that `make` returns, and waits for all answers.
    pub(super) async fn ask_shards<T>(
        &self,
        timeout: Duration,
        make: impl Fn(oneshot::Sender<T>) -> TenantRequest,
    ) -> Result<Vec<T>, ShardTimeout> {
        self.ask_all(timeout, |shard, answer| shard.ask(make(answer)))
            .await
    }

    /// Calls `ask` for every shard, and waits for all answers.
    async fn ask_all<T, F: Future<Output = Option<()>>>(
        &self,
        timeout: Duration,
        ask: impl Fn(&ShardCaller, oneshot::Sender<T>) -> F,
    ) -> Result<Vec<T>, ShardTimeout> {
        let deadline = Instant::now() + timeout;
        let mut waiting = Vec::with_capacity(self.shards.len());
        for (id, shard) in self.shards.iter().enumerate() {
            let (sender, answer) = oneshot::channel();
            waiting.push(await_answer(id, ask(shard, sender), answer, deadline));
        }
        join_all(waiting).await.into_iter().collect()
    }
}

impl ShardCaller {
    /// Sends a request about the connections of a tenant. `None`: the shard is gone.
    fn ask(&self, request: TenantRequest) -> impl Future<Output = Option<()>> + use<> {
        let tenants = self.tenants.clone();
        async move { tenants.send(request).await.ok() }
    }
}

/// Returns a snapshot of the tenant.
pub(super) fn view_of(tenant: &Tenant) -> TenantView {
    let log = tenant.log_view(Instant::now());
    let AudienceTotals {
        connections,
        users,
        topics,
    } = tenant.audience().totals();
    TenantView {
        connections,
        users,
        topics,
        head: log.head,
        tail: log.tail,
    }
}

/// Asks a shard, and waits for its answer.
async fn await_answer<T>(
    id: ShardId,
    asked: impl Future<Output = Option<()>>,
    answer: oneshot::Receiver<T>,
    deadline: Instant,
) -> Result<T, ShardTimeout> {
    let answered = timeout_at(deadline, async {
        asked.await?;
        answer.await.ok()
    });
    answered.await.ok().flatten().ok_or(ShardTimeout(id))
}
