//! The quota of log reading for one step of a replay, and how much of it is used.

use crate::scheduler::Cost;

/// The part of a tenant's quantum that a connection may use to read the log.
#[derive(Debug)]
pub(super) struct ReadSlice {
    quota: Cost,
    cost: Cost,
}

impl ReadSlice {
    pub(super) fn new(quota: Cost) -> Self {
        Self {
            quota,
            cost: Cost::ZERO,
        }
    }

    pub(super) fn charge(&mut self, cost: Cost) {
        self.cost += cost;
    }

    /// Returns the cost of what has been read.
    pub(super) fn cost(&self) -> Cost {
        self.cost
    }

    /// Returns the remaining quota.
    pub(super) fn remaining_quota(&self) -> Cost {
        self.quota - self.cost
    }

    /// Returns true if the quota is used up.
    pub(super) fn is_used_up(&self) -> bool {
        self.cost >= self.quota
    }

    /// Returns the number of items of the given cost that may still be read, at least one.
    pub(super) fn room_for(&self, cost: Cost) -> usize {
        1 + cost.fits_into(self.remaining_quota())
    }
}
