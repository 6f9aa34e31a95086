//! The contents of an outbox, and the order in which they are written.

use super::pool::FrameQueue;

/// The origin of a connection's events. Set by the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum EventSource {
    /// Offered events are queued.
    #[default]
    Inbox,
    /// The connection is catching up: offered events are read from the log later.
    Log,
    /// The connection has left the hub.
    None,
}

#[derive(Debug, Default)]
pub(super) struct OutboxState {
    /// Has no allocation while it is empty.
    pub(super) queue: FrameQueue,
    /// Size of all frames in the queue, including the written bytes of the head.
    pub(super) bytes: usize,
    /// Number of bytes of the head that are written. If more than 0, the head is begun, and
    /// nothing may go before it is finished.
    pub(super) head_written: usize,
    /// A pong, or a ping of the relay, that will be written ahead of the queue; a newer pong
    /// replaces it (RFC 6455, 5.5.3).
    pub(super) pong: Option<Box<[u8]>>,
    /// Number of the last event that was taken.
    pub(super) taken: u64,
    pub(super) source: EventSource,
    /// True if events are taken as JSON.
    pub(super) json: bool,
    /// True if the source is not the inbox, or events are taken as JSON: an offered event is not
    /// simply queued. A single flag, since it is checked for each delivery.
    pub(super) apart: bool,
    /// Number of events that were offered while catching up and have not been read from the log
    /// yet.
    pub(super) owed: u64,
    /// True from the moment that a caller was told to wake the connection until it does.
    pub(super) wake_due: bool,
    /// True if the hub has noted presence messages that the connection must be sent.
    pub(super) owes_presence: bool,
    /// True if a backend has ended subscriptions of the connection, which has to carry that out.
    pub(super) has_revocation: bool,
    /// True if the connection takes no events of clients, and no presence.
    pub(super) takes_stored_only: bool,
    /// True once a Close frame is queued or written: nothing may follow it.
    pub(super) close_queued: bool,
}

impl OutboxState {
    pub(super) fn set_source(&mut self, source: EventSource) {
        self.source = source;
        self.apart = self.json || source != EventSource::Inbox;
    }

    /// Returns the bytes to write, in order.
    pub(super) fn slices_in_order(&self) -> impl Iterator<Item = &[u8]> {
        let begun = usize::from(self.head_written > 0);
        let head = self
            .queue
            .iter()
            .take(begun)
            .map(|frame| frame.bytes().get(self.head_written..).unwrap_or_default());
        let rest = self.queue.iter().skip(begun).map(|frame| frame.bytes());
        head.chain(self.pong.as_deref()).chain(rest)
    }

    /// Takes the pong if it is next, because no frame is begun. The caller must put it at the head
    /// of the queue, so that once begun it is finished like any other frame.
    pub(super) fn take_due_pong(&mut self) -> Option<Box<[u8]>> {
        self.pong.take_if(|_| self.head_written == 0)
    }

    pub(super) fn pop_head(&mut self) {
        if let Some(head) = self.queue.pop_front() {
            self.bytes -= head.bytes().len();
        }
    }
}
