//! Decides when connections are woken to write or to end, and in which order. Knows no topics.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use crate::{
    outbox::Outbox,
    scheduler::{Cost, DeficitQueue, Flow},
};

/// Capacity, in connections, that a tenant's empty wake-up queue keeps.
const KEPT_ROOM_FOR: usize = 4096;

/// A tenant's connections on one shard that have something to write, or another reason to run,
/// and have not been woken yet.
#[derive(Debug, Default)]
pub(super) struct TenantWakes {
    queue: RefCell<PendingWakes>,
    flow: Flow,
}

/// The connections to wake, in order.
#[derive(Debug, Default)]
pub(super) struct PendingWakes {
    outboxes: VecDeque<Rc<Outbox>>,
    /// For each event that made connections pending, how many it made so, in the order of
    /// `outboxes`.
    steps: VecDeque<WakeStep>,
    /// Connections to wake for a reason other than an event.
    rung: VecDeque<Rc<Outbox>>,
    /// Number of events delivered so far; `bytes` is their total size.
    events: u64,
    bytes: u64,
}

/// The connections that one event made pending.
#[derive(Debug)]
struct WakeStep {
    connections: usize,
    /// Number of events delivered before this one; `bytes` is their total size.
    events: u64,
    bytes: u64,
}

impl PendingWakes {
    /// Calls `deliver` with the queue to which it adds the connections that must be woken for an
    /// event, and then `bytes` for the size of that event.
    pub(super) fn record_delivery<R>(
        &mut self,
        deliver: impl FnOnce(&mut VecDeque<Rc<Outbox>>) -> R,
        bytes: impl FnOnce() -> usize,
    ) -> R {
        let before = self.outboxes.len();
        let delivered = deliver(&mut self.outboxes);
        let connections = self.outboxes.len() - before;
        if connections > 0 {
            self.steps.push_back(WakeStep {
                connections,
                events: self.events,
                bytes: self.bytes,
            });
        }
        self.events += 1;
        self.bytes += bytes() as u64;
        delivered
    }

    /// Adds a connection to wake for a reason other than an event.
    pub(super) fn push_nudge(&mut self, outbox: &Rc<Outbox>) {
        self.rung.push_back(Rc::clone(outbox));
    }

    /// Returns true if an outbox here may hold a full write, judging by what has been delivered
    /// since its connection became pending. Delivering more before waking it gains nothing.
    pub(super) fn has_full_write(&self) -> bool {
        let next = self.outboxes.front().zip(self.steps.front());
        next.is_some_and(|(outbox, step)| {
            outbox.is_full_write(self.events - step.events, self.bytes - step.bytes)
        })
    }

    /// Returns the number of connections to wake.
    pub(super) fn len(&self) -> usize {
        self.outboxes.len() + self.rung.len()
    }

    /// Wakes connections until the quota is used. Half of it goes to connections that were added
    /// by [`Self::push_nudge`], if there are enough of them. Returns the cost, including that of
    /// the writes that follow.
    fn wake_some(&mut self, quota: Cost) -> Cost {
        let rung = match self.rung.is_empty() {
            true => Cost::ZERO,
            false => self.wake_nudged(Cost::CALL.fits_into(quota).max(1).div_ceil(2)),
        };
        rung + self.wake_for_events(quota - rung)
    }

    #[cold]
    fn wake_nudged(&mut self, count: usize) -> Cost {
        let count = count.min(self.rung.len());
        for outbox in self.rung.drain(..count) {
            outbox.signals().nudge();
        }
        if self.rung.is_empty() {
            self.rung.shrink_to(0);
        }
        Cost::CALL.times(count)
    }

    fn wake_for_events(&mut self, quota: Cost) -> Cost {
        let mut cost = Cost::ZERO;
        while cost < quota
            && let Some(outbox) = self.outboxes.pop_front()
        {
            // `Cost::CALL` includes the first frame.
            let more_frames = outbox.wake().saturating_sub(1);
            cost += Cost::CALL + Cost::FRAME.times(more_frames);
            if let Some(step) = self.steps.front_mut() {
                step.connections -= 1;
                if step.connections == 0 {
                    self.steps.pop_front();
                }
            }
        }
        if self.outboxes.is_empty() {
            self.outboxes.shrink_to(KEPT_ROOM_FOR);
        }
        cost
    }
}

impl TenantWakes {
    pub(super) fn queue(&self) -> &RefCell<PendingWakes> {
        &self.queue
    }

    /// See [`PendingWakes::has_full_write`].
    pub(super) fn has_full_write(&self) -> bool {
        self.queue.borrow().has_full_write()
    }

    fn len(&self) -> usize {
        self.queue.borrow().len()
    }
}

/// A shard's tenants with connections to wake. Events that arrive before a connection is woken
/// are queued for it and leave in the same system call: a write of one event takes as long as a
/// write of 64.
#[derive(Debug)]
pub(super) struct WakeQueue(RefCell<DeficitQueue<TenantWakes>>);

impl Default for WakeQueue {
    fn default() -> Self {
        Self(RefCell::new(DeficitQueue::new(|due| &due.flow)))
    }
}

impl WakeQueue {
    /// Returns true if no connection is waiting to be woken.
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Queues the tenant, so that its connections are woken when it is granted a quantum.
    pub(super) fn activate(&self, due: &Rc<TenantWakes>) {
        self.0.borrow_mut().activate(due);
    }

    /// Wakes connections, within the budget of one turn.
    pub(super) fn wake_some(&self) {
        let mut queue = self.0.borrow_mut();
        queue.begin_turn();
        while let Some(due) = queue.next(|_| true) {
            let cost = due.queue.borrow_mut().wake_some(due.flow.quota());
            queue.charge(&due, cost);
            let has_more = due.len() > 0;
            queue.put_back(due, has_more);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outbox::{OutboxLimits, OutboxPool};

    proptest! {
        /// All pending connections are woken in the end, and every turn wakes some.
        #[test]
        fn every_turn_wakes_some_connections_until_none_is_pending(
            steps in prop::collection::vec((0..5_usize, 0..70_usize), 1..100),
        ) {
            let pool = OutboxPool::new(OutboxLimits { frames: 1000, bytes: 1 << 20 });
            let tenants: [Rc<TenantWakes>; 5] = Default::default();
            let wakes = WakeQueue::default();
            let waiting = || tenants.iter().map(|due| due.len()).sum::<usize>();
            for (tenant, count) in steps {
                let due = &tenants[tenant];
                if count == 0 {
                    let before = waiting();
                    wakes.wake_some();
                    prop_assert!(waiting() < before || before == 0);
                } else {
                    due.queue().borrow_mut().record_delivery(
                        |outboxes| {
                            outboxes.extend((0..count).map(|_| Rc::new(Outbox::new(&pool))));
                        },
                        || 10,
                    );
                    wakes.activate(due);
                }
            }
            while !wakes.is_empty() {
                let before = waiting();
                wakes.wake_some();
                prop_assert!(waiting() < before || before == 0);
            }
            prop_assert_eq!(waiting(), 0);
            for due in tenants {
                prop_assert!(due.queue().borrow().steps.is_empty());
            }
        }
    }
}
