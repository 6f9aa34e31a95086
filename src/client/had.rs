//! The offsets of the events that a client was given and that may come again:
//! those above the lowest position that it may still resume from. Knows no topics.

use std::collections::BTreeSet;

/// Offsets of one epoch. Those of an older one cannot come again.
#[derive(Debug, Default)]
pub(super) struct Had {
    epoch: String,
    offsets: BTreeSet<u64>,
}

impl Had {
    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Forgets everything, and remembers offsets of this epoch from now on.
    pub(super) fn begin(&mut self, epoch: &str) {
        epoch.clone_into(&mut self.epoch);
        self.offsets.clear();
    }

    pub(super) fn insert(&mut self, offset: u64) {
        self.offsets.insert(offset);
    }

    pub(super) fn contains(&self, offset: u64) -> bool {
        // Nothing may come again to a client whose topics all stand at one position.
        !self.offsets.is_empty() && self.offsets.contains(&offset)
    }

    /// Forgets the offsets up to this one, or all of them where there is none.
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
