//! Data that crosses threads on the path of an event: items in a shard's inbox, and the state
//! that shards share while they deliver them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use sidewire_presence::ConnectionKey;
use sidewire_protocol::Topic;

use super::tenant::Tenant;
use crate::event::{ClientEvent, Event, JsonCell};

/// Bounds on the items waiting for a shard, in its inbox or in the queues of its tenants.
#[derive(Debug, Clone, Copy)]
pub struct InboxLimits {
    /// Items of all tenants together.
    pub places: usize,
    /// Items of one tenant, so that it cannot use up all the room.
    pub places_per_tenant: usize,
}

impl Default for InboxLimits {
    fn default() -> Self {
        Self {
            places: 1024,
            places_per_tenant: 256,
        }
    }
}

/// Something to deliver, on its way to a shard.
#[derive(Debug)]
pub struct InboxItem {
    pub(super) tenant: Arc<Tenant>,
    pub(super) content: InboxContent,
    pub(super) _place: InboxPermit,
}

/// The content of an inbox item.
#[derive(Debug)]
pub(super) enum InboxContent {
    /// The events of one append.
    Events {
        events: EventBatch,
        delivery: ShardDelivery,
    },
    /// An event of a client.
    Client(Arc<RelayedEvent>),
}

/// An event of a client on its way to others.
#[derive(Debug)]
pub(super) struct RelayedEvent {
    pub(super) event: Arc<ClientEvent>,
    /// The topics that it names and its sender is subscribed to.
    pub(super) topics: Box<[Topic]>,
    /// The connection that sent it, which does not receive it.
    pub(super) sender: ConnectionKey,
}

/// The events of one append, in offset order.
#[derive(Debug, Clone)]
pub(super) enum EventBatch {
    One(Arc<Event>),
    Batch(Arc<[Arc<Event>]>),
}

impl EventBatch {
    pub(super) fn new(mut events: impl ExactSizeIterator<Item = Arc<Event>>) -> Self {
        match (events.len(), events.next()) {
            (1, Some(only)) => Self::One(only),
            (_, first) => Self::Batch(first.into_iter().chain(events).collect()),
        }
    }

    pub(super) fn as_slice(&self) -> &[Arc<Event>] {
        match self {
            Self::One(event) => std::slice::from_ref(event),
            Self::Batch(events) => events,
        }
    }
}

/// State that the shards share while the events of an append are delivered: how many shards have
/// not queued them yet, how many connections each event matched, and its JSON.
#[derive(Debug)]
pub(super) struct SharedDelivery {
    shards_left: AtomicUsize,
    events: Box<[EventDelivery]>,
    answered: Notify,
}

/// State that the shards share for one event.
#[derive(Debug, Default)]
pub(super) struct EventDelivery {
    matched: AtomicU64,
    json: JsonCell,
}

impl EventDelivery {
    /// Returns the cell for the event's JSON.
    pub(super) fn json_cell(&self) -> &JsonCell {
        &self.json
    }

    /// Adds the number of connections that the event matched on one shard.
    pub(super) fn add_matched(&self, matched: u64) {
        self.matched.fetch_add(matched, Ordering::Relaxed);
    }
}

impl SharedDelivery {
    pub(super) fn new(shards: usize, events: usize) -> Arc<Self> {
        Arc::new(Self {
            shards_left: AtomicUsize::new(shards),
            events: (0..events).map(|_| EventDelivery::default()).collect(),
            answered: Notify::new(),
        })
    }

    /// Returns the state of each event, in the order of the events.
    pub(super) fn events(&self) -> &[EventDelivery] {
        &self.events
    }

    /// Waits until every shard has answered. Only one task may wait.
    pub(super) async fn wait_answered(&self) {
        while !self.is_answered() {
            self.answered.notified().await;
        }
    }

    /// Returns true if every shard has answered.
    pub(super) fn is_answered(&self) -> bool {
        self.shards_left.load(Ordering::Acquire) == 0
    }

    /// Returns, for each event, the number of connections matched so far.
    pub(super) fn matched_counts(&self) -> impl Iterator<Item = u64> {
        self.events
            .iter()
            .map(|event| event.matched.load(Ordering::Relaxed))
    }
}

/// A shard's part of a delivery. Dropping it answers for the shard, also when the shard ends with
/// items in its inbox, so that no caller waits forever.
#[derive(Debug)]
pub(super) struct ShardDelivery(Arc<SharedDelivery>);

impl ShardDelivery {
    pub(super) fn of(delivery: &Arc<SharedDelivery>) -> Self {
        Self(Arc::clone(delivery))
    }

    /// Returns the state shared by all shards.
    pub(super) fn shared_delivery(&self) -> &Arc<SharedDelivery> {
        &self.0
    }
}

impl Drop for ShardDelivery {
    fn drop(&mut self) {
        if self.0.shards_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.answered.notify_one();
        }
    }
}

/// The sending end of an inbox.
#[derive(Debug, Clone)]
pub(super) struct InboxSender {
    items: mpsc::Sender<InboxItem>,
    /// Permits for all tenants together. The channel has the same capacity, so a permit
    /// guarantees a free slot in it.
    places: Arc<Semaphore>,
}

/// Returns both ends of an inbox with a capacity of `places` items.
pub(super) fn inbox_channel(places: usize) -> (InboxSender, mpsc::Receiver<InboxItem>) {
    let (items, receiver) = mpsc::channel(places);
    let sender = InboxSender {
        items,
        places: Arc::new(Semaphore::new(places)),
    };
    (sender, receiver)
}

impl InboxSender {
    /// Returns true if the inbox's shard has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    /// Returns the number of items that there is room for.
    pub(super) fn free_places(&self) -> usize {
        self.places.available_permits()
    }

    /// Reserves room for one item, within the tenant's share and the whole inbox.
    pub(super) fn try_reserve(
        &self,
        share: &Arc<Semaphore>,
        waited: &mut HeldPermit,
    ) -> Result<InboxPermit, FullInbox> {
        Ok(InboxPermit {
            _of_share: waited.take_or_acquire(share)?,
            _of_all: waited.take_or_acquire(&self.places)?,
            _of_client_events: None,
        })
    }

    /// Reserves room for an event of a client, within what these may take of the tenant's share.
    /// Returns `None` if there is none.
    pub(super) fn try_reserve_for_client(
        &self,
        share: &Arc<Semaphore>,
        client_events: &Arc<Semaphore>,
    ) -> Option<InboxPermit> {
        let acquire = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        Some(InboxPermit {
            _of_client_events: Some(acquire(client_events)?),
            _of_share: acquire(share)?,
            _of_all: acquire(&self.places)?,
        })
    }

    /// Sends an item that holds a permit. If the shard has ended, the item is dropped, which counts
    /// as the shard's answer.
    pub(super) fn send(&self, item: InboxItem) {
        drop(self.items.try_send(item));
    }
}

/// Room for one item in an inbox. It is held until the item is delivered, also while the item
/// waits in a tenant's queue, so a publisher gets in only as the shard makes progress.
#[derive(Debug)]
pub(super) struct InboxPermit {
    _of_share: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
    _of_client_events: Option<OwnedSemaphorePermit>,
}

/// The semaphore that had no permit left: that of an inbox, or of a tenant's share of it.
pub(super) struct FullInbox(Arc<Semaphore>);

impl FullInbox {
    /// Waits until there is room for one item. Waiters are served in the order in which they
    /// began to wait.
    pub(super) async fn wait_for_room(self) -> HeldPermit {
        HeldPermit(self.0.acquire_owned().await.ok())
    }
}

/// A permit that a publisher has waited for and keeps for its next attempt. If it were released
/// first, two waiting publishers could pass the one permit to each other forever.
#[derive(Default)]
pub(super) struct HeldPermit(Option<OwnedSemaphorePermit>);

impl HeldPermit {
    fn take_or_acquire(
        &mut self,
        places: &Arc<Semaphore>,
    ) -> Result<OwnedSemaphorePermit, FullInbox> {
        let held = self.0.take_if(|held| Arc::ptr_eq(held.semaphore(), places));
        match held {
            Some(held) => Ok(held),
            None => Arc::clone(places)
                .try_acquire_owned()
                .map_err(|_| FullInbox(Arc::clone(places))),
        }
    }
}
