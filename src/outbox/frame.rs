//! What waits in an outbox, and what is offered to one.

use std::{rc::Rc, sync::Arc};

use crate::event::Event;

/// What is written whole. The outboxes of a shard share it, at no cost in atomics,
/// and it takes no more than a pointer in each.
#[derive(Debug)]
pub enum Frame {
    /// An event, which is a whole WebSocket frame already.
    Event(Arc<Event>),
    /// What one connection has to say.
    Own(Box<[u8]>),
}

impl Frame {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Event(event) => event.frame(),
            Self::Own(frame) => frame,
        }
    }

    pub(super) fn is_event(&self) -> bool {
        matches!(self, Self::Event(_))
    }
}

/// An event that is offered to outboxes.
#[derive(Debug)]
pub struct Offer {
    pub(super) frame: Rc<Frame>,
    /// Of the frame. Here, since to ask the event in each outbox costs more than
    /// all else in it.
    pub(super) bytes: usize,
    pub(super) first: u64,
    pub(super) number: u64,
}

impl Offer {
    /// Of the shard's event with this number. `first` is that of the first event
    /// of the same item of the shard's inbox. Both grow from 1. By these an outbox
    /// knows that it has an event already, and that an item whose first event it
    /// took is to be taken whole.
    #[must_use]
    pub fn new(event: &Arc<Event>, first: u64, number: u64) -> Self {
        Self {
            bytes: event.frame().len(),
            frame: Rc::new(Frame::Event(Arc::clone(event))),
            first,
            number,
        }
    }
}
