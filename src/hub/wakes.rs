//! Which connections are woken to write, and when: tenants in turn, and those first of
//! which few are to be woken. Knows no topics.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use crate::outbox::Outbox;

/// A tenant with no more connections than these to be woken goes before those with
/// more, and so many of such tenants are woken in a turn: a write of one event takes as
/// long as one of 64, and who has little to say is not to wait for who floods.
const FEW: usize = 32;

/// How many connections of tenants with more are woken in a turn.
const OF_MANY_A_TURN: usize = 16;

/// Of either kind this part of those that wait is woken in a turn, where that is more:
/// many are not to be put off by as many turns of everybody else's. What comes
/// meanwhile is queued for those that still wait, and leaves them in the same system
/// call: under load this decides how many frames a write has.
const PART_A_TURN: usize = 16;

/// For so many connections of a tenant that are to be woken the shard keeps room.
const KEPT_ROOM_FOR: usize = 4096;

/// A tenant's connections that have something to write and do not know of it yet.
#[derive(Debug, Default)]
pub(super) struct Due {
    queue: RefCell<DueQueue>,
    /// Whether the tenant stands among those with many. It does until none is left:
    /// else it would come first again with the last of them.
    are_many: Cell<bool>,
}

/// These in the order in which they are woken.
#[derive(Debug, Default)]
pub(super) struct DueQueue {
    outboxes: VecDeque<Rc<Outbox>>,
    /// How many of them became due by which event, in that order.
    steps: VecDeque<Step>,
    /// Of all events that were delivered.
    events: u64,
    bytes: u64,
}

/// Connections that became due by one event.
#[derive(Debug)]
struct Step {
    connections: usize,
    /// How many events, and how many bytes of them, had been delivered before.
    events: u64,
    bytes: u64,
}

impl DueQueue {
    /// Calls `deliver` with the queue to which it adds whom an event is offered to and who
    /// is to be woken for it, and then asks how many `bytes` that event has.
    pub(super) fn deliver<R>(
        &mut self,
        deliver: impl FnOnce(&mut VecDeque<Rc<Outbox>>) -> R,
        bytes: impl FnOnce() -> usize,
    ) -> R {
        let before = self.outboxes.len();
        let delivered = deliver(&mut self.outboxes);
        let connections = self.outboxes.len() - before;
        if connections > 0 {
            self.steps.push_back(Step {
                connections,
                events: self.events,
                bytes: self.bytes,
            });
        }
        self.events += 1;
        self.bytes += bytes() as u64;
        delivered
    }

    /// Whether a full write may wait in an outbox here: so much has been delivered since
    /// who is woken next was to be. Nothing is gained by letting more come.
    pub(super) fn has_full_write(&self) -> bool {
        let next = self.outboxes.front().zip(self.steps.front());
        next.is_some_and(|(outbox, step)| {
            outbox.is_full_write(self.events - step.events, self.bytes - step.bytes)
        })
    }

    pub(super) fn len(&self) -> usize {
        self.outboxes.len()
    }

    fn wake(&mut self, count: usize) -> usize {
        let count = count.min(self.outboxes.len());
        for outbox in self.outboxes.drain(..count) {
            outbox.wake();
        }
        let mut left = count;
        while left > 0
            && let Some(step) = self.steps.front_mut()
        {
            let woken = left.min(step.connections);
            step.connections -= woken;
            left -= woken;
            if step.connections == 0 {
                self.steps.pop_front();
            }
        }
        if self.outboxes.is_empty() {
            self.outboxes.shrink_to(KEPT_ROOM_FOR);
        }
        count
    }
}

impl Due {
    pub(super) fn queue(&self) -> &RefCell<DueQueue> {
        &self.queue
    }

    /// The same of what is [queued](DueQueue::has_full_write).
    pub(super) fn has_full_write(&self) -> bool {
        self.queue.borrow().has_full_write()
    }

    fn len(&self) -> usize {
        self.queue.borrow().len()
    }
}

/// A shard's tenants with connections that are to be woken, in the order of their
/// turns.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    with_few: Tenants,
    with_many: Tenants,
}

#[derive(Debug, Default)]
struct Tenants {
    in_turn: RefCell<VecDeque<Rc<Due>>>,
    /// How many connections of all of them.
    connections: Cell<usize>,
}

impl Tenants {
    fn add(&self, connections: usize) {
        self.connections.set(self.connections.get() + connections);
    }

    /// How many are woken in a turn.
    fn share(&self, least: usize) -> usize {
        least.max(self.connections.get() / PART_A_TURN)
    }

    /// Wakes so many of a tenant's at the most, and gives how many that were.
    fn wake(&self, due: &Due, count: usize) -> usize {
        let woken = due.queue.borrow_mut().wake(count);
        self.connections.set(self.connections.get() - woken);
        woken
    }
}

impl Wakes {
    /// Whether nobody is to be woken.
    pub(super) fn is_empty(&self) -> bool {
        self.with_few.in_turn.borrow().is_empty() && self.with_many.in_turn.borrow().is_empty()
    }

    /// So many of the tenant's connections are to be woken that were not before, when
    /// it had so many already.
    pub(super) fn add(&self, due: &Rc<Due>, before: usize, added: usize) {
        if added == 0 {
            return;
        }
        if before == 0 {
            due.are_many.set(added > FEW);
        }
        let tenants = if due.are_many.get() {
            &self.with_many
        } else {
            &self.with_few
        };
        tenants.add(added);
        if before == 0 {
            tenants.in_turn.borrow_mut().push_back(Rc::clone(due));
        }
    }

    /// Wakes who has its turn now.
    pub(super) fn wake_some(&self) {
        self.wake_of_few();
        self.wake_of_many();
    }

    /// All of one tenant before the next.
    fn wake_of_few(&self) {
        let tenants = &self.with_few;
        let mut left = tenants.share(FEW);
        while left > 0 {
            let next = tenants.in_turn.borrow_mut().pop_front();
            let Some(due) = next else {
                break;
            };
            let len = due.len();
            if len > FEW {
                // It has grown.
                due.are_many.set(true);
                tenants.connections.set(tenants.connections.get() - len);
                self.with_many.add(len);
                self.with_many.in_turn.borrow_mut().push_back(due);
                continue;
            }
            let some = tenants.wake(&due, left);
            left -= some;
            if some < len {
                tenants.in_turn.borrow_mut().push_front(due);
            }
        }
    }

    /// One of each tenant in turn.
    fn wake_of_many(&self) {
        let tenants = &self.with_many;
        let mut left = tenants.share(OF_MANY_A_TURN);
        let mut in_turn = tenants.in_turn.borrow_mut();
        while left > 0 {
            let Some(due) = in_turn.pop_front() else {
                break;
            };
            let count = if in_turn.is_empty() { left } else { 1 };
            left -= tenants.wake(&due, count);
            if due.len() > 0 {
                in_turn.push_back(due);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outbox::{OutboxLimits, OutboxPool};

    proptest! {
        /// Whatever becomes due whenever: each is woken, nobody is counted that does not
        /// wait, and every turn wakes somebody.
        #[test]
        fn all_that_become_due_are_woken_and_the_counts_are_those_who_wait(
            steps in prop::collection::vec((0..5_usize, 0..70_usize), 1..100),
        ) {
            let pool = OutboxPool::new(OutboxLimits { frames: 1000, bytes: 1 << 20 });
            let tenants: [Rc<Due>; 5] = Default::default();
            let wakes = Wakes::default();
            let waiting = || tenants.iter().map(|due| due.len()).sum::<usize>();
            let counted = || wakes.with_few.connections.get() + wakes.with_many.connections.get();
            for (tenant, count) in steps {
                let due = &tenants[tenant];
                if count == 0 {
                    let before = waiting();
                    wakes.wake_some();
                    prop_assert!(waiting() < before || before == 0);
                } else {
                    let before = due.len();
                    due.queue().borrow_mut().deliver(
                        |outboxes| {
                            outboxes.extend((0..count).map(|_| Rc::new(Outbox::new(&pool))));
                        },
                        || 10,
                    );
                    wakes.add(due, before, count);
                }
                prop_assert_eq!(counted(), waiting());
            }
            while !wakes.is_empty() {
                let before = waiting();
                wakes.wake_some();
                prop_assert!(waiting() < before);
            }
            prop_assert_eq!((counted(), waiting()), (0, 0));
            for due in tenants {
                prop_assert!(due.queue().borrow().steps.is_empty());
            }
        }
    }
}
