//! The backend's end of the hub: append, send to the shards, and wait until they
//! have queued. Knows no HTTP.

use std::{mem, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    task::yield_now,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Admin, PublishTimeouts,
    condition_check::ConditionCheck,
    inbox::{Delivery, Events, InboxSender, Waited},
    registry::{Registry, TenantsFull},
    relief::Relief,
    submission::{Refusal, Submission},
    tenant::{Attempt, Tenant},
};
use crate::{
    event::{Draft, FingerprintKey},
    log::{Condition, Evicted, Unmet},
    memory::{MemoryAccount, MemoryLimits},
    protocol::{Position, TenantName},
    scheduler::{Cost, QUANTUM},
};

/// How often a publisher that waits for memory looks whether there is some. Shards
/// free it within a turn or two.
const MEMORY_LOOK_EVERY: Duration = Duration::from_millis(1);

/// Puts events into tenants' logs. Clones share everything.
#[derive(Debug, Clone)]
pub struct Publisher {
    registry: Arc<Registry>,
    pub(super) inboxes: Arc<[InboxSender]>,
    admin: Admin,
    relief: Arc<Relief>,
    timeouts: Arc<ArcSwap<PublishTimeouts>>,
}

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no place for another tenant.
    #[error(transparent)]
    TenantsFull(#[from] TenantsFull),
    /// A shard's inbox had no room within the time.
    #[error("a shard has no room for more events of this tenant")]
    NoRoom,
    /// All events together took more memory than they may, for all of the time.
    #[error("the relay has no memory for more events")]
    NoMemory,
    /// The message ids of these drafts were given to other events before.
    #[error("a message_id was given to another event before")]
    Conflicts(Vec<usize>),
    /// These conditions do not hold.
    #[error("a precondition does not hold")]
    Unmet(Vec<Unmet>),
}

impl From<Refusal> for PublishError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Conflicts(drafts) => Self::Conflicts(drafts),
            Refusal::Unmet(conditions) => Self::Unmet(conditions),
        }
    }
}

/// Events that are in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// In the order of the drafts.
    pub events: Vec<PlacedEvent>,
    /// Whether every shard has queued them. If not, they will be delivered all
    /// the same, and the events' `matched` is not known.
    pub acknowledged: bool,
}

/// What became of one draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedEvent {
    /// Its place in the tenant's order: for a duplicate its first.
    pub position: Position,
    /// How many connections of this process it matched; a duplicate none.
    pub matched: Option<u64>,
    /// Whether it is one that had been appended before.
    pub duplicate: bool,
}

impl Publisher {
    pub(super) fn new(
        registry: Arc<Registry>,
        inboxes: Arc<[InboxSender]>,
        admin: Admin,
        relief: Arc<Relief>,
        timeouts: PublishTimeouts,
    ) -> Self {
        Self {
            registry,
            inboxes,
            admin,
            relief,
            timeouts: Arc::new(ArcSwap::from_pointee(timeouts)),
        }
    }

    /// Has calls wait for so long from now on, and the process hold so many tenants
    /// and bytes of events; what is too much by then is taken back.
    pub fn configure(&self, timeouts: PublishTimeouts, tenants: usize, memory: MemoryLimits) {
        self.timeouts.store(Arc::new(timeouts));
        self.registry.configure(tenants, memory);
        self.keep_within_bounds(&mut Evicted::new());
        if self.registry.is_short_of_memory() {
            self.relief.ask();
        }
    }

    /// The account of the memory that the process holds for others.
    #[must_use]
    pub fn memory(&self) -> &Arc<MemoryAccount> {
        self.registry.memory()
    }

    /// What the shards can be asked beside events.
    #[must_use]
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Whether a connection of the tenant takes events as JSON.
    #[must_use]
    pub fn has_json(&self, tenant: &TenantName) -> bool {
        self.registry.has_json(tenant)
    }

    /// What events are known again by.
    #[must_use]
    pub fn fingerprint_key(&self) -> &FingerprintKey {
        self.registry.fingerprint_key()
    }

    /// Appends the events next to each other, all or none, and sends them to the
    /// shards. Those that were appended before are not appended again.
    ///
    /// # Errors
    ///
    /// When nothing was appended. Once it was, there is no error any more.
    pub async fn append(
        &self,
        tenant: &TenantName,
        drafts: Vec<Draft>,
    ) -> Result<Appended<'_>, PublishError> {
        self.append_if(tenant, drafts, ConditionCheck::new(&[]))
            .await
    }

    /// Searches a part of the tenant's log for what a check has to know before the append.
    /// Returns what that cost. What is not searched before the append
    /// is searched by it, in parts too.
    pub fn search(&self, name: &TenantName, check: &mut ConditionCheck<'_>) -> Cost {
        let Some(tenant) = self.registry.find(name) else {
            check.has_no_log();
            return Cost::ZERO;
        };
        Cost::TOPIC.times(check.search(&tenant, Instant::now()))
    }

    /// The same, if these conditions hold at that moment, or if there is nothing new
    /// to append.
    ///
    /// # Errors
    ///
    /// When nothing was appended. Once it was, there is no error any more.
    pub async fn append_if(
        &self,
        name: &TenantName,
        drafts: Vec<Draft>,
        check: ConditionCheck<'_>,
    ) -> Result<Appended<'_>, PublishError> {
        let mut submission = Submission { drafts, check };
        let timeouts = **self.timeouts.load();
        let deadline = Instant::now() + timeouts.inbox;
        let mut waited = Waited::default();
        loop {
            let tenant = self.tenant(name, submission.check.conditions())?;
            let (now, held) = (Instant::now(), mem::take(&mut waited));
            let has_memory = !self.registry.is_over_memory();
            match tenant.append(&mut submission, &self.inboxes, now, has_memory, held) {
                Attempt::Appended {
                    events,
                    delivery,
                    repeats,
                    mut evicted,
                } => {
                    self.keep_within_bounds(&mut evicted);
                    return Ok(Appended {
                        registry: &self.registry,
                        events,
                        delivery,
                        repeats,
                        evicted,
                        timeout: timeouts.ack,
                    });
                }
                Attempt::Refused(refusal) => return Err(refusal.into()),
                Attempt::NoRoom(full) => {
                    waited = timeout_at(deadline, full.has_room())
                        .await
                        .map_err(|_| PublishError::NoRoom)?;
                }
                Attempt::NoMemory => self.wait_for_memory(deadline).await?,
                Attempt::Unsearched(held) => {
                    waited = held;
                    submission.check.search(&tenant, now);
                    if !submission.check.is_searched() {
                        yield_now().await;
                    }
                }
                Attempt::Removed => {}
            }
        }
    }

    /// The tenant, which is made if there is none: but not for conditions that
    /// cannot hold where there is no event.
    fn tenant(
        &self,
        name: &TenantName,
        conditions: &[Condition],
    ) -> Result<Arc<Tenant>, PublishError> {
        if !conditions.is_empty() {
            let unmet = self.registry.unmet_while_absent(name, conditions);
            if !unmet.is_empty() {
                return Err(PublishError::Unmet(unmet));
            }
        }
        Ok(self.registry.obtain(name)?)
    }

    /// What is too much for the process is taken from other tenants too, one by one,
    /// now that this one is unlocked. The events that are taken are added to
    /// `evicted`, unless memory is short: then all of those are dropped.
    fn keep_within_bounds(&self, evicted: &mut Evicted) {
        self.registry.trim_logs(evicted);
        self.registry.trim_message_ids();
        if self.registry.is_over_memory() {
            evicted.clear();
            if self.registry.is_over_memory() {
                self.relief.ask();
            }
        }
    }

    /// Waits until there is memory for more events.
    async fn wait_for_memory(&self, deadline: Instant) -> Result<(), PublishError> {
        while self.registry.is_over_memory() {
            if Instant::now() >= deadline {
                return Err(PublishError::NoMemory);
            }
            self.relief.ask();
            sleep(MEMORY_LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// Events that are in the log and on their way to the shards, which nothing stops
/// any more.
#[derive(Debug)]
pub struct Appended<'a> {
    registry: &'a Registry,
    events: Events,
    delivery: Arc<Delivery>,
    /// The places of the drafts that had been appended before, in order, and their
    /// first positions.
    repeats: Vec<(usize, Position)>,
    /// What has left the logs for them.
    evicted: Evicted,
    timeout: Duration,
}

impl Appended<'_> {
    /// How many of them are new.
    #[must_use]
    pub fn new_len(&self) -> usize {
        self.events.as_slice().len()
    }

    /// How many events have left the logs for them, and are still to be dropped.
    #[must_use]
    pub fn evicted_len(&self) -> usize {
        self.evicted.len()
    }

    /// Drops as many of those as one may before others have their turn, or all where the
    /// relay needs their memory. Returns what that cost.
    pub fn drop_evicted(&mut self) -> Cost {
        let mut cost = drop_some(&mut self.evicted);
        while self.registry.is_over_memory() && !self.evicted.is_empty() {
            cost += drop_some(&mut self.evicted);
        }
        cost
    }

    /// How many of them had been appended before.
    #[must_use]
    pub fn duplicates_len(&self) -> usize {
        self.repeats.len()
    }

    /// Drops what has left the logs for them, in parts, and waits until the shards have
    /// queued them for their connections, or for as long as is configured.
    pub async fn acknowledged(mut self) -> Published {
        while !self.evicted.is_empty() {
            self.drop_evicted();
            if !self.evicted.is_empty() {
                yield_now().await;
            }
        }
        let acknowledged = self.delivery.is_answered()
            || timeout(self.timeout, self.delivery.answered())
                .await
                .is_ok();
        let new = self.events.as_slice().iter().zip(self.delivery.matched());
        let mut new = new.map(|(event, matched)| PlacedEvent {
            position: event.position(),
            matched: acknowledged.then_some(matched),
            duplicate: false,
        });
        let mut events = Vec::with_capacity(self.new_len() + self.duplicates_len());
        for (index, position) in &self.repeats {
            events.extend(new.by_ref().take(index - events.len()));
            events.push(PlacedEvent {
                position: *position,
                matched: acknowledged.then_some(0),
                duplicate: true,
            });
        }
        events.extend(new);
        Published {
            events,
            acknowledged,
        }
    }
}

/// Drops as many of the events as one may before others have their turn. Returns what that
/// cost.
fn drop_some(events: &mut Evicted) -> Cost {
    let mut cost = Cost::ZERO;
    while cost < QUANTUM
        && let Some(event) = events.pop()
    {
        cost += Cost::EVENT + Cost::TOPIC.times(event.topics().len());
    }
    cost
}
