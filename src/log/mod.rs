//! A tenant's log: the ordered, bounded record of its recent events. It assigns
//! positions, answers what came after one, and where a topic's last event stands.
//! Beside it stands what message ids its backends gave. Knows nothing of who
//! listens.
//!
//! The interface is small (append, head, read after) so that a log that several
//! relays share can stand in the place of this one, which is in memory.

mod conditions;
mod last_offsets;
mod message_ids;

use std::{collections::VecDeque, iter, sync::Arc, time::Duration};

use tokio::time::Instant;

pub use conditions::{Condition, Last, LastError, Unmet, unmet};
pub use message_ids::{Known, MESSAGE_ID_BYTES, MessageIdBudget, MessageIdLimits, MessageIds};

use self::last_offsets::LastOffsets;
use crate::{
    event::{Draft, Event, EventBytes},
    protocol::{Epoch, Position, Topic},
};

/// What a log keeps at the most.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// How many events.
    pub events: usize,
    /// How many bytes, as [`Event::cost`] counts them.
    pub bytes: usize,
    /// For how long.
    pub age: Duration,
}

/// One tenant's events, the newest of them.
#[derive(Debug)]
pub struct Log {
    epoch: Epoch,
    head: u64,
    ring: VecDeque<Record>,
    bytes: usize,
    last_offsets: LastOffsets,
    window: Window,
    account: Arc<EventBytes>,
}

#[derive(Debug)]
struct Record {
    event: Arc<Event>,
    appended: Instant,
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
}

impl Log {
    /// An empty log.
    #[must_use]
    pub fn new(epoch: Epoch, window: Window, account: Arc<EventBytes>) -> Self {
        Self {
            epoch,
            head: 0,
            ring: VecDeque::new(),
            bytes: 0,
            last_offsets: LastOffsets::default(),
            window,
            account,
        }
    }

    /// Gives the event the next place, and evicts what no longer fits.
    pub fn append(&mut self, draft: Draft, now: Instant) -> Arc<Event> {
        self.head += 1;
        let event = Arc::new(draft.place(self.head(), &self.account));
        self.bytes += event.cost();
        self.last_offsets.appended(&event);
        self.ring.push_back(Record {
            event: Arc::clone(&event),
            appended: now,
        });
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
        let first = self.ring.front().map(|record| record.event.position());
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
        if position.epoch != self.epoch {
            return Err(Gap::UnknownEpoch);
        }
        if position.offset > self.head {
            return Err(Gap::Future);
        }
        if position.offset < self.tail().offset {
            return Err(Gap::Evicted);
        }
        let first = self
            .ring
            .partition_point(|record| record.event.position().offset <= position.offset);
        Ok(self.ring.iter().skip(first).map(|record| &record.event))
    }

    /// Where the topic's last event stands; `None` where none of it is in the window.
    /// Who asks first after a while has the whole window gone through.
    pub fn last_of(&mut self, topic: &Topic, now: Instant) -> Option<Position> {
        let ring = self.ring.iter().map(|record| &*record.event);
        let offset = self.last_offsets.of(topic, ring, now)?;
        Some(self.at(offset))
    }

    /// Takes out what lies outside the window. It is the caller's to drop, who may
    /// hold a lock under which that would take too long.
    pub fn evict(&mut self, now: Instant) -> Vec<Arc<Event>> {
        let evicted = iter::from_fn(|| self.evict_oldest(now)).collect();
        self.last_offsets.rest(now);
        if self.ring.is_empty() {
            self.ring = VecDeque::new();
        }
        evicted
    }

    /// Takes out the oldest event, if it lies outside the window.
    fn evict_oldest(&mut self, now: Instant) -> Option<Arc<Event>> {
        let oldest = self.ring.front()?;
        let fits = self.ring.len() <= self.window.events
            && self.bytes <= self.window.bytes
            && now.saturating_duration_since(oldest.appended) < self.window.age;
        if fits {
            return None;
        }
        let oldest = self.ring.pop_front()?;
        self.bytes -= oldest.event.cost();
        self.last_offsets.evicted(&oldest.event);
        Some(oldest.event)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::tests::draft;

    const EPOCH: Epoch = Epoch::from_bits(3);

    fn log(window: Window) -> Log {
        Log::new(EPOCH, window, Arc::default())
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
        let cost = draft("m", &["a:1"]).place(at(1), &Arc::default()).cost();
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
    fn an_event_larger_than_the_window_has_a_position_and_is_evicted_at_once() {
        let mut log = log(Window { bytes: 1, ..WIDE });
        let event = log.append(draft("m", &["a:1"]), Instant::now());
        assert_eq!(event.position(), at(1));
        assert!(log.is_empty());
        assert_eq!(offsets_after(&log, 0), Err(Gap::Evicted));
    }

    proptest! {
        /// Whatever was asked when: at times nobody asks for long, and the index is
        /// dropped and made anew.
        #[test]
        fn a_topics_last_event_is_what_a_look_at_the_whole_window_finds(
            events in 1..8_usize,
            steps in prop::collection::vec((0..6_u8, 0..6_u8, 0..40_u64, any::<bool>()), 1..100),
        ) {
            let window = Window { events, age: Duration::from_secs(100), ..WIDE };
            let mut log = log(window);
            let mut now = Instant::now();
            for (a, b, wait, asks) in steps {
                now += Duration::from_secs(wait);
                if wait > 30 {
                    log.evict(now);
                }
                let mut topics = vec![format!("a:{a}"), format!("a:{b}")];
                topics.dedup();
                let topics: Vec<_> = topics.iter().map(String::as_str).collect();
                log.append(draft("m", &topics), now);
                for id in 0..if asks { 6 } else { 0 } {
                    let topic = Topic::new("a", &id.to_string()).unwrap();
                    let newest = log.ring.iter().rev();
                    let mut newest = newest.map(|record| &record.event);
                    let last = newest.find(|event| event.topics().contains(&topic));
                    let expected = last.map(|event| event.position());
                    prop_assert_eq!(log.last_of(&topic, now), expected);
                }
            }
            log.evict(now + window.age);
            prop_assert_eq!(log.last_of(&Topic::new("a", "0").unwrap(), now), None);
        }

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
                let sum: usize = log.ring.iter().map(|record| record.event.cost()).sum();
                prop_assert_eq!(log.bytes, sum);
                prop_assert!(log.ring.iter().all(|record| now - record.appended < window.age));
            }
        }
    }
}
