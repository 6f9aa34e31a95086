//! Subscribes that are not done at once: they wait for their tenant's deliveries, or the
//! connection is sent what it missed. And what its client asks for meanwhile.

use std::collections::VecDeque;

use super::conversation::{Action, TopicsRequest};
use crate::hub::CatchUp;

/// How many Subscribes and Unsubscribes of a connection may wait for others before them.
pub(super) const WAITING_MAX: usize = 16;

/// A Subscribe that is under way.
#[derive(Debug)]
pub(super) enum Subscribing {
    Awaiting(Awaiting),
    Behind(Behind),
}

impl Subscribing {
    /// Returns true if nothing is read from the client meanwhile: the Subscribe waits, or has
    /// not had its first turn to read the log.
    pub(super) fn stops_reading(&self) -> bool {
        match self {
            Self::Awaiting(_) => true,
            Self::Behind(behind) => !behind.catch_up.has_begun(),
        }
    }
}

/// What is under way for a connection that resumes.
#[derive(Debug)]
pub(super) struct Behind {
    pub(super) catch_up: CatchUp,
    /// The Subscribe, until it is confirmed.
    pub(super) request: Option<TopicsRequest>,
}

/// A Subscribe that is taken when the connection's shard has delivered what the tenant's
/// log had when it came.
#[derive(Debug)]
pub(super) struct Awaiting {
    pub(super) offset: u64,
    pub(super) request: TopicsRequest,
}

/// Subscribes and Unsubscribes that are carried out when those before them are, in order.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "each connection has room for this, and most never need it"
)]
pub(super) struct WaitingRequests(Option<Box<VecDeque<Action>>>);

impl WaitingRequests {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns true if one more may wait.
    pub(super) fn has_room(&self) -> bool {
        let waiting = self.0.as_ref();
        waiting.is_none_or(|waiting| waiting.len() < WAITING_MAX)
    }

    pub(super) fn push(&mut self, action: Action) {
        self.0.get_or_insert_default().push_back(action);
    }

    /// Takes out the one that has waited longest.
    pub(super) fn pop(&mut self) -> Option<Action> {
        let waiting = self.0.as_mut()?;
        let first = waiting.pop_front();
        if waiting.is_empty() {
            self.0 = None;
        }
        first
    }
}
