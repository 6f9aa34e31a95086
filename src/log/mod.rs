//! A tenant's log: the ordered, bounded record of its recent events. It assigns positions, and
//! returns the events after a position. This module also has the index of topics' last events and
//! the message ids of backends. Knows nothing of subscribers.
//!
//! The interface is small (append, head, read after), so that a log shared by several relays can
//! replace this one, which is in memory.

mod conditions;
mod last_offsets;
mod message_ids;

use std::{
    collections::VecDeque,
    iter,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use smallvec::SmallVec;
use tokio::time::Instant;

pub use conditions::{
    AppendCondition, ExpectedLast, ExpectedLastError, UnmetCondition, find_unmet,
};
pub use last_offsets::{EVENTS_PER_PART, LastOffsets, TopicSearch};
pub use message_ids::{
    MESSAGE_ID_BYTES, MessageIdBudget, MessageIdLimits, MessageIdMatch, MessageIds, RememberedId,
};
use sidewire_protocol::{Epoch, Position, named_values};

use crate::{
    event::{Event, EventBody, EventDraft},
    memory::MemoryAccount,
    planted::fault,
};

/// Bounds of a log.
#[derive(Debug, Clone, Copy)]
pub struct LogWindow {
    /// Most events. With 0 the log only assigns positions, and nothing can be read from it.
    pub events: usize,
    /// Most bytes, as counted by [`Event::memory_bytes`].
    pub bytes: usize,
    /// Longest time for which an event is kept.
    pub age: Duration,
}

/// Memory used by all logs of a process.
#[derive(Debug, Clone, Default)]
pub struct LogAccounts {
    /// All memory. It includes events that have left the log while an outbox still holds them.
    pub memory: Arc<MemoryAccount>,
    /// The events in logs.
    pub logs: Arc<LogBytes>,
}

/// The size of all events that are in a log, in bytes, as counted by [`Event::memory_bytes`].
#[derive(Debug, Default)]
pub struct LogBytes(AtomicU64);

impl LogBytes {
    /// Returns the current number of bytes.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Events evicted from a log, for the caller to drop. An append usually evicts just one: a
/// heap-allocated list for it took 1 % of the cost of a posted event.
pub type EvictedEvents = SmallVec<[Arc<Event>; 1]>;

/// The newest events of one tenant.
#[derive(Debug)]
pub struct Log {
    epoch: Epoch,
    head: u64,
    ring: VecDeque<Arc<Event>>,
    bytes: usize,
    window: LogWindow,
    accounts: LogAccounts,
}

named_values! {
    /// The reason for which events after a position cannot all be read.
    #[derive(thiserror::Error)]
    pub enum ReplayGap {
        /// The position is of another epoch.
        #[error("the epoch is not this log's")]
        UnknownEpoch = "unknown_epoch",
        /// The position's offset has not been assigned yet.
        #[error("the offset lies in the future")]
        Future = "future",
        /// An event after the position has left the window.
        #[error("an event after the position has been evicted")]
        Evicted = "evicted",
        /// The log keeps no events.
        #[error("replay is switched off")]
        Disabled = "disabled",
    }
}

impl Log {
    /// Creates an empty log. Its last event, if any, was at `head`.
    #[must_use]
    pub fn new(head: Position, window: LogWindow, accounts: LogAccounts) -> Self {
        Self {
            epoch: head.epoch,
            head: head.offset,
            ring: VecDeque::new(),
            bytes: 0,
            window,
            accounts,
        }
    }

    /// Appends the event at the next offset. Events that no longer fit the window are added to
    /// `evicted`, for the caller to drop.
    pub fn append(
        &mut self,
        draft: EventDraft,
        now: Instant,
        evicted: &mut EvictedEvents,
    ) -> Arc<Event> {
        self.head += 1;
        let event = Arc::new(draft.into_event(self.head(), &self.accounts.memory, now));
        self.push(Arc::clone(&event));
        while let Some(oldest) = self.evict_oldest(now) {
            evicted.push(oldest);
        }
        event
    }

    /// Adds an event of an earlier process to a log that has appended none: the next one, oldest
    /// first, up to the head.
    pub fn restore(&mut self, body: EventBody, offset: u64, placed: Instant) {
        let position = self.position_at(offset);
        let event = body.into_event(position, &self.accounts.memory, placed);
        self.push(Arc::new(event));
    }

    fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.memory_bytes();
        let cost = event.memory_bytes() as u64;
        self.accounts.logs.0.fetch_add(cost, Ordering::Relaxed);
        self.ring.push_back(event);
    }

    /// Returns the position of the newest event; offset 0 if there has been none.
    #[must_use]
    pub fn head(&self) -> Position {
        self.position_at(self.head)
    }

    /// Returns the position after which the log has every event.
    #[must_use]
    pub fn tail(&self) -> Position {
        let first = self.ring.front().map(|event| event.position());
        self.position_at(first.map_or(self.head, |first| first.offset - 1))
    }

    /// Returns the position after which every event is in the log and not too old by now. Events
    /// that are too old may not have been evicted yet.
    #[must_use]
    pub fn tail_at(&self, now: Instant) -> Position {
        let too_old = self
            .ring
            .partition_point(|event| self.is_too_old(event, now));
        let first = self.ring.get(too_old).map(|event| event.position());
        self.position_at(first.map_or(self.head, |first| first.offset - 1))
    }

    /// Checks that every event after the position is in the log and not too old by now.
    ///
    /// # Errors
    ///
    /// The errors of [`Self::read_after`].
    pub fn has_all_after(&self, position: Position, now: Instant) -> Result<(), ReplayGap> {
        match self.read_after(position)?.next() {
            Some(first) if self.is_too_old(first, now) => Err(ReplayGap::Evicted),
            _ => Ok(()),
        }
    }

    /// Returns the events after the position, oldest first and without gaps.
    ///
    /// # Errors
    ///
    /// When an event after the position is missing, or the position is not one of this log.
    pub fn read_after(
        &self,
        position: Position,
    ) -> Result<impl Iterator<Item = &Arc<Event>>, ReplayGap> {
        if self.window.events == 0 {
            return Err(ReplayGap::Disabled);
        }
        if position.epoch != self.epoch {
            return Err(ReplayGap::UnknownEpoch);
        }
        if position.offset > self.head {
            return Err(ReplayGap::Future);
        }
        if position.offset < self.tail().offset && !fault!(SkipsAnEviction) {
            return Err(ReplayGap::Evicted);
        }
        Ok(self.events_after(position.offset))
    }

    /// Returns the events after the offset that are in the log, oldest first, even if others
    /// before them have been evicted.
    pub fn events_after(&self, offset: u64) -> impl ExactSizeIterator<Item = &Arc<Event>> {
        let first = self
            .ring
            .partition_point(|event| event.position().offset <= offset);
        self.ring.range(first..)
    }

    /// Returns the events before the offset that are in the log, newest first.
    pub fn events_before(&self, offset: u64) -> impl Iterator<Item = &Arc<Event>> {
        let end = self
            .ring
            .partition_point(|event| event.position().offset < offset);
        self.ring.range(..end).rev()
    }

    /// Evicts events outside the window. The caller drops them, since it may hold a lock under
    /// which that would take too long.
    pub fn evict(&mut self, now: Instant) -> EvictedEvents {
        let evicted = iter::from_fn(|| self.evict_oldest(now)).collect();
        self.shrink_ring();
        evicted
    }

    /// Evicts the oldest events until at most `bytes` are left, for the caller to drop.
    pub fn shrink_to(&mut self, bytes: usize) -> EvictedEvents {
        let evicted = iter::from_fn(|| (self.bytes > bytes).then(|| self.pop_oldest())?).collect();
        self.shrink_ring();
        evicted
    }

    /// Returns the size of the log's events in bytes, as counted by [`Event::memory_bytes`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Evicts the oldest event, if it is outside the window.
    fn evict_oldest(&mut self, now: Instant) -> Option<Arc<Event>> {
        let oldest = self.ring.front()?;
        let fits = self.ring.len() <= self.window.events
            && self.bytes <= self.window.bytes
            && !self.is_too_old(oldest, now);
        if fits { None } else { self.pop_oldest() }
    }

    fn is_too_old(&self, event: &Event, now: Instant) -> bool {
        now.saturating_duration_since(event.placed_at()) >= self.window.age
    }

    fn pop_oldest(&mut self) -> Option<Arc<Event>> {
        let oldest = self.ring.pop_front()?;
        self.bytes -= oldest.memory_bytes();
        let cost = oldest.memory_bytes() as u64;
        self.accounts.logs.0.fetch_sub(cost, Ordering::Relaxed);
        Some(oldest)
    }

    /// Releases unused capacity, since most of many tenants are quiet most of the time.
    fn shrink_ring(&mut self) {
        if self.ring.len() < self.ring.capacity() / 4 {
            self.ring.shrink_to(self.ring.len() * 2);
        }
    }

    /// Returns true if the log holds no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    fn position_at(&self, offset: u64) -> Position {
        Position {
            epoch: self.epoch,
            offset,
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let bytes = self.bytes as u64;
        self.accounts.logs.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
