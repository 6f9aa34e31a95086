//! Which connections are woken to write, and when: tenants in turn, and those first of
//! which few are to be woken. Knows no events.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use super::shard::TenantHere;
use crate::outbox::Outbox;

/// A tenant with no more connections than these to be woken goes before those with
/// more, and so many of such tenants are woken in a turn: a write of one event takes as
/// long as one of 64, and who has little to say is not to wait for who floods.
const FEW: usize = 32;

/// How many connections of tenants with more are woken before the shard looks for new
/// events again.
const OF_MANY_A_TURN: usize = 16;

/// Or this part of those that wait, of either kind, so that many are not put off by as
/// many turns of everybody else's. What has come meanwhile is queued for those that
/// are not woken yet, and leaves them in the same system call: under load this decides
/// how many frames a write has.
const PART_A_TURN: usize = 16;

/// For so many connections of a tenant that are to be woken the shard keeps room.
const KEPT_ROOM_FOR: usize = 4096;

/// A tenant's connections that have something to write and do not know of it yet, in
/// the order in which they are woken.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) outboxes: RefCell<VecDeque<Rc<Outbox>>>,
    /// Whether the tenant stands among those with many. It does until none is left:
    /// else it would come first again with the last of them.
    are_many: Cell<bool>,
}

impl Due {
    /// Whether who is woken next has a full write waiting: what is queued beyond that
    /// waits for nothing.
    pub(super) fn is_full_write(&self) -> bool {
        is_full_write(&self.outboxes.borrow())
    }

    /// Wakes so many at the most, and gives how many that were.
    fn wake(&self, count: usize) -> usize {
        let mut outboxes = self.outboxes.borrow_mut();
        let count = count.min(outboxes.len());
        for outbox in outboxes.drain(..count) {
            outbox.wake();
        }
        if outboxes.is_empty() {
            outboxes.shrink_to(KEPT_ROOM_FOR);
        }
        count
    }

    fn len(&self) -> usize {
        self.outboxes.borrow().len()
    }
}

/// The same of those that are lent.
pub(super) fn is_full_write(outboxes: &VecDeque<Rc<Outbox>>) -> bool {
    outboxes.front().is_some_and(|next| next.has_full_write())
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
    in_turn: RefCell<VecDeque<Rc<TenantHere>>>,
    /// How many connections of all of them.
    connections: Cell<usize>,
}

impl Tenants {
    /// How many are woken in a turn.
    fn share(&self, least: usize) -> usize {
        least.max(self.connections.get() / PART_A_TURN)
    }

    fn wake(&self, here: &TenantHere, count: usize) -> usize {
        let woken = here.due.wake(count);
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
    pub(super) fn add(&self, here: &Rc<TenantHere>, before: usize, added: usize) {
        if added == 0 {
            return;
        }
        if before == 0 {
            here.due.are_many.set(added > FEW);
        }
        let tenants = if here.due.are_many.get() {
            &self.with_many
        } else {
            &self.with_few
        };
        tenants.connections.set(tenants.connections.get() + added);
        if before == 0 {
            tenants.in_turn.borrow_mut().push_back(Rc::clone(here));
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
            let Some(here) = next else {
                break;
            };
            let due = here.due.len();
            if due > FEW {
                here.due.are_many.set(true);
                tenants.connections.set(tenants.connections.get() - due);
                let many = &self.with_many;
                many.connections.set(many.connections.get() + due);
                many.in_turn.borrow_mut().push_back(here);
                continue;
            }
            let woken = tenants.wake(&here, left);
            left -= woken;
            if woken < due {
                tenants.in_turn.borrow_mut().push_front(here);
            }
        }
    }

    /// One of each tenant in turn.
    fn wake_of_many(&self) {
        let tenants = &self.with_many;
        let mut left = tenants.share(OF_MANY_A_TURN);
        let mut in_turn = tenants.in_turn.borrow_mut();
        while left > 0 {
            let Some(here) = in_turn.pop_front() else {
                break;
            };
            let count = if in_turn.is_empty() { left } else { 1 };
            let woken = tenants.wake(&here, count);
            left -= woken;
            if here.due.len() > 0 {
                in_turn.push_back(here);
            }
        }
    }
}
