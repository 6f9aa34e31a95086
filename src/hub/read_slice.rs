//! What one step of a replay may read of the log, and has read.

use crate::scheduler::Cost;

/// A part of a tenant's quantum that a connection may use to read the log.
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

    /// What was read.
    pub(super) fn cost(&self) -> Cost {
        self.cost
    }

    /// What may be read yet.
    pub(super) fn left(&self) -> Cost {
        self.quota - self.cost
    }

    /// Returns true if nothing more may be read.
    pub(super) fn is_used_up(&self) -> bool {
        self.cost >= self.quota
    }

    /// How many items of that cost may be read yet, at least one.
    pub(super) fn room_for(&self, cost: Cost) -> usize {
        1 + cost.fits_into(self.left())
    }
}
