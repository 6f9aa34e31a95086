//! Deficit round robin (Shreedhar and Varghese, 1996), with sparse flows first, as in
//! FQ-CoDel (RFC 8290, 4.2).

use std::{cell::Cell, collections::VecDeque, rc::Rc};

use super::{Cost, FLOWS_A_TURN, QUANTUM};

/// A queue without flows keeps room for so many.
const KEPT_ROOM_FOR: usize = 64;

/// What a queue knows of one flow. It lies in what the flow is for.
#[derive(Debug)]
pub struct Flow {
    /// What is left of the quantum, in units of [`Cost`]; below zero it is a debt.
    deficit: Cell<i64>,
    is_queued: Cell<bool>,
    /// The turn in which it had its last quantum.
    turn: Cell<u64>,
}

impl Default for Flow {
    /// A flow that has used nothing.
    fn default() -> Self {
        Self {
            deficit: Cell::new(QUANTUM.as_deficit()),
            is_queued: Cell::new(false),
            turn: Cell::new(0),
        }
    }
}

impl Flow {
    /// Returns true if something is left of the quantum.
    #[must_use]
    pub fn has_quota(&self) -> bool {
        self.deficit.get() > 0
    }

    /// What is left of the quantum.
    #[must_use]
    pub fn quota(&self) -> Cost {
        Cost::nanoseconds(u64::try_from(self.deficit.get()).unwrap_or(0))
    }

    fn charge(&self, cost: Cost) {
        let left = self.deficit.get().saturating_sub(cost.as_deficit());
        self.deficit.set(left);
    }

    fn add_quantum(&self, turn: u64) {
        let quantum = QUANTUM.as_deficit();
        let deficit = self.deficit.get().saturating_add(quantum).min(quantum);
        self.deficit.set(deficit);
        self.turn.set(turn);
    }
}

/// The flows with a backlog or a debt, in the order in which they are served.
///
/// A flow that was not queued before is sparse until it has been served once, and comes
/// before the others. These have half of each turn nevertheless, so none of them starves.
#[derive(Debug)]
pub struct DeficitQueue<T> {
    flow: fn(&T) -> &Flow,
    sparse: VecDeque<Rc<T>>,
    bulk: VecDeque<Rc<T>>,
    turn: u64,
    /// What is left of this turn, in units of [`Cost`].
    left: i64,
    /// All that was ever charged.
    charged: Cost,
}

impl<T> DeficitQueue<T> {
    /// An empty queue of items whose flows are found by `flow`.
    #[must_use]
    pub fn new(flow: fn(&T) -> &Flow) -> Self {
        Self {
            flow,
            sparse: VecDeque::new(),
            bulk: VecDeque::new(),
            turn: 1,
            left: Self::turn_budget(),
            charged: Cost::ZERO,
        }
    }

    fn turn_budget() -> i64 {
        QUANTUM.times(FLOWS_A_TURN).as_deficit()
    }

    /// Queues an item, unless it is queued already.
    pub fn activate(&mut self, item: &Rc<T>) {
        if !(self.flow)(item).is_queued.replace(true) {
            self.sparse.push_back(Rc::clone(item));
        }
    }

    /// Begins a turn, in which all flows may be served again.
    pub fn begin_turn(&mut self) {
        self.turn += 1;
        self.left = Self::turn_budget();
        if self.is_empty() && self.sparse.capacity() + self.bulk.capacity() > 2 * KEPT_ROOM_FOR {
            self.sparse.shrink_to(KEPT_ROOM_FOR);
            self.bulk.shrink_to(KEPT_ROOM_FOR);
        }
    }

    /// Returns true if something is left of this turn.
    #[must_use]
    pub fn has_time(&self) -> bool {
        self.left > 0
    }

    /// Returns true if more than half of this turn is left.
    #[must_use]
    pub fn has_spare_time(&self) -> bool {
        self.left > Self::turn_budget() / 2
    }

    /// How many items are queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sparse.len() + self.bulk.len()
    }

    /// Returns true if no item is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes out the item to serve next, and gives its flow a quantum. It is to be served
    /// until its quota is used, and then [put back](Self::put_back).
    ///
    /// Each flow is served once in a turn, also one that is alone: what comes for another
    /// meanwhile waits for one quantum. Those that are not ready keep their order among each other.
    pub fn next(&mut self, is_ready: impl Fn(&T) -> bool) -> Option<Rc<T>> {
        let for_bulk = match self.bulk.is_empty() {
            true => 0,
            false => Self::turn_budget() / 2,
        };
        for _ in 0..self.sparse.len() {
            if self.left <= for_bulk {
                break;
            }
            let item = self.sparse.pop_front()?;
            if let Some(item) = self.serve(item, &is_ready) {
                return Some(item);
            }
        }
        self.next_bulk(is_ready)
    }

    /// The same of flows that have a backlog only.
    pub fn next_bulk(&mut self, is_ready: impl Fn(&T) -> bool) -> Option<Rc<T>> {
        for _ in 0..self.bulk.len() {
            if self.left <= 0 {
                break;
            }
            let item = self.bulk.pop_front()?;
            if let Some(item) = self.serve(item, &is_ready) {
                return Some(item);
            }
        }
        None
    }

    fn serve(&mut self, item: Rc<T>, is_ready: impl Fn(&T) -> bool) -> Option<Rc<T>> {
        let flow = (self.flow)(&item);
        if is_ready(&item) && flow.turn.get() != self.turn {
            flow.add_quantum(self.turn);
            if flow.has_quota() {
                return Some(item);
            }
        }
        self.bulk.push_back(item);
        None
    }

    /// Puts back what was taken out by [`next`](Self::next). It stays queued while it has a
    /// backlog or a debt.
    pub fn put_back(&mut self, item: Rc<T>, has_backlog: bool) {
        let flow = (self.flow)(&item);
        if has_backlog || !flow.has_quota() {
            self.bulk.push_back(item);
        } else {
            flow.is_queued.set(false);
        }
    }

    /// Charges a flow, and the turn, for work that was done. If the flow is not queued, it
    /// joins the end of the queue, for its next quantum.
    pub fn charge(&mut self, item: &Rc<T>, cost: Cost) {
        let flow = (self.flow)(item);
        flow.charge(cost);
        if !flow.is_queued.replace(true) {
            self.bulk.push_back(Rc::clone(item));
        }
        self.left = self.left.saturating_sub(cost.as_deficit());
        self.charged += cost;
    }

    /// All that was ever charged.
    #[must_use]
    pub fn charged(&self) -> Cost {
        self.charged
    }
}
