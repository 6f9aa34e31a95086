//! Limits and spare queues that the outboxes of a shard share.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use super::{FRAMES_PER_WRITE_MAX, OutboundFrame};

/// Most queues that a shard's pool keeps, and the largest capacity, in frames, of a queue that it
/// keeps: together at most 1 MiB. That is enough for a thousand connections with a full write
/// each; beyond it, queues come from the allocator.
pub(super) const SPARE_QUEUES_MAX: usize = 2048;
const SPARE_QUEUE_FRAMES_MAX: usize = FRAMES_PER_WRITE_MAX;

/// Limits of an outbox. Once it has reached one of them, it takes no more events.
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    /// Most queued frames.
    pub frames: usize,
    /// Most bytes of all queued frames.
    pub bytes: usize,
}

/// State that the outboxes of a shard share: their limits, and the memory for their queues. An
/// outbox borrows a queue while frames wait in it, so that an idle connection has none, and a
/// busy shard does not need the allocator.
#[derive(Debug)]
pub struct OutboxPool {
    pub(super) limits: Cell<OutboxLimits>,
    pub(super) spare: RefCell<Vec<FrameQueue>>,
}

pub(super) type FrameQueue = VecDeque<Rc<OutboundFrame>>;

impl OutboxPool {
    /// Creates a pool without spare queues, for outboxes with these limits.
    #[must_use]
    pub fn new(limits: OutboxLimits) -> Rc<Self> {
        Rc::new(Self {
            limits: Cell::new(limits),
            spare: RefCell::default(),
        })
    }

    /// Applies new limits to the pool's outboxes. Frames that are queued already may exceed them.
    pub fn set_limits(&self, limits: OutboxLimits) {
        self.limits.set(limits);
    }

    pub(super) fn borrow_queue(&self) -> FrameQueue {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, queue: FrameQueue) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_QUEUES_MAX && queue.capacity() <= SPARE_QUEUE_FRAMES_MAX {
            spare.push(queue);
        }
    }
}
