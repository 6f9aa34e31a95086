//! The offsets of received events that the relay may send again: those above the
//! lowest position that the client may still resume from. Knows nothing about topics.

use std::collections::BTreeSet;

/// The offsets seen in the current epoch. Events of an older epoch cannot arrive again.
#[derive(Debug, Default)]
pub(super) struct SeenOffsets {
    epoch: String,
    offsets: BTreeSet<u64>,
}

impl SeenOffsets {
    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Clears the set and starts this epoch.
    pub(super) fn start_epoch(&mut self, epoch: &str) {
        epoch.clone_into(&mut self.epoch);
        self.offsets.clear();
    }

    pub(super) fn insert(&mut self, offset: u64) {
        self.offsets.insert(offset);
    }

    pub(super) fn contains(&self, offset: u64) -> bool {
        // Fast path: the set is empty when all topics share one position.
        !self.offsets.is_empty() && self.offsets.contains(&offset)
    }

    /// Removes the offsets up to and including this one; all of them for `None`.
    pub(super) fn forget_up_to(&mut self, offset: Option<u64>) {
        match offset.and_then(|offset| offset.checked_add(1)) {
            Some(first) => self.offsets = self.offsets.split_off(&first),
            None => self.offsets.clear(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }
}
