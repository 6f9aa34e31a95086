//! What crosses threads on the path of an event: items in a shard's inbox, and
//! the receipts that come back. Knows no topics.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::{
    Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError,
    mpsc::{self, error::TrySendError},
};

use super::tenant::Tenant;
use crate::event::Event;

/// How many items wait in a shard's inbox at the most.
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
    pub(super) receipt: ReceiptPart,
    /// Of the tenant's share; given back when the item has been taken.
    pub(super) _place: OwnedSemaphorePermit,
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

/// Whether every shard has queued the events of an append, and how many
/// connections each matched.
#[derive(Debug)]
pub(super) struct Receipt {
    shards_left: AtomicUsize,
    matched: Box<[AtomicU64]>,
    answered: Notify,
}

impl Receipt {
    pub(super) fn new(shards: usize, events: usize) -> Arc<Self> {
        Arc::new(Self {
            shards_left: AtomicUsize::new(shards),
            matched: (0..events).map(|_| AtomicU64::new(0)).collect(),
            answered: Notify::new(),
        })
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
        self.matched.iter().map(|it| it.load(Ordering::Relaxed))
    }
}

/// One shard's part of a receipt, which is answered when it is dropped: also when
/// the shard ends with items in its inbox, so that nobody waits for ever.
#[derive(Debug)]
pub(super) struct ReceiptPart(Arc<Receipt>);

impl ReceiptPart {
    pub(super) fn of(receipt: &Arc<Receipt>) -> Self {
        Self(Arc::clone(receipt))
    }

    /// Adds the connections that an event matched here.
    pub(super) fn add(&self, event: usize, matched: u64) {
        if let Some(sum) = self.0.matched.get(event) {
            sum.fetch_add(matched, Ordering::Relaxed);
        }
    }
}

impl Drop for ReceiptPart {
    fn drop(&mut self) {
        if self.0.shards_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.answered.notify_one();
        }
    }
}

/// The end of an inbox that others put items into.
pub(super) type InboxSender = mpsc::Sender<Item>;

/// The first inbox that was found without room.
pub(super) enum FullInbox {
    /// The tenant has its share of it in use.
    Share(Arc<Semaphore>),
    /// All its places are taken.
    Inbox(InboxSender),
}

/// What a publisher has waited for. It keeps that for its next attempt: were it given
/// back first, two that wait would hand the one place to each other for ever.
#[derive(Default)]
pub(super) struct Waited {
    share: Option<OwnedSemaphorePermit>,
    place: Option<mpsc::OwnedPermit<Item>>,
}

impl FullInbox {
    /// Waits until there is room for one item.
    pub(super) async fn has_room(self) -> Waited {
        // A closed inbox has room for all: nobody waits for a shard that is gone.
        match self {
            Self::Share(share) => Waited {
                share: share.acquire_owned().await.ok(),
                place: None,
            },
            Self::Inbox(inbox) => Waited {
                share: None,
                place: inbox.reserve_owned().await.ok(),
            },
        }
    }
}

impl Waited {
    /// A place of a tenant's share.
    pub(super) fn share(
        &mut self,
        share: &Arc<Semaphore>,
    ) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        let held = self
            .share
            .take_if(|held| Arc::ptr_eq(held.semaphore(), share));
        held.map_or_else(|| Arc::clone(share).try_acquire_owned(), Ok)
    }

    /// A place in an inbox.
    pub(super) fn place<'a>(
        &mut self,
        inbox: &'a InboxSender,
    ) -> Result<Place<'a>, TrySendError<()>> {
        let held = self
            .place
            .take_if(|held| held.same_channel_as_sender(inbox));
        match held {
            Some(held) => Ok(Place::Waited(held)),
            None => inbox.try_reserve().map(Place::Free),
        }
    }
}

/// A place in an inbox, for one item.
pub(super) enum Place<'a> {
    Free(mpsc::Permit<'a, Item>),
    Waited(mpsc::OwnedPermit<Item>),
}

impl Place<'_> {
    pub(super) fn send(self, item: Item) {
        match self {
            Self::Free(place) => place.send(item),
            Self::Waited(place) => drop(place.send(item)),
        }
    }
}
