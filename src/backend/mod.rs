//! Asks the backend: questions that wait are served one tenant after another, a bounded number
//! is under way at once, and a backend that is down is asked only now and then. Knows neither
//! what is asked nor who waits for the answer.
//!
//! A [`Question`] is enqueued from any thread with [`Backend::ask`]. All questions are sent by one
//! task, [`Backend::run`], which runs outside of the shards, so that no shard ever waits for a
//! socket of the backend.

mod breaker;
mod http;
mod question;
mod queue;
mod transport;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use sidewire_protocol::TenantName;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

pub use http::HttpTransport;
pub use question::{AskError, InvalidAnswer, Question};
pub use transport::{
    ANSWER_BYTES_MAX, BackendKeyError, BackendTarget, BackendTransport, TransportError,
};

use crate::{
    repeated::{RepeatedLine, log_repeated},
    telemetry::{BackendMetrics, BackendResult},
};
use breaker::{Admission, Breaker, BreakerChange};
use queue::FairQueue;

/// Maximum number of questions that wait for others to be answered.
pub const QUESTIONS_WAITING_MAX: usize = 1000;

/// Divisor of the timeout that yields the time for which a question may wait for others. The rest
/// is the backend's: a question that times out says something about the backend.
const WAITING_PART: u32 = 2;

/// The settings of a backend.
#[derive(Debug, Clone)]
pub struct BackendSettings {
    /// Where it is asked; nowhere if `None`.
    pub target: Option<Arc<BackendTarget>>,
    /// Time limit for an answer, from the moment of the question.
    pub timeout: Duration,
    /// Maximum number of questions under way.
    pub concurrency: usize,
}

/// A backend that is asked.
pub struct Backend {
    transport: Arc<dyn BackendTransport>,
    metrics: Arc<BackendMetrics>,
    state: Mutex<BackendState>,
    /// Notified when there may be something to send.
    changed: Notify,
}

struct BackendState {
    settings: BackendSettings,
    queue: FairQueue<TenantName, WaitingQuestion>,
    breaker: Breaker,
}

struct WaitingQuestion {
    question: Box<dyn Question>,
    asked_at: Instant,
    timeout: Duration,
}

impl WaitingQuestion {
    /// Returns the time at which it is given up if it has not been sent.
    fn sent_by(&self) -> Instant {
        self.asked_at + self.timeout / WAITING_PART
    }
}

/// A question that is to be sent.
struct AdmittedQuestion {
    waiting: WaitingQuestion,
    admission: Admission,
    target: Arc<BackendTarget>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl Backend {
    /// Creates a backend that is asked over this transport.
    #[must_use]
    pub fn new(
        transport: Arc<dyn BackendTransport>,
        settings: BackendSettings,
        metrics: Arc<BackendMetrics>,
    ) -> Self {
        Self {
            transport,
            metrics,
            state: Mutex::new(BackendState {
                settings,
                queue: FairQueue::new(QUESTIONS_WAITING_MAX),
                breaker: Breaker::default(),
            }),
            changed: Notify::new(),
        }
    }

    /// Applies other settings. Questions under way continue with the old ones. Another URL is
    /// another backend, of which nothing bad is known.
    pub fn configure(&self, settings: BackendSettings) {
        let mut state = self.lock();
        let url = |settings: &BackendSettings| settings.target.as_ref().map(|it| it.url.clone());
        if url(&settings) != url(&state.settings) {
            state.breaker = Breaker::default();
            self.metrics.set_breaker_open(false);
        }
        state.settings = settings;
        drop(state);
        self.changed.notify_one();
    }

    /// Asks a question, which is answered later, on another thread.
    ///
    /// # Errors
    ///
    /// Fails if the question will not be asked. Then it has been dropped.
    pub fn ask(&self, question: Box<dyn Question>) -> Result<(), AskError> {
        self.enqueue(question)
            .inspect_err(|refusal| self.count_failure(refusal))
    }

    fn enqueue(&self, question: Box<dyn Question>) -> Result<(), AskError> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.settings.target.is_none() {
            return Err(AskError::NotConfigured);
        }
        if let Some(retry_after) = state.breaker.refusal(now) {
            return Err(AskError::Open { retry_after });
        }
        let unwanted = match state.queue.has_room() {
            true => Vec::new(),
            false => state.queue.remove_where(|it| !it.question.is_wanted()),
        };
        let tenant = question.tenant().clone();
        let waiting = WaitingQuestion {
            question,
            asked_at: now,
            timeout: state.settings.timeout,
        };
        let pushed = state.queue.push(&tenant, waiting);
        self.metrics.set_waiting(state.queue.len());
        drop(state);
        // A question may take a lock where it is dropped or answered, so that happens here.
        drop(unwanted);
        self.changed.notify_one();
        match pushed {
            Ok(None) => {}
            Ok(Some(evicted)) => self.refuse(evicted, AskError::TooMany),
            Err(_refused) => return Err(AskError::TooMany),
        }
        Ok(())
    }

    /// Sends the questions. Never returns, and must run for questions to be answered.
    pub async fn run(&self) {
        let mut under_way = FuturesUnordered::new();
        loop {
            let give_up_at = self.refuse_late();
            while let Some(admitted) = self.next_question(under_way.len()) {
                under_way.push(self.send(admitted));
            }
            self.metrics.set_under_way(under_way.len());
            tokio::select! {
                biased;
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                () = self.changed.notified() => {}
                () = wait_until(give_up_at) => {}
            }
        }
    }

    /// Refuses the questions that have waited too long. Returns the time at which the next one
    /// will have.
    fn refuse_late(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.lock();
        let queue = &mut state.queue;
        let first = |queue: &FairQueue<_, WaitingQuestion>| {
            queue.first_items().map(WaitingQuestion::sent_by).min()
        };
        if first(queue).is_none_or(|first| first > now) {
            return first(queue);
        }
        let late = queue.remove_where(|waiting| waiting.sent_by() <= now);
        let next = first(queue);
        self.metrics.set_waiting(queue.len());
        drop(state);
        for waiting in late {
            self.refuse(waiting, AskError::Waited);
        }
        next
    }

    /// Removes the next question from the queue, if one more may be under way. Refuses those that
    /// the breaker does not admit.
    fn next_question(&self, under_way: usize) -> Option<AdmittedQuestion> {
        loop {
            let mut state = self.lock();
            if under_way >= state.settings.concurrency {
                return None;
            }
            let waiting = state.queue.pop()?;
            self.metrics.set_waiting(state.queue.len());
            if !waiting.question.is_wanted() {
                drop(state);
                continue;
            }
            let admitted = match state.settings.target.clone() {
                None => Err(AskError::NotConfigured),
                Some(target) => match state.breaker.admit(Instant::now()) {
                    Ok(admission) => Ok((admission, target)),
                    Err(retry_after) => Err(AskError::Open { retry_after }),
                },
            };
            drop(state);
            match admitted {
                Ok((admission, target)) => {
                    return Some(AdmittedQuestion {
                        waiting,
                        admission,
                        target,
                    });
                }
                Err(refusal) => self.refuse(waiting, refusal),
            }
        }
    }

    async fn send(&self, admitted: AdmittedQuestion) {
        let AdmittedQuestion {
            waiting,
            admission,
            target,
        } = admitted;
        let began = Instant::now();
        let posted = self
            .transport
            .post(&target, waiting.question.to_json().into());
        let answer = match timeout_at(waiting.asked_at + waiting.timeout, posted).await {
            Ok(answer) => answer.map_err(AskError::from),
            Err(_) => Err(AskError::TimedOut(waiting.timeout)),
        };
        self.metrics.record_duration(began.elapsed());
        self.tell_breaker(&target, admission, &answer);
        if let Err(failure) = &answer {
            self.count_failure(failure);
        }
        let is_answer = answer.is_ok();
        match waiting.question.answered(answer) {
            Ok(()) if is_answer => self.metrics.count(BackendResult::Answered),
            Ok(()) => {}
            Err(invalid) => {
                self.metrics.count(BackendResult::Invalid);
                log_repeated!(RepeatedLine::BackendFailed, reason = %invalid);
            }
        }
    }

    /// Tells the breaker whether the backend has answered.
    fn tell_breaker(
        &self,
        target: &Arc<BackendTarget>,
        admission: Admission,
        answer: &Result<Bytes, AskError>,
    ) {
        let mut state = self.lock();
        let current = state.settings.target.as_ref();
        if current.is_none_or(|current| current.url != target.url) {
            // It says nothing about the backend that is asked now.
            return;
        }
        let is_outage = answer.as_ref().is_err_and(AskError::is_outage);
        let change = match is_outage {
            true => state.breaker.fail(admission, Instant::now()),
            false => state.breaker.succeed(),
        };
        self.metrics.set_breaker_open(state.breaker.is_open());
        drop(state);
        let url = &target.url;
        match (change, answer) {
            (Some(BreakerChange::Opened(period)), Err(reason)) => {
                tracing::warn!(%url, %reason, ?period, "the backend does not answer, and is not asked for a while");
            }
            (Some(BreakerChange::Closed), _) => {
                tracing::info!(%url, "the backend answers again");
            }
            _ => {}
        }
    }

    fn refuse(&self, waiting: WaitingQuestion, refusal: AskError) {
        self.count_failure(&refusal);
        // It needs no answer to tell those who wait.
        drop(waiting.question.answered(Err(refusal)));
    }

    fn count_failure(&self, failure: &AskError) {
        self.metrics.count(failure.metric_result());
        // The breaker has logged the reason.
        if !matches!(failure, AskError::Open { .. }) {
            log_repeated!(RepeatedLine::BackendFailed, reason = %failure);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BackendState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait_until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
