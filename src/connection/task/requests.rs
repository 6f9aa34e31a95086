//! Carries out the requests of a client: replies and subscriptions.

use sidewire_protocol::{close::CloseReason, reply::Reply};

use super::{ConnectionPhase, ConnectionTask};
use crate::{
    connection::{
        conversation::{
            ClientRequest, Conversation, ConversationAction, MessageKind, ParsedFrame,
            TopicsAnswer, TopicsRequest, rate_limit_refusal,
        },
        stream::Transport,
        waiting::WAITING_MAX,
    },
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
            Err(exceeded) => self.carry_out_or_queue(parsed.rate_limit_reply(exceeded)),
        }
    }

    /// Handles a message that is charged already.
    pub(super) fn handle_charged_message(&mut self, parsed: ParsedFrame<'_>) {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let relay = self.account.relay();
        let limits = (&relay.live().config).into();
        let action = Conversation::new(&self.account.user_key().user, &open.grant, limits)
            .decide_action(parsed, relay.clock.unix_seconds());
        self.carry_out_or_queue(action);
    }

    fn carry_out_or_queue(&mut self, action: ConversationAction) {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let request = match action {
            ConversationAction::Reply(reply) => return self.push_immediate_reply(reply),
            ConversationAction::Relay(request) => return self.relay_client_event(request),
            ConversationAction::ReadClientEvent {
                envelope,
                message_id,
            } => return self.read_client_event(envelope, message_id),
            ConversationAction::Request(request) => request,
        };
        if open.hub.is_live() && open.waiting.is_empty() {
            self.carry_out(request);
        } else if open.waiting.has_room() {
            open.waiting.push(request);
        } else {
            let answer = &request.contents().answer;
            let metrics = &self.account.relay().metrics;
            metrics.limit_exceeded(Limit::Waiting);
            self.push_reply(&answer.too_many_waiting_reply(WAITING_MAX));
        }
    }

    /// Carries out waiting requests while the tenant's quantum lasts.
    pub(super) fn carry_out_waiting(&mut self) {
        while let ConnectionPhase::Open(open) = &mut self.phase
            && open.hub.is_live()
            && open.hub.has_quota()
            && let Some(request) = open.waiting.pop()
        {
            self.carry_out(request);
        }
        // If there is more, it queues behind the tenant's other work.
        self.leave_queue();
    }

    /// Sends a reply at once. A Pong gets the position of the connection, which is not settled
    /// during a catch-up or while a Subscribe waits.
    fn push_immediate_reply(&mut self, mut reply: Reply) {
        if let Reply::Pong(pong) = &mut reply
            && let ConnectionPhase::Open(open) = &self.phase
        {
            pong.position = open.hub.position().map(Into::into);
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
        let topics_max = self.topics_max();
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        match request {
            ClientRequest::Subscribe(TopicsRequest {
                topics,
                resume_from,
                answer,
            }) => match open.hub.request_subscribe(topics, topics_max, resume_from) {
                Some(result) => self.answer_subscribe(answer, result),
                None => {
                    open.unanswered = Some(Box::new(answer));
                    self.continue_subscribe();
                }
            },
            ClientRequest::Unsubscribe(mut contents) => {
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
                    if let Some(answer) = open.unanswered.take() {
                        self.answer_subscribe(*answer, result);
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
                    metrics.resume_answered(resumed.map(drop));
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

    /// Sends a reply. A client that is refused too often is disconnected.
    pub(super) fn push_reply(&mut self, reply: &Reply) {
        self.queue_reply(reply);
        if matches!(reply, Reply::Error(_))
            && let ConnectionPhase::Open(open) = &mut self.phase
            && open.pace.record_refusal(self.account.relay())
        {
            self.begin_close(CloseReason::Refused);
        }
    }

    pub(super) fn queue_reply(&self, reply: &Reply) {
        let cost = self.account.queue_reply(reply);
        if cost > Cost::ZERO {
            self.charge_work(cost);
        }
    }
}
