//! Subscribes that take time: they wait for their tenant's deliveries, or the connection catches
//! up. Also the requests that the client sends meanwhile.

use std::collections::VecDeque;

use super::conversation::{ConversationAction, TopicsRequest};
use crate::hub::CatchUp;

/// Maximum number of Subscribes and Unsubscribes of a connection that may wait for earlier ones.
pub(super) const WAITING_MAX: usize = 16;

/// A Subscribe that is under way.
#[derive(Debug)]
pub(super) enum PendingSubscribe {
    Awaiting(AwaitingHead),
    Behind(CatchingUp),
}

impl PendingSubscribe {
    /// Returns true if nothing is read from the client meanwhile: the Subscribe waits, or its
    /// catch-up has not read the log yet.
    pub(super) fn stops_reading(&self) -> bool {
        match self {
            Self::Awaiting(_) => true,
            Self::Behind(behind) => !behind.catch_up.has_started(),
        }
    }
}

/// The catch-up of a connection that resumes.
#[derive(Debug)]
pub(super) struct CatchingUp {
    pub(super) catch_up: CatchUp,
    /// The Subscribe, until it is confirmed.
    pub(super) request: Option<TopicsRequest>,
}

/// A Subscribe that takes effect when the connection's shard has delivered everything that the
/// tenant's log held when it came.
#[derive(Debug)]
pub(super) struct AwaitingHead {
    pub(super) offset: u64,
    pub(super) request: TopicsRequest,
}

/// Subscribes and Unsubscribes that wait for earlier ones, in order.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "every connection has this field, and most never use it"
)]
pub(super) struct WaitingRequests(Option<Box<VecDeque<ConversationAction>>>);

impl WaitingRequests {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns true if another request may wait.
    pub(super) fn has_room(&self) -> bool {
        let waiting = self.0.as_ref();
        waiting.is_none_or(|waiting| waiting.len() < WAITING_MAX)
    }

    pub(super) fn push(&mut self, action: ConversationAction) {
        self.0.get_or_insert_default().push_back(action);
    }

    /// Removes the request that has waited longest.
    pub(super) fn pop(&mut self) -> Option<ConversationAction> {
        let waiting = self.0.as_mut()?;
        let first = waiting.pop_front();
        if waiting.is_empty() {
            self.0 = None;
        }
        first
    }
}
