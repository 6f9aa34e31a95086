//! The backend's end of the hub: appends events, sends them to the shards, and waits until they
//! have queued them. Knows no HTTP.

use std::{mem, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use sidewire_protocol::{Position, TenantName, Topic};
use tokio::{
    task::yield_now,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    HubAdmin, PublishTimeouts,
    condition_check::ConditionCheck,
    connection::HubConnection,
    inbox::{EventBatch, HeldPermit, InboxSender, SharedDelivery},
    registry::{TenantRegistry, TenantsFull},
    relief::MemoryRelief,
    submission::{Submission, SubmissionRefusal},
    tenant::{AppendAttempt, Tenant},
};
use crate::{
    event::{ClientEvent, EventDraft, FingerprintKey},
    log::{AppendCondition, EvictedEvents, UnmetCondition},
    memory::{MemoryAccount, MemoryLimits},
    scheduler::{Cost, QUANTUM},
};

/// Interval at which a publisher that waits for memory checks again. Shards free some within a
/// turn or two.
const MEMORY_LOOK_EVERY: Duration = Duration::from_millis(1);

/// Appends events to tenants' logs. Clones share all state.
#[derive(Debug, Clone)]
pub struct HubPublisher {
    registry: Arc<TenantRegistry>,
    pub(super) inboxes: Arc<[InboxSender]>,
    admin: HubAdmin,
    relief: Arc<MemoryRelief>,
    timeouts: Arc<ArcSwap<PublishTimeouts>>,
}

/// The reason for which nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The relay has as many tenants as it may have.
    #[error(transparent)]
    TenantsFull(#[from] TenantsFull),
    /// A shard's inbox had no room before the timeout.
    #[error("a shard has no room for more events of this tenant")]
    NoRoom,
    /// Events took more memory than they may until the timeout.
    #[error("the relay has no memory for more events")]
    NoMemory,
    /// The message ids of these drafts were used for different events before.
    #[error("a message_id was already used for a different event")]
    Conflicts(Vec<usize>),
    /// These conditions do not hold.
    #[error("a precondition does not hold")]
    Unmet(Vec<UnmetCondition>),
}

impl From<SubmissionRefusal> for AppendError {
    fn from(refusal: SubmissionRefusal) -> Self {
        match refusal {
            SubmissionRefusal::Conflicts(drafts) => Self::Conflicts(drafts),
            SubmissionRefusal::Unmet(conditions) => Self::Unmet(conditions),
        }
    }
}

/// Events that have been appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedEvents {
    /// The outcome of each draft, in order.
    pub events: Vec<PlacedEvent>,
    /// True if every shard has queued them. If not, they are delivered all the same, but the
    /// number of matches is unknown.
    pub acknowledged: bool,
}

/// The outcome of one draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedEvent {
    /// Its position in the tenant's log; for a duplicate that of the original event.
    pub position: Position,
    /// Number of connections of this process that it matched; 0 for a duplicate, `None` if not
    /// every shard has answered.
    pub matched: Option<u64>,
    /// True if it is a duplicate of an event appended before.
    pub duplicate: bool,
}

impl HubPublisher {
    pub(super) fn new(
        registry: Arc<TenantRegistry>,
        inboxes: Arc<[InboxSender]>,
        admin: HubAdmin,
        relief: Arc<MemoryRelief>,
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

    /// Applies new timeouts, and new limits of tenants and memory. Any excess over these is
    /// removed.
    pub fn configure(&self, timeouts: PublishTimeouts, tenants: usize, memory: MemoryLimits) {
        self.timeouts.store(Arc::new(timeouts));
        self.registry.configure(tenants, memory);
        self.enforce_bounds(&mut EvictedEvents::new());
        if self.registry.is_short_of_memory() {
            self.relief.request_relief();
        }
    }

    /// Returns the account of the memory that the process holds for clients and backends.
    #[must_use]
    pub fn memory(&self) -> &Arc<MemoryAccount> {
        self.registry.memory()
    }

    /// Returns the handle for calls to the shards outside the path of an event.
    #[must_use]
    pub fn admin(&self) -> &HubAdmin {
        &self.admin
    }

    /// Returns the number of items that wait in the shards' inboxes, or in the queues of tenants
    /// behind them.
    #[must_use]
    pub fn inbox_items(&self) -> usize {
        let places = self.registry.inbox_limits().places;
        let waiting = |inbox: &InboxSender| places.saturating_sub(inbox.free_places());
        self.inboxes.iter().map(waiting).sum()
    }

    /// Returns true if the tenant has a JSON connection.
    #[must_use]
    pub fn has_json_connection(&self, tenant: &TenantName) -> bool {
        self.registry.has_json_connection(tenant)
    }

    /// Returns the key under which fingerprints of events are made.
    #[must_use]
    pub fn fingerprint_key(&self) -> &FingerprintKey {
        self.registry.fingerprint_key()
    }

    /// Appends the events consecutively, all or none, and sends them to the shards. Duplicates
    /// are not appended again.
    ///
    /// # Errors
    ///
    /// When nothing was appended. There are no errors after the append.
    pub async fn append(
        &self,
        tenant: &TenantName,
        drafts: Vec<EventDraft>,
    ) -> Result<AppendedEvents<'_>, AppendError> {
        self.append_if(tenant, drafts, ConditionCheck::new(&[]))
            .await
    }

    /// Searches a part of the tenant's log for what a check needs before the append. Returns the
    /// cost. The append searches the rest, in parts too.
    pub fn search_conditions(&self, name: &TenantName, check: &mut ConditionCheck<'_>) -> Cost {
        let Some(tenant) = self.registry.find(name) else {
            check.skip_search();
            return Cost::ZERO;
        };
        Cost::TOPIC.times(check.search_part(&tenant, Instant::now()))
    }

    /// Appends like [`append`](Self::append), but only if the conditions hold at that moment, or
    /// if there is nothing new to append.
    ///
    /// # Errors
    ///
    /// When nothing was appended. There are no errors after the append.
    pub async fn append_if(
        &self,
        name: &TenantName,
        drafts: Vec<EventDraft>,
        check: ConditionCheck<'_>,
    ) -> Result<AppendedEvents<'_>, AppendError> {
        let mut submission = Submission { drafts, check };
        let timeouts = **self.timeouts.load();
        let deadline = Instant::now() + timeouts.inbox;
        let mut waited = HeldPermit::default();
        loop {
            let tenant = self.get_tenant(name, submission.check.conditions())?;
            let (now, held) = (Instant::now(), mem::take(&mut waited));
            let has_memory = !self.registry.is_over_memory();
            match tenant.append(&mut submission, &self.inboxes, now, has_memory, held) {
                AppendAttempt::Appended {
                    events,
                    delivery,
                    repeats,
                    mut evicted,
                } => {
                    self.enforce_bounds(&mut evicted);
                    return Ok(AppendedEvents {
                        registry: &self.registry,
                        events,
                        delivery,
                        repeats,
                        evicted,
                        timeout: timeouts.ack,
                    });
                }
                AppendAttempt::Refused(refusal) => return Err(refusal.into()),
                AppendAttempt::NoRoom(full) => {
                    waited = timeout_at(deadline, full.wait_for_room())
                        .await
                        .map_err(|_| AppendError::NoRoom)?;
                }
                AppendAttempt::NoMemory => self.wait_for_memory(deadline).await?,
                AppendAttempt::Unsearched(held) => {
                    waited = held;
                    submission.check.search_part(&tenant, now);
                    if !submission.check.is_searched() {
                        yield_now().await;
                    }
                }
                AppendAttempt::Removed => {}
            }
        }
    }

    /// Sends an event of a client to the other connections of the topics, on all shards. The
    /// sender must be subscribed to each of them. Shards whose inbox has no room do not get it, and
    /// none does while events take more memory than they may: no connection is closed for it.
    pub fn relay_client_event(
        &self,
        sender: &HubConnection,
        event: Arc<ClientEvent>,
        topics: Box<[Topic]>,
    ) {
        let inboxes: &[_] = if self.registry.is_over_memory() {
            &[]
        } else {
            &self.inboxes
        };
        sender.relay(event, topics, inboxes);
    }

    /// Returns the tenant, and creates it if there is none, unless the conditions cannot hold
    /// without events.
    fn get_tenant(
        &self,
        name: &TenantName,
        conditions: &[AppendCondition],
    ) -> Result<Arc<Tenant>, AppendError> {
        if !conditions.is_empty() {
            let unmet = self.registry.unmet_without_events(name, conditions);
            if !unmet.is_empty() {
                return Err(AppendError::Unmet(unmet));
            }
        }
        Ok(self.registry.get_or_create(name)?)
    }

    /// Removes what exceeds the bounds of the process, also from other tenants, one by one, now
    /// that this one is unlocked. The evicted events are added to `evicted`; if memory is short,
    /// all events in it are dropped at once.
    fn enforce_bounds(&self, evicted: &mut EvictedEvents) {
        self.registry.trim_logs(evicted);
        self.registry.trim_message_ids();
        if self.registry.is_over_memory() {
            evicted.clear();
            if self.registry.is_over_memory() {
                self.relief.request_relief();
            }
        }
    }

    /// Waits until there is memory for more events.
    async fn wait_for_memory(&self, deadline: Instant) -> Result<(), AppendError> {
        while self.registry.is_over_memory() {
            if Instant::now() >= deadline {
                return Err(AppendError::NoMemory);
            }
            self.relief.request_relief();
            sleep(MEMORY_LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// Events that have been appended and sent to the shards. Their delivery can no longer fail.
#[derive(Debug)]
pub struct AppendedEvents<'a> {
    registry: &'a TenantRegistry,
    events: EventBatch,
    delivery: Arc<SharedDelivery>,
    /// The indexes of the drafts that are duplicates, in order, and the positions of the original
    /// events.
    repeats: Vec<(usize, Position)>,
    /// The events evicted to make room for them.
    evicted: EvictedEvents,
    timeout: Duration,
}

impl AppendedEvents<'_> {
    /// Returns the number of new events.
    #[must_use]
    pub fn new_len(&self) -> usize {
        self.events.as_slice().len()
    }

    /// Returns the bytes of the new events, as they are sent on in Protocol Buffers.
    #[must_use]
    pub fn new_bytes(&self) -> usize {
        let events = self.events.as_slice();
        events.iter().map(|event| event.frame().len()).sum()
    }

    /// Returns the number of evicted events that are still to be dropped.
    #[must_use]
    pub fn evicted_len(&self) -> usize {
        self.evicted.len()
    }

    /// Drops up to a quantum's worth of evicted events, or all of them if the relay needs their
    /// memory. Returns the cost.
    pub fn drop_evicted(&mut self) -> Cost {
        let mut cost = drop_some(&mut self.evicted);
        while self.registry.is_over_memory() && !self.evicted.is_empty() {
            cost += drop_some(&mut self.evicted);
        }
        cost
    }

    /// Returns the number of duplicates.
    #[must_use]
    pub fn duplicates_len(&self) -> usize {
        self.repeats.len()
    }

    /// Drops the evicted events in parts, and waits until the shards have queued the new events
    /// for their connections, or until the timeout.
    pub async fn wait_acknowledged(mut self) -> PublishedEvents {
        while !self.evicted.is_empty() {
            self.drop_evicted();
            if !self.evicted.is_empty() {
                yield_now().await;
            }
        }
        let acknowledged = self.delivery.is_answered()
            || timeout(self.timeout, self.delivery.wait_answered())
                .await
                .is_ok();
        let new = self
            .events
            .as_slice()
            .iter()
            .zip(self.delivery.matched_counts());
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
        PublishedEvents {
            events,
            acknowledged,
        }
    }
}

/// Drops up to a quantum's worth of events. Returns the cost.
fn drop_some(events: &mut EvictedEvents) -> Cost {
    let mut cost = Cost::ZERO;
    while cost < QUANTUM
        && let Some(event) = events.pop()
    {
        cost += Cost::EVENT + Cost::TOPIC.times(event.topics().len());
    }
    cost
}
