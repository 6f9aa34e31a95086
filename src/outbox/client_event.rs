//! Offers of clients' events to an outbox. These are worth nothing a moment later, so an outbox
//! without room for one drops it, and its connection stays open.

use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
    sync::Arc,
};

use super::{OutboundFrame, Outbox, state::EventSource};
use crate::event::{ClientEvent, NoJson};

/// An event of a client that is offered to outboxes.
#[derive(Debug)]
pub struct ClientEventOffer<'a> {
    event: &'a Arc<ClientEvent>,
    number: u64,
    frame: OnceCell<Rc<OutboundFrame>>,
    json: OnceCell<Result<Rc<OutboundFrame>, NoJson>>,
    made_json: Cell<bool>,
}

/// The outcome of offering an event of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientEventOutcome {
    /// The event is queued.
    Taken {
        /// True if the connection has not been told yet and must be [woken](Outbox::wake) once.
        to_wake: bool,
    },
    /// The event was offered before, for another of its topics.
    OfferedBefore,
    /// The event is dropped, because the connection is catching up.
    CatchingUp,
    /// The event is dropped, because the outbox is full, or because there is no JSON of it and the
    /// connection needs that.
    NoRoom,
    /// The connection takes no events of clients.
    Unwanted,
    /// The connection is ending and takes no more events.
    Ended,
}

impl<'a> ClientEventOffer<'a> {
    /// Creates an offer of the shard's event with this `number`, from the same count as that of
    /// [`EventOffer`](super::EventOffer).
    #[must_use]
    pub fn new(event: &'a Arc<ClientEvent>, number: u64) -> Self {
        Self {
            event,
            number,
            frame: OnceCell::new(),
            json: OnceCell::new(),
            made_json: Cell::new(false),
        }
    }

    /// Returns the frame in the encoding of the outbox. JSON that has not been made is made now,
    /// unless that takes long.
    pub(super) fn frame(&self, is_json: bool) -> Result<&Rc<OutboundFrame>, NoJson> {
        if !is_json {
            let frame = || Rc::new(OutboundFrame::Client(Arc::clone(self.event)));
            return Ok(self.frame.get_or_init(frame));
        }
        let frame = self.json.get_or_init(|| {
            if self.event.made_json().is_none() && self.event.renders_slowly() {
                // A JSON connection has come since the event was sent.
                return Err(NoJson::Unrenderable);
            }
            self.event.json_frame(|| self.made_json.set(true))?;
            Ok(Rc::new(OutboundFrame::ClientJson(Arc::clone(self.event))))
        });
        frame.as_ref().map_err(|no_json| *no_json)
    }

    /// Returns the size of the larger of its frames.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        let json = self.event.made_json().map_or(0, <[u8]>::len);
        self.event.frame().len().max(json)
    }

    /// Returns the number of bytes of JSON if this offer made it.
    #[must_use]
    pub fn made_json_bytes(&self) -> Option<usize> {
        let json = self.event.made_json().filter(|_| self.made_json.get())?;
        Some(json.len())
    }
}

impl Outbox {
    /// Queues an event of a client if there is room, and drops it otherwise.
    pub fn offer_client_event(&self, offer: &ClientEventOffer<'_>) -> ClientEventOutcome {
        let mut state = self.state.borrow_mut();
        if state.taken == offer.number {
            return ClientEventOutcome::OfferedBefore;
        }
        if state.takes_stored_only {
            return ClientEventOutcome::Unwanted;
        }
        if self.signals.ending().is_some()
            || state.close_queued
            || state.source == EventSource::None
        {
            return ClientEventOutcome::Ended;
        }
        state.taken = offer.number;
        if state.source == EventSource::Log {
            return ClientEventOutcome::CatchingUp;
        }
        if self.is_full(&state) {
            return ClientEventOutcome::NoRoom;
        }
        let Ok(frame) = offer.frame(state.json) else {
            return ClientEventOutcome::NoRoom;
        };
        let to_wake = state.queue.is_empty() && !state.wake_due;
        state.wake_due |= to_wake;
        self.push_frame(&mut state, Rc::clone(frame));
        ClientEventOutcome::Taken { to_wake }
    }
}
