//! One tenant: its log, the message ids that its backends gave, and the set of
//! shards that have connections of it, behind one lock. What is appended and who
//! gets it is decided in one step. Knows no connections and no other tenant.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{sync::Semaphore, time::Instant};

use super::{
    ShardId,
    audience::Audience,
    inbox::{Delivery, DeliveryPart, Events, FullInbox, InboxSender, Item, Place, Waited},
    submission::{Refusal, Repeat, Submission},
};
#[cfg(test)]
use crate::planted;
use crate::{
    event::{Draft, Event, JsonFrame},
    log::{
        EVENTS_A_PART, Evicted, Gap, LastOffsets, Log, MessageIdBudget, MessageIds, TopicSearch,
    },
    protocol::{Position, TenantName},
};

/// How many message ids are forgotten at once while the tenant is locked.
const FORGOTTEN_AT_ONCE: usize = 1000;

/// One tenant.
#[derive(Debug)]
pub(super) struct Tenant {
    name: TenantName,
    message_id_budget: Arc<MessageIdBudget>,
    /// Its connections that take events as JSON, on all shards.
    json_connections: AtomicUsize,
    audience: Audience,
    /// Where topics' last events stand, if somebody asks. Locked before the state.
    last_offsets: Mutex<Option<Box<LastOffsets>>>,
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

#[derive(Debug)]
struct ShardOfTenant {
    shard: ShardId,
    /// The tenant's places with this shard.
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

/// What a log looks like from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogView {
    pub(super) head: Position,
    pub(super) tail: Position,
}

/// How an attempt to append ended.
pub(super) enum Attempt {
    /// The events are in the log and on their way to the shards.
    Appended {
        /// Those that are new, in the order of their drafts.
        events: Events,
        /// What the shards make of them.
        delivery: Arc<Delivery>,
        /// The places of the drafts that are not, and their first positions.
        repeats: Vec<(usize, Position)>,
        /// What has left the log for them, to be dropped.
        evicted: Evicted,
    },
    /// Nothing happened, because of what is known or believed.
    Refused(Refusal),
    /// Nothing happened, for want of room.
    NoRoom(FullInbox),
    /// Nothing happened, since there is no memory for more.
    NoMemory,
    /// Nothing happened: more of the log has to be searched first. What was waited for.
    Unsearched(Waited),
    /// Nothing happened: the registry has forgotten the tenant.
    Removed,
}

impl Tenant {
    /// A tenant without connections.
    pub(super) fn new(name: TenantName, log: Log, message_ids: &Arc<MessageIdBudget>) -> Self {
        Self {
            name,
            message_id_budget: Arc::clone(message_ids),
            json_connections: AtomicUsize::new(0),
            audience: Audience::default(),
            last_offsets: Mutex::default(),
            state: Mutex::new(State {
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

    /// Who listens to it, on all shards.
    pub(super) fn audience(&self) -> &Audience {
        &self.audience
    }

    /// A connection that takes events as JSON has come, or one has gone.
    pub(super) fn count_json(&self, joined: bool) {
        if joined {
            self.json_connections.fetch_add(1, Ordering::Relaxed);
        } else {
            self.json_connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether a connection takes events as JSON.
    pub(super) fn has_json(&self) -> bool {
        self.json_connections.load(Ordering::Relaxed) > 0
    }

    /// Puts the shard into the set, with so many places of its inbox. Gives the
    /// newest event's position, or `None` where the registry has forgotten the
    /// tenant.
    pub(super) fn enter(&self, shard: ShardId, places: usize) -> Option<Position> {
        let mut state = self.lock();
        if state.removed {
            return None;
        }
        state.shards.push(ShardOfTenant {
            shard,
            share: Arc::new(Semaphore::new(places)),
        });
        Some(state.log.head())
    }

    /// Takes the shard out of the set.
    pub(super) fn leave(&self, shard: ShardId) {
        self.lock().shards.retain(|entry| entry.shard != shard);
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().is_idle()
    }

    /// Lets nothing be put into it any more, if nothing would be lost with it: where
    /// its log ended.
    pub(super) fn remove_if_idle(&self) -> Option<Position> {
        let mut state = self.lock();
        if state.removed || !state.is_idle() {
            return None;
        }
        state.removed = true;
        Some(state.log.head())
    }

    /// The newest event's position.
    pub(super) fn head(&self) -> Position {
        self.lock().log.head()
    }

    /// The position after which the log has everything.
    pub(super) fn tail(&self) -> Position {
        self.lock().log.tail()
    }

    /// The log as of now, in one look.
    pub(super) fn log_view(&self, now: Instant) -> LogView {
        let state = self.lock();
        LogView {
            head: state.log.head(),
            tail: state.log.tail_at(now),
        }
    }

    /// Whether the log has all that came after the position, as of now.
    pub(super) fn has_all_after(&self, position: Position, now: Instant) -> Result<(), Gap> {
        self.lock().log.has_all_after(position, now)
    }

    /// Adds the events of a span of the log to `events`, oldest first, `count` at the
    /// most. Whether that was all of the span.
    pub(super) fn read_log(
        &self,
        span: Span,
        count: usize,
        events: &mut Vec<Arc<Event>>,
    ) -> Result<bool, Gap> {
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

    /// Returns the events after the offset that the log has, `count` at the most, and
    /// whether those were all.
    pub(super) fn events_after(&self, offset: u64, count: usize) -> (Vec<Arc<Event>>, bool) {
        let state = self.lock();
        let mut rest = state.log.events_after(offset);
        let events = rest.by_ref().take(count).cloned().collect();
        (events, rest.len() == 0)
    }

    /// Brings the index of topics' last events up to date by a part, and begins a search
    /// with what it has then. Returns what that took, in topics of events, and whether that
    /// was all of the log. The log is locked only to list the events.
    pub(super) fn look_up(&self, search: &mut TopicSearch, now: Instant) -> (usize, bool) {
        let mut last_offsets = lock(&self.last_offsets);
        let index = last_offsets.get_or_insert_with(|| Box::new(LastOffsets::new(now)));
        let tail = self.tail().offset;
        let (next, is_all) = self.events_after(index.up_to(), EVENTS_A_PART);
        let work = index.advance(tail, &next, now);
        search.begin(index);
        let last = next.last().map(|event| event.position().offset);
        (
            work,
            is_all && last.is_none_or(|last| last == index.up_to()),
        )
    }

    /// Takes out of the index of topics' last events what has left the log, in parts, or
    /// drops it if nobody has asked for a while.
    pub(super) fn tidy_last_offsets(&self, now: Instant) {
        loop {
            let mut last_offsets = lock(&self.last_offsets);
            let Some(index) = &mut *last_offsets else {
                return;
            };
            if index.is_resting(now) {
                let index = last_offsets.take();
                // Nobody need wait for this.
                drop(last_offsets);
                drop(index);
                return;
            }
            if index.forget(self.tail().offset) == 0 {
                return;
            }
        }
    }

    /// Takes out of the log what lies outside its window, for the caller to drop.
    pub(super) fn evict(&self, now: Instant) -> Evicted {
        self.lock().log.evict(now)
    }

    /// Takes out of the log what is too much, for the caller to drop.
    pub(super) fn shrink_log_to(&self, bytes: usize) -> Evicted {
        self.lock().log.shrink_to(bytes)
    }

    pub(super) fn log_bytes(&self) -> usize {
        self.lock().log.bytes()
    }

    /// Appends all events that are new and sends them to every shard of the set, or
    /// does nothing. Takes the drafts only when it appends; what was `waited` for is
    /// given back. `has_memory`: whether there is any for new events.
    pub(super) fn append(
        self: &Arc<Self>,
        submission: &mut Submission<'_>,
        inboxes: &[InboxSender],
        now: Instant,
        has_memory: bool,
        mut waited: Waited,
    ) -> Attempt {
        let mut state = self.lock();
        if state.removed {
            return Attempt::Removed;
        }
        if !submission.check.finish(self, &state.log) {
            return Attempt::Unsearched(waited);
        }
        let repeats = match state.judge(submission, now) {
            Ok(repeats) => repeats,
            Err(refusal) => return Attempt::Refused(refusal),
        };
        let is_all_known = repeats.len() == submission.drafts.len();
        let places = if is_all_known {
            Vec::new()
        } else if !has_memory {
            return Attempt::NoMemory;
        } else {
            match state.reserve(inboxes, &mut waited) {
                Ok(places) => places,
                Err(full) => {
                    #[cfg(test)]
                    state.append_too_early(&submission.drafts, now);
                    return Attempt::NoRoom(full);
                }
            }
        };
        // What follows cannot fail.
        let mut evicted = Evicted::new();
        let budget = &self.message_id_budget;
        let mut json = Vec::new();
        let new = submission.take_new(&repeats);
        let events = state.append_new(new, budget, now, &mut json, &mut evicted);
        let delivery = Delivery::new(places.len(), events.as_slice().len());
        for (event, frame) in json {
            if let Some(event) = delivery.events().get(event) {
                event.json().fill(frame);
            }
        }
        for (inbox, place) in places {
            inbox.send(Item {
                tenant: Arc::clone(self),
                events: events.clone(),
                delivery: DeliveryPart::of(&delivery),
                _place: place,
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
            delivery,
            evicted,
        }
    }

    /// Forgets some of the message ids that are too old. Whether those were all.
    pub(super) fn expire_message_ids(&self, now: Instant) -> bool {
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

    pub(super) fn message_id_count(&self) -> usize {
        self.lock().message_ids.as_ref().map_or(0, |ids| ids.len())
    }

    /// Forgets some of the message ids above the level, and at most so many. Whether
    /// there were any.
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

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn is_idle(&self) -> bool {
        self.shards.is_empty() && self.log.is_empty() && self.message_ids.is_none()
    }

    /// What of the submission is known already, or why none of it may be appended.
    fn judge(&self, submission: &Submission<'_>, now: Instant) -> Result<Vec<Repeat>, Refusal> {
        let repeats = submission.repeats(self.message_ids.as_deref(), now)?;
        // What has been appended is not refused when it comes again, although what
        // was believed before it came is no longer true.
        if repeats.len() < submission.drafts.len() && !submission.check.conditions().is_empty() {
            let unmet = submission.check.unmet(&self.log, now);
            if !unmet.is_empty() {
                return Err(Refusal::Unmet(unmet));
            }
        }
        Ok(repeats)
    }

    /// Takes one place in the inbox of every shard of the set, or none: places that
    /// were reserved in vain are given back by their drop.
    fn reserve<'a>(
        &self,
        inboxes: &'a [InboxSender],
        waited: &mut Waited,
    ) -> Result<Vec<Reserved<'a>>, FullInbox> {
        let mut places = Vec::with_capacity(self.shards.len());
        for entry in &self.shards {
            // A shard that has ended has no connections.
            let inbox = inboxes.get(entry.shard).filter(|it| !it.is_closed());
            if let Some(inbox) = inbox {
                places.push((inbox, inbox.place(&entry.share, waited)?));
            }
        }
        Ok(places)
    }

    #[cfg(test)]
    fn append_too_early(&mut self, drafts: &[Draft], now: Instant) {
        if planted::is_planted(planted::Fault::AppendsTooEarly) {
            for draft in drafts {
                self.log.append(draft.clone(), now, &mut Evicted::new());
            }
        }
    }

    /// Appends what is not known, and remembers what it is known by. The JSON that was
    /// rendered before is added to `json`, with the place of its event among them.
    fn append_new(
        &mut self,
        new: Vec<Draft>,
        budget: &Arc<MessageIdBudget>,
        now: Instant,
        json: &mut Vec<(usize, JsonFrame)>,
        evicted: &mut Evicted,
    ) -> Events {
        let (log, message_ids) = (&mut self.log, &mut self.message_ids);
        Events::new(new.into_iter().enumerate().map(|(index, mut draft)| {
            let fingerprint = draft.fingerprint();
            let rendered = draft.take_json();
            let event = log.append(draft, now, evicted);
            if let Some(rendered) = rendered {
                json.push((index, JsonFrame::place(rendered, &event)));
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

/// A place, and the inbox that has it.
type Reserved<'a> = (&'a InboxSender, Place);
