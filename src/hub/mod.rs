//! Who gets what: the tenants, the shards' topic indexes, and the way of an event
//! from one to the other. Knows no wire format and no HTTP; it fills outboxes and
//! gives back numbers.
//!
//! An event is appended to its tenant's log under the tenant's lock, and in the
//! same step one item goes into the inbox of every shard that has connections of
//! the tenant (`publish`, `registry`, `inbox`). Each shard then offers the event
//! to the outboxes of the connections that it matches (`shard`, `index`), on its
//! own thread, without a lock.

mod inbox;
mod index;
mod publish;
mod registry;
mod shard;
mod submission;
mod subscribers;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

pub use inbox::{InboxLimits, Item};
pub use publish::{Appended, PlacedEvent, PublishError, Published, Publisher};
pub use registry::{Registry, RegistryLimits, TenantsFull};
pub use shard::{Membership, ShardHub, TooManyTopics};

use crate::tally::Tally;

/// Which of the process's shards, from 0.
pub type ShardId = usize;

/// How long a publisher waits.
#[derive(Debug, Clone, Copy)]
pub struct PublishTimeouts {
    /// For room in an inbox, before anything is appended.
    pub inbox: Duration,
    /// For the receipts of the shards, after it was.
    pub ack: Duration,
}

/// What a shard's thread makes its [`ShardHub`] of.
#[derive(Debug)]
pub struct ShardSeed {
    id: ShardId,
    registry: Arc<Registry>,
    tally: Arc<Tally>,
    inbox: mpsc::Receiver<Item>,
}

impl ShardSeed {
    /// The hub, which stays on the thread where it is made.
    #[must_use]
    pub fn grow(self) -> ShardHub {
        ShardHub::new(self.id, self.registry, self.tally, self.inbox)
    }
}

/// Makes the publishing end of a hub and, for each tally, a shard's end.
#[must_use]
pub fn hub(
    registry: &Arc<Registry>,
    timeouts: PublishTimeouts,
    tallies: &[Arc<Tally>],
) -> (Publisher, Vec<ShardSeed>) {
    let places = registry.limits().inbox.places;
    let (inboxes, seeds): (Vec<_>, _) = tallies
        .iter()
        .enumerate()
        .map(|(id, tally)| {
            let (sender, inbox) = mpsc::channel(places);
            let seed = ShardSeed {
                id,
                registry: Arc::clone(registry),
                tally: Arc::clone(tally),
                inbox,
            };
            (sender, seed)
        })
        .unzip();
    let publisher = Publisher::new(Arc::clone(registry), inboxes.into(), timeouts);
    (publisher, seeds)
}
