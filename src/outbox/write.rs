//! The writing side of an outbox: what the connection writes next, and what is dropped instead.

use std::{io::IoSlice, mem, rc::Rc};

use tokio::time::Instant;

use super::{FRAMES_PER_WRITE_MAX, OutboundFrame, Outbox, state::EventSource};

/// Most bytes written in one system call, which copies them.
const BYTES_PER_WRITE_MAX: usize = 128 * 1024;

/// Counts of the frames that a write has completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteProgress {
    /// Frames that have been written to their last byte.
    pub frames: u64,
    /// Events among these frames.
    pub events: u64,
    /// Of these events, those of backends that are not sent again to a client that resumes.
    pub live_events: u64,
    /// The time at which the first of the live events, which is the oldest, was appended.
    pub oldest_placed_at: Option<Instant>,
    /// Bytes that were written, also of frames that are not complete.
    pub bytes: u64,
}

impl Outbox {
    /// Returns true if nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let state = self.state.borrow();
        state.queue.is_empty() && state.pong.is_none()
    }

    /// Returns the number of bytes that wait to be written.
    #[must_use]
    pub fn unwritten_bytes(&self) -> usize {
        let state = self.state.borrow();
        state.bytes - state.head_written
    }

    /// Calls `write` with the bytes to write next: at most [`FRAMES_PER_WRITE_MAX`] frames, and 128
    /// KiB.
    pub fn with_next_write<R>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        let state = self.state.borrow();
        if let (1, None, Some(only)) = (state.queue.len(), &state.pong, state.queue.front()) {
            // On a quiet relay most writes are of one frame, and filling a list of 64 took a
            // tenth of the relay's own part of such a write.
            let left = only.bytes().get(state.head_written..).unwrap_or_default();
            return write(&[IoSlice::new(at_most(BYTES_PER_WRITE_MAX, left))]);
        }
        let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE_MAX];
        let mut count = 0;
        if state.bytes > BYTES_PER_WRITE_MAX {
            let mut room = BYTES_PER_WRITE_MAX;
            for (place, bytes) in slices.iter_mut().zip(state.slices_in_order()) {
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
            for (place, bytes) in slices.iter_mut().zip(state.slices_in_order()) {
                *place = IoSlice::new(bytes);
                count += 1;
            }
        }
        write(slices.get(..count).unwrap_or_default())
    }

    /// Removes the first `written` bytes, which have been written. Returns the frames that this
    /// completed.
    pub fn advance_written(&self, mut written: usize) -> WriteProgress {
        let mut state = self.state.borrow_mut();
        let mut advanced = WriteProgress {
            bytes: written as u64,
            ..WriteProgress::default()
        };
        while written > 0 {
            if let Some(pong) = state.take_due_pong() {
                state.bytes += pong.len();
                self.queue_mut(&mut state)
                    .push_front(Rc::new(OutboundFrame::Own(pong)));
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
            if head.is_live() {
                if advanced.live_events == 0 {
                    advanced.oldest_placed_at = head.queued_event().map(|event| event.placed);
                }
                advanced.live_events += 1;
            }
            state.head_written = 0;
            state.pop_head();
        }
        self.return_queue(&mut state);
        advanced
    }

    /// Drops all frames that are not begun, and all events that are pending from the log. Returns
    /// the number of events dropped.
    pub fn discard_queued(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        let begun = usize::from(state.head_written > 0);
        let mut events = mem::take(&mut state.owed);
        if state.source == EventSource::Log {
            state.set_source(EventSource::Inbox);
        }
        while state.queue.len() > begun {
            let Some(last) = state.queue.pop_back() else {
                break;
            };
            state.bytes -= last.bytes().len();
            events += u64::from(last.is_event());
        }
        state.pong = None;
        self.return_queue(&mut state);
        events
    }

    /// Drops the queued events of backends. Nothing may be written yet. Returns their number.
    pub fn discard_stored(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        debug_assert_eq!(state.head_written, 0, "a frame is begun");
        let before = state.queue.len();
        let mut bytes = 0;
        state.queue.retain(|frame| {
            let is_stored = frame.is_stored_event();
            bytes += if is_stored { frame.bytes().len() } else { 0 };
            !is_stored
        });
        state.bytes -= bytes;
        let dropped = before - state.queue.len();
        self.return_queue(&mut state);
        dropped as u64
    }

    /// Drops everything, including a begun frame, because nothing more will be written. Returns
    /// the number of events dropped.
    pub fn discard_all(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.head_written = 0;
        state.close_queued = true;
        drop(state);
        self.discard_queued()
    }
}

fn at_most(len: usize, bytes: &[u8]) -> &[u8] {
    bytes.get(..len).unwrap_or(bytes)
}
