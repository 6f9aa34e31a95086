//! A tenant's log: the ordered, bounded record of its recent events. It assigns
//! positions and answers what came after one. Beside it stand where topics' last events
//! are and what message ids its backends gave. Knows nothing of who listens.
//!
//! The interface is small (append, head, read after) so that a log that several
//! relays share can stand in the place of this one, which is in memory.

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

pub use conditions::{Condition, Last, LastError, Unmet, unmet};
pub use last_offsets::{EVENTS_A_PART, LastOffsets, TopicSearch};
pub use message_ids::{Known, MESSAGE_ID_BYTES, MessageIdBudget, MessageIdLimits, MessageIds};

use crate::{
    event::{Draft, Event},
    memory::MemoryAccount,
    planted::{Fault, is_planted},
    protocol::{Epoch, Position},
};

/// What a log keeps at the most.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// How many events; 0: the log only assigns positions, and nothing can be
    /// read from it.
    pub events: usize,
    /// How many bytes, as [`Event::cost`] counts them.
    pub bytes: usize,
    /// For how long.
    pub age: Duration,
}

/// What the logs of a process take up together.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// All memory, which counts events also while only an outbox still holds them.
    pub memory: Arc<MemoryAccount>,
    /// Those in logs.
    pub logs: Arc<LogBytes>,
}

/// The bytes of all events that are in a log, as [`Event::cost`] counts them.
#[derive(Debug, Default)]
pub struct LogBytes(AtomicU64);

impl LogBytes {
    /// The number of bytes as of now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Events that have left a log, to be dropped. Most often it is one, for the one that
/// came: to have a list for it took 1 % of a posted event.
pub type Evicted = SmallVec<[Arc<Event>; 1]>;

/// One tenant's events, the newest of them.
#[derive(Debug)]
pub struct Log {
    epoch: Epoch,
    head: u64,
    ring: VecDeque<Arc<Event>>,
    bytes: usize,
    window: Window,
    accounts: Accounts,
}

/// What a reader asked for is not all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// The position is of another epoch.
    #[error("the epoch is not this log's")]
    UnknownEpoch,
    /// The position has an offset that no event has had yet.
    #[error("the offset lies in the future")]
    Future,
    /// An event after the position has left the window.
    #[error("an event after the position has been evicted")]
    Evicted,
    /// The log keeps no events.
    #[error("replay is switched off")]
    Disabled,
}

impl Gap {
    /// As a word, for metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::UnknownEpoch => "unknown_epoch",
            Self::Future => "future",
            Self::Evicted => "evicted",
            Self::Disabled => "disabled",
        }
    }
}

impl Log {
    /// An empty log, whose last event, if it has had any, stood at `head`.
    #[must_use]
    pub fn new(head: Position, window: Window, accounts: Accounts) -> Self {
        Self {
            epoch: head.epoch,
            head: head.offset,
            ring: VecDeque::new(),
            bytes: 0,
            window,
            accounts,
        }
    }

    /// Gives the event the next place. What no longer fits is taken out and added to
    /// `evicted`, for the caller to drop.
    pub fn append(&mut self, draft: Draft, now: Instant, evicted: &mut Evicted) -> Arc<Event> {
        self.head += 1;
        let event = Arc::new(draft.place(self.head(), &self.accounts.memory, now));
        self.bytes += event.cost();
        let cost = event.cost() as u64;
        self.accounts.logs.0.fetch_add(cost, Ordering::Relaxed);
        self.ring.push_back(Arc::clone(&event));
        while let Some(oldest) = self.evict_oldest(now) {
            evicted.push(oldest);
        }
        event
    }

    /// The position of the newest event; offset 0 when there was none yet.
    #[must_use]
    pub fn head(&self) -> Position {
        self.at(self.head)
    }

    /// The position after which everything is still there.
    #[must_use]
    pub fn tail(&self) -> Position {
        let first = self.ring.front().map(|event| event.position());
        self.at(first.map_or(self.head, |first| first.offset - 1))
    }

    /// The same as of now: what is too old may be there still.
    #[must_use]
    pub fn tail_at(&self, now: Instant) -> Position {
        let too_old = self
            .ring
            .partition_point(|event| self.is_too_old(event, now));
        let first = self.ring.get(too_old).map(|event| event.position());
        self.at(first.map_or(self.head, |first| first.offset - 1))
    }

    /// Whether all that came after the position is there, and is not too old by now.
    ///
    /// # Errors
    ///
    /// Those of [`Self::read_after`].
    pub fn has_all_after(&self, position: Position, now: Instant) -> Result<(), Gap> {
        match self.read_after(position)?.next() {
            Some(first) if self.is_too_old(first, now) => Err(Gap::Evicted),
            _ => Ok(()),
        }
    }

    /// The events after the position, oldest first, each with nothing missing
    /// between it and the one before.
    ///
    /// # Errors
    ///
    /// When something after the position is not there, or the position is none of
    /// this log's.
    pub fn read_after(&self, position: Position) -> Result<impl Iterator<Item = &Arc<Event>>, Gap> {
        if self.window.events == 0 {
            return Err(Gap::Disabled);
        }
        if position.epoch != self.epoch {
            return Err(Gap::UnknownEpoch);
        }
        if position.offset > self.head {
            return Err(Gap::Future);
        }
        if position.offset < self.tail().offset && !is_planted(Fault::SkipsAnEviction) {
            return Err(Gap::Evicted);
        }
        Ok(self.events_after(position.offset))
    }

    /// The events after the offset that are there, oldest first, whether or not others
    /// have left the window before them.
    pub fn events_after(&self, offset: u64) -> impl ExactSizeIterator<Item = &Arc<Event>> {
        let first = self
            .ring
            .partition_point(|event| event.position().offset <= offset);
        self.ring.range(first..)
    }

    /// Takes out what lies outside the window. It is the caller's to drop, who may
    /// hold a lock under which that would take too long.
    pub fn evict(&mut self, now: Instant) -> Evicted {
        let evicted = iter::from_fn(|| self.evict_oldest(now)).collect();
        self.give_memory_back();
        evicted
    }

    /// Takes out the oldest events until at most so many bytes are left, for the
    /// caller to drop.
    pub fn shrink_to(&mut self, bytes: usize) -> Evicted {
        let evicted = iter::from_fn(|| (self.bytes > bytes).then(|| self.pop_oldest())?).collect();
        self.give_memory_back();
        evicted
    }

    /// What its events take up, as [`Event::cost`] counts them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes out the oldest event, if it lies outside the window.
    fn evict_oldest(&mut self, now: Instant) -> Option<Arc<Event>> {
        let oldest = self.ring.front()?;
        let fits = self.ring.len() <= self.window.events
            && self.bytes <= self.window.bytes
            && !self.is_too_old(oldest, now);
        if fits { None } else { self.pop_oldest() }
    }

    fn is_too_old(&self, event: &Event, now: Instant) -> bool {
        now.saturating_duration_since(event.placed()) >= self.window.age
    }

    fn pop_oldest(&mut self) -> Option<Arc<Event>> {
        let oldest = self.ring.pop_front()?;
        self.bytes -= oldest.cost();
        let cost = oldest.cost() as u64;
        self.accounts.logs.0.fetch_sub(cost, Ordering::Relaxed);
        Some(oldest)
    }

    /// A ring that was long once does not hold on to its room: of many tenants
    /// most are quiet.
    fn give_memory_back(&mut self) {
        if self.ring.len() < self.ring.capacity() / 4 {
            self.ring.shrink_to(self.ring.len() * 2);
        }
    }

    /// Whether no event is in the window.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    fn at(&self, offset: u64) -> Position {
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
