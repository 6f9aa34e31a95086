//! The state of a connection whose conversation is open.

use std::time::Duration;

use sidewire_protocol::close::CloseReason;
use tokio::time::Instant;

use super::offloaded::OffloadedMessage;
use crate::{
    auth::{Grant, KeyFingerprint},
    connection::{conversation::TopicsAnswer, pace::MessageBudget, waiting::WaitingRequests},
    hub::HubConnection,
    scheduler::WorkTicket,
};

/// The state of an open connection. It is dropped as soon as the connection begins to close, so
/// that nothing more is queued for it.
pub(super) struct OpenConnection {
    pub(super) hub: HubConnection,
    pub(super) grant: Grant,
    pub(super) pace: MessageBudget,
    /// What the answer to the Subscribe that is under way needs, until it is answered.
    pub(super) unanswered: Option<Box<TopicsAnswer>>,
    /// Subscribes and Unsubscribes that wait until no Subscribe is under way, in order.
    pub(super) waiting: WaitingRequests,
    /// A message that another thread reads.
    pub(super) offloaded: Option<Box<OffloadedMessage>>,
    /// Slot in the tenant's queue, held while received messages wait for its quantum.
    pub(super) ticket: Option<WorkTicket>,
    /// Slot in the tenant's queue, held while a large write waits for its quantum.
    pub(super) write_ticket: Option<WorkTicket>,
    /// Time at which the client's last byte was read.
    pub(super) last_read_at: Instant,
    /// Time at which a client that was pinged is disconnected, unless it sends something before.
    pub(super) given_up_at: Option<Instant>,
    /// Fingerprint of the key that verified its token.
    pub(super) key: Option<KeyFingerprint>,
    /// Time of day at which its token expires, since the Unix epoch.
    pub(super) expires_at: Option<Duration>,
}

impl OpenConnection {
    /// Returns true if work may be done for the client now. Otherwise the connection queues for
    /// its tenant's quantum.
    pub(super) fn may_work(&mut self) -> bool {
        self.hub.may_work(&mut self.ticket)
    }

    /// Returns true if a waiting request may be carried out now.
    pub(super) fn has_ready_request(&self) -> bool {
        !self.waiting.is_empty() && self.hub.is_live()
    }

    /// Returns true if nothing is read from the client: while an earlier request is unanswered,
    /// or until a Subscribe has read the log for the first time.
    pub(super) fn stops_reading(&self) -> bool {
        self.has_ready_request() || self.offloaded.is_some() || self.hub.stops_reading()
    }

    /// Returns true if a drain has to wait for a Subscribe, a catch-up or a message that another thread reads before
    /// the connection ends. Nothing delays the other endings.
    pub(super) fn must_finish_before(&self, ending: CloseReason) -> bool {
        let is_owed = !self.hub.is_live() || self.offloaded.is_some();
        is_owed && matches!(ending, CloseReason::Drain { .. })
    }
}
