//! Presence messages offered to an outbox. They are not dropped for want of room: the hub notes what
//! the connection is owed.

use std::rc::Rc;

use super::{
    OutboundFrame, Outbox,
    state::{EventSource, OutboxState},
};
use crate::event::NoJson;

/// The outcome of offering a presence message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceOutcome {
    /// The message is queued.
    Taken {
        /// True if the connection has not been told yet and must be [woken](Outbox::wake) once.
        to_wake: bool,
    },
    /// The connection must be sent what it sees later: it is catching up, its outbox is full, or it
    /// is owed another message.
    Owed,
    /// The connection takes no presence, or is ending and takes no more messages.
    Ended,
}

impl Outbox {
    /// Returns true if the hub has noted presence messages that the connection must be sent.
    #[must_use]
    pub fn owes_presence(&self) -> bool {
        self.state.borrow().owes_presence
    }

    /// Sets whether the hub has noted such messages.
    pub fn set_owes_presence(&self, owes: bool) {
        self.state.borrow_mut().owes_presence = owes;
    }

    /// Offers a presence message, which is queued if there is room and nothing is owed. `frame` makes
    /// its frame, as JSON if the argument is true.
    pub fn offer_presence(
        &self,
        frame: impl FnOnce(bool) -> Result<Rc<OutboundFrame>, NoJson>,
    ) -> PresenceOutcome {
        let mut state = self.state.borrow_mut();
        if state.takes_stored_only {
            return PresenceOutcome::Ended;
        }
        if state.source == EventSource::Log || state.owes_presence || self.is_full(&state) {
            return PresenceOutcome::Owed;
        }
        let to_wake = state.queue.is_empty() && !state.wake_due;
        if !self.queue_presence(&mut state, frame) {
            return PresenceOutcome::Ended;
        }
        state.wake_due |= to_wake;
        PresenceOutcome::Taken { to_wake }
    }

    /// Queues a presence message for the connection that runs now, and that has room for it.
    /// Returns false if the connection is ending.
    pub fn push_presence(
        &self,
        frame: impl FnOnce(bool) -> Result<Rc<OutboundFrame>, NoJson>,
    ) -> bool {
        self.queue_presence(&mut self.state.borrow_mut(), frame)
    }

    fn queue_presence(
        &self,
        state: &mut OutboxState,
        frame: impl FnOnce(bool) -> Result<Rc<OutboundFrame>, NoJson>,
    ) -> bool {
        let has_left = state.source == EventSource::None;
        if has_left
            || state.takes_stored_only
            || state.close_queued
            || self.signals.ending().is_some()
        {
            return false;
        }
        match frame(state.json) {
            Ok(frame) => {
                self.push_frame(state, frame);
                true
            }
            Err(no_json) => {
                self.signals.request_end(no_json.into());
                false
            }
        }
    }
}
