//! What a client asks for, carried out: replies, subscriptions, and what it missed.

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

    /// Does what a message asks for that is charged already.
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

    /// Returns true if something that has waited may be carried out.
    pub(super) fn has_waited(&self) -> bool {
        !self.waiting.is_empty() && self.subscribing.is_none()
    }

    /// Carries out what has waited, for as long as it is the tenant's turn.
    pub(super) fn take_waiting(&mut self) {
        while self.subscribing.is_none()
            && self.has_quota()
            && let Some(action) = self.waiting.pop()
        {
            self.carry_out(action);
        }
        // Behind the others of the tenant, if there is more.
        self.place = None;
    }

    /// Answers at once. A Pong says where the connection stands, which is not settled
    /// while it is being sent what it missed or a Subscribe waits.
    fn reply(&mut self, mut reply: Reply) {
        if let Reply::Pong(pong) = &mut reply
            && self.subscribing.is_none()
            && let Some(membership) = &self.membership
        {
            pong.position = Some(membership.position().into());
        }
        self.push(&reply);
    }

    /// A ping of the WebSocket has come, and is answered.
    pub(super) fn pinged(&mut self) {
        // Its pong is written at once.
        self.charge_work(Cost::CALL);
        let relay = &self.account.shard.relay;
        if let Err(exceeded) = self.pace.charge(Kind::Ping, self.account.who(), relay) {
            self.push(&Reply::Error(too_many(exceeded)));
        }
    }

    /// Charges the tenant for a message that is read.
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

    /// Charges the frames that have come: all of them to the tenant, and those that are no
    /// messages to the client's rates.
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

    /// Takes a Subscribe, at once or when it is the tenant's turn.
    fn subscribe(&mut self, request: TopicsRequest) {
        let awaits = self.membership.as_ref().and_then(Membership::await_head);
        match awaits {
            None => self.subscribe_now(request),
            Some(offset) => {
                saw("a Subscribe that waited for its tenant's turn");
                let awaiting = Subscribing::Awaiting(Awaiting { offset, request });
                self.subscribing = Some(Box::new(awaiting));
            }
        }
    }

    /// Whether a Subscribe has waited for what is delivered now.
    pub(super) fn has_reached_awaited(&self) -> bool {
        match (self.subscribing.as_deref(), &self.membership) {
            (Some(Subscribing::Awaiting(awaiting)), Some(membership)) => {
                membership.has_reached(awaiting.offset)
            }
            _ => false,
        }
    }

    /// Takes the Subscribe that has waited.
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

    /// Tells the client whether it is given what it missed.
    fn resumed(&mut self, request: TopicsRequest, position: Position, result: Result<u64, Gap>) {
        self.account.shard.relay.metrics.resumed(result.map(drop));
        self.push(&request.subscribed(position, result.ok()));
    }

    /// Returns true if the client misses something and it is the connection's turn to
    /// read it from the log.
    pub(super) fn may_catch_up(&mut self, context: &mut Context<'_>) -> bool {
        match (self.subscribing.as_deref_mut(), &self.membership) {
            (Some(Subscribing::Behind(behind)), Some(membership)) => {
                let catch_up = &mut behind.catch_up;
                catch_up.poll_rendered(context).is_ready() && catch_up.may_go_on(membership)
            }
            _ => false,
        }
    }

    /// Goes on with what the client missed, if there is any of that and it is the
    /// connection's turn: for a slice of the log, then others have their turn.
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

    /// Whether the answer to a Subscribe that waits, and what the connection is still
    /// sent from the log, go before its end.
    pub(super) fn is_owed_more(&self, ending: Ending) -> bool {
        let is_owed = self.subscribing.is_some() || self.reading_json.is_some();
        is_owed && matches!(ending, Ending::Drain { .. })
    }

    /// Answers the client. One that is refused too often is closed.
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
