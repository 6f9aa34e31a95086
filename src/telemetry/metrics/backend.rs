//! The metrics of a backend that is asked.

use std::time::Duration;

use metrics::{Counter, Gauge};

use super::{
    histograms::append_histogram,
    labels::{AnswerSource, AuthorizationResult, BackendResult},
    register::{CounterFamily, SeriesRegistry},
};
use crate::tally::DurationHistogram;

const DURATION: &str = "sidewire_backend_question_seconds";
const DURATION_HELP: &str =
    "Time from sending a question to the backend to its answer or its failure, in seconds.";

/// The metrics of the questions of one kind.
pub struct BackendMetrics {
    results: CounterFamily<BackendResult>,
    waiting: Gauge,
    under_way: Gauge,
    breaker_open: Gauge,
    /// Recorded by the one task that sends the questions.
    durations: DurationHistogram,
}

impl BackendMetrics {
    pub(super) fn register(register: &SeriesRegistry<'_>) -> Self {
        let gauge = |name, help| register.gauge(name, help, &[]);
        Self {
            results: register.family(
                "sidewire_backend_questions_total",
                "Questions to the backend about subscriptions, by result: answered, or the reason why not; too_many, too many waited for others; not_asked, it did not answer earlier questions.",
                "result",
            ),
            waiting: gauge(
                "sidewire_backend_questions_waiting",
                "Questions to the backend that wait until others are answered.",
            ),
            under_way: gauge(
                "sidewire_backend_questions_under_way",
                "Questions that have been sent to the backend and are not answered yet.",
            ),
            breaker_open: gauge(
                "sidewire_backend_breaker_open",
                "1 if the backend does not answer and is asked only now and then, else 0.",
            ),
            durations: DurationHistogram::default(),
        }
    }

    /// Counts the result of a question.
    pub fn count(&self, result: BackendResult) {
        self.results.increment(&result);
    }

    /// Records how long a question was under way. Only the task that sends the questions may call
    /// this.
    pub fn record_duration(&self, duration: Duration) {
        self.durations.record(duration);
    }

    /// Sets the number of questions that wait to be sent.
    pub fn set_waiting(&self, count: usize) {
        self.waiting.set(as_gauge(count));
    }

    /// Sets the number of questions under way.
    pub fn set_under_way(&self, count: usize) {
        self.under_way.set(as_gauge(count));
    }

    /// Sets whether the breaker is open.
    pub fn set_breaker_open(&self, is_open: bool) {
        self.breaker_open.set(f64::from(u8::from(is_open)));
    }

    /// Appends the histogram to a scrape.
    pub(super) fn append_to(&self, scrape: &mut String) {
        let appended = append_histogram(scrape, DURATION, DURATION_HELP, &[&self.durations]);
        debug_assert!(appended.is_ok(), "a string takes all that is written to it");
    }
}

impl std::fmt::Debug for BackendMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendMetrics").finish_non_exhaustive()
    }
}

/// The metrics of the authorization by the backend.
pub struct AuthorizationMetrics {
    results: CounterFamily<AuthorizationResult>,
    topics: CounterFamily<AnswerSource>,
    kept: Gauge,
    forgotten: Counter,
}

impl AuthorizationMetrics {
    pub(super) fn register(register: &SeriesRegistry<'_>) -> Self {
        Self {
            results: register.family(
                "sidewire_authorizations_total",
                "Subscribes on which the backend decides, by result: allowed, denied, or failed, which is for want of an answer.",
                "result",
            ),
            topics: register.family(
                "sidewire_authorized_topics_total",
                "Topics of these Subscribes, by source of the answer: cache, or backend, which was asked.",
                "source",
            ),
            kept: register.gauge(
                "sidewire_authorization_answers",
                "Answers of the backend that are remembered, each for one topic of one user.",
                &[],
            ),
            forgotten: register.counter(
                "sidewire_authorization_answers_evicted_total",
                "Answers of the backend that were forgotten before their time for want of room.",
                &[],
            ),
        }
    }

    /// Counts a Subscribe on which the backend has decided.
    pub fn count(&self, result: AuthorizationResult) {
        self.results.increment(&result);
    }

    /// Counts topics by the source of their answers.
    pub fn count_topics(&self, source: AnswerSource, count: usize) {
        self.topics.add(&source, count as u64);
    }

    /// Sets the number of answers that are remembered.
    pub fn set_kept(&self, count: usize) {
        self.kept.set(as_gauge(count));
    }

    /// Counts answers that were forgotten for want of room.
    pub fn count_evicted(&self, count: usize) {
        self.forgotten.increment(count as u64);
    }
}

impl std::fmt::Debug for AuthorizationMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorizationMetrics")
            .finish_non_exhaustive()
    }
}

#[expect(clippy::cast_precision_loss, reason = "the counts are bounded")]
fn as_gauge(count: usize) -> f64 {
    count as f64
}
