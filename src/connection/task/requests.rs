//! Carries out the requests of a client: replies, subscriptions and catch-up.

use std::task::Context;

use sidewire_protocol::{EnvelopeEncoding, Position, close::CloseReason, frame, reply::Reply};

use super::{ConnectionPhase, ConnectionTask, MessageHandler};
use crate::{
    connection::{
        behind::{AwaitingHead, CatchingUp, PendingSubscribe, WAITING_MAX},
        conversation::{
            Conversation, ConversationAction, MessageKind, ParsedFrame, TopicsRequest,
            rate_limit_refusal,
        },
        stream::Transport,
    },
    hub::{CatchUpProgress, HubConnection, SubscribeError, SubscribeOutcome},
    limits::Limit,
    log::ReplayGap,
    memory::MemoryExceeded,
    planted::mark_seen,
    repeated::{RepeatedLine, log_repeated},
    scheduler::Cost,
};

impl<S: Transport, L: MessageHandler> ConnectionTask<S, L> {
    pub(super) fn handle_binary_frame(&mut self, frame: &[u8]) {
        self.charge_message(frame);
        let live = self.account.shard.relay.live();
        self.handle_message(Conversation::parse_frame(&live.schema, frame));
    }

    pub(super) fn handle_message(&mut self, heard: ParsedFrame<'_>) {
        let relay = &self.account.shard.relay;
        let charged = self
            .pace
            .charge_message(heard.kind(), self.account.user_key(), relay);
        match charged {
            Ok(()) => self.handle_charged_message(heard),
            Err(exceeded) => self.carry_out_or_queue(heard.rate_limit_reply(exceeded)),
        }
    }

    /// Handles a message that is charged already.
    pub(super) fn handle_charged_message(&mut self, heard: ParsedFrame<'_>) {
        let relay = &self.account.shard.relay;
        let topics_max = relay.live().config.limits.topics_per_subscribe;
        self.conversation.set_topics_per_subscribe(topics_max);
        let action = self
            .conversation
            .decide_action(heard, relay.clock.unix_seconds());
        self.carry_out_or_queue(action);
    }

    fn carry_out_or_queue(&mut self, action: ConversationAction) {
        match action {
            ConversationAction::Reply(reply) => self.push_immediate_reply(reply),
            action if self.subscribing.is_none() && self.waiting.is_empty() => {
                self.carry_out(action);
            }
            action if self.waiting.has_room() => self.waiting.push(action),
            ConversationAction::Subscribe(request) | ConversationAction::Unsubscribe(request) => {
                self.account
                    .shard
                    .relay
                    .metrics
                    .limit_exceeded(Limit::Waiting);
                self.push_reply(&request.too_many_waiting_reply(WAITING_MAX));
            }
        }
    }

    /// Returns true if a waiting request may be carried out now.
    pub(super) fn has_ready_request(&self) -> bool {
        !self.waiting.is_empty() && self.subscribing.is_none()
    }

    /// Carries out waiting requests while the tenant's quantum lasts.
    pub(super) fn carry_out_waiting(&mut self) {
        while self.subscribing.is_none()
            && self.has_quota()
            && let Some(action) = self.waiting.pop()
        {
            self.carry_out(action);
        }
        // If there is more, it queues behind the tenant's other work.
        self.place = None;
    }

    /// Sends a reply at once. A Pong gets the position of the connection, which is not settled
    /// during a catch-up or while a Subscribe waits.
    fn push_immediate_reply(&mut self, mut reply: Reply) {
        if let Reply::Pong(pong) = &mut reply
            && self.subscribing.is_none()
            && let Some(membership) = &self.membership
        {
            pong.position = Some(membership.position().into());
        }
        self.push_reply(&reply);
    }

    /// Charges a WebSocket ping, the pong of which is already queued.
    pub(super) fn on_ping(&mut self) {
        // Its pong is written at once, which takes a system call.
        self.charge_work(Cost::CALL);
        let relay = &self.account.shard.relay;
        if let Err(exceeded) =
            self.pace
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
        if let Some(membership) = &self.membership {
            membership.charge(cost);
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
        if self.phase != ConnectionPhase::Open {
            return;
        }
        let relay = &self.account.shard.relay;
        if let Err(exceeded) = self.pace.charge_frames(frames, relay) {
            self.push_reply(&Reply::Error(rate_limit_refusal(exceeded)));
        }
    }

    fn carry_out(&mut self, action: ConversationAction) {
        match action {
            ConversationAction::Reply(reply) => self.push_immediate_reply(reply),
            ConversationAction::Subscribe(request) => {
                self.begin_subscribe(request);
                self.catch_up();
            }
            ConversationAction::Unsubscribe(request) => {
                if let Some(membership) = &self.membership {
                    membership.unsubscribe(request.topics());
                    self.push_reply(&request.unsubscribe_confirmation());
                }
            }
        }
    }

    /// Carries out a Subscribe at once, or when the events are delivered that the tenant has
    /// waiting.
    fn begin_subscribe(&mut self, request: TopicsRequest) {
        let awaits = self.membership.as_ref().and_then(HubConnection::await_head);
        match awaits {
            None => self.subscribe_now(request),
            Some(offset) => {
                mark_seen("a Subscribe that waited for its tenant's deliveries");
                let awaiting = PendingSubscribe::Awaiting(AwaitingHead { offset, request });
                self.subscribing = Some(Box::new(awaiting));
            }
        }
    }

    /// Returns true if the events that a Subscribe waits for have been delivered.
    pub(super) fn has_reached_head(&self) -> bool {
        match (self.subscribing.as_deref(), &self.membership) {
            (Some(PendingSubscribe::Awaiting(awaiting)), Some(membership)) => {
                membership.has_reached(awaiting.offset)
            }
            _ => false,
        }
    }

    /// Carries out the Subscribe that waited.
    pub(super) fn subscribe_after_wait(&mut self) {
        let awaiting = self
            .subscribing
            .take_if(|subscribing| matches!(**subscribing, PendingSubscribe::Awaiting(_)));
        if let Some(PendingSubscribe::Awaiting(awaiting)) = awaiting.map(|awaiting| *awaiting) {
            self.subscribe_now(awaiting.request);
            self.catch_up();
        }
    }

    fn subscribe_now(&mut self, request: TopicsRequest) {
        let Some(membership) = &self.membership else {
            return;
        };
        let cap = self
            .account
            .shard
            .relay
            .live()
            .config
            .limits
            .topics_per_connection;
        match membership.subscribe(request.topics(), cap, request.resume_from()) {
            Ok(SubscribeOutcome::Live(position)) => {
                self.push_reply(&request.subscribe_confirmation(position, None));
            }
            Ok(SubscribeOutcome::Resumed(position)) => {
                self.confirm_resume(request, position, Ok(0));
            }
            Ok(SubscribeOutcome::NotResumed(position, gap)) => {
                self.confirm_resume(request, position, Err(gap));
            }
            Ok(SubscribeOutcome::Behind(catch_up)) => {
                let behind = CatchingUp {
                    catch_up,
                    request: Some(request),
                };
                self.subscribing = Some(Box::new(PendingSubscribe::Behind(behind)));
            }
            Err(SubscribeError::TooManyTopics { topics_max }) => {
                self.account
                    .shard
                    .relay
                    .metrics
                    .limit_exceeded(Limit::Topics);
                self.push_reply(&request.too_many_topics_reply(topics_max));
            }
            Err(SubscribeError::NoMemory(MemoryExceeded)) => {
                self.account
                    .shard
                    .relay
                    .metrics
                    .limit_exceeded(Limit::Memory);
                self.push_reply(&request.no_memory_reply());
            }
        }
    }

    /// Confirms a Subscribe that resumes: with the number of events to replay, or as not
    /// recovered.
    fn confirm_resume(
        &mut self,
        request: TopicsRequest,
        position: Position,
        result: Result<u64, ReplayGap>,
    ) {
        self.account
            .shard
            .relay
            .metrics
            .resume_answered(result.map(drop));
        self.push_reply(&request.subscribe_confirmation(position, result.ok()));
    }

    /// Returns true if the connection is catching up and may read the log now.
    pub(super) fn may_catch_up(&mut self, context: &mut Context<'_>) -> bool {
        match (self.subscribing.as_deref_mut(), &self.membership) {
            (Some(PendingSubscribe::Behind(behind)), Some(membership)) => {
                let catch_up = &mut behind.catch_up;
                catch_up.poll_rendered(context).is_ready() && catch_up.can_continue(membership)
            }
            _ => false,
        }
    }

    /// Continues the catch-up, if there is one and the connection may read the log now. Yields
    /// after a slice of the log.
    pub(super) fn catch_up(&mut self) {
        while let Some(PendingSubscribe::Behind(behind)) = self.subscribing.as_deref_mut()
            && let Some(membership) = &self.membership
        {
            let Some(progress) = behind.catch_up.run_slice(membership) else {
                return;
            };
            self.turn_is_over = true;
            match progress {
                CatchUpProgress::More => return,
                CatchUpProgress::Confirm(result) => {
                    let position = behind.catch_up.position();
                    if let Some(request) = behind.request.take() {
                        self.confirm_resume(request, position, result);
                    }
                }
                CatchUpProgress::Live => self.subscribing = None,
                CatchUpProgress::Overtaken => return self.begin_close(CloseReason::Overtaken),
                CatchUpProgress::NoJson(no_json) => return self.begin_close(no_json.into()),
            }
        }
    }

    /// Returns true if a drain has to wait for a Subscribe, a catch-up or a JSON message before
    /// the connection ends. Nothing delays the other endings.
    pub(super) fn must_finish_before(&self, ending: CloseReason) -> bool {
        let is_owed = self.subscribing.is_some() || self.reading_json.is_some();
        is_owed && matches!(ending, CloseReason::Drain { .. })
    }

    /// Sends a reply. A client that is refused too often is disconnected.
    pub(super) fn push_reply(&mut self, reply: &Reply) {
        self.queue_reply(reply);
        if matches!(reply, Reply::Error(_)) && self.pace.record_refusal(&self.account.shard.relay) {
            self.begin_close(CloseReason::Refused);
        }
    }

    pub(super) fn queue_reply(&self, reply: &Reply) {
        let relay = &self.account.shard.relay;
        if let Reply::Error(refusal) = reply {
            relay.metrics.message_refused(refusal.code);
        }
        let id = relay.random.uuid_v7(&relay.clock).to_string();
        let envelope = reply.to_envelope(&id, relay.clock.unix_seconds());
        let outbox = &self.account.outbox;
        match outbox.encoding() {
            EnvelopeEncoding::Protobuf => outbox.push_reply(frame::binary_frame(&envelope)),
            EnvelopeEncoding::Json => match relay.live().schema.envelope_to_json_text(&envelope) {
                Ok(json) => {
                    self.charge_work(Cost::JSON_BYTE.times(json.len()));
                    outbox.push_reply(frame::text_frame(&json));
                }
                Err(error) => {
                    log_repeated!(RepeatedLine::AnswerWithoutJson, %error);
                    outbox.request_end(CloseReason::InternalError);
                }
            },
        }
    }
}
