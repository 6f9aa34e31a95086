//! Decides which connections receive an event: the tenants, the shards' topic indexes, and the
//! path of an event between them. Knows no wire format and no HTTP; it fills outboxes and returns
//! counts.
//!
//! An event is appended to its tenant's log under the tenant's lock, and in the same step one
//! item is sent to the inbox of every shard that has connections of the tenant (`publish`,
//! `registry`, `inbox`). Each shard then offers the event to the outboxes of the matching
//! connections (`shard`, `index`), on its own thread, without a lock.

mod admin;
mod audience;
mod begun_messages;
mod catch_up;
mod condition_check;
mod connection;
mod dormant;
mod inbox;
mod index;
mod large_json;
mod membership;
mod publish;
mod read_slice;
mod registry;
mod relief;
mod shard;
mod submission;
mod subscribers;
mod tenant;
mod wakes;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

pub use admin::{HubAdmin, ShardTimeout, TenantView};
pub use begun_messages::{BegunMessageMemory, BegunMessages};
pub use catch_up::{SubscribeConfirmation, SubscribeProgress};
pub use condition_check::ConditionCheck;
pub use connection::HubConnection;
pub use inbox::{InboxItem, InboxLimits};
pub use membership::SubscribeError;
pub use publish::{AppendError, AppendedEvents, HubPublisher, PlacedEvent, PublishedEvents};
pub use registry::{RegistryLimits, TenantRegistry, TenantsFull};
pub use shard::{LOOK_INTERVAL, ShardHub};

use crate::tally::ShardTally;
use admin::{ShardCaller, ShardCalls};
use relief::MemoryRelief;

/// Index of a shard within the process, from 0.
pub type ShardId = usize;

/// Timeouts of a publish call.
#[derive(Debug, Clone, Copy)]
pub struct PublishTimeouts {
    /// Time to wait for room in an inbox, before anything is appended.
    pub inbox: Duration,
    /// Time to wait for the shards' receipts, after the append.
    pub ack: Duration,
}

/// The parts from which a shard's thread builds its [`ShardHub`]. They can be sent between
/// threads.
#[derive(Debug)]
pub struct ShardBuilder {
    id: ShardId,
    registry: Arc<TenantRegistry>,
    tally: Arc<ShardTally>,
    inbox: mpsc::Receiver<InboxItem>,
    calls: ShardCalls,
    relief: Arc<MemoryRelief>,
}

impl ShardBuilder {
    /// Builds the hub, which stays on the thread that built it.
    #[must_use]
    pub fn build(self) -> ShardHub {
        ShardHub::new(self)
    }
}

/// Creates a hub. Returns its publisher and, for each tally, the builder of that shard's part.
#[must_use]
pub fn build_hub(
    registry: &Arc<TenantRegistry>,
    timeouts: PublishTimeouts,
    tallies: &[Arc<ShardTally>],
) -> (HubPublisher, Vec<ShardBuilder>) {
    let places = registry.inbox_limits().places;
    let relief = Arc::new(MemoryRelief::new(tallies.len()));
    let (ends, seeds): (Vec<_>, Vec<_>) = tallies
        .iter()
        .enumerate()
        .map(|(id, tally)| {
            let (sender, inbox) = inbox::inbox_channel(places);
            let (caller, calls) = admin::call_channels();
            let seed = ShardBuilder {
                id,
                registry: Arc::clone(registry),
                tally: Arc::clone(tally),
                inbox,
                calls,
                relief: Arc::clone(&relief),
            };
            ((sender, caller), seed)
        })
        .unzip();
    let (inboxes, callers): (Vec<_>, Vec<ShardCaller>) = ends.into_iter().unzip();
    let admin = HubAdmin::new(Arc::clone(registry), callers.into());
    let publisher = HubPublisher::new(
        Arc::clone(registry),
        inboxes.into(),
        admin,
        relief,
        timeouts,
    );
    (publisher, seeds)
}
