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
    revocation::ReplayCut,
    roster::{ConnectionProfile, ConnectionRecord},
    shard::{ShardHub, ShardTenant},
    subscribers::ConnectionId,
};
use crate::{
    event::ClientEvent,
    limits::LimitExceeded,
    memory::MemoryExceeded,
    outbox::Outbox,
    planted::{fault, mark_seen},
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
    /// The connection's events come from the log. No topic must be added.
    CatchingUp(CatchUp),
}

/// A Subscribe that was requested and has not taken effect.
#[derive(Debug)]
pub struct UntakenSubscribe {
    /// Its topics.
    pub topics: Vec<Topic>,
    /// The position to resume from, if it has one.
    pub resume_from: Option<Result<Position, EpochError>>,
}

impl HubConnection {
    /// Adds the connection to the tenant's index on this shard.
    pub(super) fn new(
        hub: Rc<ShardHub>,
        here: Rc<ShardTenant>,
        id: ConnectionId,
        profile: ConnectionProfile,
        outbox: Rc<Outbox>,
    ) -> Self {
        Self {
            member: TenantMember::new(hub, here, id, profile, outbox),
            pending: None,
        }
    }

    /// Returns what the hub knows about the connection as long as it is open.
    #[must_use]
    pub fn record(&self) -> &Rc<ConnectionRecord> {
        self.member.record()
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
        let is_only = member.record().profile().transport.is_response();
        if is_only && !fault!(KeepsWhatCameBefore) {
            member.forget_delivered();
        }
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
            self.member.go_live();
            self.pending = None;
        }
        progress
    }

    /// Takes back a Subscribe that has not taken effect, if one is under way, so that the caller
    /// can request it again.
    pub fn take_back_subscribe(&mut self) -> Option<UntakenSubscribe> {
        match self.pending.take().map(|pending| *pending) {
            Some(PendingSubscribe::WaitingForHead {
                topics,
                resume_from,
                ..
            }) => Some(UntakenSubscribe {
                topics,
                resume_from,
            }),
            other => {
                self.pending = other.map(Box::new);
                None
            }
        }
    }

    /// Ends the subscriptions for which `is_lost` is true, and returns their topics: from now on
    /// nothing is queued for the client because of them. The caller tells the client, and then
    /// calls [`clear_lost`](Self::clear_lost).
    ///
    /// # Errors
    ///
    /// When a replay covers one of them: the connection must be closed. The number is that of the
    /// subscriptions that it loses.
    pub fn revoke(&mut self, is_lost: impl FnMut(&Topic) -> bool) -> Result<Vec<Topic>, ReplayCut> {
        let catch_up = match self.pending.as_deref() {
            Some(PendingSubscribe::CatchingUp(catch_up)) => Some(catch_up),
            _ => None,
        };
        let replays = catch_up.is_some_and(CatchUp::replays);
        let topics = self.member.lose_subscriptions(replays, is_lost);
        if catch_up.is_some_and(|catch_up| catch_up.replays_any(&topics)) {
            return Err(ReplayCut {
                subscriptions: topics.len(),
            });
        }
        Ok(topics)
    }

    /// Removes lost topics from the index. If that is more than a quantum, the connection catches
    /// up afterwards: the caller has to [continue](Self::continue_subscribe) it.
    pub fn clear_lost(&mut self) {
        debug_assert!(
            !matches!(
                self.pending.as_deref(),
                Some(PendingSubscribe::WaitingForHead { .. })
            ),
            "a Subscribe waits that should have been taken back"
        );
        if self.is_live() && !self.member.clear_lost() {
            mark_seen("a revocation of more topics than a quantum");
            let position = self.member.position();
            self.member.outbox().start_catch_up();
            let catch_up = CatchUp::following(position);
            self.pending = Some(Box::new(PendingSubscribe::CatchingUp(catch_up)));
        }
    }

    /// Carries out the first revocation that a backend has requested for the connection, as
    /// [`revoke`](Self::revoke) does. Returns `None` if there is none.
    pub fn carry_out_revocation(&mut self) -> Option<Result<Vec<Topic>, ReplayCut>> {
        let call = self.member.take_revocation()?;
        let outcome = self.revoke(|topic| call.topics().ends(topic));
        call.add_ended(match &outcome {
            Ok(topics) => topics.len(),
            Err(cut) => cut.subscriptions,
        });
        Some(outcome)
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

    /// Gives up the places in its tenant's queue that the connection holds to send presence and to
    /// read the log, while it waits for something else.
    pub fn postpone_own_work(&mut self) {
        self.member.postpone_presence();
        if let Some(PendingSubscribe::CatchingUp(catch_up)) = self.pending.as_deref_mut() {
            catch_up.postpone();
        }
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
