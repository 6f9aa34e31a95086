//! A simulated backend that takes rights away: it ends subscriptions of users, and closes their
//! connections.

use std::rc::Rc;

use serde_json::Value;
use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};

use super::{
    backend::{ANSWER_TIMEOUT, connect, response},
    dice::Dice,
    history::{History, RightsCall, RightsChange},
    pipe::PipeStream,
    stage::{PhaseSwitch, StagePhase},
    subscribe_backend::SubscribePolicy,
    topics::{TENANTS, TopicBits, USERS},
    world::SimulatedWorld,
};

/// Relative numbers of calls for the tenants. The last one is the restless client's, which comes
/// and goes by itself.
const TENANT_WEIGHTS: [usize; TENANTS.len()] = [45, 33, 22, 0];

pub(super) struct RightsBackend {
    pub(super) world: Rc<SimulatedWorld>,
    pub(super) history: Rc<History>,
    pub(super) stage: Rc<PhaseSwitch>,
    pub(super) policy: Rc<SubscribePolicy>,
    pub(super) dice: Dice,
    pub(super) first_shard: usize,
}

impl RightsBackend {
    /// Calls at random times until the chaos is over.
    pub(super) async fn run(self) {
        let mut wire = self.connect();
        loop {
            sleep(self.dice.millis(20..1_500)).await;
            if self.stage.phase() != StagePhase::Chaos {
                break;
            }
            let (number, request) = self.drawn_call();
            let exchange = self.exchange(&mut wire, number, &request);
            let answered = timeout(ANSWER_TIMEOUT, exchange).await;
            if !answered.expect("every call is answered") {
                wire = self.connect();
            }
        }
    }

    fn connect(&self) -> PipeStream {
        connect(&self.world, &self.dice, self.first_shard)
    }

    /// Makes a call. Returns false if the answer is lost, because the backend disconnects before.
    async fn exchange(&self, wire: &mut PipeStream, call: usize, request: &str) -> bool {
        if wire.write_all(request.as_bytes()).await.is_err() {
            return false;
        }
        if self.dice.percent(3) {
            sleep(self.dice.millis(0..40)).await;
            return false;
        }
        let Some((status, body)) = response(wire, &mut Vec::new()).await else {
            return false;
        };
        self.answered(call, status, &body);
        true
    }

    fn answered(&self, call: usize, status: u16, body: &[u8]) {
        self.history.trace(&(call, status, body));
        let body: Value = serde_json::from_slice(body).expect("an answer is JSON");
        if status == 503 {
            // A shard is held up, or the relay drains. Some may have been done.
            assert_eq!(body["code"], "INTERNAL_ERROR", "{body}");
            return;
        }
        assert_eq!(status, 200, "{body}");
        let when = self.history.now();
        let call = &mut self.history.rights.borrow_mut()[call];
        let member = match call.what {
            RightsChange::EndSubscriptions(_) => "revoked",
            RightsChange::Disconnect { .. } => "closed",
        };
        call.answer = Some((when, body[member].as_u64().expect("a number")));
    }

    /// Returns the tenant, the user and the topics of the last question, if the backend has judged it
    /// and not answered yet: a call about them overtakes the answer.
    fn question_under_way(&self) -> Option<(usize, usize, TopicBits)> {
        let questions = self.history.questions.borrow();
        let last = questions.last().filter(|it| it.answer.is_none())?;
        (TENANT_WEIGHTS[last.tenant] > 0).then_some((last.tenant, last.user, last.topics))
    }

    /// Records a random call, and returns its number and its HTTP request.
    fn drawn_call(&self) -> (usize, String) {
        let dice = &self.dice;
        let asked = self.question_under_way().filter(|_| dice.percent(30));
        let (tenant, user, asked) = asked.unwrap_or_else(|| {
            let tenant = dice.weighted(&TENANT_WEIGHTS);
            (tenant, dice.below(USERS), TopicBits::NONE)
        });
        let path = format!("/v1/tenants/{}/users/u{user}", TENANTS[tenant]);
        let (what, path) = if dice.percent(80) {
            let topics = asked | TopicBits::drawn(dice, dice.within(1..4));
            let query: Vec<_> = topics.names().map(|name| format!("topic={name}")).collect();
            let ended = topics.subscriptions_ended();
            if dice.percent(50) {
                self.policy.deny(tenant, user, ended);
            }
            let what = RightsChange::EndSubscriptions(ended);
            (what, format!("{path}/subscriptions?{}", query.join("&")))
        } else {
            let reconnect = dice.percent(70);
            let what = RightsChange::Disconnect { reconnect };
            (what, format!("{path}/connections?reconnect={reconnect}"))
        };
        let mut calls = self.history.rights.borrow_mut();
        calls.push(RightsCall {
            tenant,
            user,
            what,
            sent: self.history.now(),
            answer: None,
        });
        let request = format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        (calls.len() - 1, request)
    }
}
