//! What happens when all events together take more memory than they may: logs are
//! bounded by themselves, so the rest is in outboxes, and the connection is closed
//! that holds on to the oldest event which its tenant's log has no more. Knows no
//! outboxes: only how the shards find out which of them has that connection.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::{sync::Notify, time::Instant};

use super::ShardId;

/// Stands for a shard that has nothing to close.
const NOTHING: u64 = u64::MAX;

/// What the shards know of each other while memory is short.
#[derive(Debug)]
pub(super) struct Relief {
    began: Instant,
    shards: Box<[ShardRelief]>,
}

#[derive(Debug)]
struct ShardRelief {
    asked: Notify,
    /// When the oldest event was placed that only an outbox there holds, in
    /// nanoseconds after the beginning.
    oldest: AtomicU64,
}

impl Relief {
    pub(super) fn new(shards: usize) -> Self {
        let shard = || ShardRelief {
            asked: Notify::new(),
            oldest: AtomicU64::new(NOTHING),
        };
        Self {
            began: Instant::now(),
            shards: (0..shards).map(|_| shard()).collect(),
        }
    }

    /// Asks all shards to look for what can be freed.
    pub(super) fn ask(&self) {
        for shard in &self.shards {
            shard.asked.notify_one();
        }
    }

    /// Waits until the shard is asked.
    pub(super) async fn asked(&self, shard: ShardId) {
        match self.shards.get(shard) {
            Some(shard) => shard.asked.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Tells the others the age of what the shard would close next, and says whether
    /// none of them has something older.
    pub(super) fn is_oldest(&self, shard: ShardId, placed: Instant) -> bool {
        let age = placed.saturating_duration_since(self.began).as_nanos();
        let mine = u64::try_from(age).unwrap_or(NOTHING - 1);
        self.tell(shard, mine);
        self.shards
            .iter()
            .enumerate()
            .all(|(id, other)| id == shard || other.oldest.load(Ordering::Acquire) >= mine)
    }

    /// Tells the others that the shard has nothing to close.
    pub(super) fn has_nothing(&self, shard: ShardId) {
        self.tell(shard, NOTHING);
    }

    fn tell(&self, shard: ShardId, oldest: u64) {
        if let Some(shard) = self.shards.get(shard) {
            shard.oldest.store(oldest, Ordering::Release);
        }
    }
}
