//! The signals that reach a connection besides its frames.

use std::{
    cell::Cell,
    fmt,
    task::{Context, Waker},
};

use sidewire_protocol::close::CloseReason;

/// Wakes the task of a connection, and tells it that its alarm has rung or that it must end.
#[derive(Default)]
pub struct ConnectionSignals {
    ending: Cell<Option<CloseReason>>,
    has_alarm_rung: Cell<bool>,
    /// Not in a `RefCell`, since its flag would make every outbox larger.
    waker: Cell<Option<Waker>>,
}

impl fmt::Debug for ConnectionSignals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSignals")
            .field("ending", &self.ending)
            .field("has_alarm_rung", &self.has_alarm_rung)
            .finish_non_exhaustive()
    }
}

impl ConnectionSignals {
    /// Tells the connection to end. If it is called several times, the first reason counts.
    pub fn request_end(&self, ending: CloseReason) {
        self.set_first(ending);
        self.nudge();
    }

    /// Sets the reason to end without waking the connection, which is [nudged](Self::nudge)
    /// later. Returns false if it is ending already.
    #[must_use]
    pub fn set_ending(&self, ending: CloseReason) -> bool {
        self.set_first(ending)
    }

    /// Sets the reason to end, unless there is one. Returns false if there is. A drain, which may
    /// wait for answers, gives way to every other reason.
    fn set_first(&self, ending: CloseReason) -> bool {
        let is_first = !self.takes_no_events();
        if is_first {
            self.ending.set(Some(ending));
        }
        is_first
    }

    /// Returns the reason for which the connection must end, if any.
    #[must_use]
    pub fn ending(&self) -> Option<CloseReason> {
        self.ending.get()
    }

    /// Returns true if the connection ends, and is offered no more events. One that drains may
    /// still give answers with positions, so it takes events until its Close is queued.
    #[must_use]
    pub fn takes_no_events(&self) -> bool {
        let ending = self.ending.get();
        ending.is_some_and(|ending| !matches!(ending, CloseReason::Drain { .. }))
    }

    /// Registers the task to wake when there is something to write, or a reason to end.
    pub fn register_waker(&self, context: &Context<'_>) {
        let mut waker = self.waker.take();
        match &mut waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => waker = Some(context.waker().clone()),
        }
        self.waker.set(waker);
    }

    /// Wakes the connection.
    pub fn nudge(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake_by_ref();
            self.waker.set(Some(waker));
        }
    }

    /// Records that the connection's alarm has rung, and wakes it.
    pub fn ring_alarm(&self) {
        self.set_alarm();
        self.nudge();
    }

    /// Records that the alarm has rung, for a connection that is [nudged](Self::nudge) later.
    pub fn set_alarm(&self) {
        self.has_alarm_rung.set(true);
    }

    /// Returns true if an alarm has rung since the last call.
    #[must_use]
    pub fn take_alarm(&self) -> bool {
        self.has_alarm_rung.take()
    }
}
