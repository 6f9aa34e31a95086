//! A connection's registration with the hub: its topics, and the offset from which each is
//! delivered. Knows no wire format.

use std::{
    cell::{Cell, RefCell},
    ops::ControlFlow,
    rc::Rc,
    sync::Arc,
};

use sidewire_protocol::{
    EnvelopeEncoding, Position, Topic, UserName,
    position::EpochError,
    topic::{TopicMap, TopicSet},
};
use tokio::time::Instant;

use super::{
    catch_up::CatchUp,
    large_json::JsonRendering,
    read_slice::ReadSlice,
    shard::{ShardHub, ShardTenant},
    subscribers::ConnectionId,
    tenant::LogSpan,
};
use crate::{
    event::{Event, JsonFrame, NoJson},
    log::ReplayGap,
    memory::{MemoryExceeded, MemoryUse},
    outbox::{OutboundFrame, Outbox},
    planted::{PlantedFault, is_planted},
    scheduler::{Cost, Waiter, WorkTicket},
};

/// Most events that are read from the log under the tenant's lock at once.
const EVENTS_A_LOOK: usize = 256;

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

/// Memory that a subscription takes in addition to the topic's name, in bytes: its entries in the
/// index and in the connection. Measured with 10,000 topics of 10 bytes on each of 600
/// connections, which took 171 bytes a topic, and with 1,000 of 60 bytes on each of 4,000, which
/// took 262.
const SUBSCRIPTION_BYTES: usize = 200;

/// Returns the memory charged for a subscription to the topic, in bytes.
fn subscription_bytes(topic: &Topic) -> usize {
    SUBSCRIPTION_BYTES + topic.as_str().len()
}

/// A connection's registration with the hub. Dropping it removes the connection everywhere:
/// nothing is queued for it from that moment on, and its topics are removed in parts if many
/// connections leave at once.
#[derive(Debug)]
pub struct HubConnection {
    hub: Rc<ShardHub>,
    here: Rc<ShardTenant>,
    id: ConnectionId,
    /// The topic of the connection's user.
    user: Topic,
    outbox: Rc<Outbox>,
    /// The subscribed topics, each with the offset from which on its events have been delivered.
    topics: RefCell<TopicMap<u64>>,
    /// The offset from which on events of the implicit topics have been delivered.
    implicit_from: Cell<u64>,
    /// True once they have been resumed, which happens only once.
    implicit_resumed: Cell<bool>,
}

/// An event as it is sent to a resuming connection.
#[derive(Debug)]
pub(super) enum ReplayFrame {
    /// The frame, and the cost of making and queuing it.
    Made(OutboundFrame, Cost),
    /// Another thread renders its JSON.
    Rendering(JsonRendering),
}

/// The outcome of a Subscribe.
#[derive(Debug)]
pub enum SubscribeOutcome {
    /// The connection is at this position, and receives all later events of its topics.
    Live(Position),
    /// Like `Live`, and no event lies between this position and the client's.
    Resumed(Position),
    /// Like `Live`, but the client's position cannot be resumed from.
    NotResumed(Position, ReplayGap),
    /// The connection is catching up. Its topics must not change until it is live again.
    Behind(CatchUp),
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
        let user = Topic::of_user(user);
        here.add_connection(&user, id, &outbox);
        if outbox.encoding() == EnvelopeEncoding::Json {
            hub.count_json_connection(&here, true);
        }
        Self {
            hub,
            id,
            user,
            outbox,
            topics: RefCell::default(),
            implicit_from: Cell::new(here.taken.get().offset),
            implicit_resumed: Cell::new(false),
            here,
        }
    }

    /// Returns the offset that must be delivered here before a Subscribe that has arrived now may
    /// be processed; the connection is nudged when it [is delivered](Self::has_reached). Returns
    /// `None` if the Subscribe may be processed now.
    #[must_use]
    pub fn await_head(&self) -> Option<u64> {
        if is_planted(PlantedFault::ConfirmsTheHead)
            || is_planted(PlantedFault::ConfirmsBelowTheHead)
        {
            return None;
        }
        self.hub.await_head(&self.here, &self.outbox)
    }

    /// Delivers all queued items of the tenant.
    #[cfg(test)]
    pub(super) fn deliver_all(&self) {
        self.hub.deliver_all_of(&self.here);
    }

    /// Returns true if all events up to that offset have been delivered here.
    #[must_use]
    pub fn has_reached(&self, offset: u64) -> bool {
        self.here.has_reached(offset)
    }

    /// Returns the connection's position: all events of its topics up to it are in its outbox,
    /// unless the connection is catching up.
    #[must_use]
    pub fn position(&self) -> Position {
        if is_planted(PlantedFault::PongsTheHead) {
            return self.here.tenant.head();
        }
        self.here.taken.get()
    }

    /// Subscribes the connection to the topics, from its current position on: events of its older
    /// topics up to that position are in its outbox, and all later events will be, of the new
    /// topics too. The position is not below the head that the tenant's log had when the
    /// Subscribe arrived, if that was [awaited](Self::await_head).
    ///
    /// With `resume_from`, the events between that position and the connection's are replayed. An
    /// error there means that the client's epoch is not one that this relay could have issued.
    ///
    /// # Errors
    ///
    /// When the connection would have more than `topics_max` topics, and when no memory is left
    /// for subscriptions.
    pub fn subscribe(
        &self,
        topics: &[Topic],
        topics_max: usize,
        resume_from: Option<Result<Position, EpochError>>,
    ) -> Result<SubscribeOutcome, SubscribeError> {
        self.charge(Cost::SUBSCRIPTION.times(topics.len()));
        let mut subscribed = self.topics.borrow_mut();
        let new: TopicSet = topics
            .iter()
            .filter(|topic| !subscribed.contains_key(*topic))
            .cloned()
            .collect();
        if subscribed.len() + new.len() > topics_max {
            return Err(SubscribeError::TooManyTopics { topics_max });
        }
        let bytes = new.iter().map(subscription_bytes).sum();
        self.hub
            .memory()
            .try_hold(MemoryUse::Subscriptions, bytes)?;
        self.outbox.hold_subscriptions(bytes);
        let position = if is_planted(PlantedFault::ConfirmsTheHead) {
            self.here.tenant.head()
        } else {
            self.here.taken.get()
        };
        for topic in &new {
            self.here.subscribe(topic, self.id, &self.outbox);
        }
        self.hub.tally().subscriptions.add(new.len() as u64);
        subscribed.extend(new.into_iter().map(|topic| (topic, position.offset)));
        Ok(match resume_from {
            None => SubscribeOutcome::Live(position),
            Some(from) => self.start_resume(topics, from, position),
        })
    }

    fn start_resume(
        &self,
        topics: &[Topic],
        from: Result<Position, EpochError>,
        position: Position,
    ) -> SubscribeOutcome {
        let implicit = !self.implicit_resumed.replace(true)
            && !is_planted(PlantedFault::ForgetsImplicitTopics);
        let whole = from.map_err(|_| ReplayGap::UnknownEpoch).and_then(|from| {
            self.here
                .tenant
                .has_all_after(from, Instant::now())
                .map(|()| from)
        });
        match whole {
            // No event lies between, so the replay is complete, even if an event that this shard
            // has yet to deliver has left the log, or leaves it before the connection reads.
            Ok(_) | Err(ReplayGap::Evicted) if from == Ok(position) => {
                SubscribeOutcome::Resumed(position)
            }
            Err(gap) => SubscribeOutcome::NotResumed(position, gap),
            Ok(from) => {
                self.outbox.start_catch_up();
                SubscribeOutcome::Behind(CatchUp::new(topics, implicit, from.offset, position))
            }
        }
    }

    /// Unsubscribes the connection from the topics, ignoring those that it does not have.
    pub fn unsubscribe(&self, topics: &[Topic]) {
        self.charge(Cost::SUBSCRIPTION.times(topics.len()));
        let mut subscribed = self.topics.borrow_mut();
        for topic in topics {
            if subscribed.remove(topic).is_some() {
                self.here.unsubscribe(topic, self.id);
                self.hub.tally().subscriptions.sub(1);
                self.release_memory(subscription_bytes(topic));
            }
        }
    }
}

/// Scheduling of the connection's work.
impl HubConnection {
    /// Returns true if work may be done for the connection now. If not, the connection joins its
    /// tenant's queue, and is nudged when it is granted a quantum.
    pub fn may_work(&self, place: &mut Option<WorkTicket>) -> bool {
        let waiter = || Rc::clone(&self.outbox) as Rc<dyn Waiter>;
        self.here.work.may_work(place, waiter)
    }

    /// Like [`may_work`](Self::may_work), for a large write.
    pub fn may_write(&self, place: &mut Option<WorkTicket>) -> bool {
        let waiter = || Rc::clone(&self.outbox) as Rc<dyn Waiter>;
        self.here.writes.may_work(place, waiter)
    }

    /// Charges the tenant for a large write.
    pub fn charge_write(&self, cost: Cost) {
        self.here.writes.charge(cost);
    }

    /// Returns true if something is left of the tenant's quantum.
    #[must_use]
    pub fn has_quota(&self) -> bool {
        self.here.work.has_quota()
    }

    /// Charges the tenant for work that was done for the connection.
    pub fn charge(&self, cost: Cost) {
        self.here.work.charge(cost);
    }
}

impl HubConnection {
    /// Releases the memory of subscriptions, at most `bytes`.
    fn release_memory(&self, bytes: usize) {
        let bytes = self.outbox.release_subscriptions(bytes);
        self.hub.memory().release(MemoryUse::Subscriptions, bytes);
    }
}

/// Queries and actions of a connection that is catching up.
impl HubConnection {
    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
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
        let count = EVENTS_A_LOOK.min(slice.room_for(Cost::TOPIC));
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
        *topic == self.user || topic.is_everyone()
    }

    /// Returns true if the event matches a topic of the connection.
    pub(super) fn matches_event(&self, event: &Event) -> bool {
        let topics = self.topics.borrow();
        let is_its = |topic| topics.contains_key(topic) || self.is_implicit(topic);
        event.topics().iter().any(is_its)
    }

    /// Returns true if a subscription has already delivered the event.
    pub(super) fn already_delivered(&self, event: &Event) -> bool {
        let topics = self.topics.borrow();
        let served_from = |topic| match topics.get(topic) {
            Some(from) => Some(*from),
            None => self.is_implicit(topic).then(|| self.implicit_from.get()),
        };
        let is_served = |from| from < event.position().offset;
        let mut served = event.topics().iter().filter_map(served_from);
        served.any(is_served) && !is_planted(PlantedFault::ReplaysWhatWasBrought)
    }

    /// Queues an event of a replay.
    pub(super) fn push_replayed(&self, frame: OutboundFrame) {
        let is_json = matches!(frame, OutboundFrame::Json(_));
        let count = 1 + u64::from(is_json && is_planted(PlantedFault::CountsJsonTwice));
        self.hub.tally().replayed.add(count);
        self.hub.tally().queued.add(1);
        self.outbox.push_from_log(frame, false);
    }

    /// Queues an event that was offered while the connection was catching up.
    pub(super) fn push_pending(&self, frame: OutboundFrame) {
        self.outbox.push_from_log(frame, true);
    }

    /// Returns the event in the connection's encoding, and the cost of that.
    pub(super) fn make_frame(&self, event: &Arc<Event>) -> Result<ReplayFrame, NoJson> {
        if self.outbox.encoding() == EnvelopeEncoding::Protobuf {
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
    pub(super) fn finish_replay(&self, topics: &TopicSet, implicit: bool, from: u64) {
        let mut subscribed = self.topics.borrow_mut();
        for topic in topics {
            if let Some(served_from) = subscribed.get_mut(topic) {
                *served_from = from.min(*served_from);
            }
        }
        if implicit {
            let served_from = self.implicit_from.get();
            self.implicit_from.set(from.min(served_from));
        }
    }
}

impl Drop for HubConnection {
    fn drop(&mut self) {
        // Topics may stay in the index for some turns, but nothing must be delivered through
        // them.
        self.outbox.leave_hub();
        let mut topics = self.topics.take();
        self.hub.tally().subscriptions.sub(topics.len() as u64);
        self.release_memory(usize::MAX);
        self.here.remove_connection(&self.user, self.id);
        if self.outbox.encoding() == EnvelopeEncoding::Json {
            self.hub.count_json_connection(&self.here, false);
        }
        if is_planted(PlantedFault::LeavesAnIndexEntry) {
            let kept = topics.keys().next().cloned();
            kept.and_then(|topic| topics.remove(&topic));
        }
        self.hub.remove_departed(&self.here, self.id, topics);
    }
}
