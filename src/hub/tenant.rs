//! One tenant: its log, the message ids of its backends, and the set of shards that have
//! connections of it, behind one lock. An append and the choice of its recipients happen in one
//! step. Knows no connections and no other tenant.

mod append;
mod snapshot;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{sync::Semaphore, time::Instant};

pub(super) use self::append::AppendAttempt;
use super::{
    ShardId,
    audience::AudienceCounter,
    inbox::{InboxContent, InboxItem, InboxSender, RelayedEvent},
    presence::TenantPresence,
};
use crate::{
    event::Event,
    log::{
        EVENTS_PER_PART, EvictedEvents, LastOffsets, Log, MessageIdBudget, MessageIds, ReplayGap,
        TopicSearch,
    },
};
use sidewire_protocol::{Position, TenantName};

/// Most message ids that are forgotten at once while the tenant is locked.
const FORGOTTEN_AT_ONCE: usize = 1000;

/// A tenant, shared by all shards that have connections of it.
#[derive(Debug)]
pub(super) struct Tenant {
    name: TenantName,
    message_id_budget: Arc<MessageIdBudget>,
    /// Number of its JSON connections on all shards.
    json_connections: AtomicUsize,
    audience: AudienceCounter,
    /// Locked before the state.
    presence: TenantPresence,
    /// Index of topics' last events, while it is in use. Locked before the state.
    last_offsets: Mutex<Option<Box<LastOffsets>>>,
    state: Mutex<TenantState>,
}

#[derive(Debug)]
struct TenantState {
    log: Log,
    /// `None` if there are none: backends of most tenants may give none.
    message_ids: Option<Box<MessageIds>>,
    shards: Vec<ShardEntry>,
    /// True once the registry has forgotten the tenant: nothing may be added to it any more.
    removed: bool,
}

#[derive(Debug)]
struct ShardEntry {
    shard: ShardId,
    /// The tenant's permits for this shard's inbox.
    share: Arc<Semaphore>,
    /// The permits that events of clients need in addition: half as many, so that they leave room
    /// for events of backends.
    client_events: Arc<Semaphore>,
}

/// A range of a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogSpan {
    /// The offset after which nothing may have been evicted, even if the range read begins later.
    pub(super) whole_after: u64,
    /// The offset after which the range begins.
    pub(super) after: u64,
    /// The last offset of the range.
    pub(super) up_to: u64,
}

/// A snapshot of a log's bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogView {
    pub(super) head: Position,
    pub(super) tail: Position,
}

impl Tenant {
    /// Creates a tenant without connections.
    pub(super) fn new(name: TenantName, log: Log, message_ids: &Arc<MessageIdBudget>) -> Self {
        Self {
            name,
            message_id_budget: Arc::clone(message_ids),
            json_connections: AtomicUsize::new(0),
            audience: AudienceCounter::default(),
            presence: TenantPresence::default(),
            last_offsets: Mutex::default(),
            state: Mutex::new(TenantState {
                log,
                message_ids: None,
                shards: Vec::new(),
                removed: false,
            }),
        }
    }

    pub(super) fn name(&self) -> &TenantName {
        &self.name
    }

    /// Returns the counts of its connections, users and topics on all shards.
    pub(super) fn audience(&self) -> &AudienceCounter {
        &self.audience
    }

    /// Counts a JSON connection that has joined or left.
    pub(super) fn count_json_connection(&self, joined: bool) {
        if joined {
            self.json_connections.fetch_add(1, Ordering::Relaxed);
        } else {
            self.json_connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns true if the tenant has a JSON connection.
    pub(super) fn has_json_connection(&self) -> bool {
        self.json_connections.load(Ordering::Relaxed) > 0
    }

    /// Adds the shard to the set, with `places` permits for its inbox. Returns the newest event's
    /// position, or `None` if the registry has forgotten the tenant.
    pub(super) fn enter_shard(&self, shard: ShardId, places: usize) -> Option<Position> {
        self.presence
            .enter_shard(shard, || self.add_shard(shard, places))
    }

    fn add_shard(&self, shard: ShardId, places: usize) -> Option<Position> {
        let mut state = self.lock();
        if state.removed {
            return None;
        }
        state.shards.push(ShardEntry {
            shard,
            share: Arc::new(Semaphore::new(places)),
            client_events: Arc::new(Semaphore::new((places / 2).max(1))),
        });
        Some(state.log.head())
    }

    /// Removes the shard from the set.
    pub(super) fn leave_shard(&self, shard: ShardId) {
        self.presence.leave_shard(shard, || {
            self.lock().shards.retain(|entry| entry.shard != shard);
        });
    }

    /// Returns the shards of the set.
    pub(super) fn shards(&self) -> Vec<ShardId> {
        self.lock().shards.iter().map(|entry| entry.shard).collect()
    }

    /// Returns its presence.
    pub(super) fn presence(&self) -> &TenantPresence {
        &self.presence
    }

    /// Returns true if the tenant has no shard, no event, no message id and nobody present.
    pub(super) fn is_idle(&self) -> bool {
        self.presence.is_empty() && self.lock().is_idle()
    }

    /// Closes an idle tenant to additions and returns the head of its log; returns `None` if it
    /// is not idle or was removed before.
    pub(super) fn remove_if_idle(&self) -> Option<Position> {
        // Nobody becomes present without a connection, of which there is none.
        if !self.presence.is_empty() {
            return None;
        }
        let mut state = self.lock();
        if state.removed || !state.is_idle() {
            return None;
        }
        state.removed = true;
        Some(state.log.head())
    }

    /// Returns the newest event's position.
    pub(super) fn head(&self) -> Position {
        self.lock().log.head()
    }

    /// Returns the position after which the log has every event.
    pub(super) fn tail(&self) -> Position {
        self.lock().log.tail()
    }

    /// Returns the log's bounds as of now, read under one lock.
    pub(super) fn log_view(&self, now: Instant) -> LogView {
        let state = self.lock();
        LogView {
            head: state.log.head(),
            tail: state.log.tail_at(now),
        }
    }

    /// Checks that the log has every event after the position, as of now.
    pub(super) fn has_all_after(&self, position: Position, now: Instant) -> Result<(), ReplayGap> {
        self.lock().log.has_all_after(position, now)
    }

    /// Adds the events of a span of the log to `events`, oldest first, at most `count`. Returns
    /// true if those were all.
    pub(super) fn read_log(
        &self,
        span: LogSpan,
        count: usize,
        events: &mut Vec<Arc<Event>>,
    ) -> Result<bool, ReplayGap> {
        let state = self.lock();
        let at = |offset| Position {
            offset,
            ..state.log.head()
        };
        if span.whole_after != span.after {
            let _all = state.log.read_after(at(span.whole_after))?;
        }
        let mut rest = state
            .log
            .read_after(at(span.after))?
            .take_while(|event| event.position().offset <= span.up_to);
        events.extend(rest.by_ref().take(count).cloned());
        Ok(rest.next().is_none())
    }

    /// Returns the events that the log has after the offset, at most `count`, and true if those
    /// were all.
    pub(super) fn events_after(&self, offset: u64, count: usize) -> (Vec<Arc<Event>>, bool) {
        let state = self.lock();
        let mut rest = state.log.events_after(offset);
        let events = rest.by_ref().take(count).cloned().collect();
        (events, rest.len() == 0)
    }

    /// Returns the newest events of the log between two offsets, both excluded, newest first and at
    /// most `count`.
    pub(super) fn events_before(&self, before: u64, after: u64, count: usize) -> Vec<Arc<Event>> {
        let state = self.lock();
        let events = state.log.events_before(before);
        events
            .take_while(|event| event.position().offset > after)
            .take(count)
            .cloned()
            .collect()
    }

    /// Brings the index of topics' last events up to date by one part, and starts a search with
    /// its content. Returns the work done, in topics of events, and true if that was all of the
    /// log. The log is locked only to list the events.
    pub(super) fn search_last_offsets(
        &self,
        search: &mut TopicSearch,
        now: Instant,
    ) -> (usize, bool) {
        let mut last_offsets = lock(&self.last_offsets);
        let index = last_offsets.get_or_insert_with(|| Box::new(LastOffsets::new(now)));
        let tail = self.tail().offset;
        let (next, is_all) = self.events_after(index.up_to(), EVENTS_PER_PART);
        let work = index.advance(tail, &next, now);
        search.begin_with(index);
        let last = next.last().map(|event| event.position().offset);
        (
            work,
            is_all && last.is_none_or(|last| last == index.up_to()),
        )
    }

    /// Removes events that have left the log from the index of topics' last events, in parts, or
    /// drops the index if it has not been used for a while.
    pub(super) fn tidy_last_offsets(&self, now: Instant) {
        loop {
            let mut last_offsets = lock(&self.last_offsets);
            let Some(index) = &mut *last_offsets else {
                return;
            };
            if index.is_unused(now) {
                let index = last_offsets.take();
                // Dropped without the lock, so that no caller waits for it.
                drop(last_offsets);
                drop(index);
                return;
            }
            if index.forget_up_to(self.tail().offset) == 0 {
                return;
            }
        }
    }

    /// Evicts events outside the log's window, for the caller to drop.
    pub(super) fn evict(&self, now: Instant) -> EvictedEvents {
        self.lock().log.evict(now)
    }

    /// Evicts the oldest events until at most `bytes` are left, for the caller to drop.
    pub(super) fn shrink_log_to(&self, bytes: usize) -> EvictedEvents {
        self.lock().log.shrink_to(bytes)
    }

    pub(super) fn log_bytes(&self) -> usize {
        self.lock().log.bytes()
    }

    /// Sends an event of a client to every shard of the set that has an inbox in `inboxes` with
    /// room for it. Returns the number of other shards that have connections.
    pub(super) fn relay(self: &Arc<Self>, event: RelayedEvent, inboxes: &[InboxSender]) -> u64 {
        let event = Arc::new(event);
        let state = self.lock();
        let mut full = 0;
        for entry in &state.shards {
            let inbox = inboxes.get(entry.shard);
            if inbox.is_some_and(InboxSender::is_closed) {
                continue;
            }
            let reserved = inbox.and_then(|inbox| {
                let place = inbox.try_reserve_for_client(&entry.share, &entry.client_events)?;
                Some((inbox, place))
            });
            match reserved {
                Some((inbox, place)) => inbox.send(InboxItem {
                    tenant: Arc::clone(self),
                    content: InboxContent::Client(Arc::clone(&event)),
                    _place: place,
                }),
                None => full += 1,
            }
        }
        full
    }

    /// Forgets a part of the message ids that are too old. Returns true if those were all.
    pub(super) fn expire_message_ids(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let Some(ids) = &mut state.message_ids else {
            return true;
        };
        if !ids.forget_expired(now, FORGOTTEN_AT_ONCE) {
            return false;
        }
        ids.shrink();
        if ids.is_empty() {
            state.message_ids = None;
        }
        true
    }

    pub(super) fn message_id_count(&self) -> usize {
        self.lock().message_ids.as_ref().map_or(0, |ids| ids.len())
    }

    /// Forgets some of the message ids above `level`, at most `most`. Returns true if there were
    /// any.
    pub(super) fn forget_message_ids(&self, level: usize, most: usize) -> bool {
        let mut state = self.lock();
        let Some(ids) = &mut state.message_ids else {
            return false;
        };
        let surplus = ids.len().saturating_sub(level);
        let count = surplus.min(most).min(FORGOTTEN_AT_ONCE);
        ids.forget_oldest(count);
        count > 0
    }

    fn lock(&self) -> MutexGuard<'_, TenantState> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TenantState {
    fn is_idle(&self) -> bool {
        self.shards.is_empty() && self.log.is_empty() && self.message_ids.is_none()
    }
}
