//! A connection that is being sent what it missed, or that waits for its tenant's turn,
//! and what its client asks for meanwhile.

use std::collections::VecDeque;

use super::conversation::{Action, TopicsRequest};
use crate::hub::CatchUp;

/// How many Subscribes and Unsubscribes may wait for a replay to be over.
pub(super) const WAITING_MAX: usize = 16;

/// What is under way for a connection that resumes.
#[derive(Debug)]
pub(super) struct Behind {
    pub(super) catch_up: CatchUp,
    /// The Subscribe, until it is confirmed.
    pub(super) request: Option<TopicsRequest>,
    /// Requests that are taken when the connection is live again, in order.
    pub(super) waiting: VecDeque<Action>,
}

impl Behind {
    pub(super) fn new(catch_up: CatchUp, request: TopicsRequest) -> Box<Self> {
        Box::new(Self {
            catch_up,
            request: Some(request),
            waiting: VecDeque::new(),
        })
    }

    /// Returns true if it has had a turn to read the log.
    pub(super) fn has_begun(&self) -> bool {
        self.catch_up.has_begun()
    }

    /// Whether one more request may wait.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }
}

/// A Subscribe that is taken when the connection's shard has delivered what the tenant's
/// log had when it came. Until then nothing more is read from the client.
#[derive(Debug)]
pub(super) struct Awaiting {
    pub(super) offset: u64,
    pub(super) request: TopicsRequest,
    /// Requests that waited for a replay to be over and come after it, in order.
    pub(super) rest: VecDeque<Action>,
}
