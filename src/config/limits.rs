//! `[limits]`: what one event, connection or process may take up.

use serde::Deserialize;

use super::{
    error::Problems,
    values::{self, GIB, MIB},
};

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
    /// The most tenants that have a connection or a log at the same time;
    /// 100,000.
    #[serde(deserialize_with = "values::count")]
    pub tenants: usize,
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
        }
    }
}

impl Limits {
    pub(super) fn check(&self, problems: &mut Problems) {
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
}
