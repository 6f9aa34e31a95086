//! The backend's end of the hub: append, send to the shards, and wait until they
//! have queued. Knows no HTTP.

use std::{mem, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    PublishTimeouts,
    inbox::{Events, InboxSender, Receipt, Waited},
    registry::{Attempt, Registry, TenantsFull},
    relief::Relief,
};
use crate::{
    event::Draft,
    protocol::{Position, TenantName},
};

/// How often a publisher that waits for memory looks whether there is some. Shards
/// free it within a turn or two.
const MEMORY_LOOK_EVERY: Duration = Duration::from_millis(1);

/// Puts events into tenants' logs. Clones share everything.
#[derive(Debug, Clone)]
pub struct Publisher {
    registry: Arc<Registry>,
    pub(super) inboxes: Arc<[InboxSender]>,
    relief: Arc<Relief>,
    timeouts: PublishTimeouts,
}

/// Why nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no place for another tenant.
    #[error(transparent)]
    TenantsFull(#[from] TenantsFull),
    /// A shard's inbox had no room within the time.
    #[error("a shard has no room for more events of this tenant")]
    NoRoom,
    /// All events together took more memory than they may, for all of the time.
    #[error("the relay has no memory for more events")]
    NoMemory,
}

/// Events that are in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// In the order of the drafts.
    pub events: Vec<PlacedEvent>,
    /// Whether every shard has queued them. If not, they will be delivered all
    /// the same, and the events' `matched` is not known.
    pub acknowledged: bool,
}

/// What became of one draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedEvent {
    /// Its place in the tenant's order.
    pub position: Position,
    /// How many connections of this process it matched.
    pub matched: Option<u64>,
}

impl Publisher {
    pub(super) fn new(
        registry: Arc<Registry>,
        inboxes: Arc<[InboxSender]>,
        relief: Arc<Relief>,
        timeouts: PublishTimeouts,
    ) -> Self {
        Self {
            registry,
            inboxes,
            relief,
            timeouts,
        }
    }

    /// Appends the events next to each other, all or none, and sends them to the
    /// shards.
    ///
    /// # Errors
    ///
    /// When nothing was appended. Once it was, there is no error any more.
    pub async fn append(
        &self,
        tenant: &TenantName,
        mut drafts: Vec<Draft>,
    ) -> Result<Appended, PublishError> {
        let mut now = Instant::now();
        let deadline = now + self.timeouts.inbox;
        let mut waited = Waited::default();
        loop {
            if self.registry.is_over_memory() {
                waited = Waited::default();
                self.memory(deadline).await?;
            }
            let attempt = self.registry.obtain(tenant)?.append(
                &mut drafts,
                &self.inboxes,
                now,
                mem::take(&mut waited),
            );
            match attempt {
                Attempt::Appended(events, receipt) => {
                    self.registry.trim_logs();
                    if self.registry.is_over_memory() {
                        self.relief.ask();
                    }
                    return Ok(Appended {
                        events,
                        receipt,
                        timeout: self.timeouts.ack,
                    });
                }
                Attempt::NoRoom(full) => {
                    waited = timeout_at(deadline, full.has_room())
                        .await
                        .map_err(|_| PublishError::NoRoom)?;
                    now = Instant::now();
                }
                Attempt::Removed => {}
            }
        }
    }

    /// Waits until there is memory for more events.
    async fn memory(&self, deadline: Instant) -> Result<(), PublishError> {
        while self.registry.is_over_memory() {
            if Instant::now() >= deadline {
                return Err(PublishError::NoMemory);
            }
            self.relief.ask();
            sleep(MEMORY_LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// Events that are in the log and on their way to the shards, which nothing stops
/// any more.
#[derive(Debug)]
pub struct Appended {
    events: Events,
    receipt: Arc<Receipt>,
    timeout: Duration,
}

impl Appended {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.as_slice().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.as_slice().is_empty()
    }

    /// Waits until the shards have queued them for their connections, or for as
    /// long as is configured.
    pub async fn acknowledged(self) -> Published {
        let acknowledged = self.receipt.is_answered()
            || timeout(self.timeout, self.receipt.answered()).await.is_ok();
        let events = self.events.as_slice().iter().zip(self.receipt.matched());
        let events = events
            .map(|(event, matched)| PlacedEvent {
                position: event.position(),
                matched: acknowledged.then_some(matched),
            })
            .collect();
        Published {
            events,
            acknowledged,
        }
    }
}
