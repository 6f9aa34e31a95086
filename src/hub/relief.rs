//! The order in which connections are closed when the process holds more memory than it may.
//! Knows no connections, only how the shards agree on which of them closes one next.
//!
//! Logs have bounds of their own, and everything else is refused where there is no room. So
//! events exceed their memory only if outboxes hold events that no log holds any more, and other
//! uses exceed theirs only after a reload has lowered the limit.

use std::{
    cmp::Reverse,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::{sync::Notify, time::Instant};

use super::ShardId;

/// The rank of a shard that has nothing to close.
const NOTHING: u64 = u64::MAX;

/// Position of the candidate's kind within a rank; the lower bits order candidates of one kind.
const KIND_SHIFT: u32 = 62;
const WITHIN_KIND_MAX: u64 = (1 << KIND_SHIFT) - 1;

/// A connection that could be closed, by the memory that this would free. Candidates are closed
/// in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ReliefCandidate {
    /// Its outbox holds an event that no log holds any more, appended at this time. The oldest is
    /// closed first.
    OldEvent(Instant),
    /// A message began to arrive at this time. The oldest is closed first.
    BegunMessage(Instant),
    /// It is a poll, with subscriptions of this many bytes. The largest is closed first.
    Poll(Reverse<usize>),
    /// Its subscriptions take this many bytes. The largest is closed first.
    Subscriptions(Reverse<usize>),
}

/// State that the shards share while memory is short.
#[derive(Debug)]
pub(super) struct MemoryRelief {
    began: Instant,
    shards: Box<[ShardRelief]>,
}

#[derive(Debug)]
struct ShardRelief {
    asked: Notify,
    /// The rank of the shard's next candidate.
    next: AtomicU64,
}

impl MemoryRelief {
    pub(super) fn new(shards: usize) -> Self {
        let shard = || ShardRelief {
            asked: Notify::new(),
            next: AtomicU64::new(NOTHING),
        };
        Self {
            began: Instant::now(),
            shards: (0..shards).map(|_| shard()).collect(),
        }
    }

    /// Asks all shards to free memory.
    pub(super) fn request_relief(&self) {
        for shard in &self.shards {
            shard.asked.notify_one();
        }
    }

    /// Waits until the shard is asked to free memory.
    pub(super) async fn wait_for_request(&self, shard: ShardId) {
        match self.shards.get(shard) {
            Some(shard) => shard.asked.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Announces the shard's next candidate to the others. Returns true if no other shard has a
    /// candidate that comes before it. Among equals, the shard with the lowest index comes first.
    pub(super) fn announce_candidate(&self, shard: ShardId, candidate: ReliefCandidate) -> bool {
        let mine = self.rank_of(candidate);
        self.announce_rank(shard, mine);
        let mut others = self.shards.iter().enumerate();
        others.all(|(id, other)| {
            let rank = other.next.load(Ordering::Acquire);
            id == shard || (mine, shard) < (rank, id)
        })
    }

    /// Announces that the shard has nothing to close.
    pub(super) fn announce_none(&self, shard: ShardId) {
        self.announce_rank(shard, NOTHING);
    }

    fn announce_rank(&self, shard: ShardId, rank: u64) {
        if let Some(shard) = self.shards.get(shard) {
            shard.next.store(rank, Ordering::Release);
        }
    }

    /// Returns a number that orders candidates as their `Ord` does, for 146 years.
    fn rank_of(&self, candidate: ReliefCandidate) -> u64 {
        let age = |at: Instant| {
            let nanos = at.saturating_duration_since(self.began).as_nanos();
            u64::try_from(nanos).unwrap_or(u64::MAX)
        };
        let (kind, within_kind) = match candidate {
            ReliefCandidate::OldEvent(placed) => (0, age(placed)),
            ReliefCandidate::BegunMessage(began) => (1, age(began)),
            ReliefCandidate::Poll(Reverse(bytes)) => {
                (2, WITHIN_KIND_MAX.saturating_sub(bytes as u64))
            }
            ReliefCandidate::Subscriptions(Reverse(bytes)) => {
                (3, WITHIN_KIND_MAX.saturating_sub(bytes as u64))
            }
        };
        kind << KIND_SHIFT | within_kind.min(WITHIN_KIND_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ranks_follow_the_order_of_the_candidates() {
        let relief = MemoryRelief::new(1);
        let later = relief.began + Duration::from_secs(1);
        let candidates = [
            ReliefCandidate::OldEvent(relief.began),
            ReliefCandidate::OldEvent(later),
            ReliefCandidate::BegunMessage(relief.began),
            ReliefCandidate::BegunMessage(later),
            ReliefCandidate::Poll(Reverse(2)),
            ReliefCandidate::Poll(Reverse(1)),
            ReliefCandidate::Subscriptions(Reverse(2)),
            ReliefCandidate::Subscriptions(Reverse(1)),
        ];
        assert!(candidates.is_sorted());
        let ranks = candidates.map(|it| relief.rank_of(it));
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
        assert!(ranks.iter().all(|rank| *rank < NOTHING));
    }

    #[test]
    fn only_one_of_several_shards_ranks_first() {
        let relief = MemoryRelief::new(2);
        let subscriptions = |bytes| ReliefCandidate::Subscriptions(Reverse(bytes));
        assert!(relief.announce_candidate(0, subscriptions(10)));
        assert!(!relief.announce_candidate(1, subscriptions(10)));
        assert!(relief.announce_candidate(0, subscriptions(10)));
        assert!(relief.announce_candidate(1, subscriptions(11)));
        assert!(!relief.announce_candidate(0, subscriptions(10)));
        relief.announce_none(1);
        assert!(relief.announce_candidate(0, subscriptions(10)));
    }
}
