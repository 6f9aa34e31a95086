//! A tenant's log: the ordered, bounded record of its recent events. It assigns
//! positions and answers what came after one. Knows nothing of who listens.
//!
//! The interface is small (append, head, read after) so that a log that several
//! relays share can stand in the place of this one, which is in memory.

use std::{
    collections::VecDeque,
    iter,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    event::{Draft, Event, EventBytes},
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
    /// All events in memory, those included that only an outbox still holds.
    pub events: Arc<EventBytes>,
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

    /// Gives the event the next place, and evicts what no longer fits.
    pub fn append(&mut self, draft: Draft, now: Instant) -> Arc<Event> {
        self.head += 1;
        let event = Arc::new(draft.place(self.head(), &self.accounts.events, now));
        self.bytes += event.cost();
        let cost = event.cost() as u64;
        self.accounts.logs.0.fetch_add(cost, Ordering::Relaxed);
        self.ring.push_back(Arc::clone(&event));
        while self.evict_oldest(now).is_some() {}
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
        let first = self
            .ring
            .partition_point(|event| event.position().offset <= position.offset);
        Ok(self.ring.range(first..))
    }

    /// Takes out what lies outside the window. It is the caller's to drop, who may
    /// hold a lock under which that would take too long.
    pub fn evict(&mut self, now: Instant) -> Vec<Arc<Event>> {
        let evicted = iter::from_fn(|| self.evict_oldest(now)).collect();
        self.give_memory_back();
        evicted
    }

    /// Takes out the oldest events until at most so many bytes are left, for the
    /// caller to drop.
    pub fn shrink_to(&mut self, bytes: usize) -> Vec<Arc<Event>> {
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
            && now.saturating_duration_since(oldest.placed()) < self.window.age;
        if fits { None } else { self.pop_oldest() }
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::tests::draft;

    const EPOCH: Epoch = Epoch::from_bits(3);

    fn log(window: Window) -> Log {
        Log::new(at(0), window, Accounts::default())
    }

    const WIDE: Window = Window {
        events: 100,
        bytes: 1 << 20,
        age: Duration::from_secs(60),
    };

    fn at(offset: u64) -> Position {
        Position {
            epoch: EPOCH,
            offset,
        }
    }

    fn offsets_after(log: &Log, offset: u64) -> Result<Vec<u64>, Gap> {
        log.read_after(at(offset))
            .map(|events| events.map(|event| event.position().offset).collect())
    }

    fn append(log: &mut Log, count: usize, now: Instant) {
        for _ in 0..count {
            log.append(draft("m", &["a:1"]), now);
        }
    }

    #[test]
    fn offsets_start_at_1_and_grow_by_1() {
        let (mut log, now) = (log(WIDE), Instant::now());
        assert_eq!((log.head(), log.tail()), (at(0), at(0)));
        append(&mut log, 3, now);
        assert_eq!(log.head(), at(3));
        assert_eq!(offsets_after(&log, 0), Ok(vec![1, 2, 3]));
        assert_eq!(offsets_after(&log, 2), Ok(vec![3]));
        assert_eq!(offsets_after(&log, 3), Ok(vec![]));
    }

    #[test]
    fn what_cannot_be_read_whole_is_refused_with_the_reason() {
        let now = Instant::now();
        let mut log = log(Window { events: 2, ..WIDE });
        append(&mut log, 5, now);
        assert_eq!(offsets_after(&log, 2), Err(Gap::Evicted));
        assert_eq!(offsets_after(&log, 3), Ok(vec![4, 5]));
        assert_eq!(offsets_after(&log, 6), Err(Gap::Future));
        let elsewhere = Position {
            epoch: Epoch::from_bits(4),
            offset: 4,
        };
        assert_eq!(log.read_after(elsewhere).err(), Some(Gap::UnknownEpoch));
    }

    #[test]
    fn events_leave_when_they_are_too_many_too_large_or_too_old() {
        let now = Instant::now();
        let cost = draft("m", &["a:1"])
            .place(at(1), &Arc::default(), now)
            .cost();
        for window in [
            Window { events: 4, ..WIDE },
            Window {
                bytes: cost * 4 + cost / 2,
                ..WIDE
            },
        ] {
            let mut log = log(window);
            append(&mut log, 10, now);
            assert_eq!(offsets_after(&log, 6), Ok(vec![7, 8, 9, 10]));
            assert_eq!(log.tail(), at(6));
        }

        let mut log = log(WIDE);
        append(&mut log, 2, now);
        append(&mut log, 1, now + Duration::from_secs(59));
        log.evict(now + Duration::from_secs(60));
        assert_eq!(offsets_after(&log, 2), Ok(vec![3]));
        assert_eq!(offsets_after(&log, 1), Err(Gap::Evicted));
        log.evict(now + WIDE.age * 2);
        assert!(log.is_empty());
        assert_eq!((log.head(), log.tail()), (at(3), at(3)));
    }

    #[test]
    fn what_is_taken_from_a_log_for_want_of_room_is_the_oldest() {
        let (mut log, now) = (log(WIDE), Instant::now());
        append(&mut log, 10, now);
        let cost = log.bytes() / 10;
        assert_eq!(log.shrink_to(cost * 4 + cost / 2).len(), 6);
        assert_eq!(offsets_after(&log, 6), Ok(vec![7, 8, 9, 10]));
        assert_eq!(log.accounts.logs.get(), 4 * cost as u64);
        assert_eq!(log.shrink_to(cost * 4).len(), 0);
        let logs = Arc::clone(&log.accounts.logs);
        drop(log);
        assert_eq!(logs.get(), 0);
    }

    #[test]
    fn a_log_that_keeps_no_events_assigns_positions_and_refuses_every_read() {
        let mut log = log(Window { events: 0, ..WIDE });
        append(&mut log, 2, Instant::now());
        assert_eq!((log.head(), log.is_empty()), (at(2), true));
        assert_eq!(offsets_after(&log, 2), Err(Gap::Disabled));
    }

    #[test]
    fn a_log_goes_on_where_it_was_left() {
        let mut log = Log::new(at(7), WIDE, Accounts::default());
        assert_eq!(offsets_after(&log, 7), Ok(vec![]));
        assert_eq!(offsets_after(&log, 6), Err(Gap::Evicted));
        append(&mut log, 1, Instant::now());
        assert_eq!(offsets_after(&log, 7), Ok(vec![8]));
    }

    #[test]
    fn an_event_larger_than_the_window_has_a_position_and_is_evicted_at_once() {
        let mut log = log(Window { bytes: 1, ..WIDE });
        let event = log.append(draft("m", &["a:1"]), Instant::now());
        assert_eq!(event.position(), at(1));
        assert!(log.is_empty());
        assert_eq!(offsets_after(&log, 0), Err(Gap::Evicted));
    }

    proptest! {
        #[test]
        fn bounds_hold_after_every_append(
            events in 1..20_usize,
            bytes in 0..3000_usize,
            steps in prop::collection::vec(0..20_u64, 1..100),
        ) {
            let window = Window { events, bytes, age: Duration::from_secs(30) };
            let mut log = log(window);
            let mut now = Instant::now();
            for step in steps {
                now += Duration::from_secs(step);
                append(&mut log, 1, now);
                prop_assert!(log.ring.len() <= events);
                prop_assert!(log.bytes <= bytes);
                let sum: usize = log.ring.iter().map(|event| event.cost()).sum();
                prop_assert_eq!(log.bytes, sum);
                prop_assert_eq!(log.accounts.logs.get(), sum as u64);
                prop_assert!(log.ring.iter().all(|event| now - event.placed() < window.age));
            }
        }
    }
}
