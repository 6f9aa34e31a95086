//! The current phase of a simulation.

use std::{cell::Cell, rc::Rc};

use tokio::sync::Notify;

/// A phase of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StagePhase {
    /// The actors do anything, and much goes wrong.
    Chaos,
    /// All clients connect and read, and nothing goes wrong any more.
    Quiet,
    /// The relay drains.
    Drain,
    /// All clients disconnect.
    Over,
}

/// The current phase, with notification of changes. (tokio's `watch` wakes tasks in a random
/// order.)
pub(super) struct PhaseSwitch {
    phase: Cell<StagePhase>,
    changed: Notify,
}

impl PhaseSwitch {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(StagePhase::Chaos),
            changed: Notify::new(),
        })
    }

    pub(super) fn phase(&self) -> StagePhase {
        self.phase.get()
    }

    pub(super) fn enter(&self, phase: StagePhase) {
        self.phase.set(phase);
        self.changed.notify_waiters();
    }

    /// Waits until the phase is not `phase`.
    pub(super) async fn left(&self, phase: StagePhase) {
        while self.phase.get() == phase {
            self.changed.notified().await;
        }
    }
}
