//! Carries out the requests of a client: replies and subscriptions.

use std::mem;

use sidewire_protocol::{
    ErrorCode,
    close::CloseReason,
    reply::{MessageRefusal, Reply},
};

use super::{ConnectionPhase, ConnectionTask, open::UnansweredSubscribe};
use crate::{
    connection::{
        admission::record_refusal,
        conversation::{
            ClientRequest, Conversation, ConversationAction, MessageKind, ParsedFrame,
            TopicsAnswer, TopicsRequest, rate_limit_refusal,
        },
        http_stream::refusal_frame,
        stream::Transport,
        waiting::{WAITING_MAX, WaitingMessage},
    },
    http::HttpProblem,
    hub::{SubscribeConfirmation, SubscribeError, SubscribeProgress},
    limits::Limit,
    memory::MemoryExceeded,
    scheduler::Cost,
};

impl<S: Transport> ConnectionTask<S> {
    pub(super) fn handle_binary_frame(&mut self, frame: &[u8]) {
        self.charge_message(frame);
        let live = self.account.relay().live();
        let topics_max = live.config.limits.topics_per_event;
        self.handle_message(ParsedFrame::parse(&live.schema, frame, topics_max));
    }

    pub(super) fn handle_message(&mut self, parsed: ParsedFrame<'_>) {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let relay = self.account.relay();
        let charged = open
            .pace
            .charge_message(parsed.kind(), self.account.user_key(), relay);
        match charged {
            Ok(()) => self.handle_charged_message(parsed),
            Err(exceeded) => {
                self.carry_out_or_queue(parsed.rate_limit_reply(exceeded), parsed.len());
            }
        }
    }

    /// Handles a message that is charged already.
    pub(super) fn handle_charged_message(&mut self, parsed: ParsedFrame<'_>) {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let relay = self.account.relay();
        let limits = (&relay.live().config).into();
        let len = parsed.len();
        let mut conversation =
            Conversation::new(&self.account.user_key().user, &open.grant, limits);
        if open.holds_everything() {
            // What waits is judged by the grant when it is carried out.
            conversation = conversation.without_grant();
        }
        let action = conversation.decide_action(parsed, relay.clock.unix_seconds());
        self.carry_out_or_queue(action, len);
    }

    /// Does what a message of `len` bytes requires, or queues it behind a Subscribe that is under
    /// way.
    pub(super) fn carry_out_or_queue(&mut self, action: ConversationAction, len: usize) {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        match action {
            action if !open.must_wait(&action) => self.carry_out_action(action),
            action if open.waiting.has_room() => self.queue_message(action, len),
            action => {
                let refusal = match open.holds_everything() {
                    true => action.too_many_waiting_refusal(WAITING_MAX),
                    false => action.too_many_requests_refusal(WAITING_MAX),
                };
                self.account.relay().metrics.limit_exceeded(Limit::Waiting);
                self.push_reply(&Reply::Error(refusal));
            }
        }
    }

    /// Queues a message. Of those that wait for the answer to a question, which may be events, the
    /// memory is counted.
    fn queue_message(&mut self, action: ConversationAction, len: usize) {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let is_counted = open.holds_everything();
        let messages = self.account.shard.hub.begun_messages();
        let memory = is_counted.then(|| messages.reserve(self.account.outbox(), len));
        match memory.transpose() {
            Ok(memory) => open.waiting.push(WaitingMessage::new(action, memory)),
            Err(MemoryExceeded) => {
                self.account.relay().metrics.limit_exceeded(Limit::Memory);
                self.begin_close(CloseReason::NoMemory);
            }
        }
    }

    fn carry_out_action(&mut self, action: ConversationAction) {
        match action {
            ConversationAction::Reply(reply) => self.push_immediate_reply(reply),
            ConversationAction::Relay(request) => self.relay_client_event(request),
            ConversationAction::ReadClientEvent {
                envelope,
                message_id,
            } => self.read_client_event(envelope, message_id),
            ConversationAction::RenewToken(request) => self.begin_renewal(request),
            ConversationAction::Request(request) => self.carry_out(request),
        }
    }

    /// Carries out waiting messages while the tenant's quantum lasts.
    pub(super) fn carry_out_waiting(&mut self) {
        while let ConnectionPhase::Open(open) = &mut self.phase
            && open.has_ready_request()
            && open.hub.has_quota()
        {
            if let Some(answered) = open.take_answered_question() {
                self.conclude_question(answered);
            } else if let Some(message) = open.waiting.pop() {
                self.carry_out_waited(message.action);
            }
        }
        // If there is more, it queues behind the tenant's other work.
        self.leave_queue();
    }

    /// Carries out a message that has waited, and is judged again by the grant.
    fn carry_out_waited(&mut self, action: ConversationAction) {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let limits = (&self.account.relay().live().config).into();
        let user = &self.account.user_key().user;
        let judged = match &action {
            ConversationAction::Request(request) => {
                Conversation::new(user, &open.grant, limits).judge_again(request)
            }
            ConversationAction::Relay(event) => event.check_grant(&open.grant),
            ConversationAction::Reply(_)
            | ConversationAction::ReadClientEvent { .. }
            | ConversationAction::RenewToken(_) => Ok(()),
        };
        match judged {
            Ok(()) => self.carry_out_action(action),
            Err(refusal) => self.push_reply(&Reply::Error(refusal)),
        }
    }

    /// Sends a reply at once. A Pong gets the position of the connection, which is not settled
    /// during a catch-up or while a Subscribe waits.
    fn push_immediate_reply(&mut self, mut reply: Reply) {
        if let Reply::Pong(pong) = &mut reply
            && let ConnectionPhase::Open(open) = &self.phase
        {
            pong.position = open.position().map(Into::into);
        }
        self.push_reply(&reply);
    }

    /// Charges a WebSocket ping, the pong of which is already queued.
    pub(super) fn on_ping(&mut self) {
        // Its pong is written at once, which takes a system call.
        self.charge_work(Cost::CALL);
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let relay = self.account.relay();
        if let Err(exceeded) =
            open.pace
                .charge_message(MessageKind::Ping, self.account.user_key(), relay)
        {
            self.push_reply(&Reply::Error(rate_limit_refusal(exceeded)));
        }
    }

    /// Charges the tenant for reading a message.
    pub(super) fn charge_message(&self, envelope: &[u8]) {
        // A field has at least two bytes.
        self.charge_work(Cost::STEP.times(envelope.len() / 2));
    }

    /// Charges the tenant for work that was done for the client.
    pub(super) fn charge_work(&self, cost: Cost) {
        if let ConnectionPhase::Open(open) = &self.phase {
            open.hub.charge(cost);
        }
    }

    /// Charges the frames received: all of them to the tenant, and pongs and small fragments to
    /// the client's rate limit.
    pub(super) fn charge_frames(&mut self) {
        let taken = self.stream.take_frame_count();
        if taken > 0 {
            self.charge_work(Cost::FRAME.times(taken));
        }
        let frames = self.stream.take_uncharged_frames();
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let relay = self.account.relay();
        if let Err(exceeded) = open.pace.charge_frames(frames, relay) {
            self.push_reply(&Reply::Error(rate_limit_refusal(exceeded)));
        }
    }

    fn carry_out(&mut self, request: ClientRequest) {
        match request {
            ClientRequest::Subscribe(contents) => self.authorize(contents),
            ClientRequest::Unsubscribe(mut contents) => {
                let ConnectionPhase::Open(open) = &mut self.phase else {
                    return;
                };
                let done = open.hub.unsubscribe(&contents.topics);
                if done < contents.topics.len() {
                    contents.topics.drain(..done);
                    return open
                        .waiting
                        .push_front(ClientRequest::Unsubscribe(contents));
                }
                self.push_reply(&contents.answer.unsubscribe_confirmation());
            }
        }
    }

    /// Subscribes the client to topics that it may have.
    pub(super) fn subscribe(&mut self, request: TopicsRequest) {
        let topics_max = self.topics_max();
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let TopicsRequest {
            topics,
            resume_from,
            answer,
        } = request;
        match open.hub.request_subscribe(topics, topics_max, resume_from) {
            Some(result) => self.answer_subscribe(answer, result),
            None => {
                open.unanswered = Some(Box::new(UnansweredSubscribe::Requested(answer)));
                self.continue_subscribe();
            }
        }
    }

    fn topics_max(&self) -> usize {
        let live = self.account.relay().live();
        live.config.limits.topics_per_connection
    }

    /// Continues the Subscribe that is under way, if there is one, as far as possible now. Yields
    /// after a slice of the log.
    pub(super) fn continue_subscribe(&mut self) {
        let topics_max = self.topics_max();
        while let ConnectionPhase::Open(open) = &mut self.phase
            && let Some(progress) = open.hub.continue_subscribe(topics_max)
        {
            // A Subscribe that is answered and over at once has not read the log.
            self.turn_is_over |=
                !matches!(progress, SubscribeProgress::Answer(_)) || !open.hub.is_live();
            match progress {
                SubscribeProgress::Answer(result) => {
                    if let Some(answer) = open.take_unanswered() {
                        self.answer_subscribe(answer, result);
                    }
                }
                SubscribeProgress::More => return,
                SubscribeProgress::Live => {}
                SubscribeProgress::Overtaken => self.begin_close(CloseReason::Overtaken),
                SubscribeProgress::NoJson(no_json) => self.begin_close(no_json.into()),
            }
        }
    }

    fn answer_subscribe(
        &mut self,
        answer: TopicsAnswer,
        result: Result<SubscribeConfirmation, SubscribeError>,
    ) {
        let metrics = &self.account.relay().metrics;
        let reply = match result {
            Ok(SubscribeConfirmation { position, resumed }) => {
                if let Some(resumed) = resumed {
                    let has_reconnected = mem::take(&mut self.may_resume_reconnect);
                    metrics.resume_answered(resumed.map(drop), has_reconnected);
                }
                answer.subscribe_confirmation(position, resumed.and_then(Result::ok))
            }
            Err(SubscribeError::TooManyTopics { topics_max }) => {
                metrics.limit_exceeded(Limit::Topics);
                answer.too_many_topics_reply(topics_max)
            }
            Err(SubscribeError::NoMemory(MemoryExceeded)) => {
                metrics.limit_exceeded(Limit::Memory);
                answer.no_memory_reply()
            }
        };
        self.push_reply(&reply);
    }

    /// Sends a reply. A client that is refused too often is disconnected, unless it is by the
    /// relay's fault or that of a backend.
    pub(super) fn push_reply(&mut self, reply: &Reply) {
        if let Reply::Error(refusal) = reply
            && self.account.transport().is_response()
        {
            return self.refuse_response(refusal);
        }
        self.queue_reply(reply);
        if matches!(reply, Reply::Error(refusal) if refusal.code != ErrorCode::InternalError)
            && let ConnectionPhase::Open(open) = &mut self.phase
            && open.pace.record_refusal(self.account.relay())
        {
            self.begin_close(CloseReason::Refused);
        }
    }

    /// Refuses a client of which the only Subscribe is that of its request.
    fn refuse_response(&mut self, refusal: &MessageRefusal) {
        let problem = HttpProblem::from_refusal(refusal);
        let relay = self.account.relay();
        // Without the message, which quotes the query.
        record_refusal(
            relay,
            self.account.address(),
            &problem,
            refusal.code.as_str(),
        );
        // Nothing is written before the Subscribe is answered, and nothing more will be.
        self.account
            .record_dropped(self.account.outbox().discard_queued());
        self.account.outbox().push_reply(refusal_frame(problem));
        self.begin_close(CloseReason::Refused);
    }

    pub(super) fn queue_reply(&self, reply: &Reply) {
        let cost = self.account.queue_reply(reply);
        if cost > Cost::ZERO {
            self.charge_work(cost);
        }
    }
}
