//! Checks the answers to backends against the calls and the received events.

use std::collections::{BTreeMap, BTreeSet};

use super::{ReceivedEvents, conditions, logs::ModelLogs};
use crate::{
    events::{Serial, SimulatedEvent},
    history::{History, PostAnswer, PostRecord, PostResult},
    messages::EventPlace,
    record::FrameContent,
};

pub(super) fn check(history: &History, logs: &ModelLogs, received: &ReceivedEvents) {
    let mut answered = AnswerChecker::default();
    for post in history.posts.borrow().iter() {
        if let Some(answer) = &post.answer {
            answered.record_answer(post, answer, history, logs);
            conditions::check_held(post, answer, logs, history);
            for placed in &answer.results {
                check_matched(history, post, answer, placed, received);
            }
        }
    }
    answered.check_ids(history);
    answered.check_refused_ones_were_not_heard(history);
}

/// An event's serial, its position, and true if it was reported as a duplicate.
type KnownEvent = (Serial, EventPlace, bool);

#[derive(Default)]
struct AnswerChecker {
    places: BTreeMap<(usize, EventPlace), Serial>,
    /// Events by tenant and message id, if the backend set one.
    ids: BTreeMap<(usize, String), Vec<KnownEvent>>,
    refused: BTreeSet<Serial>,
    accepted: BTreeSet<Serial>,
}

impl AnswerChecker {
    fn record_answer(
        &mut self,
        post: &PostRecord,
        answer: &PostAnswer,
        history: &History,
        logs: &ModelLogs,
    ) {
        let events = history.events.borrow();
        match answer.status {
            200 | 202 => {
                assert_eq!(answer.results.len(), post.events.len());
                for (serial, placed) in post.events.iter().zip(&answer.results) {
                    self.record_accepted(&events[*serial], placed);
                    if placed.is_duplicate {
                        history.count("duplicate");
                    }
                    assert_eq!(placed.matched.is_some(), answer.status == 200);
                }
                check_is_contiguous(&answer.results);
            }
            409 => {
                assert_eq!(answer.code, "CONFLICT");
                history.count(if is_conflict(post, answer, history) {
                    "conflict"
                } else {
                    "a precondition that did not hold"
                });
                assert!(
                    is_conflict(post, answer, history)
                        || conditions::may_not_have_held(post, answer, logs),
                    "{post:?} is no conflict"
                );
                self.refused.extend(&post.events);
            }
            503 => {
                assert!(["RATE_LIMIT_EXCEEDED", "INTERNAL_ERROR"].contains(&&*answer.code));
                self.refused.extend(&post.events);
            }
            other => panic!("a post is answered with {other}: {}", answer.code),
        }
    }

    fn record_accepted(&mut self, event: &SimulatedEvent, placed: &PostResult) {
        let id = &event.envelope.message_id;
        assert!(id.is_empty() || *id == placed.message_id, "{placed:?}");
        assert!(!placed.message_id.is_empty());
        assert_eq!(placed.topics, event.topics, "{event:?}");
        self.accepted.insert(event.serial);
        if !id.is_empty() {
            let same_id = self.ids.entry((event.tenant, id.clone())).or_default();
            same_id.push((event.serial, placed.place, placed.is_duplicate));
        }
        if placed.is_duplicate {
            assert!(
                !id.is_empty() && placed.matched.is_none_or(|it| it == 0),
                "{placed:?}"
            );
            return;
        }
        let place = (event.tenant, placed.place);
        let other = self.places.insert(place, event.serial);
        assert!(other.is_none(), "two events at {placed:?}");
    }

    /// Checks that all answers for a message id name the same event and position, and that exactly
    /// one of them reports it as new, or none if that answer was lost.
    fn check_ids(&self, history: &History) {
        let events = history.events.borrow();
        let posts = history.posts.borrow();
        let lost = posts.iter().filter(|post| post.answer.is_none());
        let lost: BTreeSet<_> = lost.flat_map(|post| post.events.iter().copied()).collect();
        for ((tenant, id), answers) in &self.ids {
            let (serial, place, _) = answers[0];
            for (other, other_place, _) in answers {
                assert_eq!((serial, place), (*other, *other_place), "{tenant} {id}");
            }
            let new = answers
                .iter()
                .filter(|(_, _, duplicate)| !duplicate)
                .count();
            let is_lost = lost.contains(&serial);
            assert!(
                new == 1 || new == 0 && is_lost,
                "{:?}: {answers:?}",
                events[serial]
            );
        }
    }

    fn check_refused_ones_were_not_heard(&self, history: &History) {
        let posts = history.posts.borrow();
        let lost = posts.iter().filter(|post| post.answer.is_none());
        let lost: BTreeSet<_> = lost.flat_map(|post| post.events.iter().copied()).collect();
        let check = |serial: Serial| {
            let is_refused = self.refused.contains(&serial)
                && !self.accepted.contains(&serial)
                && !lost.contains(&serial);
            assert!(!is_refused, "event {serial} is delivered though refused");
        };
        for connection in history.connections.borrow().iter() {
            for heard in &connection.heard {
                if let FrameContent::Event { serial, .. } = heard.what {
                    check(serial);
                }
            }
        }
        let responses = history.responses.borrow();
        let received = responses.iter().flat_map(|it| &it.events);
        received.for_each(|event| check(event.serial));
    }
}

/// Returns true if another event has one of the message ids, in an earlier call or in this one.
fn is_conflict(post: &PostRecord, answer: &PostAnswer, history: &History) -> bool {
    let (events, posts) = (history.events.borrow(), history.posts.borrow());
    let has_another = |serial: &Serial| {
        let event = &events[*serial];
        let is_other = |other: &Serial| {
            let other = &events[*other];
            other.serial != event.serial
                && other.tenant == event.tenant
                && other.envelope.message_id == event.envelope.message_id
        };
        let before = posts
            .iter()
            .filter(|it| it.sent.moment < answer.when.moment);
        !event.envelope.message_id.is_empty() && before.flat_map(|it| &it.events).any(is_other)
    };
    post.events.iter().any(has_another)
}

/// Checks that the new events of a call have consecutive offsets.
fn check_is_contiguous(results: &[PostResult]) {
    let new: Vec<_> = results.iter().filter(|it| !it.is_duplicate).collect();
    for pair in new.windows(2) {
        assert_eq!(
            pair[0].place.offset + 1,
            pair[1].place.offset,
            "{results:?}"
        );
    }
}

/// Checks that `matched` lies between the number of connections that received the event and the
/// number of those that could have.
fn check_matched(
    history: &History,
    post: &PostRecord,
    answer: &PostAnswer,
    placed: &PostResult,
    received: &ReceivedEvents,
) {
    let Some(matched) = placed.matched.filter(|_| !placed.is_duplicate) else {
        return;
    };
    let got = received.live.get(&(post.tenant, placed.place));
    let got = got.copied().unwrap_or_default();
    assert!(got <= matched, "{got} got it: {placed:?}");
    let connections = history.connections.borrow();
    let possible = connections.iter().filter(|it| {
        it.tenant == post.tenant
            && it.asked.moment < answer.when.moment
            && it.possible_topics().meets(placed.topics.with_wildcards())
            && it
                .end
                .is_none_or(|(end, _)| end.time + GONE_AFTER > post.sent.time)
    });
    let responses = history.responses.borrow();
    let responses = responses.iter().filter(|it| {
        it.may_be_open(post.tenant, post.sent, answer.when)
            && it.topics.meets(placed.topics.with_wildcards())
    });
    let possible = (possible.count() + responses.count()) as u64;
    assert!(matched <= possible, "{possible} could get it: {placed:?}");
}

/// Time after which the relay has noticed that a client is gone, at the latest.
pub(super) const GONE_AFTER: std::time::Duration = std::time::Duration::from_secs(20);
