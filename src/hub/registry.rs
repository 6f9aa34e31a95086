//! The tenants of the process. Each has its log and the set of shards that have
//! connections of it, behind one lock: what is appended and who gets it is
//! decided in one step. Knows no connections.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use indexmap::IndexMap;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc::error::TrySendError},
    time::Instant,
};

use super::{
    ShardId,
    dormant::Dormant,
    inbox::{
        Events, FullInbox, InboxLimits, InboxSender, Item, Place, Receipt, ReceiptPart, Waited,
    },
};
#[cfg(test)]
use crate::planted;
use crate::{
    event::{Draft, Event, EventBytes},
    log::{Accounts, Gap, Log, Window},
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
    /// The bytes of all logs together. What is too much is taken from the largest.
    pub log_bytes: u64,
    /// The bytes of all events in memory, wherever they are held.
    pub memory_bytes: u64,
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
    tenants: RwLock<Tenants>,
    limits: RegistryLimits,
    random: Arc<Random>,
    accounts: Accounts,
    /// Held by who takes from the logs what is too much.
    trimming: Mutex<()>,
}

#[derive(Debug, Default)]
struct Tenants {
    /// Those with connections or events.
    live: IndexMap<TenantName, Arc<Tenant>>,
    dormant: Dormant,
}

impl Tenants {
    /// Keeps the number of both together within the limit.
    fn forget_surplus(&mut self, limit: usize) {
        let room = limit.saturating_sub(self.live.len());
        self.dormant.forget_beyond(room);
    }
}

impl Registry {
    /// A registry without tenants.
    #[must_use]
    pub fn new(limits: RegistryLimits, random: Arc<Random>) -> Self {
        Self {
            tenants: RwLock::default(),
            limits,
            random,
            accounts: Accounts::default(),
            trimming: Mutex::default(),
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
        &self.accounts.events
    }

    /// The bytes of all events in logs.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.accounts.logs.get()
    }

    /// Whether the events take more memory than they may.
    #[must_use]
    pub fn is_over_memory(&self) -> bool {
        self.accounts.events.get() > self.limits.memory_bytes
    }

    /// How many tenants there are with connections or events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().live.len()
    }

    /// Of how many tenants only the end of their log is remembered.
    #[must_use]
    pub fn dormant_len(&self) -> usize {
        self.read().dormant.len()
    }

    /// Whether there is no tenant with connections or events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Evicts from every log what is too old, and forgets the tenants of which
    /// nothing is left.
    pub fn sweep(&self, now: Instant) {
        for tenant in self.all() {
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

    /// Takes the oldest events from the largest logs, when all logs together have
    /// more bytes than they may: down to a level that is the same for all, so that a
    /// log smaller than its even share of the whole loses nothing to the others.
    pub(super) fn trim_logs(&self) {
        if self.log_bytes() <= self.limits.log_bytes {
            return;
        }
        // One is enough. Some more than is needed is taken, so that this look at
        // every log is not had for every event.
        let Ok(_guard) = self.trimming.try_lock() else {
            return;
        };
        let tenants = self.all();
        let sizes = tenants.iter().map(|it| it.lock().log.bytes() as u64);
        let level = level(sizes.collect(), self.limits.log_bytes / 64 * 63);
        for tenant in tenants {
            let evicted = tenant.lock().log.shrink_to(level);
            drop(evicted);
        }
    }

    /// The tenant of this name, which is made if there is none. It may be removed
    /// before the caller locks it; who finds it so asks again.
    pub(super) fn obtain(&self, name: &TenantName) -> Result<Arc<Tenant>, TenantsFull> {
        if let Some(tenant) = self.read().live.get(name) {
            return Ok(Arc::clone(tenant));
        }
        let mut tenants = self.write();
        if let Some(tenant) = tenants.live.get(name) {
            return Ok(Arc::clone(tenant));
        }
        if tenants.live.len() >= self.limits.tenants {
            return Err(TenantsFull);
        }
        let head = tenants.dormant.take(name).unwrap_or_else(|| Position {
            epoch: self.random.epoch(),
            offset: 0,
        });
        let tenant = Arc::new(Tenant {
            name: name.clone(),
            state: Mutex::new(State {
                log: Log::new(head, self.limits.window, self.accounts.clone()),
                shards: Vec::new(),
                removed: false,
            }),
        });
        tenants.live.insert(name.clone(), Arc::clone(&tenant));
        tenants.forget_surplus(self.limits.tenants);
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
        let mut tenants = self.write();
        let mut state = tenant.lock();
        if state.is_idle() && !state.removed {
            state.removed = true;
            tenants.live.swap_remove(&tenant.name);
            tenants.dormant.put(tenant.name.clone(), state.log.head());
            tenants.forget_surplus(self.limits.tenants);
        }
    }

    /// As of now.
    fn all(&self) -> Vec<Arc<Tenant>> {
        self.read().live.values().cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Tenants> {
        self.tenants.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tenants> {
        self.tenants.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The level to which all sizes are to be cut down so that their sum is at most
/// `sum`.
fn level(mut sizes: Vec<u64>, sum: u64) -> usize {
    sizes.sort_unstable();
    let (mut left, mut count) = (sum, sizes.len() as u64);
    for size in sizes {
        let share = left.checked_div(count).unwrap_or(0);
        if size > share {
            return usize::try_from(share).unwrap_or(usize::MAX);
        }
        left -= size;
        count -= 1;
    }
    usize::MAX
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

    /// A place in the inbox of each shard of the set, or of none: those that were
    /// reserved in vain are given back by their drop.
    fn reserve<'a>(
        &self,
        inboxes: &'a [InboxSender],
        waited: &mut Waited,
    ) -> Result<Vec<(Place<'a>, OwnedSemaphorePermit)>, FullInbox> {
        let mut places = Vec::with_capacity(self.shards.len());
        for entry in &self.shards {
            let Some(inbox) = inboxes.get(entry.shard) else {
                continue;
            };
            let share = match waited.share(&entry.share) {
                Ok(share) => share,
                Err(TryAcquireError::NoPermits) => {
                    return Err(FullInbox::Share(Arc::clone(&entry.share)));
                }
                Err(TryAcquireError::Closed) => continue,
            };
            match waited.place(inbox) {
                Ok(place) => places.push((place, share)),
                Err(TrySendError::Full(())) => return Err(FullInbox::Inbox(inbox.clone())),
                // The shard has ended, and its connections with it.
                Err(TrySendError::Closed(())) => {}
            }
        }
        Ok(places)
    }

    #[cfg(test)]
    fn append_too_early(&mut self, drafts: &[Draft], now: Instant) {
        if planted::is_planted(planted::Fault::AppendsTooEarly) {
            for draft in drafts {
                self.log.append(draft.clone(), now);
            }
        }
    }
}

#[derive(Debug)]
struct ShardOfTenant {
    shard: ShardId,
    /// The tenant's places in this shard's inbox.
    share: Arc<Semaphore>,
}

/// A part of a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The offset after which nothing may have been evicted, whatever is read.
    pub(super) whole_after: u64,
    /// The offset after which it begins.
    pub(super) after: u64,
    /// The offset up to which it goes.
    pub(super) up_to: u64,
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

impl Tenant {
    pub(super) fn name(&self) -> &TenantName {
        &self.name
    }

    /// The newest event's position.
    pub(super) fn head(&self) -> Position {
        self.lock().log.head()
    }

    /// The position after which the log has everything.
    pub(super) fn tail(&self) -> Position {
        self.lock().log.tail()
    }

    /// Whether the log has all that came after the position.
    pub(super) fn has_all_after(&self, position: Position) -> Result<(), Gap> {
        self.lock().log.read_after(position).map(drop)
    }

    /// Calls `f` with the events of a span of the log, oldest first, for as long as
    /// it says so and with `count` at the most, under the tenant's lock. Gives the
    /// offset up to which the span is done.
    pub(super) fn read_log(
        &self,
        span: Span,
        count: usize,
        mut f: impl FnMut(&Arc<Event>) -> ControlFlow<()>,
    ) -> Result<u64, Gap> {
        let state = self.lock();
        let at = |offset| Position {
            offset,
            ..state.log.head()
        };
        if span.whole_after != span.after {
            let _all = state.log.read_after(at(span.whole_after))?;
        }
        let mut done = span.after;
        for (number, event) in state.log.read_after(at(span.after))?.enumerate() {
            let offset = event.position().offset;
            if offset > span.up_to {
                break;
            }
            if number == count || f(event).is_break() {
                return Ok(done);
            }
            done = offset;
        }
        Ok(span.up_to)
    }

    /// Appends all events and sends them to every shard of the set, or does
    /// nothing. Takes the drafts only when it appends; what was `waited` for is given
    /// back.
    pub(super) fn append(
        self: &Arc<Self>,
        drafts: &mut Vec<Draft>,
        inboxes: &[InboxSender],
        now: Instant,
        mut waited: Waited,
    ) -> Attempt {
        let mut state = self.lock();
        if state.removed {
            return Attempt::Removed;
        }
        // All places first: what follows cannot fail.
        let places = match state.reserve(inboxes, &mut waited) {
            Ok(places) => places,
            Err(full) => {
                #[cfg(test)]
                state.append_too_early(drafts, now);
                return Attempt::NoRoom(full);
            }
        };
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
