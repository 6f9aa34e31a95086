//! The sockets of a process, from accept to close: as many as its descriptors allow,
//! less what the relay needs beside them. Clients leave room for backends, and both for
//! operators; half of the descriptors are for clients, whatever the others take.

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
    /// Of backends alone.
    pub backends_alone: usize,
    /// Of operators and backends together.
    pub others: usize,
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

/// How many sockets there are.
#[derive(Debug)]
pub struct Sockets {
    room: Room,
    clients: AtomicUsize,
    backends: AtomicUsize,
    others: AtomicUsize,
    all: AtomicUsize,
    arriving: TaskTracker,
}

/// A socket's place. Dropped, it is given back.
#[derive(Debug)]
pub struct Seat {
    sockets: Arc<Sockets>,
    whose: Whose,
    /// In how many of the [counts](Sockets::bounds) it is.
    counted: usize,
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
            backends: AtomicUsize::new(0),
            others: AtomicUsize::new(0),
            all: AtomicUsize::new(0),
            arriving: TaskTracker::new(),
        })
    }

    /// A place for one more, if there is one.
    #[must_use]
    pub fn take(self: &Arc<Self>, whose: Whose) -> Option<(Seat, Arrival)> {
        // What is counted is given back when the seat is dropped, also half-way.
        let mut seat = Seat {
            sockets: Arc::clone(self),
            whose,
            counted: 0,
        };
        for (count, most) in self.bounds(whose) {
            if !count_up(count, most) {
                return None;
            }
            seat.counted += 1;
        }
        Some((seat, self.arriving.token()))
    }

    /// What such a socket is counted in, and how many there may be in it.
    fn bounds(&self, whose: Whose) -> impl Iterator<Item = (&AtomicUsize, usize)> {
        let room = &self.room;
        let (own, all) = match whose {
            Whose::Client => ([Some((&self.clients, room.clients)), None], room.all),
            Whose::Backend => (
                [
                    Some((&self.backends, room.backends_alone)),
                    Some((&self.others, room.others)),
                ],
                room.backends,
            ),
            Whose::Operator => ([Some((&self.others, room.others)), None], room.all),
        };
        own.into_iter().flatten().chain([(&self.all, all)])
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
        for (count, _) in self.sockets.bounds(self.whose).take(self.counted) {
            count.fetch_sub(1, Ordering::Relaxed);
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
        for (descriptors, clients, backends, others, all) in [
            (0, 0, 0, 0, 0),
            (20, 10, 13, 5, 15),
            (256, 184, 204, 92, 220),
            (1024, 952, 972, 476, 988),
            (20_000, 18_968, 19_944, 9_960, 19_960),
            (1_048_576, 1_047_544, 1_048_520, 524_248, 1_048_536),
        ] {
            let room = Room {
                clients,
                backends,
                backends_alone: others - OPERATORS.min(others / 2),
                others,
                all,
            };
            assert_eq!(Room::of(descriptors, 2), room, "{descriptors}");
        }
    }

    /// Takes places until there is none.
    fn fill(sockets: &Arc<Sockets>, whose: Whose) -> Vec<Seat> {
        std::iter::from_fn(|| sockets.take(whose).map(|(seat, _)| seat)).collect()
    }

    #[test]
    fn half_of_the_descriptors_stay_for_clients_whatever_backends_and_operators_take() {
        for descriptors in [20, 256, 1024, 20_000] {
            let sockets = Sockets::new(Room::of(descriptors, 2));
            let backends = fill(&sockets, Whose::Backend);
            let operators = fill(&sockets, Whose::Operator);
            assert!(!backends.is_empty() && !operators.is_empty());
            let clients = fill(&sockets, Whose::Client).len();
            assert!(clients >= descriptors / 2, "{clients} of {descriptors}");
        }
    }

    #[test]
    fn clients_leave_room_for_backends_and_both_for_operators() {
        let sockets = Sockets::new(Room {
            clients: 2,
            backends: 3,
            backends_alone: 3,
            others: 4,
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

    #[test]
    fn every_place_that_is_given_back_can_be_taken_again_by_anybody() {
        let sockets = Sockets::new(Room::of(256, 2));
        for _ in 0..3 {
            for whose in [Whose::Client, Whose::Backend, Whose::Operator] {
                // The last attempt is refused half-way.
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
