//! What is asked of the shards beside the path of an event: whether they answer,
//! who of a tenant is connected, and that a user be disconnected. Each question has
//! a place in a small inbox of its own, so that it waits behind no event. Knows no
//! HTTP.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{Registry, ShardId};
use crate::protocol::{Position, TenantName, UserName, topic::TopicSet};

/// How many questions may wait for a shard.
pub(super) const CALLS_MAX: usize = 64;

/// A question to a shard, and where its answer goes.
#[derive(Debug)]
pub(super) enum Call {
    /// Whether it answers.
    Ping(oneshot::Sender<()>),
    /// To end the connections of a user: how many there were.
    Disconnect(TenantName, UserName, oneshot::Sender<u64>),
    /// Who of a tenant is connected.
    Look(TenantName, oneshot::Sender<TenantLook>),
}

/// What a shard has of a tenant.
#[derive(Debug, Default)]
pub(super) struct TenantLook {
    pub(super) connections: u64,
    /// The topics of the users that are connected.
    pub(super) users: TopicSet,
    /// The topics that are subscribed.
    pub(super) topics: TopicSet,
}

/// A tenant, as of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantView {
    /// Its connections.
    pub connections: u64,
    /// Its users that have one.
    pub users: usize,
    /// The topics that are subscribed, each counted once; implicit ones not.
    pub topics: usize,
    /// The newest event's position.
    pub head: Position,
    /// The position after which the log has everything.
    pub tail: Position,
}

/// A shard has not answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shard {0} does not answer")]
pub struct ShardSilent(pub ShardId);

/// Asks all shards. Clones share everything.
#[derive(Debug, Clone)]
pub struct Admin {
    registry: Arc<Registry>,
    shards: Arc<[mpsc::Sender<Call>]>,
}

impl Admin {
    pub(super) fn new(registry: Arc<Registry>, shards: Arc<[mpsc::Sender<Call>]>) -> Self {
        Self { registry, shards }
    }

    /// Whether every shard answers within the time.
    ///
    /// # Errors
    ///
    /// When one does not.
    pub async fn ping(&self, timeout: Duration) -> Result<(), ShardSilent> {
        self.ask_all(timeout, Call::Ping).await.map(drop)
    }

    /// Ends the connections that a user of a tenant has: how many there were, those
    /// not counted that were ending already.
    ///
    /// # Errors
    ///
    /// When a shard does not answer within the time; those of others may have ended.
    pub async fn disconnect(
        &self,
        tenant: &TenantName,
        user: &UserName,
        timeout: Duration,
    ) -> Result<u64, ShardSilent> {
        let call = |answer| Call::Disconnect(tenant.clone(), user.clone(), answer);
        Ok(self.ask_all(timeout, call).await?.into_iter().sum())
    }

    /// The tenant, where it has a connection or an event.
    ///
    /// # Errors
    ///
    /// When a shard does not answer within the time.
    pub async fn look(
        &self,
        name: &TenantName,
        timeout: Duration,
    ) -> Result<Option<TenantView>, ShardSilent> {
        let mut looks = self
            .ask_all(timeout, |answer| Call::Look(name.clone(), answer))
            .await?
            .into_iter();
        let mut all = looks.next().unwrap_or_default();
        for look in looks {
            all.connections += look.connections;
            all.users.extend(look.users);
            all.topics.extend(look.topics);
        }
        // Asked last, so that a tenant that somebody is connected of is there.
        let Some(log) = self.registry.log_of(name, Instant::now()) else {
            return Ok(None);
        };
        Ok(
            (all.connections > 0 || log.has_events).then_some(TenantView {
                connections: all.connections,
                users: all.users.len(),
                topics: all.topics.len(),
                head: log.head,
                tail: log.tail,
            }),
        )
    }

    /// Asks all at once, and waits for each.
    async fn ask_all<T>(
        &self,
        timeout: Duration,
        call: impl Fn(oneshot::Sender<T>) -> Call,
    ) -> Result<Vec<T>, ShardSilent> {
        let deadline = Instant::now() + timeout;
        let mut answers = Vec::with_capacity(self.shards.len());
        for (id, shard) in self.shards.iter().enumerate() {
            let (sender, answer) = oneshot::channel();
            let sent = timeout_at(deadline, shard.send(call(sender))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return Err(ShardSilent(id));
            }
            answers.push(answer);
        }
        let mut all = Vec::with_capacity(answers.len());
        for (id, answer) in answers.into_iter().enumerate() {
            match timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => all.push(answer),
                _ => return Err(ShardSilent(id)),
            }
        }
        Ok(all)
    }
}
