//! What waits in an outbox, and what is offered to one.

use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
    sync::Arc,
};

use tokio::time::Instant;

use crate::event::{Event, JsonCell, JsonFrame, NoJson};

/// What is written whole. The outboxes of a shard share it, at no cost in atomics,
/// and it takes no more than a pointer in each.
#[derive(Debug)]
pub enum Frame {
    /// An event, which is a whole WebSocket frame already.
    Event(Arc<Event>),
    /// An event as JSON, likewise.
    Json(Arc<JsonFrame>),
    /// What one connection has to say.
    Own(Box<[u8]>),
}

impl Frame {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Event(event) => event.frame(),
            Self::Json(json) => json.bytes(),
            Self::Own(frame) => frame,
        }
    }

    pub(super) fn is_event(&self) -> bool {
        matches!(self, Self::Event(_) | Self::Json(_))
    }

    /// The event, if it is one.
    pub(super) fn event(&self) -> Option<QueuedEvent> {
        match self {
            Self::Event(event) => Some(QueuedEvent {
                placed: event.placed(),
                offset: event.position().offset,
                is_json: false,
            }),
            Self::Json(json) => Some(QueuedEvent {
                placed: json.placed(),
                offset: json.offset(),
                is_json: true,
            }),
            Self::Own(_) => None,
        }
    }
}

/// An event that waits to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedEvent {
    /// When it was given its place.
    pub placed: Instant,
    /// Its offset.
    pub offset: u64,
    /// Whether it waits as JSON, which no log holds.
    pub is_json: bool,
}

/// An event that is offered to outboxes.
#[derive(Debug)]
pub struct Offer<'a> {
    event: &'a Arc<Event>,
    pub(super) frame: Rc<Frame>,
    /// Of the frame. Here, since to ask the event in each outbox costs more than
    /// all else in it.
    pub(super) bytes: usize,
    pub(super) first: u64,
    pub(super) number: u64,
    /// Shared with the other shards.
    json_cell: &'a JsonCell,
    /// What an outbox here that takes JSON was given first.
    json: OnceCell<Result<Rc<Frame>, NoJson>>,
    made_json: Cell<bool>,
}

impl<'a> Offer<'a> {
    /// Of the shard's event with this number; its JSON has its place in `json`. `first` is that of the first event
    /// of the same item of the shard's inbox. Both grow from 1. By these an outbox
    /// knows that it has an event already, and that an item whose first event it
    /// took is to be taken whole.
    #[must_use]
    pub fn new(event: &'a Arc<Event>, json: &'a JsonCell, first: u64, number: u64) -> Self {
        Self {
            event,
            json_cell: json,
            json: OnceCell::new(),
            made_json: Cell::new(false),
            bytes: event.frame().len(),
            frame: Rc::new(Frame::Event(Arc::clone(event))),
            first,
            number,
        }
    }

    /// The event as JSON, which is rendered here if it was nowhere before.
    pub(super) fn json(&self) -> Result<&Rc<Frame>, NoJson> {
        let frame = self.json.get_or_init(|| {
            let json = self
                .json_cell
                .frame(self.event, || self.made_json.set(true))?;
            Ok(Rc::new(Frame::Json(json)))
        });
        frame.as_ref().map_err(|no_json| *no_json)
    }

    /// How many bytes the larger of the frames has that outboxes have taken.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes.max(self.json_bytes())
    }

    /// How many bytes of JSON were made for it here.
    #[must_use]
    pub fn made_json_bytes(&self) -> Option<usize> {
        self.made_json.get().then(|| self.json_bytes())
    }

    fn json_bytes(&self) -> usize {
        match self.json.get() {
            Some(Ok(frame)) => frame.bytes().len(),
            Some(Err(_)) | None => 0,
        }
    }
}
