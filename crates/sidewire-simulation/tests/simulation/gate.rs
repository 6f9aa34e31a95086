//! Holds up tasks, as a busy machine does: a whole shard, or only the task that processes its
//! inbox. Also makes tasks yield at random, so that they run in many orders.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    rc::Rc,
    task::{Poll, Waker},
};

use tokio::time::Instant;

use super::dice::Dice;

pub(super) struct Gate {
    is_closed: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
    dice: Dice,
    /// Percentage of polls at which a task yields.
    yields_percent: u64,
    /// The last instant seen, and the number of polls at it.
    turns: Cell<(Instant, u64)>,
}

/// Number of polls at one instant that shows an endless loop.
const TURNS_MAX: u64 = 100_000;

impl Gate {
    pub(super) fn new(dice: Dice, yields_percent: u64) -> Rc<Self> {
        Rc::new(Self {
            is_closed: Cell::new(false),
            waiting: RefCell::default(),
            dice,
            yields_percent,
            turns: Cell::new((Instant::now(), 0)),
        })
    }

    pub(super) fn close(&self) {
        self.is_closed.set(true);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    pub(super) fn open(&self) {
        self.is_closed.set(false);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Counts polls to detect tasks that stay busy for ever: simulated time advances only when
    /// all tasks are idle.
    fn count_turn(&self) {
        let (last, turns) = self.turns.get();
        let now = Instant::now();
        let turns = if now == last { turns + 1 } else { 0 };
        self.turns.set((now, turns));
        assert!(turns < TURNS_MAX, "a shard is busy and gets nowhere");
    }

    /// Returns a future that polls `task` only while the gate is open.
    pub(super) fn behind<F: Future>(
        self: &Rc<Self>,
        task: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let gate = Rc::clone(self);
        let mut task = Box::pin(task);
        poll_fn(move |context| {
            gate.count_turn();
            if gate.is_closed.get() {
                gate.waiting.borrow_mut().push(context.waker().clone());
                return Poll::Pending;
            }
            if gate.yields_percent > 0 && gate.dice.percent(gate.yields_percent) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            task.as_mut().poll(context)
        })
    }
}
