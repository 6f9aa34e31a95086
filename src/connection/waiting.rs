//! The requests that a client sends while an earlier Subscribe is under way.

use std::collections::VecDeque;

use super::conversation::ClientRequest;

/// Maximum number of Subscribes and Unsubscribes of a connection that may wait for earlier ones.
pub(super) const WAITING_MAX: usize = 16;

/// Subscribes and Unsubscribes that wait for earlier ones, in order.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "every connection has this field, and most never use it"
)]
pub(super) struct WaitingRequests(Option<Box<VecDeque<ClientRequest>>>);

impl WaitingRequests {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns true if another request may wait.
    pub(super) fn has_room(&self) -> bool {
        let waiting = self.0.as_ref();
        waiting.is_none_or(|waiting| waiting.len() < WAITING_MAX)
    }

    pub(super) fn push(&mut self, request: ClientRequest) {
        self.0.get_or_insert_default().push_back(request);
    }

    /// Puts back a request that is carried out in part.
    pub(super) fn push_front(&mut self, request: ClientRequest) {
        self.0.get_or_insert_default().push_front(request);
    }

    /// Removes the request that has waited longest.
    pub(super) fn pop(&mut self) -> Option<ClientRequest> {
        let waiting = self.0.as_mut()?;
        let first = waiting.pop_front();
        if waiting.is_empty() {
            self.0 = None;
        }
        first
    }
}
