//! Asks the backend whether a client may subscribe to topics, and remembers the answers for a
//! time. Knows no connection; the grant of the token is judged elsewhere, and before.
//!
//! [`SubscribeAuthorizer::judge`] answers from what is remembered, without waiting. Only where
//! that is not enough is the [`Backend`] asked about the topics that are not known, once for equal
//! questions, and the caller waits for a [`PendingJudgement`]. A revocation
//! ([`SubscribeAuthorizer::forget`]) also counts for the answers that are under way: they are
//! discarded, and the question is asked again.

mod answer;
mod cache;
mod key;
mod question;
mod revocations;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use sidewire_protocol::{Topic, random::RandomSource};
use smallvec::SmallVec;
use tokio::{sync::oneshot, time::Instant};

pub use cache::CACHED_ANSWER_BYTES;

use crate::{
    backend::{AskError, Backend, BackendSettings, BackendTransport},
    limits::UserKey,
    memory::{MemoryAccount, MemoryReservation, MemoryUse},
    telemetry::{AnswerSource, AuthorizationMetrics, AuthorizationResult, Metrics},
};
use cache::AnswerCache;
use key::{KeySecret, TopicKey, UserKeys};
use question::{AnswerResult, SubscribeQuestion};
use revocations::{Revocation, RevocationLog};

/// Number of answers that are forgotten under one lock.
const FORGOTTEN_PER_LOCK: usize = 1000;

/// Bytes charged for a question, besides its topics.
const QUESTION_BYTES: usize = 1024;

/// Bytes charged for each topic of a question, besides its name, which is counted twice: it is
/// written to JSON.
const QUESTION_TOPIC_BYTES: usize = 64;

/// Time after which to ask again, if it is not known better.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The settings of the authorization by the backend.
#[derive(Debug, Clone)]
pub struct AuthorizerSettings {
    /// How the backend is asked. Without a target, everything is allowed.
    pub backend: BackendSettings,
    /// Time for which an allowed topic is remembered, if the answer does not say.
    pub ttl: Duration,
    /// Time for which a topic that was not allowed is remembered.
    pub negative_ttl: Duration,
    /// Maximum number of remembered answers.
    pub entries: usize,
}

/// The backend's judgement of a Subscribe.
#[derive(Debug)]
pub enum Judgement {
    /// Every topic is allowed.
    Allowed,
    /// This topic is not allowed.
    Denied(Topic),
    /// The backend is being asked.
    Pending(PendingJudgement),
    /// There is no answer.
    Failed(NoAnswer),
}

/// The reason for which there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// The backend did not answer.
    Unanswered {
        /// Time after which to try again.
        retry_after: Duration,
    },
    /// There is no memory for the question.
    NoMemory,
}

impl From<&AskError> for NoAnswer {
    fn from(error: &AskError) -> Self {
        Self::Unanswered {
            retry_after: error.retry_after(),
        }
    }
}

/// A judgement for which the backend is being asked. It resolves to what
/// [`SubscribeAuthorizer::conclude`] needs. If all that wait for an answer are dropped, the
/// question may not be asked at all.
#[derive(Debug)]
pub struct PendingJudgement {
    answer: oneshot::Receiver<AnswerResult>,
    /// Number of revocations before the topics were judged.
    since: u64,
    /// The memory of what waits for it.
    _memory: MemoryReservation,
}

/// An answer that has come, and may be outdated already.
#[derive(Debug)]
pub struct ReceivedAnswer {
    result: AnswerResult,
    since: u64,
}

impl Future for PendingJudgement {
    type Output = ReceivedAnswer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<ReceivedAnswer> {
        let answer = Pin::new(&mut self.answer).poll(context);
        let unanswered = NoAnswer::Unanswered {
            retry_after: RETRY_AFTER,
        };
        answer.map(|answer| ReceivedAnswer {
            // Without an answer, the question was dropped.
            result: answer.unwrap_or(Err(unanswered)),
            since: self.since,
        })
    }
}

/// The authorization of subscriptions by the backend.
#[derive(Debug)]
pub struct SubscribeAuthorizer {
    /// False while no backend is configured, so that a Subscribe costs nothing more.
    is_enabled: AtomicBool,
    shared: Arc<AuthorizerShared>,
    backend: Backend,
}

/// What the questions share.
#[derive(Debug)]
struct AuthorizerShared {
    state: Mutex<AuthorizerState>,
    /// Drawn when it is needed first.
    secret: OnceLock<KeySecret>,
    random: Arc<RandomSource>,
    account: Arc<MemoryAccount>,
    metrics: Arc<AuthorizationMetrics>,
}

#[derive(Debug)]
struct AuthorizerState {
    settings: AuthorizerSettings,
    cache: AnswerCache,
    revocations: RevocationLog,
    /// The questions that are not answered yet, by number.
    questions: HashMap<u64, AskedQuestion>,
    /// The questions that others may join, by their topics.
    by_topics: HashMap<TopicKey, u64>,
    last_number: u64,
}

/// A question that is not answered yet.
#[derive(Debug)]
struct AskedQuestion {
    topics: TopicKey,
    /// Number of revocations before it was asked.
    since: u64,
    waiters: Vec<oneshot::Sender<AnswerResult>>,
}

impl AuthorizerState {
    fn remove_question(&mut self, number: u64) -> Option<AskedQuestion> {
        let question = self.questions.remove(&number)?;
        if self.by_topics.get(&question.topics) == Some(&number) {
            self.by_topics.remove(&question.topics);
        }
        Some(question)
    }
}

impl AuthorizerShared {
    fn user_keys(&self, who: &UserKey) -> UserKeys {
        let secret = self.secret.get_or_init(|| KeySecret::new(&self.random));
        secret.user_keys(who)
    }
}

impl SubscribeAuthorizer {
    /// Creates an authorizer that remembers nothing.
    #[must_use]
    pub fn new(
        settings: AuthorizerSettings,
        transport: Arc<dyn BackendTransport>,
        account: Arc<MemoryAccount>,
        random: Arc<RandomSource>,
        metrics: &Metrics,
    ) -> Self {
        let backend = settings.backend.clone();
        let state = AuthorizerState {
            cache: AnswerCache::new(Arc::clone(&account), Instant::now()),
            settings,
            revocations: RevocationLog::default(),
            questions: HashMap::new(),
            by_topics: HashMap::new(),
            last_number: 0,
        };
        Self {
            is_enabled: backend.target.is_some().into(),
            shared: Arc::new(AuthorizerShared {
                state: Mutex::new(state),
                secret: OnceLock::new(),
                random,
                account,
                metrics: Arc::clone(&metrics.authorization),
            }),
            backend: Backend::new(transport, backend, Arc::clone(&metrics.backend)),
        }
    }

    /// Asks the backend. Never returns, and must run for questions to be answered.
    pub async fn run(&self) {
        self.backend.run().await;
    }

    /// Applies other settings. What is remembered stays, unless another backend is asked now.
    pub fn configure(&self, settings: AuthorizerSettings) {
        let url = |settings: &AuthorizerSettings| {
            let target = settings.backend.target.as_ref();
            target.map(|target| target.url.clone())
        };
        let backend = settings.backend.clone();
        let mut state = self.shared.lock();
        if url(&settings) != url(&state.settings) {
            state.revocations.record(Revocation::Everything);
            state.cache = AnswerCache::new(Arc::clone(&self.shared.account), Instant::now());
            self.shared.metrics.set_kept(0);
        }
        state.settings = settings;
        drop(state);
        self.is_enabled
            .store(backend.target.is_some(), Ordering::Relaxed);
        self.backend.configure(backend);
        while self.shrink() {
            // Shards wait for the same lock.
            std::thread::yield_now();
        }
    }

    /// Forgets some answers for which there is no room any more. Returns true if there may be
    /// more.
    fn shrink(&self) -> bool {
        let mut state = self.shared.lock();
        let max = state.settings.entries;
        let forgotten = state.cache.shrink_to(max, FORGOTTEN_PER_LOCK);
        self.shared.metrics.count_evicted(forgotten);
        self.shared.metrics.set_kept(state.cache.len());
        forgotten == FORGOTTEN_PER_LOCK
    }

    /// Forgets some of the answers that have expired. Returns true if there may be more.
    pub fn sweep(&self) -> bool {
        let mut state = self.shared.lock();
        let has_more = state
            .cache
            .remove_expired(Instant::now(), FORGOTTEN_PER_LOCK);
        self.shared.metrics.set_kept(state.cache.len());
        has_more
    }

    /// Returns true if a backend is asked.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled.load(Ordering::Relaxed)
    }

    /// Judges whether the user may subscribe to the topics, which are all within its grant.
    pub fn judge(&self, who: &UserKey, topics: &[Topic]) -> Judgement {
        if !self.is_enabled() || topics.is_empty() {
            return Judgement::Allowed;
        }
        let judgement = self.judge_known(who, topics);
        self.count(&judgement);
        judgement
    }

    /// Judges the topics by the answer that has come. If something of it was revoked meanwhile, it
    /// is asked again.
    pub fn conclude(&self, who: &UserKey, topics: &[Topic], answer: ReceivedAnswer) -> Judgement {
        if !self.is_enabled() {
            return Judgement::Allowed;
        }
        let judgement = match answer.result {
            Err(failure) => Judgement::Failed(failure),
            Ok(_) if self.is_outdated(who, topics, answer.since) => self.judge_known(who, topics),
            Ok(denied) => match topics.iter().find(|topic| denied.contains(*topic)) {
                Some(topic) => Judgement::Denied(topic.clone()),
                None => Judgement::Allowed,
            },
        };
        self.count(&judgement);
        judgement
    }

    /// Forgets that the backend has allowed these topics to the user: `kind:*` means all topics of
    /// the kind, and a topic also the wildcard that covers it. Answers to questions asked before
    /// are discarded.
    pub fn forget<'a>(&self, who: &UserKey, topics: impl IntoIterator<Item = &'a Topic>) {
        if !self.is_enabled() {
            return;
        }
        let keys = self.shared.user_keys(who);
        let mut kinds = HashSet::new();
        let mut state = self.shared.lock();
        for topic in topics {
            if topic.is_wildcard() {
                let kind = keys.kind(topic);
                kinds.insert(kind);
                state.revocations.record(Revocation::Kind(kind));
                continue;
            }
            for revoked in [keys.topic(topic), keys.wildcard(topic)] {
                state.cache.forget_allowed(revoked);
                state.revocations.record(Revocation::Topic(revoked));
            }
        }
        drop(state);
        // Answers of now are not kept any more, so the older ones can be removed in parts.
        let mut parts = 0..cache::PARTS;
        while !kinds.is_empty()
            && let Some(part) = parts.next()
        {
            self.shared.lock().cache.forget_kinds(part, &kinds);
        }
        let state = self.shared.lock();
        self.shared.metrics.set_kept(state.cache.len());
    }

    /// Returns true if one of the topics was revoked since there were `since` revocations.
    fn is_outdated(&self, who: &UserKey, topics: &[Topic], since: u64) -> bool {
        if self.shared.lock().revocations.count() == since {
            return false;
        }
        let keys = self.shared.user_keys(who);
        let topics: Vec<_> = topics
            .iter()
            .map(|it| (keys.topic(it), keys.kind(it)))
            .collect();
        let state = self.shared.lock();
        state.revocations.touches_since(since, topics.into_iter())
    }

    /// Judges the topics by what is remembered, and asks about the others.
    fn judge_known(&self, who: &UserKey, topics: &[Topic]) -> Judgement {
        let keys = self.shared.user_keys(who);
        let topic_keys: SmallVec<[TopicKey; 8]> =
            topics.iter().map(|topic| keys.topic(topic)).collect();
        let now = Instant::now();
        let mut unknown = Vec::new();
        let state = self.shared.lock();
        for (topic, key) in topics.iter().zip(topic_keys) {
            match state.cache.get(key, now) {
                Some(true) => {}
                Some(false) => return Judgement::Denied(topic.clone()),
                None => unknown.push(topic.clone()),
            }
        }
        let since = state.revocations.count();
        drop(state);
        let metrics = &self.shared.metrics;
        metrics.count_topics(AnswerSource::Cache, topics.len() - unknown.len());
        if unknown.is_empty() {
            return Judgement::Allowed;
        }
        metrics.count_topics(AnswerSource::Backend, unknown.len());
        let asked = self.reserve(topics).and_then(|memory| {
            let answer = self.ask(who, &keys, unknown)?;
            Ok(PendingJudgement {
                answer,
                since,
                _memory: memory,
            })
        });
        asked.map_or_else(Judgement::Failed, Judgement::Pending)
    }

    /// Joins the question about these topics that is under way, or asks it.
    fn ask(
        &self,
        who: &UserKey,
        keys: &UserKeys,
        mut topics: Vec<Topic>,
    ) -> Result<oneshot::Receiver<AnswerResult>, NoAnswer> {
        topics.sort_unstable();
        let (waiter, answer) = oneshot::channel();
        let by_topics = keys.topics(&topics);
        let mut state = self.shared.lock();
        let state_ref = &mut *state;
        if let Some(number) = state_ref.by_topics.get(&by_topics)
            && let Some(question) = state_ref.questions.get_mut(number)
        {
            let topics = topics.iter().map(|it| (keys.topic(it), keys.kind(it)));
            if !state_ref.revocations.touches_since(question.since, topics) {
                if question.waiters.len().is_power_of_two() {
                    // Some may have left.
                    question.waiters.retain(|it| !it.is_closed());
                }
                question.waiters.push(waiter);
                return Ok(answer);
            }
        }
        let memory = self.reserve(&topics)?;
        state_ref.last_number += 1;
        let (number, since) = (state_ref.last_number, state_ref.revocations.count());
        state_ref.by_topics.insert(by_topics, number);
        let asked = AskedQuestion {
            topics: by_topics,
            since,
            waiters: vec![waiter],
        };
        state_ref.questions.insert(number, asked);
        drop(state);
        let question = SubscribeQuestion {
            shared: Arc::clone(&self.shared),
            number,
            who: who.clone(),
            topics,
            since,
            _memory: memory,
        };
        self.backend
            .ask(Box::new(question))
            .map_err(|error| NoAnswer::from(&error))?;
        Ok(answer)
    }

    /// Reserves memory for a question about the topics, or for one that waits for its answer.
    fn reserve(&self, topics: &[Topic]) -> Result<MemoryReservation, NoAnswer> {
        let account = &self.shared.account;
        account
            .reserve(MemoryUse::Authorization, question_bytes(topics))
            .map_err(|_exceeded| NoAnswer::NoMemory)
    }

    fn count(&self, judgement: &Judgement) {
        let result = match judgement {
            Judgement::Allowed => AuthorizationResult::Allowed,
            Judgement::Denied(_) => AuthorizationResult::Denied,
            Judgement::Failed(_) => AuthorizationResult::Failed,
            Judgement::Pending(_) => return,
        };
        self.shared.metrics.count(result);
    }
}

fn question_bytes(topics: &[Topic]) -> usize {
    let of_topics = topics
        .iter()
        .map(|it| 2 * it.as_str().len() + QUESTION_TOPIC_BYTES);
    QUESTION_BYTES + of_topics.sum::<usize>()
}
