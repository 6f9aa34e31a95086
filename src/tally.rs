//! What a shard counts: plain cells that the shard's own thread writes and the
//! scraper reads, so that counting costs no locked instruction on the path of an
//! event. Knows nothing of metric names.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A number that one thread writes and any thread may read.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds. Only the shard's own thread may do so: the load and the store are
    /// two steps.
    pub fn add(&self, count: u64) {
        let sum = self.get().wrapping_add(count);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// Takes away. Only the shard's own thread may do so.
    pub fn sub(&self, count: u64) {
        self.add(count.wrapping_neg());
    }

    /// The number as of now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, each time that it happened: a histogram.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [Cell; Self::BOUNDS.len() + 1],
    nanoseconds: Cell,
}

impl Durations {
    /// The longest duration of each bucket, in order. The last bucket, which has no bound,
    /// is not among them.
    pub const BOUNDS: [Duration; 13] = [
        Duration::from_micros(100),
        Duration::from_micros(250),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_millis(500),
        Duration::from_secs(1),
    ];

    /// Counts a duration. Only the shard's own thread may do so.
    pub fn record(&self, duration: Duration) {
        // From the shortest on, which most are.
        let index = Self::BOUNDS.iter().position(|bound| duration <= *bound);
        if let Some(bucket) = self.buckets.get(index.unwrap_or(Self::BOUNDS.len())) {
            bucket.add(1);
        }
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.add(nanoseconds);
    }

    /// How many are in each bucket.
    #[must_use]
    pub fn buckets(&self) -> [u64; Self::BOUNDS.len() + 1] {
        self.buckets.each_ref().map(Cell::get)
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets().iter().sum()
    }

    /// How long they took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.get())
    }
}

/// The cells of one shard.
///
/// `matched` + `replayed` = `written` + `dropped_slow` + `dropped_closed` + `queued`,
/// at any time that the shard's thread is not in the middle of an event.
#[derive(Debug, Default)]
pub struct Tally {
    /// WebSocket connections that are open.
    pub connections: Cell,
    /// Of these, those that speak JSON.
    pub json_connections: Cell,
    /// WebSocket connections that have been opened.
    pub connections_opened: Cell,
    /// Topics subscribed, summed over the connections; implicit ones not counted.
    pub subscriptions: Cell,
    /// Events, once for each connection that they matched.
    pub matched: Cell,
    /// Events of replays, once for each connection that they were queued for.
    pub replayed: Cell,
    /// Of both, handed to the kernel whole.
    pub written: Cell,
    /// Of both, dropped because the connection was too slow.
    pub dropped_slow: Cell,
    /// Of both, dropped because the connection ended before they were written.
    pub dropped_closed: Cell,
    /// Of both, waiting in outboxes, or in the log for a connection that catches up.
    pub queued: Cell,
    /// Events of which the JSON was made for their delivery.
    pub json_delivered: Cell,
    /// Events of which the JSON was made for a connection that catches up.
    pub json_replayed: Cell,
    /// System calls that wrote to WebSocket connections.
    pub writes: Cell,
    /// Frames that these brought to their end.
    pub frames_written: Cell,
    /// System calls that read from WebSocket connections.
    pub reads: Cell,
    /// CPU time that the shard's thread took for each turn of its event loop.
    pub turn_cpu: Durations,
    /// Wall time of the same turns.
    pub turn_stall: Durations,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_and_taken_away_adds_up() {
        let cell = Cell::default();
        cell.add(5);
        cell.sub(3);
        assert_eq!(cell.get(), 2);
    }

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_takes_it() {
        let durations = Durations::default();
        let longest = Duration::from_secs(2);
        for duration in [Duration::ZERO, Durations::BOUNDS[0], longest] {
            durations.record(duration);
        }
        for bound in Durations::BOUNDS {
            durations.record(bound + Duration::from_nanos(1));
        }
        let mut expected = [1; Durations::BOUNDS.len() + 1];
        expected[0] = 2;
        expected[Durations::BOUNDS.len()] = 2;
        assert_eq!(durations.buckets(), expected);
        assert_eq!(durations.count(), 16);
        let bounds: Duration = Durations::BOUNDS.iter().sum();
        let sum = Durations::BOUNDS[0] + longest + bounds + Duration::from_nanos(13);
        assert_eq!(durations.sum(), sum);
    }
}
