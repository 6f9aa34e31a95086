//! The requests of a client: which topics to subscribe and unsubscribe, when to send
//! them, and when to retry. Does no I/O: the caller passes in the time and the answers.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use sidewire_protocol::wire;
use tokio::time::Instant;

use super::{
    ControlMessage,
    group::{EventGap, GroupId, split_topics},
    positions::ResumePositions,
    received::ReceivedEvent,
    reconnect::RETRY_AFTER_MAX,
};

/// The most unanswered Subscribes and Unsubscribes: the relay queues this many per
/// connection during a replay.
const UNANSWERED_MAX: usize = 16;

/// The shortest delay before a refused request is sent again, whatever the relay says.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(100);

/// A request. Its topics are determined when it is sent, so that topics removed in the
/// meantime are left out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SubscriptionRequest {
    Subscribe(GroupId),
    Unsubscribe(Vec<String>),
}

/// A request that was sent and not answered yet.
#[derive(Debug)]
struct PendingRequest {
    message_id: String,
    request: SubscriptionRequest,
}

/// The topics of a client over all its connections.
#[derive(Debug, Default)]
pub(super) struct ClientSubscriptions {
    topics: HashSet<String>,
    positions: ResumePositions,
    start: Option<wire::Position>,
    is_connected: bool,
    unsent: VecDeque<SubscriptionRequest>,
    unanswered: Vec<PendingRequest>,
    /// Requests refused with `retry_after_ms`; they are sent again before all others.
    deferred: VecDeque<SubscriptionRequest>,
    deferred_until: Option<Instant>,
}

impl ClientSubscriptions {
    /// Sets the position after which topics without one start on the next connection.
    pub(super) fn start_from(&mut self, position: wire::Position) {
        self.start = Some(position);
    }

    pub(super) fn subscribe(&mut self, topics: Vec<String>) {
        let is_new = |topic: &String| self.topics.insert(topic.clone());
        let topics: Vec<_> = topics.into_iter().filter(is_new).collect();
        let groups = self.positions.add_topics(topics);
        if self.is_connected {
            self.unsent
                .extend(groups.into_iter().map(SubscriptionRequest::Subscribe));
        }
    }

    pub(super) fn unsubscribe(&mut self, topics: &[String]) {
        for topic in topics {
            self.topics.remove(topic);
        }
        self.positions.remove_topics(topics);
        if self.is_connected {
            let portions = split_topics(topics.iter().cloned().collect()).into_iter();
            let requests =
                portions.map(|topics| SubscriptionRequest::Unsubscribe(Vec::from_iter(topics)));
            self.unsent.extend(requests);
        }
    }

    pub(super) fn on_connected(&mut self) {
        if let Some(start) = self.start.take() {
            self.positions.start_from(&start);
        }
        self.is_connected = true;
        let groups = self.positions.start_connection();
        self.unsent = groups
            .into_iter()
            .map(SubscriptionRequest::Subscribe)
            .collect();
    }

    pub(super) fn on_disconnected(&mut self) {
        self.positions.end_connection();
        self.is_connected = false;
        self.unsent.clear();
        self.unanswered.clear();
        self.deferred.clear();
        self.deferred_until = None;
    }

    /// Returns true if every topic is subscribed on this connection, or was refused.
    pub(super) fn is_settled(&self) -> bool {
        self.is_connected
            && self.unsent.is_empty()
            && self.unanswered.is_empty()
            && self.deferred.is_empty()
    }

    /// Returns the time at which deferred requests may be sent.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.deferred_until
    }

    /// Returns the next request to send. The caller must then call [`Self::on_sent`].
    pub(super) fn next_request(
        &mut self,
        now: Instant,
    ) -> Option<(SubscriptionRequest, ControlMessage)> {
        let is_deferred = self.deferred_until.is_some_and(|until| now < until);
        if !is_deferred {
            self.deferred_until = None;
        }
        while self.unanswered.len() < UNANSWERED_MAX {
            // Which Subscribe resumes the implicit topics depends on the answer to the one
            // under way, so Subscribes wait. An Unsubscribe need not: it may make room for
            // other topics.
            let request = if is_deferred || self.positions.awaits_implicit() {
                self.next_unsubscribe()
            } else {
                let deferred = self.deferred.pop_front();
                deferred.or_else(|| self.unsent.pop_front())
            }?;
            if let Some(control) = self.control_for(&request) {
                return Some((request, control));
            }
        }
        None
    }

    /// Records that a request was sent with this message id.
    pub(super) fn on_sent(&mut self, message_id: String, request: SubscriptionRequest) {
        self.unanswered.push(PendingRequest {
            message_id,
            request,
        });
    }

    pub(super) fn on_confirmed(&mut self, confirmed: &wire::SubscriptionConfirmed) {
        if let Some(PendingRequest {
            request: SubscriptionRequest::Subscribe(group),
            ..
        }) = self.take_answered(&confirmed.request_message_id)
        {
            self.positions.on_confirmed(group, confirmed);
        }
    }

    pub(super) fn on_unsubscribed(&mut self, confirmed: &wire::UnsubscribeConfirmed) {
        self.take_answered(&confirmed.request_message_id);
        // A Subscribe that was refused for its number of topics may be accepted now.
        self.deferred_until = None;
    }

    /// Records that the relay ended subscriptions. Topics for which a Subscribe is under way stay:
    /// its answer is about a later time.
    pub(super) fn on_revoked(&mut self, topics: &[String]) {
        let ended = self.positions.remove_confirmed(topics);
        for topic in ended {
            self.topics.remove(&topic);
        }
    }

    pub(super) fn on_refused(&mut self, error: &wire::ErrorResponse, now: Instant) {
        let Some(asked) = self.take_answered(&error.request_message_id) else {
            return;
        };
        if let Some(delay) = retry_delay(error) {
            let until = now + delay;
            self.deferred_until = self.deferred_until.max(Some(until));
            if let SubscriptionRequest::Subscribe(group) = asked.request {
                self.positions.on_deferred(group);
            }
            self.deferred.push_back(asked.request);
        } else if let SubscriptionRequest::Subscribe(group) = asked.request {
            let implicit = self.positions.on_refused(group);
            if let Some(group) = implicit {
                self.unsent
                    .push_front(SubscriptionRequest::Subscribe(group));
            }
        }
    }

    /// Records an event. Returns true if it must be passed on to the application.
    pub(super) fn accept_event(&mut self, event: &ReceivedEvent) -> bool {
        let position = event.position.as_ref();
        position.is_none_or(|position| self.positions.accept_event(position))
    }

    /// Records the position of a Pong, if it has one.
    pub(super) fn on_pong(&mut self, pong: &wire::Pong) {
        if let Some(position) = &pong.position {
            self.positions.advance_live(position);
        }
    }

    pub(super) fn next_gap(&mut self) -> Option<EventGap> {
        self.positions.next_gap()
    }

    fn next_unsubscribe(&mut self) -> Option<SubscriptionRequest> {
        let is_unsubscribe =
            |request: &SubscriptionRequest| matches!(request, SubscriptionRequest::Unsubscribe(_));
        let place = self.unsent.iter().position(is_unsubscribe)?;
        self.unsent.remove(place)
    }

    fn control_for(&mut self, request: &SubscriptionRequest) -> Option<ControlMessage> {
        match request {
            SubscriptionRequest::Subscribe(group) => {
                let (topics, resume_from) = self.positions.prepare_subscribe(*group)?;
                Some(ControlMessage::Subscribe(wire::Subscribe {
                    topics,
                    resume_from,
                }))
            }
            SubscriptionRequest::Unsubscribe(topics) => {
                let is_unwanted = |topic: &&String| !self.topics.contains(*topic);
                let topics: Vec<_> = topics.iter().filter(is_unwanted).cloned().collect();
                (!topics.is_empty())
                    .then_some(ControlMessage::Unsubscribe(wire::Unsubscribe { topics }))
            }
        }
    }

    fn take_answered(&mut self, message_id: &str) -> Option<PendingRequest> {
        let mut unanswered = self.unanswered.iter();
        let place = unanswered.position(|asked| asked.message_id == message_id)?;
        Some(self.unanswered.remove(place))
    }
}

/// Returns the delay before a refused request is sent again; `None` if that cannot help.
fn retry_delay(error: &wire::ErrorResponse) -> Option<Duration> {
    let delay = Duration::from_millis(error.retry_after_ms?);
    Some(delay.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests;
