//! The state of a connection whose conversation is open.

use std::time::Duration;

use sidewire_protocol::{Position, close::CloseReason, reply::Reply};
use tokio::time::Instant;

use super::{
    authorization::OpenQuestion, offloaded::OffloadedMessage, token_renewal::TokenRenewal,
};
use crate::{
    auth::{Grant, KeyFingerprint},
    connection::{
        conversation::{ConversationAction, TopicsAnswer},
        pace::MessageBudget,
        waiting::WaitingMessages,
    },
    hub::HubConnection,
    scheduler::WorkTicket,
};

/// The state of an open connection. It is dropped as soon as the connection begins to close, so
/// that nothing more is queued for it.
pub(super) struct OpenConnection {
    pub(super) hub: HubConnection,
    pub(super) grant: Grant,
    pub(super) pace: MessageBudget,
    /// The Subscribe that is under way, until it is answered.
    pub(super) unanswered: Option<Box<UnansweredSubscribe>>,
    /// Messages that wait until no Subscribe is under way, in order.
    pub(super) waiting: WaitingMessages,
    /// A message that another thread reads.
    pub(super) offloaded: Option<Box<OffloadedMessage>>,
    /// A new token of which the key is being fetched.
    pub(super) renewal: Option<Box<TokenRenewal>>,
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

/// A Subscribe that is under way.
pub(super) enum UnansweredSubscribe {
    /// The backend is being asked about it.
    Question(OpenQuestion),
    /// The hub carries it out. This is what the answer needs.
    Requested(TopicsAnswer),
}

impl OpenConnection {
    /// Returns true if work may be done for the client now. Otherwise the connection queues for
    /// its tenant's quantum.
    pub(super) fn may_work(&mut self) -> bool {
        self.hub.may_work(&mut self.ticket)
    }

    /// Returns true if a waiting message may be carried out now, or the Subscribe of which the
    /// answer has come.
    pub(super) fn has_ready_request(&self) -> bool {
        if let Some(question) = self.question() {
            // A revocation may have made the connection catch up.
            return question.is_answered() && self.hub.is_live();
        }
        // Of the messages, one may be read by another thread, and nothing may overtake it.
        match self.waiting.is_first_request() {
            Some(is_request) => self.offloaded.is_none() && (!is_request || self.hub.is_live()),
            None => false,
        }
    }

    /// Returns true if the message must wait for earlier ones.
    pub(super) fn must_wait(&self, action: &ConversationAction) -> bool {
        match action {
            // They are answered at once.
            ConversationAction::RenewToken(_) | ConversationAction::Reply(Reply::Pong(_)) => false,
            _ if self.holds_everything() => true,
            ConversationAction::Request(_) => !(self.hub.is_live() && self.waiting.is_empty()),
            _ => false,
        }
    }

    /// Returns true if not only requests have to wait: behind a Subscribe about which the backend
    /// is being asked, and behind messages that have waited for that.
    pub(super) fn holds_everything(&self) -> bool {
        self.question().is_some() || self.waiting.has_others()
    }

    /// Returns the position of the connection, which is not settled while a Subscribe is under
    /// way.
    pub(super) fn position(&self) -> Option<Position> {
        match self.question() {
            Some(_) => None,
            None => self.hub.position(),
        }
    }

    /// Returns true if nothing is read from the client: while an earlier request is unanswered,
    /// or until a Subscribe has read the log for the first time.
    pub(super) fn stops_reading(&self) -> bool {
        self.has_ready_request() || self.offloaded.is_some() || self.hub.stops_reading()
    }

    /// Returns true if a drain has to wait for a Subscribe, a catch-up or a message that another thread
    /// reads before the connection ends. Nothing delays the other endings.
    pub(super) fn must_finish_before(&self, ending: CloseReason) -> bool {
        let is_owed = !self.hub.is_live() || self.question().is_some() || self.offloaded.is_some();
        is_owed && matches!(ending, CloseReason::Drain { .. })
    }
}
