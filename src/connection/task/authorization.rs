//! Subscribes about which a backend is asked.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use sidewire_protocol::reply::Reply;
use tokio::time::Instant;

use super::{
    ConnectionPhase, ConnectionTask,
    open::{OpenConnection, UnansweredSubscribe},
};
use crate::{
    authorizer::{Judgement, NoAnswer, PendingJudgement, ReceivedAnswer},
    connection::{
        conversation::{ClientRequest, Conversation, TopicsAnswer, TopicsRequest},
        stream::Transport,
    },
    limits::Limit,
    scheduler::Cost,
};

/// Delay after which a client should retry when the backend revoked what it was asked about.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A Subscribe about which the backend is being asked. Everything that the client sends after it
/// waits, except Pings and new tokens.
pub(super) struct OpenQuestion {
    request: TopicsRequest,
    /// The time at which it was asked first.
    asked_at: Instant,
    judgement: PendingJudgement,
    /// The answer, once it has come.
    answer: Option<ReceivedAnswer>,
}

impl<S: Transport> ConnectionTask<S> {
    /// Carries out a Subscribe, or begins to ask the backend whether it is allowed.
    pub(super) fn authorize(&mut self, request: TopicsRequest) {
        let relay = self.account.relay();
        if !relay.authorizer.is_enabled() {
            return self.subscribe(request);
        }
        self.charge_work(Cost::STEP.times(request.topics.len()));
        let who = self.account.user_key();
        let judgement = relay.authorizer.judge(who, &request.topics);
        self.follow_judgement(request, judgement, Instant::now());
    }

    /// Carries out the Subscribe of which the answer has come. Its topics are judged again by the
    /// grant, too.
    pub(super) fn conclude_question(
        &mut self,
        (request, answer, asked_at): (TopicsRequest, ReceivedAnswer, Instant),
    ) {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let (relay, who) = (self.account.relay(), self.account.user_key());
        let limits = (&relay.live().config).into();
        let conversation = Conversation::new(&who.user, &open.grant, limits);
        let request = ClientRequest::Subscribe(request);
        let judged = conversation.judge_again(&request);
        let ClientRequest::Subscribe(request) = request else {
            return;
        };
        if let Err(refusal) = judged {
            return self.push_reply(&Reply::Error(refusal));
        }
        self.charge_work(Cost::STEP.times(request.topics.len()));
        let judgement = relay.authorizer.conclude(who, &request.topics, answer);
        self.follow_judgement(request, judgement, asked_at);
    }

    fn follow_judgement(
        &mut self,
        request: TopicsRequest,
        judgement: Judgement,
        asked_at: Instant,
    ) {
        let relay = self.account.relay();
        let metrics = &relay.metrics;
        match judgement {
            // The backend revokes again and again what is asked about.
            Judgement::Pending(_)
                if asked_at.elapsed() >= relay.live().config.auth.subscribe.timeout =>
            {
                self.push_reply(&request.answer.unanswered_reply(RETRY_AFTER));
            }
            Judgement::Allowed => self.subscribe(request),
            Judgement::Denied(topic) => self.push_reply(&request.answer.denied_reply(&topic)),
            Judgement::Failed(NoAnswer::NoMemory) => {
                metrics.limit_exceeded(Limit::Memory);
                self.push_reply(&request.answer.no_memory_reply());
            }
            Judgement::Failed(NoAnswer::Unanswered { retry_after }) => {
                self.push_reply(&request.answer.unanswered_reply(retry_after));
            }
            Judgement::Pending(judgement) => {
                if let ConnectionPhase::Open(open) = &mut self.phase {
                    let question = OpenQuestion {
                        request,
                        asked_at,
                        judgement,
                        answer: None,
                    };
                    open.unanswered = Some(Box::new(UnansweredSubscribe::Question(question)));
                }
            }
        }
    }
}

impl OpenQuestion {
    /// Returns true if the answer has come.
    pub(super) fn is_answered(&self) -> bool {
        self.answer.is_some()
    }
}

impl OpenConnection {
    /// Returns the question to the backend about the Subscribe that is under way, if there is one.
    pub(super) fn question(&self) -> Option<&OpenQuestion> {
        match self.unanswered.as_deref()? {
            UnansweredSubscribe::Question(question) => Some(question),
            UnansweredSubscribe::Requested(_) => None,
        }
    }

    /// Looks whether the answer has come for which a Subscribe waits.
    pub(super) fn poll_question(&mut self, context: &mut Context<'_>) {
        if let Some(UnansweredSubscribe::Question(question)) = self.unanswered.as_deref_mut()
            && question.answer.is_none()
            && let Poll::Ready(answer) = Pin::new(&mut question.judgement).poll(context)
        {
            question.answer = Some(answer);
        }
    }

    /// Removes the question if it is answered.
    pub(super) fn take_answered_question(
        &mut self,
    ) -> Option<(TopicsRequest, ReceivedAnswer, Instant)> {
        if !self.question().is_some_and(OpenQuestion::is_answered) {
            return None;
        }
        match *self.unanswered.take()? {
            UnansweredSubscribe::Question(question) => {
                Some((question.request, question.answer?, question.asked_at))
            }
            UnansweredSubscribe::Requested(_) => None,
        }
    }

    /// Removes what the answer to a Subscribe needs that the hub carries out.
    pub(super) fn take_unanswered(&mut self) -> Option<TopicsAnswer> {
        if self.question().is_some() {
            return None;
        }
        match *self.unanswered.take()? {
            UnansweredSubscribe::Requested(answer) => Some(answer),
            UnansweredSubscribe::Question(_) => None,
        }
    }
}
