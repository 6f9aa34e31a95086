//! What a shard counts: plain cells that the shard's own thread writes and the
//! scraper reads, so that counting costs no locked instruction on the path of an
//! event. Knows nothing of metric names.

use std::sync::atomic::{AtomicU64, Ordering};

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
}
