//! A connection as a member of its tenant on one shard: its topics, the offset from which each is
//! delivered, and its view of the tenant's log. Knows no wire format.

use std::{cell::OnceCell, mem, ops::ControlFlow, rc::Rc, sync::Arc};

use sidewire_protocol::{
    EnvelopeEncoding, Position, Topic, UserName, position::EpochError, topic::TopicSet,
};
use tokio::time::Instant;

use super::{
    implicit_topics::ImplicitTopics,
    inbox::{InboxSender, RelayedEvent},
    large_json::JsonRendering,
    read_slice::ReadSlice,
    revocation::LostSubscriptions,
    roster::{ConnectionProfile, ConnectionRecord},
    shard::{ShardHub, ShardTenant},
    subscribers::ConnectionId,
    subscriptions::{SubscriptionMap, subscription_bytes},
    tenant::LogSpan,
};
use crate::{
    event::{ClientEvent, Event, JsonFrame, NoJson},
    log::ReplayGap,
    memory::{MemoryExceeded, MemoryUse},
    outbox::{OutboundFrame, Outbox},
    planted::fault,
    scheduler::{Cost, Waiter, WorkTicket},
};

/// Most events that are read from the log under the tenant's lock at once.
const EVENTS_PER_READ: usize = 256;

/// The reason for which nothing was subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The connection would exceed its limit of topics.
    #[error("a connection may have at most {topics_max} topics")]
    TooManyTopics {
        /// Most topics of a connection.
        topics_max: usize,
    },
    /// No memory is left for subscriptions.
    #[error(transparent)]
    NoMemory(#[from] MemoryExceeded),
}

/// A connection's membership in its tenant. Dropping it removes the connection everywhere:
/// nothing is queued for it from that moment on, and its topics are removed in parts if many
/// connections leave at once.
#[derive(Debug)]
pub(super) struct TenantMember {
    hub: Rc<ShardHub>,
    pub(super) here: Rc<ShardTenant>,
    record: Rc<ConnectionRecord>,
    /// The subscribed topics, each with the offset from which on its events have been delivered.
    pub(super) topics: SubscriptionMap<u64>,
    pub(super) implicit: Box<ImplicitTopics>,
    /// The user, once the client has sent a presence message.
    present_as: OnceCell<Box<UserName>>,
    /// Subscriptions that the connection has lost, as long as they are in the index.
    pub(super) lost: Option<Box<LostSubscriptions>>,
}

/// An event as it is sent to a resuming connection.
#[derive(Debug)]
pub(super) enum ReplayFrame {
    /// The frame, and the cost of making and queuing it.
    Made(OutboundFrame, Cost),
    /// Another thread renders its JSON.
    Rendering(JsonRendering),
}

impl TenantMember {
    /// Adds the connection to the tenant's index on this shard.
    pub(super) fn new(
        hub: Rc<ShardHub>,
        here: Rc<ShardTenant>,
        id: ConnectionId,
        profile: ConnectionProfile,
        outbox: Rc<Outbox>,
    ) -> Self {
        let user = Topic::of_user(&profile.user);
        here.add_connection(&user, id, &outbox);
        if outbox.encoding() == EnvelopeEncoding::Json {
            hub.count_json_connection(&here, true);
        }
        let key = hub.connection_key(id);
        let record = Rc::new(ConnectionRecord::new(key, profile, outbox));
        here.roster.insert(&record);
        Self {
            hub,
            record,
            topics: SubscriptionMap::default(),
            implicit: Box::new(ImplicitTopics::new(user, here.taken.get().offset)),
            present_as: OnceCell::new(),
            lost: None,
            here,
        }
    }

    /// Returns the offset that must be delivered here before a Subscribe that has arrived now may
    /// be processed; the connection is nudged when it [is delivered](Self::has_reached). Returns
    /// `None` if the Subscribe may be processed now.
    pub(super) fn await_head(&self) -> Option<u64> {
        if fault!(ConfirmsTheHead | ConfirmsBelowTheHead) {
            return None;
        }
        self.hub.await_head(&self.here, self.outbox())
    }

    /// Delivers all queued items of the tenant.
    #[cfg(test)]
    pub(super) fn deliver_all(&self) {
        self.hub.deliver_all_of(&self.here);
    }

    /// Returns true if all events up to that offset have been delivered here.
    pub(super) fn has_reached(&self, offset: u64) -> bool {
        self.here.has_reached(offset)
    }

    /// Returns the connection's position: all events of its topics up to it are in its outbox,
    /// unless the connection is catching up.
    pub(super) fn position(&self) -> Position {
        if fault!(PongsTheHead) {
            return self.here.tenant.head();
        }
        self.here.taken.get()
    }

    /// Adds the topics that the connection's token subscribes to, without duplicates.
    ///
    /// # Errors
    ///
    /// When no memory is left for subscriptions.
    pub(super) fn subscribe_claimed(&mut self, topics: Vec<Topic>) -> Result<(), MemoryExceeded> {
        self.charge(Cost::SUBSCRIPTION.times(topics.len()));
        self.add_topics(topics.iter().cloned().collect())?;
        self.implicit.claimed = topics;
        Ok(())
    }

    /// Adds the topics, from the connection's current position on, which is returned: events of
    /// its older topics up to that position are in its outbox, and all later events will be, of
    /// the new topics too.
    ///
    /// # Errors
    ///
    /// When the connection would have more than `topics_max` topics, and when no memory is left
    /// for subscriptions.
    pub(super) fn subscribe(
        &mut self,
        topics: &[Topic],
        topics_max: usize,
    ) -> Result<Position, SubscribeError> {
        self.charge(Cost::SUBSCRIPTION.times(topics.len()));
        let new: TopicSet = topics
            .iter()
            .filter(|topic| !self.topics.contains(topic))
            .cloned()
            .collect();
        if self.topics.len() + new.len() > topics_max {
            return Err(SubscribeError::TooManyTopics { topics_max });
        }
        Ok(self.add_topics(new)?)
    }

    /// Drops the events that were delivered before the connection's only Subscribe, as if it joined
    /// now: a replay brings them in their place, and without one they come before it.
    pub(super) fn forget_delivered(&mut self) {
        let dropped = self.outbox().discard_stored();
        let tally = self.hub.tally();
        tally.dropped_catching_up.add(dropped);
        tally.queued.sub(dropped);
        let from = self.here.taken.get().offset;
        self.implicit.from = from;
        self.topics
            .values_mut()
            .for_each(|served_from| *served_from = from);
    }

    /// Adds topics that the connection does not have, and returns its position.
    fn add_topics(&mut self, new: TopicSet) -> Result<Position, MemoryExceeded> {
        let bytes = new.iter().map(subscription_bytes).sum();
        self.hub
            .memory()
            .try_hold(MemoryUse::Subscriptions, bytes)?;
        self.outbox().hold_subscriptions(bytes);
        let position = if fault!(ConfirmsTheHead) {
            self.here.tenant.head()
        } else {
            self.here.taken.get()
        };
        for topic in &new {
            self.here.subscribe(topic, self.id(), self.outbox());
        }
        self.hub.tally().subscriptions.add(new.len() as u64);
        self.add_snapshots(&new);
        for topic in new {
            self.topics.insert(topic, position.offset);
        }
        self.note_topic_count();
        Ok(position)
    }

    /// Returns the offset from which the log must be replayed to a client that resumes from
    /// `from`, or `None` if the client has everything up to `position`. An error in `from` means
    /// that the client's epoch is not one that this relay could have issued.
    pub(super) fn replay_start(
        &self,
        from: Result<Position, EpochError>,
        position: Position,
    ) -> Result<Option<u64>, ReplayGap> {
        let whole = from.map_err(|_| ReplayGap::UnknownEpoch).and_then(|from| {
            let is_whole = self.here.tenant.has_all_after(from, Instant::now());
            is_whole.map(|()| from.offset)
        });
        match whole {
            // No event lies between, so the replay is complete, even if an event that this shard
            // has yet to deliver has left the log, or leaves it before the connection reads.
            Ok(_) | Err(ReplayGap::Evicted) if from == Ok(position) => Ok(None),
            whole => whole.map(Some),
        }
    }

    /// Returns true the first time, when the implicit topics are resumed too.
    pub(super) fn resumes_implicit(&mut self) -> bool {
        !mem::replace(&mut self.implicit.is_resumed, true) && !fault!(ForgetsImplicitTopics)
    }

    /// Returns the topics of the token that are resumed with the implicit topics: the first time,
    /// those that the connection has not unsubscribed from.
    pub(super) fn take_claimed(&mut self) -> Vec<Topic> {
        mem::take(&mut self.implicit.claimed)
    }

    /// Unsubscribes the connection from the topics, ignoring those that it does not have. If many
    /// users are present on them, that may take more than the tenant's quantum. Returns the number
    /// of topics that are done, at least one.
    pub(super) fn unsubscribe(&mut self, topics: &[Topic]) -> usize {
        self.implicit.forget_claimed(topics);
        let mut done = 0;
        for topic in topics {
            if done > 0 && !self.presence().is_empty() && !self.here.work.has_quota() {
                break;
            }
            done += 1;
            self.charge(Cost::SUBSCRIPTION);
            if self.topics.remove(topic).is_some() {
                self.remove_from_index(topic);
            }
        }
        self.note_topic_count();
        self.leave_presence_topics();
        done
    }

    /// Notes the number of subscriptions, after it has changed, for those who list connections.
    pub(super) fn note_topic_count(&self) {
        self.record.set_topics(self.topics.len());
    }

    pub(super) fn hub(&self) -> &ShardHub {
        &self.hub
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.record.key().id
    }

    /// Returns the user, if the client has sent a presence message.
    pub(super) fn present_as(&self) -> Option<&UserName> {
        self.present_as.get().map(|user| &**user)
    }

    /// Notes that the client sends presence messages as this user.
    pub(super) fn present_as_or_init(&self, user: &UserName) -> &UserName {
        self.present_as.get_or_init(|| Box::new(user.clone()))
    }

    /// Returns what the hub and the connection's task share.
    pub(super) fn record(&self) -> &Rc<ConnectionRecord> {
        &self.record
    }

    /// Returns true if work may be done for the connection now. If not, the connection joins its
    /// tenant's queue, and is nudged when it is granted a quantum.
    pub(super) fn may_work(&self, ticket: &mut Option<WorkTicket>) -> bool {
        self.here.work.may_work(ticket, || self.waiter())
    }

    /// Charges the tenant for work that was done for the connection.
    pub(super) fn charge(&self, cost: Cost) {
        self.here.work.charge(cost);
    }

    /// Returns what is nudged when the connection is granted a quantum.
    pub(super) fn waiter(&self) -> Rc<dyn Waiter> {
        Rc::clone(self.outbox()) as Rc<dyn Waiter>
    }

    /// Returns true if the connection is subscribed to the topic.
    pub(super) fn is_subscribed(&self, topic: &Topic) -> bool {
        self.topics.covers(topic)
    }

    /// Sends an event of the connection's client to the other connections of the topics.
    pub(super) fn relay(
        &self,
        event: Arc<ClientEvent>,
        topics: Box<[Topic]>,
        inboxes: &[InboxSender],
    ) {
        self.charge(Cost::EVENT + Cost::TOPIC.times(topics.len()));
        let relayed = RelayedEvent {
            event,
            topics,
            sender: self.key(),
        };
        let full = self.here.tenant.relay(relayed, inboxes);
        let tally = self.hub.tally();
        tally.relayed.add(full);
        tally.dropped_inbox.add(full);
    }

    /// Releases the memory of subscriptions, at most `bytes`.
    pub(super) fn release_memory(&self, bytes: usize) {
        let bytes = self.outbox().release_subscriptions(bytes);
        self.hub.memory().release(MemoryUse::Subscriptions, bytes);
    }
}

/// Queries and actions of a connection that is catching up.
impl TenantMember {
    pub(super) fn outbox(&self) -> &Rc<Outbox> {
        self.record.outbox()
    }

    /// Returns the position up to which the shard has delivered the tenant's events.
    pub(super) fn delivered_up_to(&self) -> Position {
        self.here.taken.get()
    }

    /// Returns what is left of the tenant's quantum.
    pub(super) fn quota(&self) -> Cost {
        self.here.work.quota()
    }

    /// Calls `f` with the events of a span of the log, oldest first, until `f` breaks or the
    /// slice is used up. Returns the offset up to which the span is done.
    pub(super) fn read_log(
        &self,
        span: LogSpan,
        slice: &mut ReadSlice,
        mut f: impl FnMut(&Arc<Event>) -> ControlFlow<()>,
    ) -> Result<u64, ReplayGap> {
        // The events are copied out first and processed without the lock, because the tenant's
        // publishers wait for it, and with them their whole shard.
        let mut events = Vec::new();
        let count = EVENTS_PER_READ.min(slice.room_for(Cost::TOPIC));
        let is_all = self.here.tenant.read_log(span, count, &mut events)?;
        let mut done = span.after;
        for event in &events {
            if slice.is_used_up() || f(event).is_break() {
                return Ok(done);
            }
            slice.charge(Cost::TOPIC + Cost::STEP.times(event.topics().len()));
            done = event.position().offset;
        }
        Ok(if is_all { span.up_to } else { done })
    }

    /// Returns true if every connection of this user has the topic without subscribing.
    pub(super) fn is_implicit(&self, topic: &Topic) -> bool {
        self.implicit.contains(topic)
    }

    /// Returns true if the event matches a topic of the connection.
    pub(super) fn matches_event(&self, event: &Event) -> bool {
        let is_its = |topic| self.topics.covers(topic) || self.is_implicit(topic);
        event.topics().iter().any(is_its)
    }

    /// Returns true if a subscription has already delivered the event.
    pub(super) fn already_delivered(&self, event: &Event) -> bool {
        let is_served = |from| from < event.position().offset;
        let is_served_by = |topic| {
            let marks = self.topics.covering(topic).copied();
            let mut marks = marks.chain(self.lost_marks(topic));
            marks.any(is_served) || self.is_implicit(topic) && is_served(self.implicit.from)
        };
        event.topics().iter().any(is_served_by) && !fault!(ReplaysDeliveredEvents)
    }

    /// Queues an event of a replay.
    pub(super) fn push_replayed(&self, frame: OutboundFrame) {
        let is_json = matches!(frame, OutboundFrame::Json(_));
        let count = 1 + u64::from(is_json && fault!(CountsJsonTwice));
        self.hub.tally().replayed.add(count);
        self.hub.tally().queued.add(1);
        self.outbox().push_from_log(frame.into_replayed(), false);
    }

    /// Queues an event that was offered while the connection was catching up.
    pub(super) fn push_pending(&self, frame: OutboundFrame) {
        self.outbox().push_from_log(frame, true);
    }

    /// Returns the event in the connection's encoding, and the cost of that.
    pub(super) fn make_frame(&self, event: &Arc<Event>) -> Result<ReplayFrame, NoJson> {
        if self.outbox().encoding() == EnvelopeEncoding::Protobuf {
            let frame = OutboundFrame::Event(Arc::clone(event));
            return Ok(ReplayFrame::Made(frame, Cost::FRAME));
        }
        if event.renders_slowly() {
            let work = || self.hub.work_queue().tenant_work(self.here.tenant.name());
            let replayed = &self.here.replayed_json;
            let rendering = replayed.render(event, work, self.hub.tally());
            return Ok(ReplayFrame::Rendering(rendering));
        }
        let frame = JsonFrame::render_event(event)?;
        self.hub.tally().json_replayed.add(1);
        let cost = Cost::FRAME + Cost::JSON_BYTE.times(frame.bytes().len());
        Ok(ReplayFrame::Made(
            OutboundFrame::Json(Arc::new(frame)),
            cost,
        ))
    }

    /// Records that a replay is complete: events of its topics have been delivered from that
    /// offset on.
    pub(super) fn finish_replay(
        &mut self,
        topics: &SubscriptionMap<()>,
        implicit: bool,
        from: u64,
    ) {
        for topic in topics.topics() {
            if let Some(served_from) = self.topics.get_mut(topic) {
                *served_from = from.min(*served_from);
            }
        }
        if implicit {
            self.implicit.from = from.min(self.implicit.from);
        }
    }
}

impl Drop for TenantMember {
    fn drop(&mut self) {
        // Topics may stay in the index for some turns, but nothing must be delivered through
        // them.
        self.outbox().leave_hub();
        self.end_presence();
        let topics = mem::take(&mut self.topics);
        let lost = self.end_revocations().into_map();
        let subscriptions = topics.len() + lost.len();
        self.hub.tally().subscriptions.sub(subscriptions as u64);
        self.release_memory(usize::MAX);
        self.here.remove_connection(&self.implicit.user, self.id());
        if self.outbox().encoding() == EnvelopeEncoding::Json {
            self.hub.count_json_connection(&self.here, false);
        }
        let mut topics = topics.into_topics();
        if fault!(LeavesAnIndexEntry) {
            topics.next();
        }
        self.hub.remove_departed(&self.here, self.id(), topics);
        if lost.len() > 0 {
            self.hub
                .remove_departed(&self.here, self.id(), lost.into_topics());
        }
    }
}
