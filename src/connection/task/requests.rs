//! Carries out the requests of a client: replies, subscriptions and catch-up.

use std::task::Context;

use super::{Connection, Listener, Phase};
use crate::{
    connection::{
        behind::{Awaiting, Behind, Subscribing, WAITING_MAX},
        conversation::{Action, Conversation, Heard, Kind, TopicsRequest, too_many},
        stream::Transport,
    },
    hub::{Membership, Progress, SubscribeError, Subscribed},
    limits::Limit,
    log::Gap,
    memory::MemoryExceeded,
    planted::saw,
    protocol::{Encoding, Position, close::Ending, frame, reply::Reply},
    repeated::{RepeatedLine, log_repeated},
    scheduler::Cost,
};

impl<S: Transport, L: Listener> Connection<S, L> {
    pub(super) fn answer(&mut self, frame: &[u8]) {
        self.charge_message(frame);
        let live = self.account.shard.relay.live();
        self.act_on(Conversation::hear(&live.schema, frame));
    }

    pub(super) fn act_on(&mut self, heard: Heard<'_>) {
        let relay = &self.account.shard.relay;
        let charged = self.pace.charge(heard.kind(), self.account.who(), relay);
        match charged {
            Ok(()) => self.act_on_charged(heard),
            Err(exceeded) => self.take_action(heard.too_many(exceeded)),
        }
    }

    /// Handles a message that is charged already.
    pub(super) fn act_on_charged(&mut self, heard: Heard<'_>) {
        let relay = &self.account.shard.relay;
        let topics_max = relay.live().config.limits.topics_per_subscribe;
        self.conversation.bound_topics(topics_max);
        let action = self.conversation.act(heard, relay.clock.unix_seconds());
        self.take_action(action);
    }

    fn take_action(&mut self, action: Action) {
        match action {
            Action::Reply(reply) => self.reply(reply),
            action if self.subscribing.is_none() && self.waiting.is_empty() => {
                self.carry_out(action);
            }
            action if self.waiting.has_room() => self.waiting.push(action),
            Action::Subscribe(request) | Action::Unsubscribe(request) => {
                self.account.shard.relay.metrics.exceeded(Limit::Waiting);
                self.push(&request.too_many_wait(WAITING_MAX));
            }
        }
    }

    /// Returns true if a waiting request may be carried out now.
    pub(super) fn has_waited(&self) -> bool {
        !self.waiting.is_empty() && self.subscribing.is_none()
    }

    /// Carries out waiting requests while the tenant's quantum lasts.
    pub(super) fn take_waiting(&mut self) {
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
    fn reply(&mut self, mut reply: Reply) {
        if let Reply::Pong(pong) = &mut reply
            && self.subscribing.is_none()
            && let Some(membership) = &self.membership
        {
            pong.position = Some(membership.position().into());
        }
        self.push(&reply);
    }

    /// Charges a WebSocket ping, the pong of which is already queued.
    pub(super) fn pinged(&mut self) {
        // Its pong is written at once, which takes a system call.
        self.charge_work(Cost::CALL);
        let relay = &self.account.shard.relay;
        if let Err(exceeded) = self.pace.charge(Kind::Ping, self.account.who(), relay) {
            self.push(&Reply::Error(too_many(exceeded)));
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
        if self.phase != Phase::Open {
            return;
        }
        let relay = &self.account.shard.relay;
        if let Err(exceeded) = self.pace.charge_frames(frames, relay) {
            self.push(&Reply::Error(too_many(exceeded)));
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Reply(reply) => self.reply(reply),
            Action::Subscribe(request) => {
                self.subscribe(request);
                self.catch_up();
            }
            Action::Unsubscribe(request) => {
                if let Some(membership) = &self.membership {
                    membership.unsubscribe(request.topics());
                    self.push(&request.unsubscribed());
                }
            }
        }
    }

    /// Carries out a Subscribe at once, or when the events are delivered that the tenant has
    /// waiting.
    fn subscribe(&mut self, request: TopicsRequest) {
        let awaits = self.membership.as_ref().and_then(Membership::await_head);
        match awaits {
            None => self.subscribe_now(request),
            Some(offset) => {
                saw("a Subscribe that waited for its tenant's deliveries");
                let awaiting = Subscribing::Awaiting(Awaiting { offset, request });
                self.subscribing = Some(Box::new(awaiting));
            }
        }
    }

    /// Returns true if the events that a Subscribe waits for have been delivered.
    pub(super) fn has_reached_awaited(&self) -> bool {
        match (self.subscribing.as_deref(), &self.membership) {
            (Some(Subscribing::Awaiting(awaiting)), Some(membership)) => {
                membership.has_reached(awaiting.offset)
            }
            _ => false,
        }
    }

    /// Carries out the Subscribe that waited.
    pub(super) fn subscribe_awaited(&mut self) {
        let awaiting = self
            .subscribing
            .take_if(|subscribing| matches!(**subscribing, Subscribing::Awaiting(_)));
        if let Some(Subscribing::Awaiting(awaiting)) = awaiting.map(|awaiting| *awaiting) {
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
            Ok(Subscribed::Live(position)) => self.push(&request.subscribed(position, None)),
            Ok(Subscribed::Resumed(position)) => self.resumed(request, position, Ok(0)),
            Ok(Subscribed::NotResumed(position, gap)) => {
                self.resumed(request, position, Err(gap));
            }
            Ok(Subscribed::Behind(catch_up)) => {
                let behind = Behind {
                    catch_up,
                    request: Some(request),
                };
                self.subscribing = Some(Box::new(Subscribing::Behind(behind)));
            }
            Err(SubscribeError::TooManyTopics { topics_max }) => {
                self.account.shard.relay.metrics.exceeded(Limit::Topics);
                self.push(&request.over_the_cap(topics_max));
            }
            Err(SubscribeError::NoMemory(MemoryExceeded)) => {
                self.account.shard.relay.metrics.exceeded(Limit::Memory);
                self.push(&request.no_memory());
            }
        }
    }

    /// Confirms a Subscribe that resumes: with the number of events to replay, or as not
    /// recovered.
    fn resumed(&mut self, request: TopicsRequest, position: Position, result: Result<u64, Gap>) {
        self.account.shard.relay.metrics.resumed(result.map(drop));
        self.push(&request.subscribed(position, result.ok()));
    }

    /// Returns true if the connection is catching up and may read the log now.
    pub(super) fn may_catch_up(&mut self, context: &mut Context<'_>) -> bool {
        match (self.subscribing.as_deref_mut(), &self.membership) {
            (Some(Subscribing::Behind(behind)), Some(membership)) => {
                let catch_up = &mut behind.catch_up;
                catch_up.poll_rendered(context).is_ready() && catch_up.may_go_on(membership)
            }
            _ => false,
        }
    }

    /// Continues the catch-up, if there is one and the connection may read the log now. Yields
    /// after a slice of the log.
    pub(super) fn catch_up(&mut self) {
        while let Some(Subscribing::Behind(behind)) = self.subscribing.as_deref_mut()
            && let Some(membership) = &self.membership
        {
            let Some(progress) = behind.catch_up.go_on(membership) else {
                return;
            };
            self.turn_is_over = true;
            match progress {
                Progress::More => return,
                Progress::Confirm(result) => {
                    let position = behind.catch_up.position();
                    if let Some(request) = behind.request.take() {
                        self.resumed(request, position, result);
                    }
                }
                Progress::Live => self.subscribing = None,
                Progress::Overtaken => return self.end(Ending::Overtaken),
                Progress::NoJson(no_json) => return self.end(no_json.into()),
            }
        }
    }

    /// Returns true if a drain has to wait for a Subscribe, a catch-up or a JSON message before
    /// the connection ends. Nothing delays the other endings.
    pub(super) fn is_owed_more(&self, ending: Ending) -> bool {
        let is_owed = self.subscribing.is_some() || self.reading_json.is_some();
        is_owed && matches!(ending, Ending::Drain { .. })
    }

    /// Sends a reply. A client that is refused too often is disconnected.
    pub(super) fn push(&mut self, reply: &Reply) {
        self.say(reply);
        if matches!(reply, Reply::Error(_)) && self.pace.refused(&self.account.shard.relay) {
            self.end(Ending::Refused);
        }
    }

    pub(super) fn say(&self, reply: &Reply) {
        let relay = &self.account.shard.relay;
        if let Reply::Error(refusal) = reply {
            relay.metrics.refused(refusal.code);
        }
        let id = relay.random.uuid_v7(&relay.clock).to_string();
        let envelope = reply.envelope(&id, relay.clock.unix_seconds());
        let outbox = &self.account.outbox;
        match outbox.encoding() {
            Encoding::Protobuf => outbox.push_reply(frame::binary(&envelope)),
            Encoding::Json => match relay.live().schema.envelope_to_json_text(&envelope) {
                Ok(json) => {
                    self.charge_work(Cost::JSON_BYTE.times(json.len()));
                    outbox.push_reply(frame::text(&json));
                }
                Err(error) => {
                    log_repeated!(RepeatedLine::AnswerWithoutJson, %error);
                    outbox.end(Ending::InternalError);
                }
            },
        }
    }
}
