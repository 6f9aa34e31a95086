//! The frames that wait to be written to one connection, and what happens when
//! there are too many. It stands between the hub, which fills it, and the
//! connection, which empties it, so that neither need know the other. Knows no
//! topics and no sockets.
//!
//! An outbox that is behind takes no events that are offered: it only counts them,
//! as owed. They come to it from the log, as there is room for them.

mod frame;
mod pool;

use std::{
    cell::{Cell, RefCell},
    io::IoSlice,
    mem,
    rc::Rc,
    task::{Context, Waker},
};

use self::pool::Queue;
pub use self::{
    frame::{Frame, Offer, QueuedEvent},
    pool::{OutboxLimits, OutboxPool},
};
use crate::{
    planted::{Fault, is_planted},
    protocol::{Encoding, close::Ending},
    scheduler::Waiter,
};

/// The most frames that leave in one system call. More gains nothing that could
/// be measured, and the kernel takes 1,024 at the most.
pub const FRAMES_A_WRITE_MAX: usize = 64;

/// The most bytes that leave in one system call, which copies them.
const BYTES_A_WRITE_MAX: usize = 128 * 1024;

/// What became of an event that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It waits to be written.
    Taken {
        /// Whether the connection does not know of it and is to be
        /// [woken](Outbox::wake), once.
        to_wake: bool,
    },
    /// It will come from the log, since the outbox is behind.
    Owed,
    /// It was offered before, for another of its topics.
    TakenBefore,
    /// There was no room: the connection will be closed for it.
    Overflowed,
    /// The connection is about to end and takes nothing more.
    Ended,
}

/// What a write has brought to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Advanced {
    /// Frames of which the last byte is written.
    pub frames: u64,
    /// Of these, events.
    pub events: u64,
}

/// One connection's queue. Lives on the connection's shard.
#[derive(Debug)]
pub struct Outbox {
    pool: Rc<OutboxPool>,
    /// The bytes that its connection's subscriptions are counted for. Here, where the hub
    /// finds it for each connection: the largest are closed when memory is short.
    subscriptions: Cell<usize>,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Without memory while it is empty.
    queue: Queue,
    /// The bytes of all entries in the queue, those of the head that are written
    /// included.
    bytes: usize,
    /// How much of the head is written. More than 0: the head is begun, and
    /// nothing may go before it is finished.
    head_written: usize,
    /// A pong, or a ping of ours, that waits to go ahead of the queue; a newer pong
    /// takes its place (RFC 6455, 5.5.3).
    pong: Option<Box<[u8]>>,
    /// The last event that was taken.
    taken: u64,
    /// Events come from the log, not from the inbox.
    behind: bool,
    /// Events are taken as JSON.
    json: bool,
    /// The connection has left the hub and takes nothing that is offered.
    left: bool,
    /// One of these three: what is offered is not just taken. One flag, since it is looked
    /// at for each delivery.
    apart: bool,
    /// Events that were offered meanwhile and have not come from the log yet.
    owed: u64,
    ending: Option<Ending>,
    /// Somebody has been told to wake the connection and has not yet.
    wake_due: bool,
    /// An alarm has rung.
    rung: bool,
    /// A Close frame is in the queue or written: nothing may follow it.
    close_queued: bool,
    waker: Option<Waker>,
}

impl Outbox {
    /// An empty outbox of a connection that speaks protobuf.
    #[must_use]
    pub fn new(pool: &Rc<OutboxPool>) -> Self {
        Self::speaking(Encoding::Protobuf, pool)
    }

    /// An empty outbox of a connection that speaks so.
    #[must_use]
    pub fn speaking(encoding: Encoding, pool: &Rc<OutboxPool>) -> Self {
        let json = encoding == Encoding::Json;
        Self {
            pool: Rc::clone(pool),
            subscriptions: Cell::default(),
            state: RefCell::new(State {
                json,
                apart: json,
                ..State::default()
            }),
        }
    }

    /// How its connection speaks.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        if self.state.borrow().json {
            Encoding::Json
        } else {
            Encoding::Protobuf
        }
    }

    /// Takes the event if there is room. The limits are looked at once for each
    /// item: below both, the item is taken whole, so that no allowed event or
    /// batch is too big for a connection that keeps up.
    // Left to itself, the compiler makes it a call of its own or not by what else has
    // changed in the crate; as a call, a delivery takes 25 to 40 instructions more of 75.
    #[inline(always)]
    pub fn offer(&self, offer: &Offer<'_>) -> Offered {
        let mut state = self.state.borrow_mut();
        if state.taken == offer.number && !is_planted(Fault::DeliversTwice) {
            return Offered::TakenBefore;
        }
        if state.apart {
            return self.offer_apart(&mut state, offer);
        }
        if state.ending.is_some() || state.close_queued {
            return Offered::Ended;
        }
        if state.taken < offer.first && self.is_full(&state) {
            state.end(Ending::TooSlow);
            return Offered::Overflowed;
        }
        state.taken = offer.number;
        let to_wake = state.queue.is_empty() && !state.wake_due;
        state.wake_due |= to_wake;
        state.bytes += offer.bytes;
        self.queue(&mut state).push_back(Rc::clone(&offer.frame));
        Offered::Taken { to_wake }
    }

    /// The same for an outbox that is behind or takes JSON, or whose connection has left.
    #[cold]
    #[inline(never)]
    fn offer_apart(&self, state: &mut State, offer: &Offer<'_>) -> Offered {
        if state.left {
            return Offered::Ended;
        }
        if state.behind {
            state.taken = offer.number;
            state.owed += 1;
            return Offered::Owed;
        }
        if state.ending.is_some() || state.close_queued {
            return Offered::Ended;
        }
        if state.taken < offer.first && self.is_full(state) {
            if is_planted(Fault::SkipsJsonOnOverflow) {
                return Offered::TakenBefore;
            }
            state.end(Ending::TooSlow);
            return Offered::Overflowed;
        }
        state.taken = offer.number;
        let frame = match offer.json() {
            Ok(frame) => Rc::clone(frame),
            Err(no_json) => {
                // It is dropped with all else that the connection does not get any more.
                state.owed += 1;
                state.end(no_json.into());
                return Offered::Owed;
            }
        };
        let to_wake = state.queue.is_empty() && !state.wake_due;
        state.wake_due |= to_wake;
        self.push(state, frame);
        Offered::Taken { to_wake }
    }

    /// The bytes that its connection's subscriptions are counted for.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.get()
    }

    /// Counts so many bytes more.
    pub fn hold_subscriptions(&self, bytes: usize) {
        self.subscriptions.set(self.subscriptions.get() + bytes);
    }

    /// Counts so many bytes less, as far as there are any. Returns how many.
    pub fn release_subscriptions(&self, bytes: usize) -> usize {
        let held = self.subscriptions.get();
        self.subscriptions.set(held.saturating_sub(bytes));
        held.min(bytes)
    }

    /// Takes nothing more of what is offered: its connection has left the hub.
    pub fn leave(&self) {
        let mut state = self.state.borrow_mut();
        state.left = true;
        state.apart = true;
    }

    /// Takes no more of what is offered, until it is [live](Self::go_live) again.
    pub fn fall_behind(&self) {
        self.state.borrow_mut().set_behind(true);
    }

    /// Queues an event that comes from the log. `owed`: it is one of those that were
    /// offered while the outbox was behind.
    pub fn push_from_log(&self, event: Frame, owed: bool) {
        let mut state = self.state.borrow_mut();
        if owed {
            state.owed = state.owed.saturating_sub(1);
            let offset = event.event().map_or(0, |event| event.offset);
            if is_planted(Fault::DropsALiveEvent) && offset.is_multiple_of(3) {
                return;
            }
        }
        self.push(&mut state, Rc::new(event));
    }

    /// Whether nothing was offered to it since it fell behind that it has not had.
    #[must_use]
    pub fn owes_nothing(&self) -> bool {
        self.state.borrow().owed == 0
    }

    /// Takes what is offered again: it has had all that it is owed.
    pub fn go_live(&self) {
        let mut state = self.state.borrow_mut();
        debug_assert_eq!(state.owed, 0, "what is offered is what the log holds");
        state.set_behind(false);
    }

    /// The event that has waited longest to be written, if one waits.
    #[must_use]
    pub fn oldest_event(&self) -> Option<QueuedEvent> {
        let state = self.state.borrow();
        state.queue.iter().find_map(|frame| frame.event())
    }

    /// Tells the connection to end, and drops what waits at once: how many events
    /// that were.
    pub fn end_and_discard(&self, ending: Ending) -> u64 {
        self.end(ending);
        self.discard()
    }

    /// Queues a whole frame that the connection itself made: the answer to
    /// something that its client sent. The limits are not looked at, since a
    /// connection stops reading while there is no [room](Self::is_half_free).
    pub fn push_reply(&self, frame: Box<[u8]>) {
        let mut state = self.state.borrow_mut();
        if !state.close_queued {
            self.push(&mut state, Rc::new(Frame::Own(frame)));
        }
    }

    /// Puts a pong ahead of all that is not begun, in the place of one that waits.
    pub fn set_pong(&self, frame: Box<[u8]>) {
        let mut state = self.state.borrow_mut();
        if !state.close_queued {
            state.pong = Some(frame);
        }
    }

    /// Puts a ping there, unless a pong waits: its client has just been heard of.
    pub fn set_ping(&self, frame: Box<[u8]>) {
        let mut state = self.state.borrow_mut();
        if !state.close_queued {
            state.pong.get_or_insert(frame);
        }
    }

    /// Queues the Close frame, after which nothing is taken.
    pub fn push_close(&self, frame: Box<[u8]>) {
        let mut state = self.state.borrow_mut();
        if !state.close_queued {
            self.push(&mut state, Rc::new(Frame::Own(frame)));
            state.close_queued = true;
        }
    }

    /// Tells the connection to end. The first to say so is the one that counts.
    pub fn end(&self, ending: Ending) {
        self.state.borrow_mut().end(ending);
    }

    /// The same for a connection that is [nudged](Self::nudge) later. Returns false if it is
    /// ending already.
    #[must_use]
    pub fn set_ending(&self, ending: Ending) -> bool {
        let mut state = self.state.borrow_mut();
        let is_first = state.ending.is_none();
        state.ending.get_or_insert(ending);
        is_first
    }

    /// Why the connection is to end, if it is.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.state.borrow().ending
    }

    /// Whether less than half of the outbox is taken. As long as it is, a connection
    /// may take more from its client that is to be answered, and more from the log:
    /// the other half is for events that come meanwhile, so that nobody is closed
    /// for those.
    #[must_use]
    pub fn is_half_free(&self) -> bool {
        let state = self.state.borrow();
        let limits = self.pool.limits.get();
        state.queue.len() < limits.frames.div_ceil(2) && state.bytes < limits.bytes.div_ceil(2)
    }

    /// Whether so many frames with so many bytes are all that one write takes, or half of
    /// what the outbox takes.
    #[must_use]
    pub fn is_full_write(&self, frames: u64, bytes: u64) -> bool {
        let limits = self.pool.limits.get();
        let frames_max = FRAMES_A_WRITE_MAX.min(limits.frames.div_ceil(2));
        frames >= frames_max as u64 || bytes >= limits.bytes.div_ceil(2) as u64
    }

    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.state.borrow().queue.len()
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let state = self.state.borrow();
        state.queue.is_empty() && state.pong.is_none()
    }

    /// How many bytes wait to be written.
    #[must_use]
    pub fn unwritten_bytes(&self) -> usize {
        let state = self.state.borrow();
        state.bytes - state.head_written
    }

    /// Lends the bytes that are to be written next: at most [`FRAMES_A_WRITE_MAX`] frames, and
    /// 128 KiB.
    pub fn lend<R>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        let state = self.state.borrow();
        if let (1, None, Some(only)) = (state.queue.len(), &state.pong, state.queue.front()) {
            // Most writes are of one frame when little happens, and to fill a list
            // of 64 took a tenth of the relay's own part of such a write.
            let left = only.bytes().get(state.head_written..).unwrap_or_default();
            return write(&[IoSlice::new(at_most(BYTES_A_WRITE_MAX, left))]);
        }
        let mut slices = [IoSlice::new(&[]); FRAMES_A_WRITE_MAX];
        let mut count = 0;
        if state.bytes > BYTES_A_WRITE_MAX {
            let mut room = BYTES_A_WRITE_MAX;
            for (place, bytes) in slices.iter_mut().zip(state.in_order()) {
                let part = at_most(room, bytes);
                room -= part.len();
                count += usize::from(!part.is_empty());
                *place = IoSlice::new(part);
            }
        } else if state.head_written == 0 && state.pong.is_none() {
            for (place, frame) in slices.iter_mut().zip(&state.queue) {
                *place = IoSlice::new(frame.bytes());
                count += 1;
            }
        } else {
            for (place, bytes) in slices.iter_mut().zip(state.in_order()) {
                *place = IoSlice::new(bytes);
                count += 1;
            }
        }
        write(slices.get(..count).unwrap_or_default())
    }

    /// Takes off what was written of the bytes that were lent.
    pub fn advance(&self, mut written: usize) -> Advanced {
        let mut state = self.state.borrow_mut();
        let mut advanced = Advanced::default();
        while written > 0 {
            if let Some(pong) = state.turn_of_pong() {
                state.bytes += pong.len();
                self.queue(&mut state).push_front(Rc::new(Frame::Own(pong)));
            }
            let Some(head) = state.queue.front() else {
                break;
            };
            let left = head.bytes().len() - state.head_written;
            if written < left {
                state.head_written += written;
                break;
            }
            written -= left;
            advanced.frames += 1;
            advanced.events += u64::from(head.is_event());
            state.head_written = 0;
            state.pop();
        }
        self.give_memory_back(&mut state);
        advanced
    }

    /// Drops all that is not begun, and what is owed; says how many events were
    /// among it.
    pub fn discard(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        let begun = usize::from(state.head_written > 0);
        let mut events = mem::take(&mut state.owed);
        state.set_behind(false);
        while state.queue.len() > begun {
            let Some(last) = state.queue.pop_back() else {
                break;
            };
            state.bytes -= last.bytes().len();
            events += u64::from(last.is_event());
        }
        state.pong = None;
        self.give_memory_back(&mut state);
        events
    }

    /// Drops everything, the begun frame too, because nothing more will be
    /// written; says how many events were among it.
    pub fn abandon(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.head_written = 0;
        state.close_queued = true;
        drop(state);
        self.discard()
    }

    /// Has the task woken when there is something to write, or an ending.
    pub fn register(&self, context: &Context<'_>) {
        let mut state = self.state.borrow_mut();
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => state.waker = Some(context.waker().clone()),
        }
    }

    /// Tells the connection that its alarm has rung.
    pub fn ring(&self) {
        self.set_rung();
        self.nudge();
    }

    /// The same for a connection that is [nudged](Self::nudge) later.
    pub fn set_rung(&self) {
        self.state.borrow_mut().rung = true;
    }

    /// Has the connection look again, for something else than what is to be written.
    pub fn nudge(&self) {
        self.state.borrow().wake();
    }

    /// Whether an alarm has rung since this was asked last.
    #[must_use]
    pub fn take_rung(&self) -> bool {
        mem::take(&mut self.state.borrow_mut().rung)
    }

    /// Wakes the connection, for what waits to be written. Returns how many frames of it
    /// its next write may have.
    pub fn wake(&self) -> usize {
        let mut state = self.state.borrow_mut();
        state.wake_due = false;
        state.wake();
        state.queue.len().min(FRAMES_A_WRITE_MAX)
    }

    fn is_full(&self, state: &State) -> bool {
        let limits = self.pool.limits.get();
        state.queue.len() >= limits.frames || state.bytes >= limits.bytes
    }

    fn push(&self, state: &mut State, frame: Rc<Frame>) {
        state.bytes += frame.bytes().len();
        self.queue(state).push_back(frame);
    }

    /// The queue, with memory.
    fn queue<'a>(&self, state: &'a mut State) -> &'a mut Queue {
        if state.queue.capacity() == 0 {
            state.queue = self.pool.borrow_queue();
        }
        &mut state.queue
    }

    fn give_memory_back(&self, state: &mut State) {
        if state.queue.is_empty() && state.queue.capacity() > 0 {
            self.pool.give_back(mem::take(&mut state.queue));
        }
    }
}

fn at_most(len: usize, bytes: &[u8]) -> &[u8] {
    bytes.get(..len).unwrap_or(bytes)
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        state.queue.clear();
        self.give_memory_back(&mut state);
    }
}

impl State {
    fn set_behind(&mut self, behind: bool) {
        self.behind = behind;
        self.apart = behind || self.json || self.left;
    }

    /// What is to be written, in the order in which it leaves.
    fn in_order(&self) -> impl Iterator<Item = &[u8]> {
        let begun = usize::from(self.head_written > 0);
        let head = self
            .queue
            .iter()
            .take(begun)
            .map(|frame| frame.bytes().get(self.head_written..).unwrap_or_default());
        let rest = self.queue.iter().skip(begun).map(|frame| frame.bytes());
        head.chain(self.pong.as_deref()).chain(rest)
    }

    /// The pong, when it is its turn. It becomes the queue's head, so that once
    /// begun it is finished like any other frame.
    fn turn_of_pong(&mut self) -> Option<Box<[u8]>> {
        self.pong.take_if(|_| self.head_written == 0)
    }

    fn pop(&mut self) {
        if let Some(head) = self.queue.pop_front() {
            self.bytes -= head.bytes().len();
        }
    }

    fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

impl Waiter for Outbox {
    fn wake(&self) {
        self.nudge();
    }
}

#[cfg(test)]
mod tests;
