//! The tenants of the process, and the bounds on all of them together. Knows no connections.

mod kept_window;

use std::sync::{
    Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicUsize, Ordering},
};

use indexmap::IndexMap;
use sidewire_protocol::{Position, TenantName, random::RandomSource};
use tokio::time::Instant;

pub use self::kept_window::{KeptEvent, KeptTenant, KeptWindow, TenantSnapshot};

use super::{ShardId, dormant::DormantTenants, inbox::InboxLimits, tenant::Tenant};
use crate::{
    event::FingerprintKey,
    log::{
        AppendCondition, EvictedEvents, Log, LogAccounts, LogWindow, MessageIdBudget,
        MessageIdLimits, UnmetCondition, find_unmet,
    },
    memory::{MemoryAccount, MemoryLimits, MemoryUse},
};

/// Bounds of the registry and of what it holds.
#[derive(Debug, Clone, Copy)]
pub struct RegistryLimits {
    /// Most tenants at a time.
    pub tenants: usize,
    /// The window of each tenant's log.
    pub window: LogWindow,
    /// Most bytes of all logs together. Any excess is evicted from the largest logs.
    pub log_bytes: u64,
    /// Limits of all memory that is held for clients and backends.
    pub memory: MemoryLimits,
    /// Bounds on the items in the shards' inboxes.
    pub inbox: InboxLimits,
    /// Bounds on the remembered message ids.
    pub message_ids: MessageIdLimits,
}

/// The relay has as many tenants as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the relay has reached its limit of tenants")]
pub struct TenantsFull;

/// All tenants of the process, by name, with the memory accounts and budgets that they share.
#[derive(Debug)]
pub struct TenantRegistry {
    tenants: RwLock<RegisteredTenants>,
    /// The limits at the start; a reload may since have changed `tenants` and `memory`.
    limits: RegistryLimits,
    tenants_max: AtomicUsize,
    /// Number of JSON connections of all tenants.
    json_connections: AtomicUsize,
    random: Arc<RandomSource>,
    accounts: LogAccounts,
    message_ids: Arc<MessageIdBudget>,
    fingerprint_key: FingerprintKey,
    /// Held while excess events or message ids are removed.
    trimming: Mutex<()>,
}

#[derive(Debug, Default)]
struct RegisteredTenants {
    /// Tenants with connections, events or message ids.
    live: IndexMap<TenantName, Arc<Tenant>>,
    dormant: DormantTenants,
}

impl RegisteredTenants {
    /// Forgets dormant tenants until both kinds together are within `limit`.
    fn forget_surplus(&mut self, limit: usize) {
        let room = limit.saturating_sub(self.live.len());
        self.dormant.forget_beyond(room);
    }
}

impl TenantRegistry {
    /// Creates a registry without tenants.
    #[must_use]
    pub fn new(limits: RegistryLimits, random: Arc<RandomSource>) -> Self {
        let accounts = LogAccounts {
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

    /// Returns the inbox limits, which never change.
    pub(super) fn inbox_limits(&self) -> InboxLimits {
        self.limits.inbox
    }

    /// Changes two of the bounds. Tenants beyond the new limit remain until they are idle.
    pub(super) fn configure(&self, tenants: usize, memory: MemoryLimits) {
        self.tenants_max.store(tenants, Ordering::Relaxed);
        self.accounts.memory.set_limits(memory);
        self.write_tenants().forget_surplus(tenants);
    }

    fn tenants_max(&self) -> usize {
        self.tenants_max.load(Ordering::Relaxed)
    }

    /// Returns the account of the memory that the process holds for clients and backends.
    #[must_use]
    pub fn memory(&self) -> &Arc<MemoryAccount> {
        &self.accounts.memory
    }

    /// Returns the size of all events in logs, in bytes.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.accounts.logs.get()
    }

    /// Returns true if events take more memory than other uses leave them.
    #[must_use]
    pub fn is_over_memory(&self) -> bool {
        self.accounts.memory.is_exceeded()
    }

    /// Returns true if closing connections may free memory that is needed: more is held than may
    /// be, or a use holds memory that is due to the replay window.
    #[must_use]
    pub(super) fn is_short_of_memory(&self) -> bool {
        let memory = &self.accounts.memory;
        let closable = [MemoryUse::BegunMessages, MemoryUse::Subscriptions];
        memory.is_exceeded() || closable.into_iter().any(|what| memory.is_overdrawn(what))
    }

    /// Counts a JSON connection of the tenant that has joined or left.
    pub(super) fn count_json_connection(&self, tenant: &Tenant, joined: bool) {
        tenant.count_json_connection(joined);
        if joined {
            self.json_connections.fetch_add(1, Ordering::Relaxed);
        } else {
            self.json_connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns true if the tenant has a JSON connection.
    pub(super) fn has_json_connection(&self, name: &TenantName) -> bool {
        self.json_connections.load(Ordering::Relaxed) > 0
            && self
                .read_tenants()
                .live
                .get(name)
                .is_some_and(|it| it.has_json_connection())
    }

    /// Returns the source of random numbers.
    pub(super) fn random(&self) -> &RandomSource {
        &self.random
    }

    /// Returns the budget of the message ids of all tenants.
    #[must_use]
    pub fn message_ids(&self) -> &MessageIdBudget {
        &self.message_ids
    }

    /// Returns the key of the message ids' fingerprints.
    #[must_use]
    pub fn fingerprint_key(&self) -> &FingerprintKey {
        &self.fingerprint_key
    }

    /// Returns the number of tenants with connections, events or message ids.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read_tenants().live.len()
    }

    /// Returns the number of tenants of which only the head of the log is remembered.
    #[must_use]
    pub fn dormant_len(&self) -> usize {
        self.read_tenants().dormant.len()
    }

    /// Returns true if no tenant has connections, events or message ids.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Evicts from every log the events that are too old, and forgets idle tenants.
    pub fn sweep(&self, now: Instant) {
        for tenant in self.all_tenants() {
            while !tenant.expire_message_ids(now) {}
            drop(tenant.evict(now));
            tenant.tidy_last_offsets(now);
            if tenant.is_idle() {
                self.forget_if_idle(&tenant);
            }
        }
    }

    /// Evicts the oldest events of the largest logs if all logs together exceed their bytes: down
    /// to one level for all, so that a log below its even share loses nothing to the others. The
    /// events are added to `evicted`, for the caller to drop.
    pub(super) fn trim_logs(&self, evicted: &mut EvictedEvents) {
        if self.log_bytes() <= self.limits.log_bytes {
            return;
        }
        // One caller at a time is enough. More than necessary is evicted, so that not every event
        // needs this pass over all logs.
        let Ok(_guard) = self.trimming.try_lock() else {
            return;
        };
        let tenants = self.all_tenants();
        let sizes = tenants.iter().map(|it| it.log_bytes() as u64);
        let level = common_level(sizes.collect(), self.limits.log_bytes / 64 * 63);
        for tenant in tenants {
            evicted.extend(tenant.shrink_log_to(level));
        }
    }

    /// Does the same for message ids: an eighth of their budget is free afterwards. Locks one
    /// tenant at a time, so the caller must not hold a tenant's lock.
    pub(super) fn trim_message_ids(&self) {
        if !self.message_ids.is_exceeded() {
            return;
        }
        let Ok(_guard) = self.trimming.try_lock() else {
            return;
        };
        let tenants = self.all_tenants();
        let counts = tenants.iter().map(|it| it.message_id_count() as u64);
        let level = common_level(counts.collect(), self.message_ids.target_count() as u64);
        for tenant in tenants {
            while tenant.forget_message_ids(level, self.message_ids.excess()) {}
        }
    }

    /// Returns the conditions that cannot hold because the tenant has no events. Returns none if
    /// the tenant exists, since it may have some.
    pub(super) fn unmet_without_events(
        &self,
        name: &TenantName,
        conditions: &[AppendCondition],
    ) -> Vec<UnmetCondition> {
        let tenants = self.read_tenants();
        if tenants.live.contains_key(name) {
            return Vec::new();
        }
        let epoch = tenants.dormant.head(name).map(|head| head.epoch);
        find_unmet(conditions, epoch, |_| None)
    }

    /// Returns the tenant of this name, and creates it if there is none. It may be removed before
    /// the caller locks it; the caller then asks again.
    pub(super) fn get_or_create(&self, name: &TenantName) -> Result<Arc<Tenant>, TenantsFull> {
        if let Some(tenant) = self.read_tenants().live.get(name) {
            return Ok(Arc::clone(tenant));
        }
        let mut tenants = self.write_tenants();
        if let Some(tenant) = tenants.live.get(name) {
            return Ok(Arc::clone(tenant));
        }
        if tenants.live.len() >= self.tenants_max() {
            return Err(TenantsFull);
        }
        let head = tenants.dormant.take_head(name).unwrap_or_else(|| Position {
            epoch: self.random.new_epoch(),
            offset: 0,
        });
        let log = self.new_log(head);
        let tenant = Arc::new(Tenant::new(name.clone(), log, &self.message_ids));
        tenants.live.insert(name.clone(), Arc::clone(&tenant));
        tenants.forget_surplus(self.tenants_max());
        Ok(tenant)
    }

    fn new_log(&self, head: Position) -> Log {
        Log::new(head, self.limits.window, self.accounts.clone())
    }

    /// Returns the tenant of this name, if there is one.
    pub(super) fn find(&self, name: &TenantName) -> Option<Arc<Tenant>> {
        self.read_tenants().live.get(name).cloned()
    }

    /// Adds the shard to the tenant's set, and returns the position up to which its connections
    /// need nothing from the inbox.
    pub(super) fn enter_shard(
        &self,
        name: &TenantName,
        shard: ShardId,
    ) -> Result<(Arc<Tenant>, Position), TenantsFull> {
        loop {
            let tenant = self.get_or_create(name)?;
            if let Some(head) = tenant.enter_shard(shard, self.limits.inbox.places_per_tenant) {
                return Ok((tenant, head));
            }
        }
    }

    /// Removes the shard from the tenant's set.
    pub(super) fn leave_shard(&self, tenant: &Arc<Tenant>, shard: ShardId) {
        tenant.leave_shard(shard);
        if tenant.is_idle() {
            self.forget_if_idle(tenant);
        }
    }

    /// Forgets a tenant that has become idle.
    pub(super) fn forget_if_idle(&self, tenant: &Arc<Tenant>) {
        let mut tenants = self.write_tenants();
        if let Some(head) = tenant.remove_if_idle() {
            tenants.live.swap_remove(tenant.name());
            tenants.dormant.put(tenant.name().clone(), head);
            tenants.forget_surplus(self.tenants_max());
        }
    }

    /// Returns the number of connections of each live tenant.
    #[must_use]
    pub fn connections_by_tenant(&self) -> Vec<(TenantName, u64)> {
        let tenants = self.all_tenants().into_iter();
        let connections = tenants.map(|it| (it.name().clone(), it.audience().totals().connections));
        connections.collect()
    }

    /// Returns a snapshot of all live tenants.
    pub(super) fn all_tenants(&self) -> Vec<Arc<Tenant>> {
        self.read_tenants().live.values().cloned().collect()
    }

    fn read_tenants(&self) -> RwLockReadGuard<'_, RegisteredTenants> {
        self.tenants.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_tenants(&self) -> RwLockWriteGuard<'_, RegisteredTenants> {
        self.tenants.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the level to which all sizes must be cut down so that their sum is at most `sum`.
fn common_level(mut sizes: Vec<u64>, sum: u64) -> usize {
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
    fn the_common_level_leaves_smaller_sizes_alone_and_equalises_the_others() {
        for (sizes, expected) in [
            (vec![], usize::MAX),
            (vec![70], usize::MAX),
            (vec![71], 70),
            (vec![100, 100], 35),
            (vec![100, 10, 100], 30),
            (vec![10, 20, 1000], 40),
            (vec![1; 100], 0),
        ] {
            assert_eq!(common_level(sizes.clone(), 70), expected, "{sizes:?}");
        }
    }
}
