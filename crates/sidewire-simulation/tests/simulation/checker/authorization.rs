//! Checks that a Subscribe is granted, denied or left unanswered only for what a backend has
//! answered about its user, and that the backend is not asked twice at once.
//!
//! When the relay judges a Subscribe is not known from outside: after it was sent, and before its
//! answer was received.

use std::time::Duration;

use super::connection::ConnectionChecker;
use crate::{
    history::{History, QuestionAnswer, QuestionRecord, RightsCall, Timestamp},
    record::{RequestKind, SentRequest},
    topics::{TOPICS, TopicBits},
    world::SimulationSettings,
};

/// Unit in which the relay measures how long it keeps an answer.
const AGE_UNIT: Duration = Duration::from_millis(1);

/// A backend that needs longer than this may make others wait too long.
const PROMPT: Duration = Duration::from_millis(100);

impl ConnectionChecker<'_> {
    /// Checks that the backend has allowed each topic of a confirmed Subscribe, by an answer that
    /// could still be used.
    pub(super) fn check_is_allowed(
        &self,
        request: &SentRequest,
        topics: TopicBits,
        when: Timestamp,
        history: &History,
    ) {
        if !self.settings.asks_backend || topics.is_empty() {
            return;
        }
        let questions = history.questions.borrow();
        let its = || questions.iter().filter(|it| self.is_about_its_user(it));
        let allows = |question: &QuestionRecord, topic: TopicBits| {
            question.answer.as_ref().is_some_and(|answer| {
                answer.allowed.is_some_and(|allowed| allowed.meets(topic))
                    && may_be_known(answer, answer.ttl, request.sent, when)
                    && !self.is_outdated((question, answer), topic, request.sent, history)
            })
        };
        for index in topics.indices() {
            let topic = TopicBits::of(index);
            assert!(
                its().any(|question| allows(question, topic)),
                "{self}: no answer allows {} of {request:?}, confirmed at {when:?}: {:?}",
                TOPICS[index],
                its()
                    .filter(|it| it.topics.meets(topic))
                    .collect::<Vec<_>>()
            );
        }
        let is_new = |question: &QuestionRecord| {
            question.asked.moment > request.sent.moment && question.topics.meets(topics)
        };
        history.count(if its().any(is_new) {
            "a Subscribe that a backend allowed"
        } else {
            "a Subscribe that an earlier answer allowed"
        });
    }

    /// Returns true if a backend may have denied one of the topics of a Subscribe.
    pub(super) fn may_be_denied(
        &self,
        request: &SentRequest,
        topics: TopicBits,
        when: Timestamp,
        history: &History,
    ) -> bool {
        let age = self.settings.config.auth.subscribe.negative_ttl;
        let questions = history.questions.borrow();
        let mut its = questions.iter().filter(|it| self.is_about_its_user(it));
        its.any(|question| {
            question.answer.as_ref().is_some_and(|answer| {
                let allowed = answer.allowed.unwrap_or(question.topics);
                question.topics.less(allowed).meets(topics)
                    && may_be_known(answer, age, request.sent, when)
            })
        })
    }

    /// Checks that a Subscribe without an answer of the backend was asked about, and that the
    /// backend had failed before, or was slow.
    pub(super) fn check_is_unanswered(
        &self,
        request: &SentRequest,
        when: Timestamp,
        history: &History,
    ) {
        let RequestKind::Subscribe(asked) = &request.what else {
            panic!("{self}: {request:?} is refused with INTERNAL_ERROR");
        };
        let may_be_asked = asked.may_be_asked_for() && !asked.all().is_empty();
        let questions = history.questions.borrow();
        let fails = |question: &QuestionRecord| match &question.answer {
            _ if question.asked.moment > when.moment => false,
            Some(answer) if answer.allowed.is_some() => {
                answer.when.time > question.asked.time + PROMPT
            }
            Some(_) | None => true,
        };
        assert!(
            may_be_asked && questions.iter().any(fails),
            "{self}: nothing keeps {request:?} from being answered"
        );
        history.count("a Subscribe that no backend answered");
    }

    /// Notes that a newer token was taken while a backend may have been asked about a Subscribe.
    pub(super) fn note_questions_beside_token(&self, request: &SentRequest, history: &History) {
        let is_asked = |it: &SentRequest| {
            it.sent.moment < request.sent.moment
                && matches!(&it.what, RequestKind::Subscribe(asked) if asked.position.is_none())
        };
        if self.settings.asks_backend && self.unanswered().any(is_asked) {
            history.count("a newer token while a Subscribe waits for a backend");
        }
    }

    fn is_about_its_user(&self, question: &QuestionRecord) -> bool {
        (question.tenant, question.user) == (self.connection.tenant, self.connection.user)
    }

    /// Returns true if a backend took the topic away after it had judged the question, so early
    /// that the relay knew of it when the answer came, or when the Subscribe was sent.
    fn is_outdated(
        &self,
        (question, answer): (&QuestionRecord, &QuestionAnswer),
        topic: TopicBits,
        sent: Timestamp,
        history: &History,
    ) -> bool {
        let known_at = sent.moment.max(answer.when.moment);
        let calls = history.rights.borrow();
        let mut later = calls.iter().filter(|it| question.precedes(it, topic));
        later.any(|call| call.is_done_before(known_at))
    }
}

/// Returns true if the answer may be what a Subscribe was judged by: it came while the Subscribe
/// waited, or was kept for this time.
fn may_be_known(
    answer: &QuestionAnswer,
    age: Duration,
    sent: Timestamp,
    judged_before: Timestamp,
) -> bool {
    answer.when.moment < judged_before.moment
        && (answer.when.moment > sent.moment || answer.when.time + age + AGE_UNIT >= sent.time)
}

/// Panics if the relay has asked about the same topics of a user while it waited for an answer
/// about them.
pub(super) fn check_asked_once(history: &History, settings: &SimulationSettings) {
    let questions = history.questions.borrow();
    let calls = history.rights.borrow();
    // It may have waited for others for half of the timeout when the backend got it.
    let patience = settings.config.auth.subscribe.timeout / 2;
    for (number, first) in questions.iter().enumerate() {
        let is_equal = |other: &&QuestionRecord| {
            (other.tenant, other.user, other.topics) == (first.tenant, first.user, first.topics)
        };
        let over = first.answer.as_ref().map(|answer| answer.when);
        let is_open = |now: Timestamp| match over {
            Some(over) => now.moment < over.moment,
            None => now.time < first.asked.time + patience,
        };
        let mut later = questions[number + 1..].iter().filter(is_equal);
        let Some(again) = later.next().filter(|it| is_open(it.asked)) else {
            continue;
        };
        let is_cause = |call: &RightsCall| {
            (call.tenant, call.user) == (first.tenant, first.user)
                && call.sent.moment < again.asked.moment
                && !call.is_done_before(first.asked.moment)
        };
        assert!(
            calls.iter().any(is_cause),
            "{first:?} is asked again: {again:?}"
        );
    }
    for question in questions.iter() {
        let Some(answer) = &question.answer else {
            continue;
        };
        let mut later = calls
            .iter()
            .filter(|it| question.precedes(it, question.topics));
        if later.any(|call| call.is_done_before(answer.when.moment)) {
            history.count("an answer that is older than the end of a subscription");
        }
    }
}
