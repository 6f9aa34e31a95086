//! One tenant: its log, the message ids of its backends, and the set of shards that have
//! connections of it, behind one lock. An append and the choice of its recipients happen in one
//! step. Knows no connections and no other tenant.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{sync::Semaphore, time::Instant};

use super::{
    ShardId,
    audience::AudienceCounter,
    inbox::{
        EventBatch, FullInbox, HeldPermit, InboxContent, InboxItem, InboxPermit, InboxSender,
        RelayedEvent, ShardDelivery, SharedDelivery,
    },
    presence::TenantPresence,
    submission::{RepeatedDraft, Submission, SubmissionRefusal},
};
#[cfg(any(test, feature = "testing"))]
use crate::planted::fault;
use crate::{
    event::{Event, EventDraft, JsonFrame},
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

/// The outcome of an attempt to append.
pub(super) enum AppendAttempt {
    /// The events have been appended and sent to the shards.
    Appended {
        /// The new events, in the order of their drafts.
        events: EventBatch,
        /// The state that the shards share while they deliver them.
        delivery: Arc<SharedDelivery>,
        /// The indexes of the drafts that are duplicates, and the positions of the original
        /// events.
        repeats: Vec<(usize, Position)>,
        /// The events evicted to make room, to be dropped by the caller.
        evicted: EvictedEvents,
    },
    /// Nothing happened: a message id conflicts, or a condition does not hold.
    Refused(SubmissionRefusal),
    /// Nothing happened: an inbox has no room.
    NoRoom(FullInbox),
    /// Nothing happened: there is no memory for more events.
    NoMemory,
    /// Nothing happened: more of the log has to be searched first. Holds the permit that was
    /// waited for.
    Unsearched(HeldPermit),
    /// Nothing happened: the registry has forgotten the tenant.
    Removed,
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

    /// Appends all new events and sends them to every shard of the set, or does nothing. Takes
    /// the drafts only if it appends. A permit in `waited` that is not used is released, or
    /// returned with `Unsearched`. `has_memory`: true if there is memory for new events.
    pub(super) fn append(
        self: &Arc<Self>,
        submission: &mut Submission<'_>,
        inboxes: &[InboxSender],
        now: Instant,
        has_memory: bool,
        mut waited: HeldPermit,
    ) -> AppendAttempt {
        let mut state = self.lock();
        if state.removed {
            return AppendAttempt::Removed;
        }
        if !submission.check.finish_search(self, &state.log) {
            return AppendAttempt::Unsearched(waited);
        }
        let repeats = match state.check_submission(submission, now) {
            Ok(repeats) => repeats,
            Err(refusal) => return AppendAttempt::Refused(refusal),
        };
        let is_all_known = repeats.len() == submission.drafts.len();
        let places = if is_all_known {
            Vec::new()
        } else if !has_memory {
            return AppendAttempt::NoMemory;
        } else {
            match state.reserve_permits(inboxes, &mut waited) {
                Ok(places) => places,
                Err(full) => {
                    #[cfg(any(test, feature = "testing"))]
                    state.append_too_early(&submission.drafts, now);
                    return AppendAttempt::NoRoom(full);
                }
            }
        };
        // Nothing below can fail.
        let mut evicted = EvictedEvents::new();
        let budget = &self.message_id_budget;
        let mut json = Vec::new();
        let new = submission.take_new(&repeats);
        let events = state.append_new(new, budget, now, &mut json, &mut evicted);
        let delivery = SharedDelivery::new(places.len(), events.as_slice().len());
        for (event, frame) in json {
            if let Some(event) = delivery.events().get(event) {
                event.json_cell().fill(frame);
            }
        }
        for (inbox, place) in places {
            inbox.send(InboxItem {
                tenant: Arc::clone(self),
                content: InboxContent::Events {
                    events: events.clone(),
                    delivery: ShardDelivery::of(&delivery),
                },
                _place: place,
            });
        }
        let epoch = state.log.head().epoch;
        drop(state);
        AppendAttempt::Appended {
            repeats: repeats
                .into_iter()
                .map(|repeat| repeat.resolve_position(epoch, &events))
                .collect(),
            events,
            delivery,
            evicted,
        }
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

    /// Returns the drafts that are duplicates, or the reason for which the submission is refused.
    fn check_submission(
        &self,
        submission: &Submission<'_>,
        now: Instant,
    ) -> Result<Vec<RepeatedDraft>, SubmissionRefusal> {
        let repeats = submission.find_repeats(self.message_ids.as_deref(), now)?;
        // A retry of what has been appended is not refused, although its conditions may no longer
        // hold.
        if repeats.len() < submission.drafts.len() && !submission.check.conditions().is_empty() {
            let unmet = submission.check.unmet_conditions(&self.log, now);
            if !unmet.is_empty() {
                return Err(SubmissionRefusal::Unmet(unmet));
            }
        }
        Ok(repeats)
    }

    /// Takes one permit for the inbox of every shard of the set, or none: dropping the permits
    /// returns those that were reserved in vain.
    fn reserve_permits<'a>(
        &self,
        inboxes: &'a [InboxSender],
        waited: &mut HeldPermit,
    ) -> Result<Vec<ReservedPermit<'a>>, FullInbox> {
        let mut places = Vec::with_capacity(self.shards.len());
        for entry in &self.shards {
            // An ended shard has no connections, so it is skipped.
            let inbox = inboxes.get(entry.shard).filter(|it| !it.is_closed());
            if let Some(inbox) = inbox {
                places.push((inbox, inbox.try_reserve(&entry.share, waited)?));
            }
        }
        Ok(places)
    }

    #[cfg(any(test, feature = "testing"))]
    fn append_too_early(&mut self, drafts: &[EventDraft], now: Instant) {
        if fault!(AppendsTooEarly) {
            for draft in drafts {
                self.log
                    .append(draft.clone(), now, &mut EvictedEvents::new());
            }
        }
    }

    /// Appends the new drafts and remembers their fingerprints. JSON that was rendered beforehand
    /// is added to `json`, with the index of its event among them.
    fn append_new(
        &mut self,
        new: Vec<EventDraft>,
        budget: &Arc<MessageIdBudget>,
        now: Instant,
        json: &mut Vec<(usize, JsonFrame)>,
        evicted: &mut EvictedEvents,
    ) -> EventBatch {
        let (log, message_ids) = (&mut self.log, &mut self.message_ids);
        EventBatch::new(new.into_iter().enumerate().map(|(index, mut draft)| {
            let fingerprint = draft.fingerprint();
            let rendered = draft.take_json();
            let event = log.append(draft, now, evicted);
            if let Some(rendered) = rendered {
                json.push((index, JsonFrame::from_draft(rendered, &event)));
            }
            if let Some(fingerprint) = fingerprint {
                message_ids
                    .get_or_insert_with(|| Box::new(MessageIds::new(Arc::clone(budget))))
                    .remember(fingerprint, event.position().offset, now);
            }
            event
        }))
    }
}

/// A permit, and its inbox.
type ReservedPermit<'a> = (&'a InboxSender, InboxPermit);
