//! Holds tasks up, as a machine does that has something else to do: a whole shard,
//! or the one task of it that takes from the inbox. And lets others go first now
//! and then, so that tasks have their turns in many orders.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    rc::Rc,
    task::{Poll, Waker},
};

use super::dice::Dice;

pub(super) struct Gate {
    is_closed: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
    dice: Dice,
    /// How often of a hundred times a task lets the others go first.
    yields_percent: u64,
}

impl Gate {
    pub(super) fn new(dice: Dice, yields_percent: u64) -> Rc<Self> {
        Rc::new(Self {
            is_closed: Cell::new(false),
            waiting: RefCell::default(),
            dice,
            yields_percent,
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

    /// The task, behind the gate.
    pub(super) fn behind<F: Future>(
        self: &Rc<Self>,
        task: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let gate = Rc::clone(self);
        let mut task = Box::pin(task);
        poll_fn(move |context| {
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
