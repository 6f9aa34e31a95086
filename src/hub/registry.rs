//! The tenants of the process, and what all of them together may take up. Knows
//! no connections.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicUsize, Ordering},
};

use indexmap::IndexMap;
use tokio::time::Instant;

use super::{ShardId, dormant::Dormant, inbox::InboxLimits, tenant::Tenant};
use crate::{
    event::FingerprintKey,
    log::{
        Accounts, Condition, Evicted, Log, MessageIdBudget, MessageIdLimits, Unmet, Window, unmet,
    },
    memory::{MemoryAccount, MemoryLimits, MemoryUse},
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
    /// The bytes of all that is held in memory.
    pub memory: MemoryLimits,
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
    tenants: RwLock<Tenants>,
    /// As they were at the start; two have changed since, perhaps.
    limits: RegistryLimits,
    tenants_max: AtomicUsize,
    /// The connections that take events as JSON, of all tenants.
    json_connections: AtomicUsize,
    random: Arc<Random>,
    accounts: Accounts,
    message_ids: Arc<MessageIdBudget>,
    fingerprint_key: FingerprintKey,
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
        let accounts = Accounts {
            memory: Arc::new(MemoryAccount::new(limits.memory)),
            logs: Arc::default(),
        };
        Self {
            tenants: RwLock::default(),
            message_ids: Arc::new(MessageIdBudget::new(limits.message_ids)),
            fingerprint_key: FingerprintKey::new(&random),
            tenants_max: limits.tenants.into(),
            json_connections: AtomicUsize::new(0),
            limits,
            random,
            accounts,
            trimming: Mutex::default(),
        }
    }

    /// What of the bounds does not change.
    pub(super) fn inbox_limits(&self) -> InboxLimits {
        self.limits.inbox
    }

    /// Changes two of the bounds. Tenants beyond the first stay for as long as they
    /// have something.
    pub(super) fn configure(&self, tenants: usize, memory: MemoryLimits) {
        self.tenants_max.store(tenants, Ordering::Relaxed);
        self.accounts.memory.set_limits(memory);
        self.write().forget_surplus(tenants);
    }

    fn tenants_max(&self) -> usize {
        self.tenants_max.load(Ordering::Relaxed)
    }

    /// The account of the memory that the process holds for others.
    #[must_use]
    pub fn memory(&self) -> &Arc<MemoryAccount> {
        &self.accounts.memory
    }

    /// The bytes of all events in logs.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.accounts.logs.get()
    }

    /// Returns true if events take more memory than the others leave.
    #[must_use]
    pub fn is_over_memory(&self) -> bool {
        self.accounts.memory.is_exceeded()
    }

    /// Returns true if memory is held that closing connections may free: more than there
    /// may be, or what the replay window is to have.
    #[must_use]
    pub(super) fn is_short_of_memory(&self) -> bool {
        let memory = &self.accounts.memory;
        let closable = [MemoryUse::BegunMessages, MemoryUse::Subscriptions];
        memory.is_exceeded() || closable.into_iter().any(|what| memory.is_overdrawn(what))
    }

    /// A connection of the tenant that takes events as JSON has come, or one has gone.
    pub(super) fn count_json(&self, tenant: &Tenant, joined: bool) {
        tenant.count_json(joined);
        if joined {
            self.json_connections.fetch_add(1, Ordering::Relaxed);
        } else {
            self.json_connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether a connection of the tenant takes events as JSON.
    pub(super) fn has_json(&self, name: &TenantName) -> bool {
        self.json_connections.load(Ordering::Relaxed) > 0
            && self.read().live.get(name).is_some_and(|it| it.has_json())
    }

    /// What all tenants remember of message ids.
    #[must_use]
    pub fn message_ids(&self) -> &MessageIdBudget {
        &self.message_ids
    }

    pub(super) fn fingerprint_key(&self) -> &FingerprintKey {
        &self.fingerprint_key
    }

    /// How many tenants there are with connections, events or message ids.
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
            while !tenant.expire_message_ids(now) {}
            drop(tenant.evict(now));
            tenant.tidy_last_offsets(now);
            if tenant.is_idle() {
                self.forget_if_idle(&tenant);
            }
        }
    }

    /// Takes the oldest events from the largest logs, when all logs together have
    /// more bytes than they may: down to a level that is the same for all, so that a
    /// log smaller than its even share of the whole loses nothing to the others. They
    /// are added to `evicted`, for the caller to drop.
    pub(super) fn trim_logs(&self, evicted: &mut Evicted) {
        if self.log_bytes() <= self.limits.log_bytes {
            return;
        }
        // One is enough. Some more than is needed is taken, so that this look at
        // every log is not had for every event.
        let Ok(_guard) = self.trimming.try_lock() else {
            return;
        };
        let tenants = self.all();
        let sizes = tenants.iter().map(|it| it.log_bytes() as u64);
        let level = level(sizes.collect(), self.limits.log_bytes / 64 * 63);
        for tenant in tenants {
            evicted.extend(tenant.shrink_log_to(level));
        }
    }

    /// The same for message ids: an eighth of what they may take up is free then.
    /// Locks one tenant at a time, so nobody may call it who holds one.
    pub(super) fn trim_message_ids(&self) {
        if !self.message_ids.is_exceeded() {
            return;
        }
        let Ok(_guard) = self.trimming.try_lock() else {
            return;
        };
        let tenants = self.all();
        let counts = tenants.iter().map(|it| it.message_id_count() as u64);
        let level = level(counts.collect(), self.message_ids.wanted() as u64);
        for tenant in tenants {
            while tenant.forget_message_ids(level, self.message_ids.excess()) {}
        }
    }

    /// Those of the conditions that cannot hold because the tenant has no events;
    /// none where it may have some, which is then for itself to say.
    pub(super) fn unmet_while_absent(
        &self,
        name: &TenantName,
        conditions: &[Condition],
    ) -> Vec<Unmet> {
        let tenants = self.read();
        if tenants.live.contains_key(name) {
            return Vec::new();
        }
        let epoch = tenants.dormant.head(name).map(|head| head.epoch);
        unmet(conditions, epoch, |_| None)
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
        if tenants.live.len() >= self.tenants_max() {
            return Err(TenantsFull);
        }
        let head = tenants.dormant.take(name).unwrap_or_else(|| Position {
            epoch: self.random.epoch(),
            offset: 0,
        });
        let log = Log::new(head, self.limits.window, self.accounts.clone());
        let tenant = Arc::new(Tenant::new(name.clone(), log, &self.message_ids));
        tenants.live.insert(name.clone(), Arc::clone(&tenant));
        tenants.forget_surplus(self.tenants_max());
        Ok(tenant)
    }

    /// The tenant of this name, if there is one.
    pub(super) fn find(&self, name: &TenantName) -> Option<Arc<Tenant>> {
        self.read().live.get(name).cloned()
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
            if let Some(head) = tenant.enter(shard, self.limits.inbox.places_per_tenant) {
                return Ok((tenant, head));
            }
        }
    }

    /// Takes the shard out of the set of the tenant.
    pub(super) fn leave(&self, tenant: &Arc<Tenant>, shard: ShardId) {
        tenant.leave(shard);
        if tenant.is_idle() {
            self.forget_if_idle(tenant);
        }
    }

    fn forget_if_idle(&self, tenant: &Arc<Tenant>) {
        let mut tenants = self.write();
        if let Some(head) = tenant.remove_if_idle() {
            tenants.live.swap_remove(tenant.name());
            tenants.dormant.put(tenant.name().clone(), head);
            tenants.forget_surplus(self.tenants_max());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_leaves_those_below_it_alone_and_makes_the_others_equal() {
        for (sizes, expected) in [
            (vec![], usize::MAX),
            (vec![70], usize::MAX),
            (vec![71], 70),
            (vec![100, 100], 35),
            (vec![100, 10, 100], 30),
            (vec![10, 20, 1000], 40),
            (vec![1; 100], 0),
        ] {
            assert_eq!(level(sizes.clone(), 70), expected, "{sizes:?}");
        }
    }
}
