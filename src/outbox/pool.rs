//! What the outboxes of a shard have in common.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use super::{FRAMES_A_WRITE_MAX, Frame};
use crate::config::Limits;

/// The most queues that a shard's pool keeps, and the most frames for which one that it
/// keeps has room: together at most 1 MiB. Enough for a thousand connections that
/// each have a full write before them; beyond, queues come from the allocator.
pub(super) const SPARE_QUEUES_MAX: usize = 2048;
const SPARE_QUEUE_FRAMES_MAX: usize = FRAMES_A_WRITE_MAX;

/// An outbox that has reached one of these takes nothing more.
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    /// Frames that wait.
    pub frames: usize,
    /// Bytes of all frames that wait.
    pub bytes: usize,
}

impl OutboxLimits {
    /// What the operator decided.
    #[must_use]
    pub fn of(limits: &Limits) -> Self {
        Self {
            frames: limits.outbox_frames,
            bytes: limits.outbox_bytes,
        }
    }
}

/// What the outboxes of a shard have in common: their limits, and the memory for
/// their queues. An outbox borrows a queue while something waits in it, so that an
/// idle connection has none and a busy shard asks the allocator for none.
#[derive(Debug)]
pub struct OutboxPool {
    pub(super) limits: Cell<OutboxLimits>,
    pub(super) spare: RefCell<Vec<Queue>>,
}

pub(super) type Queue = VecDeque<Rc<Frame>>;

impl OutboxPool {
    /// A pool without memory, for outboxes with these limits.
    #[must_use]
    pub fn new(limits: OutboxLimits) -> Rc<Self> {
        Rc::new(Self {
            limits: Cell::new(limits),
            spare: RefCell::default(),
        })
    }

    /// Has its outboxes keep to these limits from now on. What waits already may be
    /// more.
    pub fn set_limits(&self, limits: OutboxLimits) {
        self.limits.set(limits);
    }

    pub(super) fn borrow_queue(&self) -> Queue {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, queue: Queue) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_QUEUES_MAX && queue.capacity() <= SPARE_QUEUE_FRAMES_MAX {
            spare.push(queue);
        }
    }
}
