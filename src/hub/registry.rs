//! The tenants of the process. Each has its log and the set of shards that have
//! connections of it, behind one lock: what is appended and who gets it is
//! decided in one step. Knows no connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use tokio::{
    sync::{Semaphore, TryAcquireError, mpsc::error::TrySendError},
    time::Instant,
};

use super::{
    ShardId,
    inbox::{Events, InboxLimits, InboxSender, Item, Receipt, ReceiptPart},
};
use crate::{
    event::{Draft, EventBytes},
    log::{Log, Window},
    protocol::{Position, TenantName},
    random::Random,
};

/// The bounds of the registry and of what it holds.
#[derive(Debug, Clone, Copy)]
pub struct RegistryLimits {
    /// How many tenants there are at the most.
    pub tenants: usize,
    /// What each tenant's log keeps.
    pub window: Window,
    /// What waits in the shards' inboxes.
    pub inbox: InboxLimits,
}

/// There are as many tenants as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the relay has no place for another tenant")]
pub struct TenantsFull;

/// All tenants, by name.
#[derive(Debug)]
pub struct Registry {
    tenants: RwLock<HashMap<TenantName, Arc<Tenant>>>,
    limits: RegistryLimits,
    random: Arc<Random>,
    event_bytes: Arc<EventBytes>,
}

impl Registry {
    /// A registry without tenants.
    #[must_use]
    pub fn new(limits: RegistryLimits, random: Arc<Random>) -> Self {
        Self {
            tenants: RwLock::default(),
            limits,
            random,
            event_bytes: Arc::default(),
        }
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> &RegistryLimits {
        &self.limits
    }

    /// The bytes of all events in memory.
    #[must_use]
    pub fn event_bytes(&self) -> &EventBytes {
        &self.event_bytes
    }

    /// How many tenants there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether there is no tenant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Evicts from every log what is too old, and forgets the tenants of which
    /// nothing is left.
    pub fn sweep(&self, now: Instant) {
        let tenants: Vec<_> = self.read().values().cloned().collect();
        for tenant in tenants {
            let (evicted, idle) = {
                let mut state = tenant.lock();
                (state.log.evict(now), state.is_idle())
            };
            drop(evicted);
            if idle {
                self.forget_if_idle(&tenant);
            }
        }
    }

    /// The tenant of this name, which is made if there is none. It may be removed
    /// before the caller locks it; who finds it so asks again.
    pub(super) fn obtain(&self, name: &TenantName) -> Result<Arc<Tenant>, TenantsFull> {
        if let Some(tenant) = self.read().get(name) {
            return Ok(Arc::clone(tenant));
        }
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = tenants.get(name) {
            return Ok(Arc::clone(tenant));
        }
        if tenants.len() >= self.limits.tenants {
            return Err(TenantsFull);
        }
        let tenant = Arc::new(Tenant {
            name: name.clone(),
            state: Mutex::new(State {
                log: Log::new(
                    self.random.epoch(),
                    self.limits.window,
                    Arc::clone(&self.event_bytes),
                ),
                shards: Vec::new(),
                removed: false,
            }),
        });
        tenants.insert(name.clone(), Arc::clone(&tenant));
        Ok(tenant)
    }

    /// Puts the shard into the set of the tenant, and gives the position up to
    /// which its connections have nothing to expect from the inbox.
    pub(super) fn enter(
        &self,
        name: &TenantName,
        shard: ShardId,
    ) -> Result<(Arc<Tenant>, Position), TenantsFull> {
        loop {
            let tenant = self.obtain(name)?;
            let mut state = tenant.lock();
            if state.removed {
                continue;
            }
            state.shards.push(ShardOfTenant {
                shard,
                share: Arc::new(Semaphore::new(self.limits.inbox.places_per_tenant)),
            });
            let head = state.log.head();
            drop(state);
            return Ok((tenant, head));
        }
    }

    /// Takes the shard out of the set of the tenant.
    pub(super) fn leave(&self, tenant: &Arc<Tenant>, shard: ShardId) {
        let idle = {
            let mut state = tenant.lock();
            state.shards.retain(|entry| entry.shard != shard);
            state.is_idle()
        };
        if idle {
            self.forget_if_idle(tenant);
        }
    }

    fn forget_if_idle(&self, tenant: &Arc<Tenant>) {
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = tenant.lock();
        if state.is_idle() && !state.removed {
            state.removed = true;
            tenants.remove(&tenant.name);
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<TenantName, Arc<Tenant>>> {
        self.tenants.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One tenant.
#[derive(Debug)]
pub(super) struct Tenant {
    name: TenantName,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: Log,
    shards: Vec<ShardOfTenant>,
    /// Whether the registry has forgotten it: nothing may be put into it.
    removed: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.shards.is_empty() && self.log.is_empty()
    }
}

#[derive(Debug)]
struct ShardOfTenant {
    shard: ShardId,
    /// The tenant's places in this shard's inbox.
    share: Arc<Semaphore>,
}

/// How an attempt to append ended.
pub(super) enum Attempt {
    /// The events are in the log and on their way to the shards.
    Appended(Events, Arc<Receipt>),
    /// Nothing happened, for want of room.
    NoRoom(FullInbox),
    /// Nothing happened: the registry has forgotten the tenant.
    Removed,
}

/// The first inbox that was found without room.
pub(super) enum FullInbox {
    /// The tenant has its share of it in use.
    Share(Arc<Semaphore>),
    /// All its places are taken.
    Inbox(InboxSender),
}

impl FullInbox {
    /// Waits until there was room for one item.
    pub(super) async fn has_room(self) {
        // A closed inbox has room for all: nobody waits for a shard that is gone.
        match self {
            Self::Share(share) => drop(share.acquire().await),
            Self::Inbox(inbox) => drop(inbox.reserve().await),
        }
    }
}

impl Tenant {
    pub(super) fn name(&self) -> &TenantName {
        &self.name
    }

    /// The newest event's position.
    pub(super) fn head(&self) -> Position {
        self.lock().log.head()
    }

    /// Appends all events and sends them to every shard of the set, or does
    /// nothing. Takes the drafts only when it appends.
    pub(super) fn append(
        self: &Arc<Self>,
        drafts: &mut Vec<Draft>,
        inboxes: &[InboxSender],
        now: Instant,
    ) -> Attempt {
        let mut state = self.lock();
        if state.removed {
            return Attempt::Removed;
        }
        // All places first: what follows cannot fail. Places that were reserved
        // in vain are given back by their drop.
        let mut places = Vec::with_capacity(state.shards.len());
        for entry in &state.shards {
            let Some(inbox) = inboxes.get(entry.shard) else {
                continue;
            };
            let share = match Arc::clone(&entry.share).try_acquire_owned() {
                Ok(share) => share,
                Err(TryAcquireError::NoPermits) => {
                    return Attempt::NoRoom(FullInbox::Share(Arc::clone(&entry.share)));
                }
                Err(TryAcquireError::Closed) => continue,
            };
            match inbox.try_reserve() {
                Ok(place) => places.push((place, share)),
                Err(TrySendError::Full(())) => {
                    return Attempt::NoRoom(FullInbox::Inbox(inbox.clone()));
                }
                // The shard has ended, and its connections with it.
                Err(TrySendError::Closed(())) => {}
            }
        }
        let appended = drafts.drain(..).map(|draft| state.log.append(draft, now));
        let events = Events::new(appended);
        let receipt = Receipt::new(places.len(), events.as_slice().len());
        for (place, share) in places {
            place.send(Item {
                tenant: Arc::clone(self),
                events: events.clone(),
                receipt: ReceiptPart::of(&receipt),
                _place: share,
            });
        }
        drop(state);
        Attempt::Appended(events, receipt)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
