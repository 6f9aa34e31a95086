//! What is asked of the shards beside the path of an event: whether they answer,
//! who of a tenant is connected, and that a user be disconnected. Each question has
//! a place in a small inbox of its own, so that it waits behind no event. Knows no
//! HTTP.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{Registry, ShardId};
use crate::protocol::{Position, TenantName, UserName};

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
    /// The topics of the users that are connected, by their hashes: to tell each from
    /// the others that is enough, and a shard is not held up by copying names.
    pub(super) users: Vec<u64>,
    /// The topics that are subscribed, likewise.
    pub(super) topics: Vec<u64>,
}

impl Call {
    /// Whether nobody waits for the answer any more.
    pub(super) fn is_given_up(&self) -> bool {
        match self {
            Self::Ping(answer) => answer.is_closed(),
            Self::Disconnect(_, _, answer) => answer.is_closed(),
            Self::Look(_, answer) => answer.is_closed(),
        }
    }
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
        let looks = self
            .ask_all(timeout, |answer| Call::Look(name.clone(), answer))
            .await?;
        let connections = looks.iter().map(|look| look.connections).sum();
        let users = distinct(looks.iter().map(|look| &look.users));
        let topics = distinct(looks.iter().map(|look| &look.topics));
        // Asked last, so that a tenant that somebody is connected of is there.
        let Some(log) = self.registry.log_of(name, Instant::now()) else {
            return Ok(None);
        };
        Ok(
            (connections > 0 || log.head != log.tail).then_some(TenantView {
                connections,
                users,
                topics,
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
        let asked = self.shards.iter().enumerate().map(async |(id, shard)| {
            let (sender, answer) = oneshot::channel();
            let answered = timeout_at(deadline, async {
                shard.send(call(sender)).await.ok()?;
                answer.await.ok()
            });
            answered.await.ok().flatten().ok_or(ShardSilent(id))
        });
        join_all(asked).await.into_iter().collect()
    }
}

/// How many there are of which several may have some.
fn distinct<'a>(mut several: impl Iterator<Item = &'a Vec<u64>>) -> usize {
    let Some(first) = several.next() else {
        return 0;
    };
    let mut others = several.flatten().peekable();
    if others.peek().is_none() {
        // Of one shard alone, each is there once.
        return first.len();
    }
    first.iter().chain(others).collect::<HashSet<_>>().len()
}
