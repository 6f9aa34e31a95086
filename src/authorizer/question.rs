//! A question to the backend about topics, from the moment it is asked to the answer.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use sidewire_protocol::{TenantName, Topic, topic::TopicSet};
use tokio::time::Instant;

use super::{
    AuthorizerShared,
    answer::{SubscribeAnswer, question_json},
    key::TopicKey,
};
use crate::{
    backend::{AskError, InvalidAnswer, Question},
    limits::UserKey,
    memory::MemoryReservation,
    planted::fault,
};

/// Number of answers that are remembered under one lock, since shards wait for it.
const ANSWERS_PER_LOCK: usize = 64;

/// The result of a question, for those who wait: the topics that are not allowed, or a failure.
pub(super) type AnswerResult = Result<Arc<TopicSet>, super::NoAnswer>;

/// A question that waits or is under way. When it is dropped, those who wait learn of it.
pub(super) struct SubscribeQuestion {
    pub(super) shared: Arc<AuthorizerShared>,
    /// Its number among all questions.
    pub(super) number: u64,
    pub(super) who: UserKey,
    pub(super) topics: Vec<Topic>,
    /// Number of revocations before it was asked.
    pub(super) since: u64,
    pub(super) _memory: MemoryReservation,
}

impl Question for SubscribeQuestion {
    fn tenant(&self) -> &TenantName {
        &self.who.tenant
    }

    fn is_wanted(&self) -> bool {
        let state = self.shared.lock();
        let question = state.questions.get(&self.number);
        question.is_some_and(|question| question.waiters.iter().any(|it| !it.is_closed()))
    }

    fn to_json(&self) -> Vec<u8> {
        question_json(&self.who, &self.topics)
    }

    fn answered(self: Box<Self>, answer: Result<Bytes, AskError>) -> Result<(), InvalidAnswer> {
        let json = match answer {
            Ok(json) => json,
            Err(failure) => {
                self.tell_waiters(&Err((&failure).into()));
                return Ok(());
            }
        };
        // Without an answer that can be used, those who wait are told by `drop`.
        let answer = SubscribeAnswer::read(&json, &self.topics)?;
        self.remember(&answer);
        self.tell_waiters(&Ok(Arc::new(answer.denied)));
        Ok(())
    }
}

impl SubscribeQuestion {
    /// Remembers the answer, less what has been revoked since the question.
    fn remember(&self, answer: &SubscribeAnswer) {
        let keys = self.shared.user_keys(&self.who);
        for topics in self.topics.chunks(ANSWERS_PER_LOCK) {
            let topics = topics.iter().map(|topic| {
                let is_allowed =
                    !answer.denied.contains(topic) || fault!(RemembersDenialsAsAllowed);
                (keys.topic(topic), keys.kind(topic), is_allowed)
            });
            self.remember_some(&topics.collect::<Vec<_>>(), answer);
        }
    }

    fn remember_some(&self, topics: &[(TopicKey, TopicKey, bool)], answer: &SubscribeAnswer) {
        let now = Instant::now();
        let mut state = self.shared.lock();
        let state = &mut *state;
        let (ttl, negative_ttl) = (
            answer.ttl.unwrap_or(state.settings.ttl),
            state.settings.negative_ttl,
        );
        let revoked = state.revocations.newer_than(self.since);
        let mut evicted = 0;
        for (topic, kind, is_allowed) in topics.iter().copied() {
            let age = if is_allowed { ttl } else { negative_ttl };
            if age.is_zero() || revoked.touches(topic, kind) {
                continue;
            }
            let max = state.settings.entries;
            evicted += state.cache.insert(topic, kind, is_allowed, age, max, now);
        }
        self.shared.metrics.set_kept(state.cache.len());
        self.shared.metrics.count_evicted(evicted);
    }

    fn tell_waiters(&self, result: &AnswerResult) {
        let question = self.shared.lock().remove_question(self.number);
        for waiter in question.into_iter().flat_map(|question| question.waiters) {
            // It may have left.
            drop(waiter.send(result.clone()));
        }
    }
}

impl Drop for SubscribeQuestion {
    fn drop(&mut self) {
        // Those who still wait see that nobody will answer.
        let question = self.shared.lock().remove_question(self.number);
        drop(question);
    }
}

impl AuthorizerShared {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, super::AuthorizerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
