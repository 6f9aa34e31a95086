//! The tenants of the process. Each has its log and the set of shards that have
//! connections of it, behind one lock: what is appended and who gets it is
//! decided in one step. Knows no connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use tokio::{
    sync::{
        OwnedSemaphorePermit, Semaphore, TryAcquireError,
        mpsc::{self, error::TrySendError},
    },
    time::Instant,
};

use super::{
    ShardId,
    inbox::{Events, InboxLimits, InboxSender, Item, Receipt, ReceiptPart},
    submission::{Refusal, Repeat, Submission},
};
use crate::{
    event::{EventBytes, FingerprintKey},
    log::{Log, MessageIdBudget, MessageIdLimits, MessageIds, Window, unmet},
    protocol::{Position, TenantName},
    random::Random,
};

/// How many message ids are forgotten at once while a tenant is locked.
const FORGOTTEN_AT_ONCE: usize = 1000;

/// The bounds of the registry and of what it holds.
#[derive(Debug, Clone, Copy)]
pub struct RegistryLimits {
    /// How many tenants there are at the most.
    pub tenants: usize,
    /// What each tenant's log keeps.
    pub window: Window,
    /// What waits in the shards' inboxes.
    pub inbox: InboxLimits,
    /// What is remembered of message ids.
    pub message_ids: MessageIdLimits,
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
    message_ids: Arc<MessageIdBudget>,
    fingerprint_key: FingerprintKey,
}

impl Registry {
    /// A registry without tenants.
    #[must_use]
    pub fn new(limits: RegistryLimits, random: Arc<Random>) -> Self {
        Self {
            tenants: RwLock::default(),
            message_ids: Arc::new(MessageIdBudget::new(limits.message_ids)),
            fingerprint_key: FingerprintKey::new(&random),
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

    /// What all tenants remember of message ids.
    #[must_use]
    pub fn message_ids(&self) -> &MessageIdBudget {
        &self.message_ids
    }

    pub(super) fn fingerprint_key(&self) -> &FingerprintKey {
        &self.fingerprint_key
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
        for tenant in self.all() {
            while !tenant.expire_message_ids(now) {}
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

    /// Takes from the tenants that remember the most message ids until a part of the
    /// budget is free again. Locks one tenant at a time, so nobody may call it who
    /// holds one.
    pub(super) fn level_message_ids(&self) {
        let tenants = self.all();
        let counts = tenants.iter().map(|tenant| tenant.message_id_count());
        let level = self.message_ids.level(counts.collect());
        let mut excess = self.message_ids.excess();
        for tenant in tenants {
            while excess > 0 {
                let forgotten = tenant.forget_message_ids(level, excess.min(FORGOTTEN_AT_ONCE));
                if forgotten == 0 {
                    break;
                }
                excess = excess.saturating_sub(forgotten);
            }
        }
    }

    fn all(&self) -> Vec<Arc<Tenant>> {
        self.read().values().cloned().collect()
    }

    /// The tenant of this name, if there is one.
    pub(super) fn find(&self, name: &TenantName) -> Option<Arc<Tenant>> {
        self.read().get(name).cloned()
    }

    /// The tenant of this name, which is made if there is none. It may be removed
    /// before the caller locks it; who finds it so asks again.
    pub(super) fn obtain(&self, name: &TenantName) -> Result<Arc<Tenant>, TenantsFull> {
        if let Some(tenant) = self.find(name) {
            return Ok(tenant);
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
            message_id_budget: Arc::clone(&self.message_ids),
            state: Mutex::new(State {
                log: Log::new(
                    self.random.epoch(),
                    self.limits.window,
                    Arc::clone(&self.event_bytes),
                ),
                message_ids: None,
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
    message_id_budget: Arc<MessageIdBudget>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: Log,
    /// `None` where there are none: most tenants of a relay may give none.
    message_ids: Option<Box<MessageIds>>,
    shards: Vec<ShardOfTenant>,
    /// Whether the registry has forgotten it: nothing may be put into it.
    removed: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.shards.is_empty() && self.log.is_empty() && self.message_ids.is_none()
    }

    /// What of the submission is known already, or why none of it may be appended.
    fn judge(&mut self, submission: &Submission<'_>, now: Instant) -> Result<Vec<Repeat>, Refusal> {
        let repeats = submission.repeats(self.message_ids.as_deref(), now)?;
        // What has been appended is not refused when it comes again, although what
        // was believed before it came is no longer true.
        if repeats.len() < submission.drafts.len() && !submission.conditions.is_empty() {
            let unmet = unmet(submission.conditions, Some(&mut self.log), now);
            if !unmet.is_empty() {
                return Err(Refusal::Unmet(unmet));
            }
        }
        Ok(repeats)
    }

    /// Takes one place in the inbox of every shard of the set, or none: places that
    /// were reserved in vain are given back by their drop.
    fn reserve<'a>(&self, inboxes: &'a [InboxSender]) -> Result<Vec<Place<'a>>, FullInbox> {
        let mut places = Vec::with_capacity(self.shards.len());
        for entry in &self.shards {
            let Some(inbox) = inboxes.get(entry.shard) else {
                continue;
            };
            let share = match Arc::clone(&entry.share).try_acquire_owned() {
                Ok(share) => share,
                Err(TryAcquireError::NoPermits) => {
                    return Err(FullInbox::Share(Arc::clone(&entry.share)));
                }
                Err(TryAcquireError::Closed) => continue,
            };
            match inbox.try_reserve() {
                Ok(place) => places.push((place, share)),
                Err(TrySendError::Full(())) => return Err(FullInbox::Inbox(inbox.clone())),
                // The shard has ended, and its connections with it.
                Err(TrySendError::Closed(())) => {}
            }
        }
        Ok(places)
    }

    /// Appends what is not known, and remembers what it is known by.
    fn append_new(
        &mut self,
        submission: &mut Submission<'_>,
        repeats: &[Repeat],
        budget: &Arc<MessageIdBudget>,
        now: Instant,
    ) -> Events {
        let (log, message_ids) = (&mut self.log, &mut self.message_ids);
        let new = submission.take_new(repeats);
        Events::new(new.into_iter().map(|draft| {
            let fingerprint = draft.fingerprint();
            let event = log.append(draft, now);
            if let Some(fingerprint) = fingerprint {
                message_ids
                    .get_or_insert_with(|| Box::new(MessageIds::new(Arc::clone(budget))))
                    .remember(fingerprint, event.position().offset, now);
            }
            event
        }))
    }
}

/// A place in an inbox, and in the tenant's share of it.
type Place<'a> = (mpsc::Permit<'a, Item>, OwnedSemaphorePermit);

#[derive(Debug)]
struct ShardOfTenant {
    shard: ShardId,
    /// The tenant's places in this shard's inbox.
    share: Arc<Semaphore>,
}

/// How an attempt to append ended.
pub(super) enum Attempt {
    /// The events are in the log and on their way to the shards.
    Appended {
        /// Those that are new, in the order of their drafts.
        events: Events,
        /// Of the shards.
        receipt: Arc<Receipt>,
        /// The places of the drafts that are not, and their first positions.
        repeats: Vec<(usize, Position)>,
    },
    /// Nothing happened, because of what is known or believed.
    Refused(Refusal),
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

    /// Appends all events that are new and sends them to every shard of the set, or
    /// does nothing. Takes the drafts only when it appends.
    pub(super) fn append(
        self: &Arc<Self>,
        submission: &mut Submission<'_>,
        inboxes: &[InboxSender],
        now: Instant,
    ) -> Attempt {
        let mut state = self.lock();
        if state.removed {
            return Attempt::Removed;
        }
        let repeats = match state.judge(submission, now) {
            Ok(repeats) => repeats,
            Err(refusal) => return Attempt::Refused(refusal),
        };
        let is_all_known = repeats.len() == submission.drafts.len();
        let places = if is_all_known {
            Vec::new()
        } else {
            match state.reserve(inboxes) {
                Ok(places) => places,
                Err(full) => return Attempt::NoRoom(full),
            }
        };
        // What follows cannot fail.
        let events = state.append_new(submission, &repeats, &self.message_id_budget, now);
        let receipt = Receipt::new(places.len(), events.as_slice().len());
        for (place, share) in places {
            place.send(Item {
                tenant: Arc::clone(self),
                events: events.clone(),
                receipt: ReceiptPart::of(&receipt),
                _place: share,
            });
        }
        let epoch = state.log.head().epoch;
        drop(state);
        Attempt::Appended {
            repeats: repeats
                .into_iter()
                .map(|repeat| repeat.placed(epoch, &events))
                .collect(),
            events,
            receipt,
        }
    }

    /// Forgets some of the message ids that are too old. Whether those were all.
    fn expire_message_ids(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let Some(ids) = &mut state.message_ids else {
            return true;
        };
        if !ids.expire(now, FORGOTTEN_AT_ONCE) {
            return false;
        }
        ids.shrink();
        if ids.is_empty() {
            state.message_ids = None;
        }
        true
    }

    fn message_id_count(&self) -> usize {
        self.lock().message_ids.as_ref().map_or(0, |ids| ids.len())
    }

    /// Forgets at most so many message ids of those above the level: how many.
    fn forget_message_ids(&self, level: usize, most: usize) -> usize {
        let mut state = self.lock();
        let Some(ids) = &mut state.message_ids else {
            return 0;
        };
        let count = ids.len().saturating_sub(level).min(most);
        ids.forget_oldest(count);
        count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
