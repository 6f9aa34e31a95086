//! The sockets of a process, from accept to close: as many as its descriptors allow,
//! less what the relay needs beside them. Clients leave room for backends, and both for
//! operators.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// What clients leave of the descriptors: a part of them, within bounds, and some for
/// each shard's event loop.
const PART_KEPT: usize = 16;
const KEPT_MIN: usize = 64;
const KEPT_MAX: usize = 1024;
const KEPT_PER_SHARD: usize = 4;

/// What the relay itself needs: listeners, event loops, files, and those who are turned
/// away.
const OWN: usize = 32;

/// What backends leave to operators.
const OPERATORS: usize = 16;

/// Whose a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// A client's.
    Client,
    /// A backend's.
    Backend,
    /// Of who asks for metrics and health.
    Operator,
}

/// How many sockets there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Of clients.
    pub clients: usize,
    /// Of clients and backends together.
    pub backends: usize,
    /// Of all.
    pub all: usize,
}

impl Room {
    /// In a process that may have so many descriptors. Half of them at least are for
    /// clients.
    #[must_use]
    pub fn of(descriptors: usize, shards: usize) -> Self {
        let per_shard = shards.saturating_mul(KEPT_PER_SHARD);
        let kept = (descriptors / PART_KEPT).clamp(KEPT_MIN, KEPT_MAX);
        let clients = descriptors - kept.saturating_add(per_shard).min(descriptors / 2);
        let own = OWN.saturating_add(per_shard);
        let all = descriptors - own.min((descriptors - clients) / 2);
        Self {
            clients,
            backends: all - OPERATORS.min((all - clients) / 2),
            all,
        }
    }
}

/// How many sockets there are.
#[derive(Debug)]
pub struct Sockets {
    room: Room,
    clients: AtomicUsize,
    all: AtomicUsize,
    arriving: TaskTracker,
}

/// A socket's place. Dropped, it is given back.
#[derive(Debug)]
pub struct Seat {
    sockets: Arc<Sockets>,
    is_client: bool,
}

/// Held from accept until the first request of a connection is answered.
pub type Arrival = TaskTrackerToken;

impl Sockets {
    /// None, in this room.
    #[must_use]
    pub fn new(room: Room) -> Arc<Self> {
        Arc::new(Self {
            room,
            clients: AtomicUsize::new(0),
            all: AtomicUsize::new(0),
            arriving: TaskTracker::new(),
        })
    }

    /// A place for one more, if there is one.
    #[must_use]
    pub fn take(self: &Arc<Self>, whose: Whose) -> Option<(Seat, Arrival)> {
        let (is_client, most) = match whose {
            Whose::Client => (true, self.room.all),
            Whose::Backend => (false, self.room.backends),
            Whose::Operator => (false, self.room.all),
        };
        if !is_client || count_up(&self.clients, self.room.clients) {
            if count_up(&self.all, most) {
                let seat = Seat {
                    sockets: Arc::clone(self),
                    is_client,
                };
                return Some((seat, self.arriving.token()));
            }
            if is_client {
                self.clients.fetch_sub(1, Ordering::Relaxed);
            }
        }
        None
    }

    /// Waits until all that were accepted have been answered once. To be called when
    /// none is accepted any more.
    pub async fn answered(&self) {
        self.arriving.close();
        self.arriving.wait().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.sockets.all.fetch_sub(1, Ordering::Relaxed);
        if self.is_client {
            self.sockets.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether there was room for one more.
fn count_up(count: &AtomicUsize, most: usize) -> bool {
    let more = |taken: usize| (taken < most).then_some(taken + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_kept_back_of_every_number_of_descriptors() {
        for (descriptors, clients, backends, all) in [
            (0, 0, 0, 0),
            (20, 10, 13, 15),
            (256, 184, 204, 220),
            (1024, 952, 972, 988),
            (20_000, 18_968, 19_944, 19_960),
            (1_048_576, 1_047_544, 1_048_520, 1_048_536),
        ] {
            let room = Room {
                clients,
                backends,
                all,
            };
            assert_eq!(Room::of(descriptors, 2), room, "{descriptors}");
        }
    }

    #[test]
    fn clients_leave_room_for_backends_and_both_for_operators() {
        let sockets = Sockets::new(Room {
            clients: 2,
            backends: 3,
            all: 4,
        });
        let take = |whose| sockets.take(whose).map(|(seat, _)| seat);
        let first = take(Whose::Client).unwrap();
        let _second = take(Whose::Client).unwrap();
        assert!(take(Whose::Client).is_none());
        let backend = take(Whose::Backend).unwrap();
        assert!(take(Whose::Backend).is_none());
        let _operator = take(Whose::Operator).unwrap();
        assert!(take(Whose::Operator).is_none());
        drop(first);
        // What clients do not take backends may have, but not what is the operators'.
        assert!(take(Whose::Backend).is_none());
        assert!(take(Whose::Client).is_some());
        drop(backend);
        assert!(take(Whose::Backend).is_some());
    }

    #[tokio::test]
    async fn who_was_accepted_is_waited_for_until_it_is_answered() {
        let sockets = Sockets::new(Room::of(1024, 2));
        let (seat, arrival) = sockets.take(Whose::Client).unwrap();
        let mut answered = Box::pin(sockets.answered());
        assert!(futures_util::poll!(&mut answered).is_pending());
        drop(arrival);
        answered.await;
        drop(seat);
    }
}
