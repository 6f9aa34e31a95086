//! Counts the connections, users and topics of a tenant on all shards together. The shards keep
//! the counts up to date, so reading them costs the shards nothing.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::BuildHasherDefault,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sidewire_protocol::{Topic, topic::CarriedHash};

/// The counts of one tenant.
#[derive(Debug, Default)]
pub(super) struct AudienceCounter(Mutex<AudienceCounts>);

#[derive(Debug, Default)]
struct AudienceCounts {
    totals: AudienceTotals,
    /// Number of shards on which each topic has subscribers, by the topic's hash. Hashes include
    /// a secret of the process and tell topics apart well enough to count them.
    shards: HashMap<u64, u32, BuildHasherDefault<CarriedHash>>,
}

/// The numbers of a tenant's connections, users and topics at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct AudienceTotals {
    pub(super) connections: u64,
    /// Users with at least one connection.
    pub(super) users: usize,
    /// Topics with at least one subscriber. Implicit topics are not counted.
    pub(super) topics: usize,
}

impl AudienceTotals {
    fn count_for(&mut self, topic: &Topic) -> &mut usize {
        if topic.is_implicit() {
            &mut self.users
        } else {
            &mut self.topics
        }
    }
}

impl AudienceCounter {
    pub(super) fn totals(&self) -> AudienceTotals {
        self.lock().totals
    }

    /// Counts a new connection.
    pub(super) fn add_connection(&self) {
        self.lock().totals.connections += 1;
    }

    /// Counts a connection that is gone.
    pub(super) fn remove_connection(&self) {
        self.lock().totals.connections -= 1;
    }

    /// Counts a topic that has its first subscriber on a shard.
    pub(super) fn add_topic(&self, topic: &Topic) {
        let mut counts = self.lock();
        let shards = counts.shards.entry(topic.carried_hash()).or_default();
        *shards += 1;
        if *shards == 1 {
            *counts.totals.count_for(topic) += 1;
        }
    }

    /// Counts a topic that has lost its last subscriber on a shard.
    pub(super) fn remove_topic(&self, topic: &Topic) {
        let mut counts = self.lock();
        let Entry::Occupied(mut shards) = counts.shards.entry(topic.carried_hash()) else {
            return;
        };
        *shards.get_mut() -= 1;
        if *shards.get() > 0 {
            return;
        }
        shards.remove();
        *counts.totals.count_for(topic) -= 1;
        if counts.shards.is_empty() {
            counts.shards.shrink_to_fit();
        }
    }

    fn lock(&self) -> MutexGuard<'_, AudienceCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
