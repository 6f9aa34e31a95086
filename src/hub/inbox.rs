//! What crosses threads on the path of an event: items in a shard's inbox, with what
//! the shards share of their delivery. Knows no topics.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::tenant::Tenant;
use crate::event::{Event, JsonCell};

/// How many items wait for a shard at the most, in its inbox or in the queues of its
/// tenants.
#[derive(Debug, Clone, Copy)]
pub struct InboxLimits {
    /// Of all tenants.
    pub places: usize,
    /// Of one tenant, so that one cannot take all the room.
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

/// One append, on its way to a shard.
#[derive(Debug)]
pub struct Item {
    pub(super) tenant: Arc<Tenant>,
    pub(super) events: Events,
    pub(super) delivery: DeliveryPart,
    pub(super) _place: Place,
}

/// The events of one append, in offset order.
#[derive(Debug, Clone)]
pub(super) enum Events {
    One(Arc<Event>),
    Batch(Arc<[Arc<Event>]>),
}

impl Events {
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

/// What the shards share while the events of an append are delivered: whether every
/// shard has queued them, how many connections each matched, and its JSON.
#[derive(Debug)]
pub(super) struct Delivery {
    shards_left: AtomicUsize,
    events: Box<[Delivered]>,
    answered: Notify,
}

/// What the shards share of one event.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    matched: AtomicU64,
    json: JsonCell,
}

impl Delivered {
    /// The place for its JSON.
    pub(super) fn json(&self) -> &JsonCell {
        &self.json
    }

    /// Adds the connections that it matched on a shard.
    pub(super) fn add_matched(&self, matched: u64) {
        self.matched.fetch_add(matched, Ordering::Relaxed);
    }
}

impl Delivery {
    pub(super) fn new(shards: usize, events: usize) -> Arc<Self> {
        Arc::new(Self {
            shards_left: AtomicUsize::new(shards),
            events: (0..events).map(|_| Delivered::default()).collect(),
            answered: Notify::new(),
        })
    }

    /// Each event's, in their order.
    pub(super) fn events(&self) -> &[Delivered] {
        &self.events
    }

    /// Waits for the last shard. Only one task may wait.
    pub(super) async fn answered(&self) {
        while !self.is_answered() {
            self.answered.notified().await;
        }
    }

    /// Whether no shard has to be waited for.
    pub(super) fn is_answered(&self) -> bool {
        self.shards_left.load(Ordering::Acquire) == 0
    }

    /// For each event, how many connections it has matched so far.
    pub(super) fn matched(&self) -> impl Iterator<Item = u64> {
        self.events
            .iter()
            .map(|event| event.matched.load(Ordering::Relaxed))
    }
}

/// One shard's part of a delivery, which is answered when it is dropped: also when
/// the shard ends with items in its inbox, so that nobody waits for ever.
#[derive(Debug)]
pub(super) struct DeliveryPart(Arc<Delivery>);

impl DeliveryPart {
    pub(super) fn of(delivery: &Arc<Delivery>) -> Self {
        Self(Arc::clone(delivery))
    }

    /// What all shards share.
    pub(super) fn delivery(&self) -> &Arc<Delivery> {
        &self.0
    }
}

impl Drop for DeliveryPart {
    fn drop(&mut self) {
        if self.0.shards_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.answered.notify_one();
        }
    }
}

/// The end of an inbox that others put items into.
#[derive(Debug, Clone)]
pub(super) struct InboxSender {
    items: mpsc::Sender<Item>,
    /// Of all tenants. The channel has as many, so who has one of these has one there.
    places: Arc<Semaphore>,
}

/// An inbox with so many places.
pub(super) fn inbox(places: usize) -> (InboxSender, mpsc::Receiver<Item>) {
    let (items, receiver) = mpsc::channel(places);
    let sender = InboxSender {
        items,
        places: Arc::new(Semaphore::new(places)),
    };
    (sender, receiver)
}

impl InboxSender {
    /// Whether its shard has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    /// A place for one item, of the tenant's share and of all.
    pub(super) fn place(
        &self,
        share: &Arc<Semaphore>,
        waited: &mut Waited,
    ) -> Result<Place, FullInbox> {
        Ok(Place {
            _of_share: waited.take(share)?,
            _of_all: waited.take(&self.places)?,
        })
    }

    /// Puts an item into one of the places. If the shard ends meanwhile the item is
    /// dropped, and so answered.
    pub(super) fn send(&self, item: Item) {
        drop(self.items.try_send(item));
    }
}

/// A place in an inbox. It is taken until the item is delivered, wherever that waits:
/// so its drop lets a publisher in for what the shard has done.
#[derive(Debug)]
pub(super) struct Place {
    _of_share: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// The first that was found without room: an inbox, or a tenant's share of it.
pub(super) struct FullInbox(Arc<Semaphore>);

impl FullInbox {
    /// Waits until there is room for one item. Who waits longest is let in first.
    pub(super) async fn has_room(self) -> Waited {
        Waited(self.0.acquire_owned().await.ok())
    }
}

/// What a publisher has waited for. It keeps that for its next attempt: were it given
/// back first, two that wait would hand the one place to each other for ever.
#[derive(Default)]
pub(super) struct Waited(Option<OwnedSemaphorePermit>);

impl Waited {
    fn take(&mut self, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, FullInbox> {
        let held = self.0.take_if(|held| Arc::ptr_eq(held.semaphore(), places));
        match held {
            Some(held) => Ok(held),
            None => Arc::clone(places)
                .try_acquire_owned()
                .map_err(|_| FullInbox(Arc::clone(places))),
        }
    }
}
