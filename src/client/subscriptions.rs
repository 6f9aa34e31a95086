//! What a client asks its relay for: which topics, when, and again where it was
//! told to wait. Pure: it is given the time and the relay's answers.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    envelope::Control,
    group::{Gap, GroupId, portions},
    positions::Positions,
    received::Event,
    reconnect::RETRY_AFTER_MAX,
};
use crate::protocol::{ErrorCode, wire};

/// A relay lets so many Subscribes and Unsubscribes of a connection wait for a
/// replay.
const UNANSWERED_MAX: usize = 16;

/// Something to ask for. The words are found when it is sent: what was taken away
/// meanwhile is not asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Request {
    Subscribe(GroupId),
    Unsubscribe(Vec<String>),
}

/// Sent, and not answered.
#[derive(Debug)]
struct Asked {
    message_id: String,
    request: Request,
}

/// The topics of a client over all its connections.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    topics: HashSet<String>,
    positions: Positions,
    start: Option<wire::Position>,
    is_connected: bool,
    unsent: VecDeque<Request>,
    unanswered: Vec<Asked>,
    /// What the relay had no room for, and when to ask for it again: before all else.
    deferred: VecDeque<Request>,
    deferred_until: Option<Instant>,
}

impl Subscriptions {
    /// What has no position when the client next connects begins after this one.
    pub(super) fn start_from(&mut self, position: wire::Position) {
        self.start = Some(position);
    }

    pub(super) fn subscribe(&mut self, topics: Vec<String>) {
        let is_new = |topic: &String| self.topics.insert(topic.clone());
        let topics: Vec<_> = topics.into_iter().filter(is_new).collect();
        let groups = self.positions.add(topics);
        if self.is_connected {
            self.unsent
                .extend(groups.into_iter().map(Request::Subscribe));
        }
    }

    pub(super) fn unsubscribe(&mut self, topics: &[String]) {
        for topic in topics {
            self.topics.remove(topic);
        }
        self.positions.remove(topics);
        if self.is_connected {
            let portions = portions(topics.iter().cloned().collect()).into_iter();
            let requests = portions.map(|topics| Request::Unsubscribe(Vec::from_iter(topics)));
            self.unsent.extend(requests);
        }
    }

    pub(super) fn connected(&mut self) {
        if let Some(start) = self.start.take() {
            self.positions.start_from(&start);
        }
        self.is_connected = true;
        let groups = self.positions.begin();
        self.unsent = groups.into_iter().map(Request::Subscribe).collect();
    }

    pub(super) fn disconnected(&mut self) {
        self.positions.end();
        self.is_connected = false;
        self.unsent.clear();
        self.unanswered.clear();
        self.deferred.clear();
        self.deferred_until = None;
    }

    /// When there may be something to send that there is not now.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.deferred_until
    }

    /// The next thing to send; [`Self::sent`] is to be called with it.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Request, Control)> {
        let is_deferred = self.deferred_until.is_some_and(|until| now < until);
        if !is_deferred {
            self.deferred_until = None;
        }
        while self.unanswered.len() < UNANSWERED_MAX {
            // Which Subscribe resumes the implicit topics depends on whether the one that
            // is under way does. To give up topics is never too early: it may be what
            // makes room for others.
            let request = if is_deferred || self.positions.owes_implicit() {
                self.next_unsubscribe()
            } else {
                let deferred = self.deferred.pop_front();
                deferred.or_else(|| self.unsent.pop_front())
            }?;
            if let Some(control) = self.words(&request) {
                return Some((request, control));
            }
        }
        None
    }

    /// A request went out under this id.
    pub(super) fn sent(&mut self, message_id: String, request: Request) {
        self.unanswered.push(Asked {
            message_id,
            request,
        });
    }

    pub(super) fn confirmed(&mut self, confirmed: &wire::SubscriptionConfirmed) {
        if let Some(Asked {
            request: Request::Subscribe(group),
            ..
        }) = self.answered(&confirmed.request_message_id)
        {
            self.positions.confirmed(group, confirmed);
        }
    }

    pub(super) fn unsubscribed(&mut self, confirmed: &wire::UnsubscribeConfirmed) {
        self.answered(&confirmed.request_message_id);
        // What was refused for the number of topics may find room now.
        self.deferred_until = None;
    }

    pub(super) fn refused(&mut self, error: &wire::ErrorResponse, now: Instant) {
        let Some(asked) = self.answered(&error.request_message_id) else {
            return;
        };
        if let Some(delay) = delay(error) {
            let until = now + delay;
            self.deferred_until = self.deferred_until.max(Some(until));
            if let Request::Subscribe(group) = asked.request {
                self.positions.deferred(group);
            }
            self.deferred.push_back(asked.request);
        } else if let Request::Subscribe(group) = asked.request {
            let implicit = self.positions.refused(group);
            if let Some(group) = implicit {
                self.unsent.push_front(Request::Subscribe(group));
            }
        }
    }

    /// Takes an event, and says whether it is to be given to the caller.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        let position = event.position.as_ref();
        position.is_none_or(|position| self.positions.take(position))
    }

    /// Takes a Pong, which may say where the connection stands.
    pub(super) fn pong(&mut self, pong: &wire::Pong) {
        if let Some(position) = &pong.position {
            self.positions.stands_at(position);
        }
    }

    pub(super) fn next_gap(&mut self) -> Option<Gap> {
        self.positions.next_gap()
    }

    fn next_unsubscribe(&mut self) -> Option<Request> {
        let is_unsubscribe = |request: &Request| matches!(request, Request::Unsubscribe(_));
        let place = self.unsent.iter().position(is_unsubscribe)?;
        self.unsent.remove(place)
    }

    fn words(&mut self, request: &Request) -> Option<Control> {
        match request {
            Request::Subscribe(group) => {
                let (topics, resume_from) = self.positions.ask(*group)?;
                Some(Control::Subscribe(wire::Subscribe {
                    topics,
                    resume_from,
                }))
            }
            Request::Unsubscribe(topics) => {
                let is_unwanted = |topic: &&String| !self.topics.contains(*topic);
                let topics: Vec<_> = topics.iter().filter(is_unwanted).cloned().collect();
                (!topics.is_empty()).then_some(Control::Unsubscribe(wire::Unsubscribe { topics }))
            }
        }
    }

    fn answered(&mut self, message_id: &str) -> Option<Asked> {
        let mut unanswered = self.unanswered.iter();
        let place = unanswered.position(|asked| asked.message_id == message_id)?;
        Some(self.unanswered.remove(place))
    }
}

/// How long to wait before what was refused is asked for again, where that helps.
fn delay(error: &wire::ErrorResponse) -> Option<Duration> {
    let is_passing = error.error_code == ErrorCode::RateLimitExceeded.as_str();
    let millis = error.retry_after_ms.filter(|_| is_passing)?;
    Some(Duration::from_millis(millis).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
#[path = "subscriptions_tests.rs"]
mod tests;
