//! Limits the sockets of a process, from accept to close, to what its file descriptors
//! allow, less those that the relay itself needs. Clients leave room for backends, and both
//! leave room for operators; half of the descriptors are always available to clients.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::try_increment;

/// Clients leave a sixteenth of the descriptors free, but at least `KEPT_MIN` and at most
/// `KEPT_MAX`, plus `KEPT_PER_SHARD` for each shard's event loop.
const PART_KEPT: usize = 16;
const KEPT_MIN: usize = 64;
const KEPT_MAX: usize = 1024;
const KEPT_PER_SHARD: usize = 4;

/// Descriptors that the relay itself needs: listeners, event loops, files, and connections
/// that are being refused.
const OWN: usize = 32;

/// Descriptors that backends leave to operators.
const OPERATORS: usize = 16;

/// The kind of peer that a socket belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerKind {
    /// A client.
    Client,
    /// A backend.
    Backend,
    /// An operator (metrics, health).
    Operator,
}

/// Maximum numbers of sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketLimits {
    /// Sockets of clients.
    pub clients: usize,
    /// Total at which backends are refused, counting sockets of all kinds.
    pub backends: usize,
    /// Sockets of backends.
    pub backends_alone: usize,
    /// Sockets of operators and backends together.
    pub others: usize,
    /// Sockets of all kinds.
    pub all: usize,
}

impl SocketLimits {
    /// Computes the limits of a process with `descriptors` file descriptors. At least half
    /// of them are for clients.
    #[must_use]
    pub fn from_descriptors(descriptors: usize, shards: usize) -> Self {
        let per_shard = shards.saturating_mul(KEPT_PER_SHARD);
        let kept = (descriptors / PART_KEPT).clamp(KEPT_MIN, KEPT_MAX);
        let clients = descriptors - kept.saturating_add(per_shard).min(descriptors / 2);
        let own = OWN.saturating_add(per_shard);
        let all = descriptors - own.min((descriptors - clients) / 2);
        let others = all - descriptors.div_ceil(2).min(all);
        Self {
            clients,
            backends: all - OPERATORS.min((all - clients) / 2),
            backends_alone: others - OPERATORS.min(others / 2),
            others,
            all,
        }
    }
}

/// The open sockets of the process, counted against its [`SocketLimits`].
#[derive(Debug)]
pub struct SocketPool {
    room: SocketLimits,
    clients: AtomicUsize,
    backends: AtomicUsize,
    others: AtomicUsize,
    all: AtomicUsize,
    arriving: TaskTracker,
}

/// The permit of an open socket. Dropping it releases the permit.
#[derive(Debug)]
pub struct SocketPermit {
    sockets: Arc<SocketPool>,
    whose: PeerKind,
    /// Number of the [counts](SocketPool::bounded_counts) that include it.
    counted: usize,
}

/// Held from accept until the first request of a connection is answered.
pub type HandshakeGuard = TaskTrackerToken;

impl SocketPool {
    /// Creates a pool without sockets, with these limits.
    #[must_use]
    pub fn new(room: SocketLimits) -> Arc<Self> {
        Arc::new(Self {
            room,
            clients: AtomicUsize::new(0),
            backends: AtomicUsize::new(0),
            others: AtomicUsize::new(0),
            all: AtomicUsize::new(0),
            arriving: TaskTracker::new(),
        })
    }

    /// Returns a permit for one more socket, or `None` if a limit is reached.
    #[must_use]
    pub fn try_acquire(
        self: &Arc<Self>,
        whose: PeerKind,
    ) -> Option<(SocketPermit, HandshakeGuard)> {
        // Dropping the permit releases exactly the counts taken so far, even after a failure.
        let mut seat = SocketPermit {
            sockets: Arc::clone(self),
            whose,
            counted: 0,
        };
        for (count, most) in self.bounded_counts(whose) {
            if !try_increment(count, most) {
                return None;
            }
            seat.counted += 1;
        }
        Some((seat, self.arriving.token()))
    }

    /// Returns the counts that include such a socket, each with its maximum.
    fn bounded_counts(&self, whose: PeerKind) -> impl Iterator<Item = (&AtomicUsize, usize)> {
        let room = &self.room;
        let (own, all) = match whose {
            PeerKind::Client => ([Some((&self.clients, room.clients)), None], room.all),
            PeerKind::Backend => (
                [
                    Some((&self.backends, room.backends_alone)),
                    Some((&self.others, room.others)),
                ],
                room.backends,
            ),
            PeerKind::Operator => ([Some((&self.others, room.others)), None], room.all),
        };
        own.into_iter().flatten().chain([(&self.all, all)])
    }

    /// Waits until every accepted connection has been answered once. Call it after the
    /// listeners have stopped accepting.
    pub async fn wait_until_answered(&self) {
        self.arriving.close();
        self.arriving.wait().await;
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        for (count, _) in self.sockets.bounded_counts(self.whose).take(self.counted) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_kept_in_reserve_whatever_their_number() {
        for (descriptors, clients, backends, others, all) in [
            (0, 0, 0, 0, 0),
            (20, 10, 13, 5, 15),
            (256, 184, 204, 92, 220),
            (1024, 952, 972, 476, 988),
            (20_000, 18_968, 19_944, 9_960, 19_960),
            (1_048_576, 1_047_544, 1_048_520, 524_248, 1_048_536),
        ] {
            let room = SocketLimits {
                clients,
                backends,
                backends_alone: others - OPERATORS.min(others / 2),
                others,
                all,
            };
            assert_eq!(
                SocketLimits::from_descriptors(descriptors, 2),
                room,
                "{descriptors}"
            );
        }
    }

    /// Takes permits until none is left.
    fn fill(sockets: &Arc<SocketPool>, whose: PeerKind) -> Vec<SocketPermit> {
        std::iter::from_fn(|| sockets.try_acquire(whose).map(|(seat, _)| seat)).collect()
    }

    #[test]
    fn half_of_the_descriptors_are_left_for_clients_whatever_the_others_take() {
        for descriptors in [20, 256, 1024, 20_000] {
            let sockets = SocketPool::new(SocketLimits::from_descriptors(descriptors, 2));
            let backends = fill(&sockets, PeerKind::Backend);
            let operators = fill(&sockets, PeerKind::Operator);
            assert!(!backends.is_empty() && !operators.is_empty());
            let clients = fill(&sockets, PeerKind::Client).len();
            assert!(clients >= descriptors / 2, "{clients} of {descriptors}");
        }
    }

    #[test]
    fn clients_leave_sockets_to_backends_and_both_leave_some_to_operators() {
        let sockets = SocketPool::new(SocketLimits {
            clients: 2,
            backends: 3,
            backends_alone: 3,
            others: 4,
            all: 4,
        });
        let take = |whose| sockets.try_acquire(whose).map(|(seat, _)| seat);
        let first = take(PeerKind::Client).unwrap();
        let _second = take(PeerKind::Client).unwrap();
        assert!(take(PeerKind::Client).is_none());
        let backend = take(PeerKind::Backend).unwrap();
        assert!(take(PeerKind::Backend).is_none());
        let _operator = take(PeerKind::Operator).unwrap();
        assert!(take(PeerKind::Operator).is_none());
        drop(first);
        // Backends may use what clients leave unused, but not what is reserved for operators.
        assert!(take(PeerKind::Backend).is_none());
        assert!(take(PeerKind::Client).is_some());
        drop(backend);
        assert!(take(PeerKind::Backend).is_some());
    }

    #[test]
    fn every_released_permit_can_be_taken_again_by_any_kind_of_peer() {
        let sockets = SocketPool::new(SocketLimits::from_descriptors(256, 2));
        for _ in 0..3 {
            for whose in [PeerKind::Client, PeerKind::Backend, PeerKind::Operator] {
                // The last attempt fails after taking some of the counts.
                drop(fill(&sockets, whose));
                let left = [
                    &sockets.clients,
                    &sockets.backends,
                    &sockets.others,
                    &sockets.all,
                ];
                assert!(left.iter().all(|count| count.load(Ordering::Relaxed) == 0));
            }
        }
    }

    #[tokio::test]
    async fn an_accepted_peer_is_waited_for_until_it_is_answered() {
        let sockets = SocketPool::new(SocketLimits::from_descriptors(1024, 2));
        let (seat, arrival) = sockets.try_acquire(PeerKind::Client).unwrap();
        let mut answered = Box::pin(sockets.wait_until_answered());
        assert!(futures_util::poll!(&mut answered).is_pending());
        drop(arrival);
        answered.await;
        drop(seat);
    }
}
