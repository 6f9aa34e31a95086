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
mod implicit_topics;
mod inbox;
mod index;
mod inspection;
mod large_json;
mod membership;
mod presence;
mod publish;
mod read_slice;
mod registry;
mod relief;
mod revocation;
mod roster;
mod shard;
mod submission;
mod subscribers;
mod subscriptions;
mod tenant;
mod wakes;
mod wildcards;

#[cfg(test)]
pub(crate) mod tests;

use std::{sync::Arc, time::Duration};

use sidewire_protocol::clock::Clock;
use tokio::sync::mpsc;

pub use admin::{ConnectionPage, HubAdmin, SHARD_TIMEOUT, ShardTimeout, TenantView};
pub use begun_messages::{BegunMessageMemory, BegunMessages};
pub use catch_up::{SubscribeConfirmation, SubscribeProgress};
pub use condition_check::ConditionCheck;
pub use connection::{HubConnection, UntakenSubscribe};
pub use inbox::{InboxItem, InboxLimits};
pub use inspection::{
    EventAudience, EventSearch, ListedTenant, ListedTopic, NewestEvents, TenantListing,
    TopicListing,
};
pub use membership::SubscribeError;
pub use presence::{
    ListedPresence, PageCursor, PresenceLimits, PresenceMessage, PresenceProgress, PresenceRefusal,
    PresenceRefused, PresenceSettings, PresentUser, TopicPage,
};
pub use publish::{AppendError, AppendedEvents, HubPublisher, PlacedEvent, PublishedEvents};
pub use registry::{
    KeptEvent, KeptTenant, KeptWindow, RegistryLimits, TenantRegistry, TenantSnapshot, TenantsFull,
};
pub use revocation::{ReplayCut, RevokedTopics};
pub use roster::{ConnectionFilter, ConnectionProfile, ConnectionRecord, ListedConnection};
pub use shard::{LOOK_INTERVAL, ShardHub};

use crate::tally::ShardTally;
use admin::ShardCalls;
use presence::PresenceMailbox;
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
    /// The mailboxes of all shards.
    presence: Arc<[PresenceMailbox]>,
    clock: Clock,
}

impl ShardBuilder {
    /// Returns the counters of the shard.
    #[must_use]
    pub fn tally(&self) -> &Arc<ShardTally> {
        &self.tally
    }

    /// Builds the hub, which stays on the thread that built it.
    #[must_use]
    pub fn build(self) -> ShardHub {
        ShardHub::new(self)
    }
}

/// A hub that does not deliver anything yet.
#[derive(Debug)]
pub struct HubParts {
    /// Appends events and sends them to the shards.
    pub publisher: HubPublisher,
    /// The builder of each shard.
    pub shard_builders: Vec<ShardBuilder>,
}

impl HubParts {
    /// Creates a hub with this number of shards.
    #[must_use]
    pub fn new(
        registry: &Arc<TenantRegistry>,
        timeouts: PublishTimeouts,
        shards: usize,
        clock: &Clock,
    ) -> Self {
        let presence: Arc<[_]> = (0..shards).map(|_| PresenceMailbox::default()).collect();
        let relief = Arc::new(MemoryRelief::new(shards));
        let (mut inboxes, mut callers, mut builders) = (Vec::new(), Vec::new(), Vec::new());
        for id in 0..shards {
            let (sender, inbox) = inbox::inbox_channel(registry.inbox_limits().places);
            let (caller, calls) = admin::call_channels();
            inboxes.push(sender);
            callers.push(caller);
            builders.push(ShardBuilder {
                id,
                registry: Arc::clone(registry),
                tally: Arc::default(),
                inbox,
                calls,
                relief: Arc::clone(&relief),
                presence: Arc::clone(&presence),
                clock: clock.clone(),
            });
        }
        let admin = HubAdmin::new(Arc::clone(registry), callers.into());
        let publisher = HubPublisher::new(
            Arc::clone(registry),
            inboxes.into(),
            admin,
            relief,
            timeouts,
        );
        Self {
            publisher,
            shard_builders: builders,
        }
    }
}
