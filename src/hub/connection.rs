//! A connection's handle to the hub. It owns the whole life of a subscription: the wait for the
//! head of the tenant's log, the catch-up of a client that resumes, and live delivery. The
//! connection requests a Subscribe, and polls for its progress if it is not answered at once. Knows
//! no wire format.

use std::{rc::Rc, sync::Arc, task::Context};

use sidewire_protocol::{Position, Topic, UserName, position::EpochError};

#[cfg(test)]
use super::read_slice::ReadSlice;
use super::{
    catch_up::{CatchUp, SubscribeConfirmation, SubscribeProgress},
    inbox::InboxSender,
    membership::{SubscribeError, TenantMember},
    presence::{PresenceLimits, PresenceProgress, PresenceRefused},
    shard::{ShardHub, ShardTenant},
    subscribers::ConnectionId,
};
use crate::{
    event::ClientEvent,
    limits::LimitExceeded,
    memory::MemoryExceeded,
    outbox::Outbox,
    planted::mark_seen,
    scheduler::{Cost, WorkTicket},
};

/// A connection's registration with the hub. Dropping it removes the connection everywhere.
#[derive(Debug)]
pub struct HubConnection {
    pub(super) member: TenantMember,
    /// The Subscribe that is under way; `None` while the connection is live. Boxed, since most
    /// connections are live.
    pending: Option<Box<PendingSubscribe>>,
}

/// A Subscribe that is under way.
#[derive(Debug)]
enum PendingSubscribe {
    /// It takes effect when the shard has delivered everything that the tenant's log held when it
    /// came.
    WaitingForHead {
        offset: u64,
        topics: Vec<Topic>,
        resume_from: Option<Result<Position, EpochError>>,
    },
    /// The connection's events come from the log. Its topics must not change.
    CatchingUp(CatchUp),
}

impl HubConnection {
    /// Adds the connection to the tenant's index on this shard.
    pub(super) fn new(
        hub: Rc<ShardHub>,
        here: Rc<ShardTenant>,
        id: ConnectionId,
        user: &UserName,
        outbox: Rc<Outbox>,
    ) -> Self {
        Self {
            member: TenantMember::new(hub, here, id, user, outbox),
            pending: None,
        }
    }

    /// Subscribes a new connection to the topics of its token, without duplicates. Its first
    /// Subscribe that resumes replays them with the implicit topics.
    ///
    /// # Errors
    ///
    /// When no memory is left for subscriptions.
    pub fn subscribe_claimed(&mut self, topics: Vec<Topic>) -> Result<(), MemoryExceeded> {
        self.member.subscribe_claimed(topics)
    }

    /// Requests a Subscribe to the topics, for a connection that is [live](Self::is_live) and may
    /// have at most `topics_max` topics. It takes effect at a position that is not below the
    /// present head of the tenant's log. With `resume_from`, the events between the two positions
    /// are replayed. Returns the answer, or `None` if it must be
    /// [continued](Self::continue_subscribe) first.
    pub fn request_subscribe(
        &mut self,
        topics: Vec<Topic>,
        topics_max: usize,
        resume_from: Option<Result<Position, EpochError>>,
    ) -> Option<Result<SubscribeConfirmation, SubscribeError>> {
        debug_assert!(self.is_live(), "another Subscribe is under way");
        let Some(offset) = self.member.await_head() else {
            return self.subscribe(&topics, topics_max, resume_from).transpose();
        };
        mark_seen("a Subscribe that waited for its tenant's deliveries");
        self.pending = Some(Box::new(PendingSubscribe::WaitingForHead {
            offset,
            topics,
            resume_from,
        }));
        None
    }

    /// Continues the Subscribe that is under way, with one slice of the log at most. Returns
    /// `None` if there is none, or if it cannot continue now: then the connection is nudged when
    /// that may have changed. A connection may have at most `topics_max` topics.
    pub fn continue_subscribe(&mut self, topics_max: usize) -> Option<SubscribeProgress> {
        if self.has_reached_head()
            && let Some(PendingSubscribe::WaitingForHead {
                topics,
                resume_from,
                ..
            }) = self.pending.take().map(|pending| *pending)
        {
            let answer = self.subscribe(&topics, topics_max, resume_from);
            if let Some(answer) = answer.transpose() {
                return Some(SubscribeProgress::Answer(answer));
            }
        }
        let PendingSubscribe::CatchingUp(catch_up) = self.pending.as_deref_mut()? else {
            return None;
        };
        let progress = catch_up.run_slice(&mut self.member)?;
        Some(self.after_step(progress))
    }

    /// Subscribes the connection to the topics now. Returns `None` if it has to catch up before
    /// the Subscribe can be confirmed.
    pub(super) fn subscribe(
        &mut self,
        topics: &[Topic],
        topics_max: usize,
        resume_from: Option<Result<Position, EpochError>>,
    ) -> Result<Option<SubscribeConfirmation>, SubscribeError> {
        let member = &mut self.member;
        let position = member.subscribe(topics, topics_max)?;
        let Some(from) = resume_from else {
            return Ok(Some(SubscribeConfirmation {
                position,
                resumed: None,
            }));
        };
        let implicit = member.resumes_implicit();
        let claimed = member.take_claimed();
        let resumed = match member.replay_start(from, position) {
            Ok(Some(from)) => {
                member.outbox().start_catch_up();
                let topics = topics.iter().cloned().chain(claimed);
                let catch_up = CatchUp::new(topics, implicit, from, position);
                self.pending = Some(Box::new(PendingSubscribe::CatchingUp(catch_up)));
                return Ok(None);
            }
            Ok(None) => Ok(0),
            Err(gap) => Err(gap),
        };
        Ok(Some(SubscribeConfirmation {
            position,
            resumed: Some(resumed),
        }))
    }

    /// Switches to live delivery if the step has ended the catch-up.
    fn after_step(&mut self, progress: SubscribeProgress) -> SubscribeProgress {
        if progress == SubscribeProgress::Live {
            self.member.outbox().go_live();
            self.pending = None;
        }
        progress
    }

    /// Unsubscribes the connection, which is [live](Self::is_live), from the topics, ignoring
    /// those that it does not have. Returns the number of topics that are done; the caller
    /// continues with the others when the connection may work again.
    pub fn unsubscribe(&mut self, topics: &[Topic]) -> usize {
        self.member.unsubscribe(topics)
    }

    /// Returns true if the connection is subscribed to the topic.
    #[must_use]
    pub fn is_subscribed(&self, topic: &Topic) -> bool {
        self.member.is_subscribed(topic)
    }

    /// Sends an event of the connection's client to the other connections of the topics.
    pub(super) fn relay(
        &self,
        event: Arc<ClientEvent>,
        topics: Box<[Topic]>,
        inboxes: &[InboxSender],
    ) {
        self.member.relay(event, topics, inboxes);
    }

    /// Returns true if no Subscribe is under way.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.pending.is_none()
    }

    /// Returns true if a Subscribe waits, or its catch-up has not read the log yet. Nothing is
    /// read from the client meanwhile.
    #[must_use]
    pub fn stops_reading(&self) -> bool {
        match self.pending.as_deref() {
            None => false,
            Some(PendingSubscribe::WaitingForHead { .. }) => true,
            Some(PendingSubscribe::CatchingUp(catch_up)) => !catch_up.has_started(),
        }
    }

    /// Returns true if the events that a Subscribe waits for have been delivered.
    #[must_use]
    pub fn has_reached_head(&self) -> bool {
        match self.pending.as_deref() {
            Some(PendingSubscribe::WaitingForHead { offset, .. }) => {
                self.member.has_reached(*offset)
            }
            _ => false,
        }
    }

    /// Returns true if the connection is catching up and may read the log now. If not, it is
    /// nudged when it is scheduled, when its outbox is half free, or when an event is rendered.
    pub fn may_catch_up(&mut self, context: &mut Context<'_>) -> bool {
        let Some(PendingSubscribe::CatchingUp(catch_up)) = self.pending.as_deref_mut() else {
            return false;
        };
        catch_up.poll_rendered(context).is_ready() && catch_up.can_continue(&self.member)
    }

    /// Returns the connection's position: all events of its topics up to it are in its outbox.
    /// Returns `None` while a Subscribe is under way.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.is_live().then(|| self.member.position())
    }
}

/// The presence that the client sends and is sent.
impl HubConnection {
    /// Takes a presence message of the client, in place of its earlier one with this payload.
    /// `named` are the topics that it names, of which the connection is subscribed to at least one.
    /// `now` is the time in Unix seconds.
    ///
    /// # Errors
    ///
    /// When a bound is reached; then the earlier message stands.
    pub fn set_presence(
        &self,
        user: &UserName,
        payload: u32,
        event: Arc<ClientEvent>,
        named: Vec<Topic>,
        limits: &PresenceLimits,
        now: i64,
    ) -> Result<(), PresenceRefused> {
        self.member
            .set_presence(user, payload, event, named, limits, now)
    }

    /// Ends the client's presence message with this payload. Returns false if there is none.
    #[must_use]
    pub fn withdraw_presence(&self, payload: u32) -> bool {
        self.member.withdraw_presence(payload)
    }

    /// Returns true if presence messages that the connection is owed may be sent now. `is_limited`:
    /// true while none may be sent because of new subscriptions.
    #[must_use]
    pub fn may_send_presence(&self, is_limited: bool) -> bool {
        if !self.is_live() {
            self.member.postpone_presence();
            return false;
        }
        self.member.may_send_presence(is_limited)
    }

    /// Gives up the connection's place in its tenant's queue that it holds to send presence, while
    /// it waits for something else.
    pub fn postpone_presence(&self) {
        self.member.postpone_presence();
    }

    /// Sends a part of what the connection is owed. `charge` is called for each message that is sent
    /// because of a new subscription.
    pub fn send_presence(
        &self,
        charge: impl FnMut() -> Result<(), LimitExceeded>,
    ) -> PresenceProgress {
        self.member.send_presence(charge)
    }
}

/// Scheduling of the connection's work.
impl HubConnection {
    /// Returns true if work may be done for the connection now. If not, the connection joins its
    /// tenant's queue, and is nudged when it is granted a quantum.
    pub fn may_work(&self, ticket: &mut Option<WorkTicket>) -> bool {
        self.member.may_work(ticket)
    }

    /// Like [`may_work`](Self::may_work), for a large write.
    pub fn may_write(&self, ticket: &mut Option<WorkTicket>) -> bool {
        let member = &self.member;
        member.here.writes.may_work(ticket, || member.waiter())
    }

    /// Charges the tenant for a large write.
    pub fn charge_write(&self, cost: Cost) {
        self.member.here.writes.charge(cost);
    }

    /// Returns true if something is left of the tenant's quantum.
    #[must_use]
    pub fn has_quota(&self) -> bool {
        self.member.here.work.has_quota()
    }

    /// Charges the tenant for work that was done for the connection.
    pub fn charge(&self, cost: Cost) {
        self.member.charge(cost);
    }
}

#[cfg(test)]
impl HubConnection {
    pub(super) fn catch_up(&mut self) -> (&mut CatchUp, &mut TenantMember) {
        let Some(PendingSubscribe::CatchingUp(catch_up)) = self.pending.as_deref_mut() else {
            panic!("the connection is not catching up");
        };
        (catch_up, &mut self.member)
    }

    /// Runs a step of the catch-up, with this slice.
    pub(super) fn run_step(&mut self, slice: &mut ReadSlice) -> SubscribeProgress {
        let (catch_up, member) = self.catch_up();
        let progress = catch_up.run_step(member, slice);
        self.after_step(progress)
    }
}
