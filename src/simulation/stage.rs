//! What all actors of a simulation do at the moment.

use std::{cell::Cell, rc::Rc};

use tokio::sync::Notify;

/// What all do at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Whatever they like.
    Chaos,
    /// All connect and read, and nothing goes wrong any more.
    Quiet,
    /// The relay ends.
    Drain,
    /// All take their leave.
    Over,
}

/// The phase, and who wants to know when it changes. (tokio's `watch` wakes in an order
/// that is drawn.)
pub(super) struct Stage {
    phase: Cell<Phase>,
    changed: Notify,
}

impl Stage {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Chaos),
            changed: Notify::new(),
        })
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.changed.notify_waiters();
    }

    /// Waits for another phase than this one.
    pub(super) async fn left(&self, phase: Phase) {
        while self.phase.get() == phase {
            self.changed.notified().await;
        }
    }
}
