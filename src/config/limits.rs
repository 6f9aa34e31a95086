//! `[limits]`: what one event, connection or process may take up.

use bytesize::ByteSize;
use serde::Deserialize;

use super::{
    Replay,
    error::Problems,
    values::{self, GIB, MIB},
};

/// What is to be left for outboxes and inboxes beside the logs.
const MEMORY_BEYOND_LOGS: usize = 64 * MIB;

/// The most shards; more than any machine has cores.
const SHARDS_MAX: usize = 1024;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How many threads carry connections; 0, the default, is one per core.
    #[serde(deserialize_with = "values::count")]
    pub shards: usize,
    /// The most topics that an event may relate to; 100.
    #[serde(deserialize_with = "values::count")]
    pub topics_per_event: usize,
    /// The most topics that one Subscribe or Unsubscribe may name; 1,000.
    #[serde(deserialize_with = "values::count")]
    pub topics_per_subscribe: usize,
    /// The most topics that a connection may be subscribed to; 10,000.
    #[serde(deserialize_with = "values::count")]
    pub topics_per_connection: usize,
    /// The frames from which on an outbox is full; 1,000.
    #[serde(deserialize_with = "values::count")]
    pub outbox_frames: usize,
    /// The bytes from which on an outbox is full; 1 MiB.
    #[serde(deserialize_with = "values::size")]
    pub outbox_bytes: usize,
    /// The most tenants that have a connection, an event or a message id at the same time;
    /// 100,000.
    #[serde(deserialize_with = "values::count")]
    pub tenants: usize,
    /// The most bytes of events in memory, in logs and outboxes together; 512 MiB.
    /// When there are more, the connections are closed that hold the oldest.
    #[serde(deserialize_with = "values::size")]
    pub memory_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shards: 0,
            topics_per_event: 100,
            topics_per_subscribe: 1_000,
            topics_per_connection: 10_000,
            outbox_frames: 1_000,
            outbox_bytes: MIB,
            tenants: 100_000,
            memory_max: 512 * MIB,
        }
    }
}

impl Limits {
    pub(super) fn check(&self, replay: &Replay, problems: &mut Problems) {
        self.check_memory(replay, problems);
        if self.shards > SHARDS_MAX {
            problems.refuse(
                "limits.shards",
                format!("is {}", self.shards),
                format!("the most is {SHARDS_MAX}; 0 is one per core"),
            );
        }
        for (key, count) in [
            ("limits.topics_per_event", self.topics_per_event),
            ("limits.topics_per_subscribe", self.topics_per_subscribe),
            ("limits.topics_per_connection", self.topics_per_connection),
            ("limits.outbox_frames", self.outbox_frames),
            ("limits.tenants", self.tenants),
        ] {
            problems.check_count(key, count);
        }
        problems.check_size("limits.outbox_bytes", self.outbox_bytes, 1..=GIB);
    }

    /// What the logs may keep has to be there, and room for what is on its way.
    fn check_memory(&self, replay: &Replay, problems: &mut Problems) {
        let least = replay.process_bytes.saturating_add(MEMORY_BEYOND_LOGS);
        if self.memory_max < least {
            problems.refuse(
                "limits.memory_max",
                format!(
                    "is {}, and the logs alone may keep {}",
                    ByteSize(self.memory_max as u64),
                    ByteSize(replay.process_bytes as u64)
                ),
                "at least replay.process_bytes and 64 MiB; make the one larger or the other smaller",
            );
        }
    }
}
