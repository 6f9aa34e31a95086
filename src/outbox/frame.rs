//! Frames that wait in an outbox, and events that are offered to one.

use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
    sync::Arc,
};

use tokio::time::Instant;

use crate::event::{ClientEvent, Event, JsonCell, JsonFrame, NoJson};

/// A frame that is written whole. The outboxes of a shard share it without atomic operations, and
/// each stores only a pointer.
#[derive(Debug)]
pub enum OutboundFrame {
    /// An event, stored as a whole WebSocket frame.
    Event(Arc<Event>),
    /// An event as JSON, also stored as a whole frame.
    Json(Arc<JsonFrame>),
    /// An event that is sent again to a client that resumes.
    Replayed(Arc<Event>),
    /// Such an event as JSON.
    ReplayedJson(Arc<JsonFrame>),
    /// An event of a client.
    Client(Arc<ClientEvent>),
    /// An event of a client as JSON, which has been made.
    ClientJson(Arc<ClientEvent>),
    /// A frame of one connection, such as a reply.
    Own(Box<[u8]>),
}

impl OutboundFrame {
    /// Returns the frame of a client's event in one of the encodings. If JSON is made for it, calls
    /// `made` with its size in bytes.
    ///
    /// # Errors
    ///
    /// When it cannot be rendered as JSON, or there is no memory for that.
    pub fn of_client_event(
        event: &Arc<ClientEvent>,
        is_json: bool,
        made: impl FnOnce(usize),
    ) -> Result<Self, NoJson> {
        if !is_json {
            return Ok(Self::Client(Arc::clone(event)));
        }
        let mut is_new = false;
        let len = event.json_frame(|| is_new = true)?.len();
        if is_new {
            made(len);
        }
        Ok(Self::ClientJson(Arc::clone(event)))
    }

    /// Returns the frame as one that is sent again to a client that resumes.
    #[must_use]
    pub fn into_replayed(self) -> Self {
        match self {
            Self::Event(event) => Self::Replayed(event),
            Self::Json(json) => Self::ReplayedJson(json),
            other => other,
        }
    }

    /// Returns its size in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes().len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Event(event) | Self::Replayed(event) => event.frame(),
            Self::Json(json) | Self::ReplayedJson(json) => json.bytes(),
            Self::Client(event) => event.frame(),
            Self::ClientJson(event) => event.made_json().unwrap_or_default(),
            Self::Own(frame) => frame,
        }
    }

    pub(super) fn is_event(&self) -> bool {
        !matches!(self, Self::Own(_))
    }

    /// Returns true if the frame is an event of a backend, which is in the log.
    pub(super) fn is_stored_event(&self) -> bool {
        self.queued_event().is_some_and(|event| event.offset > 0)
    }

    /// Returns true if the frame is an event of a backend on its first way to the connection, so
    /// that its age when it is written is the time that the relay took.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Event(_) | Self::Json(_))
    }

    /// Returns the event, if the frame holds one.
    pub(super) fn queued_event(&self) -> Option<QueuedEvent> {
        match self {
            Self::Event(event) | Self::Replayed(event) => Some(QueuedEvent {
                placed: event.placed_at(),
                offset: event.position().offset,
                is_in_log: true,
            }),
            Self::Json(json) | Self::ReplayedJson(json) => Some(QueuedEvent {
                placed: json.placed_at(),
                offset: json.offset(),
                is_in_log: false,
            }),
            Self::Client(event) | Self::ClientJson(event) => Some(QueuedEvent {
                placed: event.sent_at(),
                offset: 0,
                is_in_log: false,
            }),
            Self::Own(_) => None,
        }
    }
}

/// An event that waits to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedEvent {
    /// The time at which it was appended, or received from a client.
    pub placed: Instant,
    /// Offset of the event; 0 for an event of a client.
    pub offset: u64,
    /// True if the log may hold what waits: not for JSON, or an event of a client.
    pub is_in_log: bool,
}

/// An event that is offered to outboxes.
#[derive(Debug)]
pub struct EventOffer<'a> {
    event: &'a Arc<Event>,
    pub(super) frame: Rc<OutboundFrame>,
    /// Size of the frame. Stored here, since reading it from the event for each outbox costs more
    /// than the rest of the offer.
    pub(super) bytes: usize,
    pub(super) first: u64,
    pub(super) number: u64,
    /// The event's JSON, shared with the other shards.
    json_cell: &'a JsonCell,
    /// The JSON frame that outboxes of this shard share, once one of them has needed it.
    json: OnceCell<Result<Rc<OutboundFrame>, NoJson>>,
    made_json: Cell<bool>,
}

impl<'a> EventOffer<'a> {
    /// Creates an offer of the shard's event with this `number`; its JSON is stored in `json`.
    /// `first` is the number of the first event of the same inbox item. Both count from 1. By
    /// these numbers an outbox knows that it has an event already, and that an item must be taken
    /// whole because its first event was taken.
    #[must_use]
    pub fn new(event: &'a Arc<Event>, json: &'a JsonCell, first: u64, number: u64) -> Self {
        Self {
            event,
            json_cell: json,
            json: OnceCell::new(),
            made_json: Cell::new(false),
            bytes: event.frame().len(),
            frame: Rc::new(OutboundFrame::Event(Arc::clone(event))),
            first,
            number,
        }
    }

    /// Returns the event as JSON. Renders it if no shard has done so before.
    pub(super) fn json_frame(&self) -> Result<&Rc<OutboundFrame>, NoJson> {
        let frame = self.json.get_or_init(|| {
            let json = self
                .json_cell
                .get_or_render(self.event, || self.made_json.set(true))?;
            Ok(Rc::new(OutboundFrame::Json(json)))
        });
        frame.as_ref().map_err(|no_json| *no_json)
    }

    /// Returns the size of the larger of the frames that outboxes have taken.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes.max(self.json_bytes())
    }

    /// Returns the number of bytes of JSON if it was rendered by this offer.
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
