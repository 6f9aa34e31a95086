//! Which connections of a tenant may read its log now, on one shard: deficit round robin.
//! Each turn of the shard gives the tenant a quantum, which its connections use one after
//! another, a slice each. Knows nothing of what is read.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use crate::outbox::Outbox;

/// What all connections of a tenant may read of its log in a turn of the shard, in looks
/// at a topic: 30 to 300 µs, depending on how much of it is in the caches.
pub(super) const READ_A_TURN: usize = 16 * 1024;

/// How much a connection may read before the next has its turn, and what it has read, in
/// looks at a topic.
#[derive(Debug)]
pub(super) struct ReadSlice {
    budget: usize,
    cost: usize,
}

impl ReadSlice {
    pub(super) fn new(budget: usize) -> Self {
        Self { budget, cost: 0 }
    }

    pub(super) fn charge(&mut self, cost: usize) {
        self.cost = self.cost.saturating_add(cost);
    }

    /// What is left of the budget.
    pub(super) fn left(&self) -> usize {
        self.budget.saturating_sub(self.cost)
    }
}

/// A tenant's connections that wait to read.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// By their tickets, which are the order in which they read.
    waiting: RefCell<BTreeMap<u64, Rc<Outbox>>>,
    last_ticket: Cell<u64>,
    /// The turn for which the tenant has its quantum.
    turn: Cell<u64>,
    /// What is left of that.
    left: Cell<usize>,
    /// What was read beyond it, to be made up for in the next turns.
    debt: Cell<usize>,
    /// Whether the tenant stands among those that have turns.
    pub(super) has_turns: Cell<bool>,
}

impl Readers {
    /// Adds a connection at the end and returns its ticket.
    pub(super) fn join(&self, outbox: &Rc<Outbox>) -> u64 {
        let ticket = self.last_ticket.get() + 1;
        self.last_ticket.set(ticket);
        self.waiting.borrow_mut().insert(ticket, Rc::clone(outbox));
        ticket
    }

    /// Takes a connection out. If something is left of the quantum, the next connection
    /// goes on with it.
    pub(super) fn leave(&self, ticket: u64) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.remove(&ticket);
        if self.left.get() > 0
            && let Some((_, next)) = waiting.first_key_value()
        {
            next.nudge();
        }
    }

    /// Gives the tenant its quantum for this turn. Returns false if no connection waits.
    pub(super) fn begin_turn(&self, turn: u64) -> bool {
        let waiting = self.waiting.borrow();
        let Some((_, first)) = waiting.first_key_value() else {
            return false;
        };
        let debt = self.debt.get();
        self.turn.set(turn);
        self.left.set(READ_A_TURN.saturating_sub(debt));
        self.debt.set(debt.saturating_sub(READ_A_TURN));
        if self.left.get() > 0 {
            first.nudge();
        }
        true
    }

    /// Returns what the connection with this ticket may read now, if it is its turn.
    pub(super) fn slice(&self, ticket: u64, turn: u64) -> Option<ReadSlice> {
        let left = self.left.get();
        let is_first = self.waiting.borrow().keys().next() == Some(&ticket);
        (self.turn.get() == turn && left > 0 && is_first).then(|| ReadSlice::new(left))
    }

    /// Takes what was read off the quantum.
    pub(super) fn pay(&self, slice: &ReadSlice) {
        let left = self.left.get();
        self.left.set(left.saturating_sub(slice.cost));
        self.debt
            .set(self.debt.get() + slice.cost.saturating_sub(left));
    }
}
