//! The sockets of clients, from accept to close: as many as the process's descriptors
//! allow, less what the relay needs beside them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What is kept back of the descriptors for listeners, backends, operators and files:
/// a part of them, within bounds, and some for each shard's event loop.
const PART_KEPT: usize = 16;
const KEPT_MIN: usize = 64;
const KEPT_MAX: usize = 1024;
const KEPT_PER_SHARD: usize = 4;

/// How many sockets of clients there may be, in a process that may have so many
/// descriptors. Half of them at least.
#[must_use]
pub fn client_sockets_max(descriptors: usize, shards: usize) -> usize {
    let kept = (descriptors / PART_KEPT).clamp(KEPT_MIN, KEPT_MAX);
    let kept = kept.saturating_add(shards.saturating_mul(KEPT_PER_SHARD));
    descriptors - kept.min(descriptors / 2)
}

/// How many sockets of clients there are.
#[derive(Debug)]
pub struct Sockets {
    taken: AtomicUsize,
    max: usize,
}

/// A socket's place. Dropped, it is given back.
#[derive(Debug)]
pub struct Seat(Arc<Sockets>);

impl Sockets {
    /// None, of so many.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            max,
        })
    }

    /// A place for one more, if there is one.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<Seat> {
        let more = |taken: usize| (taken < self.max).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Seat(Arc::clone(self)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_kept_back_of_every_number_of_descriptors() {
        for (descriptors, clients) in [
            (0, 0),
            (20, 10),
            (256, 184),
            (1024, 952),
            (20_000, 18_968),
            (1_048_576, 1_047_544),
        ] {
            let kept_for_two = client_sockets_max(descriptors, 2);
            assert_eq!(kept_for_two, clients, "{descriptors}");
        }
    }

    #[test]
    fn as_many_sockets_are_held_as_there_may_be() {
        let sockets = Sockets::new(2);
        let first = sockets.take().unwrap();
        let _second = sockets.take().unwrap();
        assert!(sockets.take().is_none());
        drop(first);
        assert!(sockets.take().is_some());
    }
}
