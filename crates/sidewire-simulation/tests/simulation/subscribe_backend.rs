//! A simulated backend that decides what users may subscribe to. It answers at once, late, wrongly
//! or never, and changes its mind.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use sidewire::{
    backend::{BackendTarget, BackendTransport, TransportError},
    config::BackendUrl,
    http::FetchError,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_local,
    time::{Instant, sleep},
};

use super::{
    dice::Dice,
    history::{History, QuestionAnswer, QuestionRecord},
    response_client::ONLOOKER,
    stage::{PhaseSwitch, StagePhase},
    tokens::TopicGrant,
    topics::{TENANTS, TopicBits, USERS},
    world::SimulationSettings,
};

type PostResult = Result<Bytes, TransportError>;

/// A question that waits for its answer.
#[derive(Debug)]
pub(super) struct PostedQuestion {
    json: Bytes,
    reply: oneshot::Sender<PostResult>,
}

/// Carries questions to the simulated backend.
#[derive(Debug)]
pub(super) struct QuestionTransport {
    questions: mpsc::Sender<PostedQuestion>,
    under_way: Arc<AtomicUsize>,
    /// The most questions that may be under way at once.
    concurrency: usize,
}

impl QuestionTransport {
    pub(super) fn new(concurrency: usize) -> (Arc<Self>, mpsc::Receiver<PostedQuestion>) {
        let (questions, posted) = mpsc::channel(concurrency);
        let transport = Self {
            questions,
            under_way: Arc::default(),
            concurrency,
        };
        (Arc::new(transport), posted)
    }
}

/// Counts a question for as long as the relay waits for its answer.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BackendTransport for QuestionTransport {
    fn post(
        &self,
        _: &Arc<BackendTarget>,
        question: Bytes,
    ) -> Pin<Box<dyn Future<Output = PostResult> + Send>> {
        let (reply, answer) = oneshot::channel();
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        assert!(
            before < self.concurrency,
            "{before} questions are under way"
        );
        let under_way = UnderWay(Arc::clone(&self.under_way));
        let posted = PostedQuestion {
            json: question,
            reply,
        };
        self.questions.try_send(posted).unwrap();
        Box::pin(async move {
            let _under_way = under_way;
            answer.await.expect("a question is kept until it is over")
        })
    }
}

/// Returns a target for the relay's questions, which are carried by [`QuestionTransport`].
pub(super) fn target() -> Arc<BackendTarget> {
    let url = BackendUrl::parse("http://127.0.0.1/subscribe").unwrap();
    Arc::new(BackendTarget::new(url, None).unwrap())
}

/// What the users may not subscribe to at present.
#[derive(Default)]
pub(super) struct SubscribePolicy {
    denied: RefCell<[[TopicBits; ONLOOKER + 1]; TENANTS.len()]>,
}

impl SubscribePolicy {
    pub(super) fn deny(&self, tenant: usize, user: usize, topics: TopicBits) {
        self.denied.borrow_mut()[tenant][user] |= topics;
    }

    fn denied(&self, tenant: usize, user: usize) -> TopicBits {
        self.denied.borrow()[tenant][user]
    }

    /// Draws anew what a user may not subscribe to.
    fn reconsider(&self, tenant: usize, user: usize, dice: &Dice) {
        let denied = TopicBits::all_to_ask_for().indices();
        let denied = denied.filter(|_| dice.percent(10));
        self.denied.borrow_mut()[tenant][user] =
            denied.fold(TopicBits::NONE, |set, index| set | TopicBits::of(index));
    }
}

/// What the backend does with a question.
enum Reaction {
    Answer,
    /// It answers with something else than a judgement.
    Nonsense,
    /// The answer is too large.
    TooLarge,
    /// It cannot be reached.
    Outage,
    /// It never answers.
    Silence,
}

pub(super) struct SubscribeBackend {
    pub(super) history: Rc<History>,
    pub(super) stage: Rc<PhaseSwitch>,
    pub(super) dice: Dice,
    pub(super) questions: mpsc::Receiver<PostedQuestion>,
    pub(super) policy: Rc<SubscribePolicy>,
    pub(super) timeout: Duration,
    pub(super) ttl: Duration,
    /// The time at which its present outage ends.
    pub(super) down_until: Cell<Instant>,
}

impl SubscribeBackend {
    pub(super) fn new(
        (history, stage): (&Rc<History>, &Rc<PhaseSwitch>),
        dice: Dice,
        questions: mpsc::Receiver<PostedQuestion>,
        policy: &Rc<SubscribePolicy>,
        settings: &SimulationSettings,
    ) -> Self {
        let subscribe = &settings.config.auth.subscribe;
        for tenant in 0..TENANTS.len() {
            for user in 0..USERS {
                policy.reconsider(tenant, user, &dice);
            }
        }
        Self {
            history: Rc::clone(history),
            stage: Rc::clone(stage),
            dice,
            questions,
            policy: Rc::clone(policy),
            timeout: subscribe.timeout,
            ttl: subscribe.ttl,
            down_until: Cell::new(Instant::now()),
        }
    }

    /// Answers questions. Never returns.
    pub(super) async fn run(mut self) {
        while let Some(question) = self.questions.recv().await {
            self.react(question);
        }
    }

    fn react(&self, posted: PostedQuestion) {
        let question: Value = serde_json::from_slice(&posted.json).expect("a question is JSON");
        let text = |member: &str| question[member].as_str().expect("a text").to_owned();
        let (tenant, user) = (text("tenant"), text("user"));
        let tenant = TENANTS.iter().position(|it| *it == tenant).unwrap();
        let user: usize = user.strip_prefix('u').unwrap().parse().unwrap();
        let topics: Vec<String> = serde_json::from_value(question["topics"].clone()).unwrap();
        let topics = TopicBits::of_distinct(&topics);
        if self.dice.percent(15) {
            self.policy.reconsider(tenant, user, &self.dice);
        }
        let (delay, reaction) = self.drawn_reaction();
        let (body, allowed, ttl) = self.answer(topics, self.policy.denied(tenant, user));
        let mut questions = self.history.questions.borrow_mut();
        let number = questions.len();
        questions.push(QuestionRecord {
            tenant,
            user,
            topics,
            asked: self.history.now(),
            answer: None,
        });
        let history = Rc::clone(&self.history);
        history.trace(&(tenant, user, topics));
        let mut reply = posted.reply;
        let nonsense = *self.dice.pick(&["", "[]", "{}", r#"{"allow": "all"}"#]);
        spawn_local(async move {
            sleep(delay).await;
            let (answer, allowed) = match reaction {
                Reaction::Answer => (Ok(body), Some(allowed)),
                Reaction::Nonsense => (Ok(nonsense.into()), None),
                Reaction::TooLarge => (Err(FetchError::TooBig(1)), None),
                Reaction::Outage => {
                    let refused = io::ErrorKind::ConnectionRefused.into();
                    (Err(FetchError::Connect(refused)), None)
                }
                Reaction::Silence => return reply.closed().await,
            };
            if reply.is_closed() {
                // The relay no longer waits.
                return;
            }
            history.questions.borrow_mut()[number].answer = Some(QuestionAnswer {
                when: history.now(),
                allowed,
                ttl,
            });
            drop(reply.send(answer.map_err(TransportError::from)));
        });
    }

    fn drawn_reaction(&self) -> (Duration, Reaction) {
        let dice = &self.dice;
        if self.stage.phase() != StagePhase::Chaos {
            return (dice.millis(0..20), Reaction::Answer);
        }
        let now = Instant::now();
        if dice.percent(2) {
            self.down_until.set(now + dice.millis(300..4_000));
        }
        let soon = dice.millis(0..80);
        if now < self.down_until.get() {
            return (soon, Reaction::Outage);
        }
        match dice.weighted(&[35, 30, 18, 4, 3, 3, 7]) {
            0 => (Duration::ZERO, Reaction::Answer),
            1 => (soon, Reaction::Answer),
            2 => {
                let late = usize::try_from(self.timeout.as_millis()).unwrap() * 6 / 5;
                (dice.millis(80..late), Reaction::Answer)
            }
            3 => (soon, Reaction::Nonsense),
            4 => (soon, Reaction::TooLarge),
            5 => (soon, Reaction::Outage),
            _ => (soon, Reaction::Silence),
        }
    }

    /// Returns an answer, the topics of the question that it allows, and the time for which it
    /// holds.
    fn answer(&self, topics: TopicBits, denied: TopicBits) -> (Bytes, TopicBits, Duration) {
        let dice = &self.dice;
        let mut listed = topics.less(denied);
        if dice.percent(15) {
            // Also such as nobody has asked about. A wildcard covers what was asked.
            listed |= TopicBits::drawn(dice, 2);
        }
        let names: Vec<_> = listed.names().collect();
        let mut answer = json!({"allow": names});
        let mut ttl = self.ttl;
        if dice.percent(30) {
            let seconds = *dice.pick(&[0, 1, 3]);
            answer["ttl_s"] = seconds.into();
            ttl = Duration::from_secs(seconds);
        }
        let allowed = topics.less(TopicGrant::Listed(listed).refuses(topics));
        (answer.to_string().into(), allowed, ttl)
    }
}
