//! Counts the refused handshakes for which the relay still waits for the client's Close frame.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The number of connections of refused handshakes that are open.
#[derive(Debug, Default)]
pub struct OpenRefusals(Arc<AtomicUsize>);

/// Counts as one open refusal until it is dropped.
#[derive(Debug)]
pub struct RefusalPermit(Arc<AtomicUsize>);

impl OpenRefusals {
    /// Returns a permit for one more, or `None` if there are `max` already.
    #[must_use]
    pub fn try_acquire(&self, max: usize) -> Option<RefusalPermit> {
        super::try_increment(&self.0, max).then(|| RefusalPermit(Arc::clone(&self.0)))
    }
}

impl Drop for RefusalPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_permits_are_given_as_the_maximum_in_force_allows() {
        let refusals = OpenRefusals::default();
        let take = |max| refusals.try_acquire(max);
        let (first, _second) = (take(2).unwrap(), take(2).unwrap());
        assert!(take(2).is_none());
        // A reload may lower the maximum below the number of those open, and raise it again.
        assert!(take(0).is_none() && take(1).is_none());
        drop(first);
        assert!(take(1).is_none());
        assert!(take(2).is_some());
        assert!(take(2).is_some());
    }
}
