//! Deficit round robin (Shreedhar and Varghese, 1996), with sparse flows first, as in
//! FQ-CoDel (RFC 8290, 4.2).

use std::{cell::Cell, collections::VecDeque, rc::Rc};

use super::{Cost, FLOWS_PER_TURN, QUANTUM};

/// Capacity, in flows, that an empty queue keeps.
const KEPT_ROOM_FOR: usize = 64;

/// A queue's state of one flow, stored in the item that the flow belongs to.
#[derive(Debug)]
pub struct Flow {
    /// What is left of the quantum, in units of [`Cost`]; a negative value is a debt.
    deficit: Cell<i64>,
    is_queued: Cell<bool>,
    /// The turn in which the flow got its last quantum.
    turn: Cell<u64>,
}

impl Default for Flow {
    /// Returns a flow with a whole quantum.
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

    /// Returns what is left of the quantum.
    #[must_use]
    pub fn quota(&self) -> Cost {
        Cost::from_nanos(u64::try_from(self.deficit.get()).unwrap_or(0))
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
/// A newly queued flow is sparse until it has been served once, and comes before the others. The
/// others nevertheless have half of each turn, so none of them starves.
#[derive(Debug)]
pub struct DeficitQueue<T> {
    flow: fn(&T) -> &Flow,
    sparse: VecDeque<Rc<T>>,
    bulk: VecDeque<Rc<T>>,
    turn: u64,
    /// What is left of this turn, in units of [`Cost`].
    left: i64,
    /// The total cost charged so far.
    charged: Cost,
}

impl<T> DeficitQueue<T> {
    /// Creates an empty queue. `flow` returns the flow of an item.
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
        QUANTUM.times(FLOWS_PER_TURN).as_deficit()
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

    /// Returns the number of queued items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sparse.len() + self.bulk.len()
    }

    /// Returns true if no item is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the item to serve next, and grants its flow a quantum. The caller serves it until
    /// its quota is used, and then [puts it back](Self::put_back).
    ///
    /// Each flow is served once in a turn, even if it is the only one: so work that arrives for
    /// another meanwhile waits for one quantum. Items that are not ready keep their relative
    /// order.
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
            if let Some(item) = self.grant_quantum(item, &is_ready) {
                return Some(item);
            }
        }
        self.next_bulk(is_ready)
    }

    /// Like [`next`](Self::next), but only for flows with a backlog.
    pub fn next_bulk(&mut self, is_ready: impl Fn(&T) -> bool) -> Option<Rc<T>> {
        for _ in 0..self.bulk.len() {
            if self.left <= 0 {
                break;
            }
            let item = self.bulk.pop_front()?;
            if let Some(item) = self.grant_quantum(item, &is_ready) {
                return Some(item);
            }
        }
        None
    }

    fn grant_quantum(&mut self, item: Rc<T>, is_ready: impl Fn(&T) -> bool) -> Option<Rc<T>> {
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

    /// Puts back an item that [`next`](Self::next) returned. It stays queued while it has a
    /// backlog or a debt.
    pub fn put_back(&mut self, item: Rc<T>, has_backlog: bool) {
        let flow = (self.flow)(&item);
        if has_backlog || !flow.has_quota() {
            self.bulk.push_back(item);
        } else {
            flow.is_queued.set(false);
        }
    }

    /// Charges a flow and the turn for work that was done. A flow that is not queued joins the
    /// end of the queue, to get its next quantum.
    pub fn charge(&mut self, item: &Rc<T>, cost: Cost) {
        let flow = (self.flow)(item);
        flow.charge(cost);
        if !flow.is_queued.replace(true) {
            self.bulk.push_back(Rc::clone(item));
        }
        self.left = self.left.saturating_sub(cost.as_deficit());
        self.charged += cost;
    }

    /// Returns the total cost charged so far.
    #[must_use]
    pub fn total_charged(&self) -> Cost {
        self.charged
    }
}
