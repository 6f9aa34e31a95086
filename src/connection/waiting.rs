//! The messages of a client that wait while an earlier Subscribe is under way.

use std::collections::VecDeque;

use super::conversation::{ClientRequest, ConversationAction};
use crate::hub::BegunMessageMemory;

/// Maximum number of messages of a connection that may wait for earlier ones.
pub(super) const WAITING_MAX: usize = 16;

/// Messages that wait for earlier ones, in order.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "every connection has this field, and most never use it"
)]
pub(super) struct WaitingMessages(Option<Box<VecDeque<WaitingMessage>>>);

/// A message that waits.
#[derive(Debug)]
pub(super) struct WaitingMessage {
    /// What it requires.
    pub(super) action: ConversationAction,
    _memory: Option<BegunMessageMemory>,
}

impl From<ClientRequest> for WaitingMessage {
    fn from(request: ClientRequest) -> Self {
        Self::new(ConversationAction::Request(request), None)
    }
}

impl WaitingMessage {
    /// Creates a message that holds this memory while it waits.
    pub(super) fn new(action: ConversationAction, memory: Option<BegunMessageMemory>) -> Self {
        Self {
            action,
            _memory: memory,
        }
    }

    /// Returns true if it is a Subscribe or Unsubscribe, which also wait for a replay.
    fn is_request(&self) -> bool {
        matches!(self.action, ConversationAction::Request(_))
    }
}

impl WaitingMessages {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns true if another message may wait.
    pub(super) fn has_room(&self) -> bool {
        let waiting = self.0.as_ref();
        waiting.is_none_or(|waiting| waiting.len() < WAITING_MAX)
    }

    /// Returns true if something else than a request waits, which those that come after it must
    /// not overtake.
    pub(super) fn has_others(&self) -> bool {
        let mut waiting = self.0.iter().flat_map(|waiting| waiting.iter());
        waiting.any(|message| !message.is_request())
    }

    /// Returns true if the first message is a request, false if it is another one, and `None` if
    /// none waits.
    pub(super) fn is_first_request(&self) -> Option<bool> {
        Some(self.0.as_ref()?.front()?.is_request())
    }

    pub(super) fn push(&mut self, message: WaitingMessage) {
        self.0.get_or_insert_default().push_back(message);
    }

    /// Puts back a request that is carried out in part or not yet.
    pub(super) fn push_front(&mut self, request: ClientRequest) {
        self.0.get_or_insert_default().push_front(request.into());
    }

    /// Removes the message that has waited longest.
    pub(super) fn pop(&mut self) -> Option<WaitingMessage> {
        let waiting = self.0.as_mut()?;
        let first = waiting.pop_front();
        if waiting.is_empty() {
            self.0 = None;
        }
        first
    }
}
