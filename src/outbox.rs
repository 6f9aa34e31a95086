//! The frames that wait to be written to one connection, and the handling of overflow. The outbox
//! lies between the hub, which fills it, and the connection, which empties it, so neither has to
//! know the other. Knows no topics and no sockets.
//!
//! While its connection is catching up, an outbox does not take offered events: it only counts
//! them as pending from the log. They are read from there as there is room for them.

mod client_event;
mod frame;
mod pool;
mod presence;
mod signals;
mod state;
mod write;

use std::{
    cell::{Cell, RefCell},
    mem,
    rc::Rc,
};

use sidewire_protocol::{EnvelopeEncoding, close::CloseReason};

pub use self::{
    client_event::{ClientEventOffer, ClientEventOutcome},
    frame::{EventOffer, OutboundFrame, QueuedEvent},
    pool::{OutboxLimits, OutboxPool},
    presence::PresenceOutcome,
    signals::ConnectionSignals,
    write::WriteProgress,
};
use self::{
    pool::FrameQueue,
    state::{EventSource, OutboxState},
};
use crate::{planted::fault, scheduler::Waiter};

/// Most frames written in one system call. More have no measurable benefit, and the kernel takes
/// at most 1,024.
pub const FRAMES_PER_WRITE_MAX: usize = 64;

/// The outcome of offering an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferOutcome {
    /// The event is queued.
    Taken {
        /// True if the connection has not been told yet and must be [woken](Outbox::wake) once.
        to_wake: bool,
    },
    /// The event will be read from the log, because the connection is catching up.
    Owed,
    /// The event was offered before, for another of its topics.
    TakenBefore,
    /// There was no room for the event: the connection will be closed.
    Overflowed,
    /// The connection is ending and takes no more events.
    Ended,
}

/// The queue of one connection, and the signals to it. Both are behind one pointer, since a
/// delivery needs both. Lives on the connection's shard.
#[derive(Debug)]
pub struct Outbox {
    pool: Rc<OutboxPool>,
    /// Bytes charged for the connection's subscriptions. Stored here, where the hub finds them
    /// for each connection, since connections with the largest are closed when memory is short.
    subscriptions: Cell<usize>,
    state: RefCell<OutboxState>,
    signals: ConnectionSignals,
}

impl Outbox {
    /// Creates an empty outbox of a connection that uses protobuf.
    #[must_use]
    pub fn new(pool: &Rc<OutboxPool>) -> Self {
        Self::with_encoding(EnvelopeEncoding::Protobuf, pool)
    }

    /// Creates an empty outbox of a connection that uses this encoding.
    #[must_use]
    pub fn with_encoding(encoding: EnvelopeEncoding, pool: &Rc<OutboxPool>) -> Self {
        let json = encoding == EnvelopeEncoding::Json;
        Self {
            pool: Rc::clone(pool),
            subscriptions: Cell::default(),
            state: RefCell::new(OutboxState {
                json,
                apart: json,
                ..OutboxState::default()
            }),
            signals: ConnectionSignals::default(),
        }
    }

    /// Makes the outbox one of a connection that takes only events that are stored: none of clients,
    /// and no presence.
    #[must_use]
    pub fn for_stored_events(self) -> Self {
        self.state.borrow_mut().takes_stored_only = true;
        self
    }

    /// Returns true if the connection takes only events that are stored.
    #[must_use]
    pub fn takes_stored_only(&self) -> bool {
        self.state.borrow().takes_stored_only
    }

    /// Returns the signals to the connection.
    #[must_use]
    pub fn signals(&self) -> &ConnectionSignals {
        &self.signals
    }

    /// Returns the encoding of the connection.
    #[must_use]
    pub fn encoding(&self) -> EnvelopeEncoding {
        if self.state.borrow().json {
            EnvelopeEncoding::Json
        } else {
            EnvelopeEncoding::Protobuf
        }
    }

    /// Queues the event if there is room. The limits are checked once for each item: below both,
    /// the item is taken whole, so no allowed event or batch is too big for a connection that
    /// keeps up.
    // Without this the compiler inlines it or not, depending on unrelated changes in the crate;
    // if it does not, a delivery takes 25 to 40 more instructions than its 75.
    #[inline(always)]
    pub fn offer(&self, offer: &EventOffer<'_>) -> OfferOutcome {
        let mut state = self.state.borrow_mut();
        if state.taken == offer.number && !fault!(DeliversTwice) {
            return OfferOutcome::TakenBefore;
        }
        if state.apart {
            return self.offer_slow_path(&mut state, offer);
        }
        if (self.signals.ending().is_some() || state.close_queued) && self.takes_no_events(&state) {
            return OfferOutcome::Ended;
        }
        if state.taken < offer.first && self.is_full(&state) {
            self.signals.request_end(CloseReason::TooSlow);
            return OfferOutcome::Overflowed;
        }
        state.taken = offer.number;
        let to_wake = state.queue.is_empty() && !state.wake_due;
        state.wake_due |= to_wake;
        state.bytes += offer.bytes;
        self.queue_mut(&mut state)
            .push_back(Rc::clone(&offer.frame));
        OfferOutcome::Taken { to_wake }
    }

    /// Returns true if the connection ends and takes no more events. Apart from the test whether it
    /// ends at all, which each delivery makes: together they took 4 more instructions than its 75.
    #[cold]
    #[inline(never)]
    fn takes_no_events(&self, state: &OutboxState) -> bool {
        state.close_queued || self.signals.takes_no_events()
    }

    /// Offers an event to an outbox of a connection that takes JSON, is catching up or has left.
    #[cold]
    #[inline(never)]
    fn offer_slow_path(&self, state: &mut OutboxState, offer: &EventOffer<'_>) -> OfferOutcome {
        match state.source {
            EventSource::Inbox => {}
            EventSource::Log => {
                state.taken = offer.number;
                state.owed += 1;
                return OfferOutcome::Owed;
            }
            EventSource::None => return OfferOutcome::Ended,
        }
        if self.takes_no_events(state) {
            return OfferOutcome::Ended;
        }
        if state.taken < offer.first && self.is_full(state) {
            if fault!(SkipsJsonOnOverflow) {
                return OfferOutcome::TakenBefore;
            }
            self.signals.request_end(CloseReason::TooSlow);
            return OfferOutcome::Overflowed;
        }
        state.taken = offer.number;
        let frame = match offer.json_frame() {
            Ok(frame) => Rc::clone(frame),
            Err(no_json) => {
                // Counted as dropped with all other events that the connection no longer
                // receives.
                state.owed += 1;
                self.signals.request_end(no_json.into());
                return OfferOutcome::Owed;
            }
        };
        let to_wake = state.queue.is_empty() && !state.wake_due;
        state.wake_due |= to_wake;
        self.push_frame(state, frame);
        OfferOutcome::Taken { to_wake }
    }

    /// Returns the bytes charged for the connection's subscriptions.
    #[must_use]
    pub fn subscription_bytes(&self) -> usize {
        self.subscriptions.get()
    }

    /// Adds `bytes` to those charged for subscriptions.
    pub fn hold_subscriptions(&self, bytes: usize) {
        self.subscriptions.set(self.subscriptions.get() + bytes);
    }

    /// Subtracts `bytes`, or as many as are charged, from those charged for subscriptions.
    /// Returns the number subtracted.
    pub fn release_subscriptions(&self, bytes: usize) -> usize {
        let held = self.subscriptions.get();
        self.subscriptions.set(held.saturating_sub(bytes));
        held.min(bytes)
    }

    /// Stops taking offered events, because the connection has left the hub.
    pub fn leave_hub(&self) {
        self.state.borrow_mut().set_source(EventSource::None);
    }

    /// Stops taking offered events until it is [live](Self::go_live) again.
    pub fn start_catch_up(&self) {
        self.state.borrow_mut().set_source(EventSource::Log);
    }

    /// Queues an event from the log. `owed`: true if it was offered while the connection was
    /// catching up.
    pub fn push_from_log(&self, event: OutboundFrame, owed: bool) {
        let mut state = self.state.borrow_mut();
        if owed {
            state.owed = state.owed.saturating_sub(1);
            if fault!(
                DropsOwedEvents,
                event.queued_event().map_or(0, |it| it.offset)
            ) {
                return;
            }
        }
        self.push_frame(&mut state, Rc::new(event));
    }

    /// Returns true if a backend has ended subscriptions, and the connection has not carried that
    /// out yet.
    #[must_use]
    pub fn has_revocation(&self) -> bool {
        self.state.borrow().has_revocation
    }

    /// Notes whether the connection has a revocation to carry out.
    pub fn set_has_revocation(&self, has_revocation: bool) {
        self.state.borrow_mut().has_revocation = has_revocation;
    }

    /// Returns true if no event is pending from the log.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.state.borrow().owed == 0
    }

    /// Takes offered events again. Returns the number of events that are still pending from the
    /// log, which are dropped: there are none, unless the connection has lost their topics.
    #[must_use]
    pub fn go_live(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.set_source(EventSource::Inbox);
        mem::take(&mut state.owed)
    }

    /// Returns the event that has waited longest to be written, if any.
    #[must_use]
    pub fn oldest_event(&self) -> Option<QueuedEvent> {
        let state = self.state.borrow();
        state.queue.iter().find_map(|frame| frame.queued_event())
    }

    /// Tells the connection to end, and drops its queued frames at once. Returns the number of
    /// events dropped.
    pub fn end_and_discard(&self, ending: CloseReason) -> u64 {
        self.signals.request_end(ending);
        self.discard_queued()
    }

    /// Queues a whole frame made by the connection itself: a reply to a message of its client.
    /// The limits are not checked, because a connection stops reading while there is no
    /// [room](Self::is_half_free).
    pub fn push_reply(&self, frame: Box<[u8]>) {
        let mut state = self.state.borrow_mut();
        if !state.close_queued {
            self.push_frame(&mut state, Rc::new(OutboundFrame::Own(frame)));
        }
    }

    /// Puts a pong ahead of all frames that are not begun, replacing an earlier one.
    pub fn set_pong(&self, frame: Box<[u8]>) {
        let mut state = self.state.borrow_mut();
        if !state.close_queued {
            state.pong = Some(frame);
        }
    }

    /// Puts a ping ahead of all frames that are not begun, unless a pong waits: then the client
    /// has just sent something.
    pub fn set_ping(&self, frame: Box<[u8]>) {
        let mut state = self.state.borrow_mut();
        if !state.close_queued {
            state.pong.get_or_insert(frame);
        }
    }

    /// Queues the Close frame, after which no frame is taken.
    pub fn push_close(&self, frame: Box<[u8]>) {
        let mut state = self.state.borrow_mut();
        if !state.close_queued {
            self.push_frame(&mut state, Rc::new(OutboundFrame::Own(frame)));
            state.close_queued = true;
        }
    }

    /// Returns true if less than half of the outbox is used. Only then does a connection read
    /// more messages that need a reply, or more from the log: the other half is kept for events
    /// that arrive meanwhile, so that these do not overflow it.
    #[must_use]
    pub fn is_half_free(&self) -> bool {
        let state = self.state.borrow();
        let limits = self.pool.limits.get();
        state.queue.len() < limits.frames.div_ceil(2) && state.bytes < limits.bytes.div_ceil(2)
    }

    /// Returns true if this many frames and bytes fill one write, or half of the outbox.
    #[must_use]
    pub fn is_full_write(&self, frames: u64, bytes: u64) -> bool {
        let limits = self.pool.limits.get();
        let frames_max = FRAMES_PER_WRITE_MAX.min(limits.frames.div_ceil(2));
        frames >= frames_max as u64 || bytes >= limits.bytes.div_ceil(2) as u64
    }

    /// Returns the number of frames in the queue, including one that is partly written.
    #[must_use]
    pub fn queued_frames(&self) -> usize {
        self.state.borrow().queue.len()
    }

    /// Wakes the connection to write. Returns the number of frames that its next write may have.
    pub fn wake(&self) -> usize {
        let mut state = self.state.borrow_mut();
        state.wake_due = false;
        self.signals.nudge();
        state.queue.len().min(FRAMES_PER_WRITE_MAX)
    }

    fn is_full(&self, state: &OutboxState) -> bool {
        let limits = self.pool.limits.get();
        state.queue.len() >= limits.frames || state.bytes >= limits.bytes
    }

    fn push_frame(&self, state: &mut OutboxState, frame: Rc<OutboundFrame>) {
        state.bytes += frame.bytes().len();
        self.queue_mut(state).push_back(frame);
    }

    /// Returns the queue, and gives it an allocation from the pool if it has none.
    fn queue_mut<'a>(&self, state: &'a mut OutboxState) -> &'a mut FrameQueue {
        if state.queue.capacity() == 0 {
            state.queue = self.pool.borrow_queue();
        }
        &mut state.queue
    }

    fn return_queue(&self, state: &mut OutboxState) {
        if state.queue.is_empty() && state.queue.capacity() > 0 {
            self.pool.give_back(mem::take(&mut state.queue));
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        state.queue.clear();
        self.return_queue(&mut state);
    }
}

impl Waiter for Outbox {
    fn wake(&self) {
        self.signals.nudge();
    }
}

#[cfg(test)]
mod tests;
