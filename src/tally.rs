//! A shard's counters: plain cells that the shard's own thread writes and the scraper reads, so
//! that counting needs no atomic read-modify-write on the path of an event. Knows nothing of
//! metric names.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::transport::TransportKind;

/// A number that one thread writes and any thread may read.
#[derive(Debug, Default)]
pub struct CounterCell(AtomicU64);

impl CounterCell {
    /// Adds to the number. Only the shard's own thread may call this: the load and the store are
    /// two steps.
    pub fn add(&self, count: u64) {
        let sum = self.get().wrapping_add(count);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// Subtracts from the number. Only the shard's own thread may call this.
    pub fn sub(&self, count: u64) {
        self.add(count.wrapping_neg());
    }

    /// Returns the current number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct DurationHistogram {
    buckets: [CounterCell; Self::BOUNDS.len() + 1],
    nanoseconds: CounterCell,
}

impl DurationHistogram {
    /// The longest duration of each bucket, in order. The last bucket has no bound and is not
    /// included.
    pub const BOUNDS: [Duration; 16] = [
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
        Duration::from_millis(2500),
        Duration::from_secs(5),
        Duration::from_secs(10),
    ];

    /// Records a duration. Only the shard's own thread may call this.
    pub fn record(&self, duration: Duration) {
        self.record_many(duration, 1);
    }

    /// Records the same duration `count` times. Only the shard's own thread may call this.
    pub fn record_many(&self, duration: Duration, count: u64) {
        // Searched from the shortest bound, since most durations are short.
        let index = Self::BOUNDS.iter().position(|bound| duration <= *bound);
        if let Some(bucket) = self.buckets.get(index.unwrap_or(Self::BOUNDS.len())) {
            bucket.add(count);
        }
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.add(nanoseconds.saturating_mul(count));
    }

    /// Returns the number of durations in each bucket.
    #[must_use]
    pub fn buckets(&self) -> [u64; Self::BOUNDS.len() + 1] {
        self.buckets.each_ref().map(CounterCell::get)
    }

    /// Returns the number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets().iter().sum()
    }

    /// Returns the sum of all durations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.get())
    }
}

/// A number for each transport.
#[derive(Debug, Default)]
pub struct TransportCounters {
    websocket: CounterCell,
    sse: CounterCell,
    poll: CounterCell,
}

impl TransportCounters {
    /// Returns the number of one transport.
    #[must_use]
    pub fn of(&self, transport: TransportKind) -> &CounterCell {
        match transport {
            TransportKind::WebSocket => &self.websocket,
            TransportKind::Sse => &self.sse,
            TransportKind::Poll => &self.poll,
        }
    }

    /// Returns the sum of all transports.
    #[must_use]
    pub fn total(&self) -> u64 {
        let numbers = TransportKind::ALL.map(|transport| self.of(transport).get());
        numbers.iter().sum()
    }
}

/// The connections whose client does not take what waits for it, each since when. Behind a lock,
/// which is taken when a connection becomes blocked and when it no longer is, but not for an event.
#[derive(Debug, Default)]
pub struct BlockedConnections(Mutex<BTreeSet<(Instant, u64)>>);

impl BlockedConnections {
    /// Adds a connection of the shard that is blocked since then.
    pub fn insert(&self, since: Instant, connection: u64) {
        self.lock().insert((since, connection));
    }

    /// Removes a connection that was blocked since then.
    pub fn remove(&self, since: Instant, connection: u64) {
        self.lock().remove(&(since, connection));
    }

    /// Returns the number of blocked connections.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.lock().len() as u64
    }

    /// Returns since when the connection that is blocked longest has been so.
    #[must_use]
    pub fn longest_since(&self) -> Option<Instant> {
        self.lock().first().map(|(since, _)| *since)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Instant, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cells of one shard.
///
/// `matched` + `replayed` + `relayed` = `written` + `queued` + the sum of all that is `dropped_…`,
/// whenever the shard's thread is not in the middle of an event.
#[derive(Debug, Default)]
pub struct ShardTally {
    /// Open connections of clients.
    pub connections: TransportCounters,
    /// Open connections whose client does not take what waits for it.
    pub blocked: BlockedConnections,
    /// Open connections that use JSON.
    pub json_connections: CounterCell,
    /// Connections of clients opened so far.
    pub connections_opened: TransportCounters,
    /// Subscribed topics, summed over the connections; implicit ones are not counted.
    pub subscriptions: CounterCell,
    /// Events, counted once for each connection that they matched.
    pub matched: CounterCell,
    /// Replayed events, counted once for each connection that they were queued for.
    pub replayed: CounterCell,
    /// Events of clients, counted once for each connection that they were to reach, and once for
    /// each shard whose inbox had no room for them.
    pub relayed: CounterCell,
    /// Matched, replayed or relayed events that were handed to the kernel whole.
    pub written: CounterCell,
    /// Events that were dropped because the connection was closed as too slow.
    pub dropped_slow: CounterCell,
    /// Events that were dropped because the connection ended before they were written.
    pub dropped_closed: CounterCell,
    /// Events that a connection had yet to read from the log when it lost their topics.
    pub dropped_revoked: CounterCell,
    /// Events that were dropped because the connection was catching up: those of clients, and those
    /// that came before the only Subscribe of a connection.
    pub dropped_catching_up: CounterCell,
    /// Events of clients that were dropped because the outbox had no room.
    pub dropped_outbox: CounterCell,
    /// Events of clients that were dropped because the inbox of a shard had no room.
    pub dropped_inbox: CounterCell,
    /// Matched, replayed or relayed events that wait in outboxes, or in the log for a connection that is
    /// catching up.
    pub queued: CounterCell,
    /// Events rendered as JSON for their delivery.
    pub json_delivered: CounterCell,
    /// Events rendered as JSON for a connection that is catching up.
    pub json_replayed: CounterCell,
    /// System calls that wrote to WebSocket connections.
    pub writes: CounterCell,
    /// Frames completed by these writes.
    pub frames_written: CounterCell,
    /// Bytes of these writes.
    pub bytes_written: CounterCell,
    /// Time from the append of an event to its last byte being written, for each connection. The
    /// events of one write count with the time of the oldest.
    pub delivery_latency: DurationHistogram,
    /// System calls that read from WebSocket connections.
    pub reads: CounterCell,
    /// CPU time of the shard's thread in each turn of its event loop.
    pub turn_cpu: DurationHistogram,
    /// Wall time of the same turns.
    pub turn_stall: DurationHistogram,
}

impl ShardTally {
    /// Returns the counts of events that were dropped, by reason.
    #[must_use]
    pub fn dropped(&self) -> [&CounterCell; 6] {
        [
            &self.dropped_slow,
            &self.dropped_closed,
            &self.dropped_revoked,
            &self.dropped_catching_up,
            &self.dropped_outbox,
            &self.dropped_inbox,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_and_subtractions_add_up() {
        let cell = CounterCell::default();
        cell.add(5);
        cell.sub(3);
        assert_eq!(cell.get(), 2);
    }

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_fits() {
        let durations = DurationHistogram::default();
        let longest = Duration::from_secs(20);
        for duration in [Duration::ZERO, DurationHistogram::BOUNDS[0], longest] {
            durations.record(duration);
        }
        for bound in DurationHistogram::BOUNDS {
            durations.record(bound + Duration::from_nanos(1));
        }
        let mut expected = [1; DurationHistogram::BOUNDS.len() + 1];
        expected[0] = 2;
        expected[DurationHistogram::BOUNDS.len()] = 2;
        assert_eq!(durations.buckets(), expected);
        assert_eq!(durations.count(), 19);
        let bounds: Duration = DurationHistogram::BOUNDS.iter().sum();
        let sum = DurationHistogram::BOUNDS[0] + longest + bounds + Duration::from_nanos(16);
        assert_eq!(durations.sum(), sum);
        durations.record_many(longest, 3);
        assert_eq!(durations.count(), 22);
        assert_eq!(durations.sum(), sum + 3 * longest);
    }
}
