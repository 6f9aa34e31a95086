//! What backends were answered, held against what was posted and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use super::Received;
use crate::simulation::{
    events::{Event, Serial},
    history::{Answer, History, Placed, Post, Said},
    messages::Place,
};

pub(super) fn check(history: &History, received: &Received) {
    let events = history.events.borrow();
    let mut answered = Answered::default();
    for post in history.posts.borrow().iter() {
        if let Some(answer) = &post.answer {
            answered.take(post, answer, &events);
            for placed in &answer.results {
                check_matched(history, post, answer, placed, received);
            }
        }
    }
    answered.check_refused_ones_were_not_heard(history);
}

#[derive(Default)]
struct Answered {
    places: BTreeMap<(usize, Place), Serial>,
    refused: BTreeSet<Serial>,
    accepted: BTreeSet<Serial>,
}

impl Answered {
    fn take(&mut self, post: &Post, answer: &Answer, events: &[Event]) {
        match answer.status {
            200 | 202 => {
                assert_eq!(answer.results.len(), post.events.len());
                for (serial, placed) in post.events.iter().zip(&answer.results) {
                    self.accept(&events[*serial], placed);
                    assert_eq!(placed.matched.is_some(), answer.status == 200);
                }
                check_stands_together(&answer.results);
            }
            503 => {
                assert!(["RATE_LIMIT_EXCEEDED", "INTERNAL_ERROR"].contains(&&*answer.code));
                self.refused.extend(&post.events);
            }
            other => panic!("a post is answered with {other}: {}", answer.code),
        }
    }

    fn accept(&mut self, event: &Event, placed: &Placed) {
        let id = &event.envelope.message_id;
        assert!(id.is_empty() || *id == placed.message_id, "{placed:?}");
        assert!(!placed.message_id.is_empty());
        assert_eq!(placed.topics, event.topics, "{event:?}");
        assert!(!placed.is_duplicate, "{event:?}: {placed:?}");
        let place = (event.tenant, placed.place);
        let other = self.places.insert(place, event.serial);
        assert!(other.is_none(), "two events at {placed:?}");
        self.accepted.insert(event.serial);
    }

    fn check_refused_ones_were_not_heard(&self, history: &History) {
        for connection in history.connections.borrow().iter() {
            for heard in &connection.heard {
                if let Said::Event { serial, .. } = heard.what {
                    let is_refused =
                        self.refused.contains(&serial) && !self.accepted.contains(&serial);
                    assert!(!is_refused, "event {serial} is delivered though refused");
                }
            }
        }
    }
}

/// The events of a call stand next to each other.
fn check_stands_together(results: &[Placed]) {
    for pair in results.windows(2) {
        assert_eq!(
            pair[0].place.offset + 1,
            pair[1].place.offset,
            "{results:?}"
        );
    }
}

/// `matched` is not less than the connections that got the event, and not more than
/// those that could.
fn check_matched(
    history: &History,
    post: &Post,
    answer: &Answer,
    placed: &Placed,
    received: &Received,
) {
    let Some(matched) = placed.matched else {
        return;
    };
    let got = received.live.get(&(post.tenant, placed.place));
    let got = got.copied().unwrap_or_default();
    assert!(got <= matched, "{got} got it: {placed:?}");
    let connections = history.connections.borrow();
    let possible = connections.iter().filter(|it| {
        it.tenant == post.tenant
            && it.asked.moment < answer.when.moment
            && it.may_have_had().meets(placed.topics)
            && it
                .end
                .is_none_or(|(end, _)| end.time + GONE_AFTER > post.sent.time)
    });
    let possible = possible.count() as u64;
    assert!(matched <= possible, "{possible} could get it: {placed:?}");
}

/// So long after a client has gone the relay knows it at the latest.
const GONE_AFTER: std::time::Duration = std::time::Duration::from_secs(20);
