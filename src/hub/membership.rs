//! A connection's place in the hub: what it is subscribed to, and from where on.
//! Knows no wire format.

use std::{
    cell::{Cell, RefCell},
    ops::ControlFlow,
    rc::Rc,
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    catch_up::CatchUp,
    large_json::RenderingJson,
    read_slice::ReadSlice,
    shard::{ShardHub, TenantHere},
    subscribers::ConnectionId,
    tenant::Span,
};
use crate::{
    event::{Event, JsonFrame, NoJson},
    log::Gap,
    memory::{MemoryExceeded, MemoryUse},
    outbox::{Frame, Outbox},
    planted::{Fault, is_planted},
    protocol::{
        Encoding, Position, Topic, UserName,
        position::EpochError,
        topic::{TopicMap, TopicSet},
    },
    scheduler::{Cost, Place, Waiter},
};

/// How many events of the log are taken out under the tenant's lock at once.
const EVENTS_A_LOOK: usize = 256;

/// Why nothing was subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The connection would have more topics than it may have.
    #[error("a connection may have {topics_max} topics")]
    TooManyTopics {
        /// How many it may have.
        topics_max: usize,
    },
    /// The memory of all subscriptions is taken.
    #[error(transparent)]
    NoMemory(#[from] MemoryExceeded),
}

/// What a subscription to a topic takes beside the topic's name, in bytes: its entries in
/// the index and in the connection. Measured with 10,000 topics of 10 bytes on each of 600
/// connections, which took 171 bytes a topic, and with 1,000 of 60 bytes on each of 4,000,
/// which took 262.
const SUBSCRIPTION_BYTES: usize = 200;

/// The memory that a subscription to the topic is counted for, in bytes.
fn subscription_bytes(topic: &Topic) -> usize {
    SUBSCRIPTION_BYTES + topic.as_str().len()
}

/// A connection's place in the hub. Dropped, it takes the connection out of
/// everything: its topics in parts if many connections go at once, and from the first
/// moment nothing is queued for it.
#[derive(Debug)]
pub struct Membership {
    hub: Rc<ShardHub>,
    here: Rc<TenantHere>,
    id: ConnectionId,
    /// The topic of its user.
    user: Topic,
    outbox: Rc<Outbox>,
    /// What it is subscribed to, and for each topic the offset from which on it has
    /// been served.
    topics: RefCell<TopicMap<u64>>,
    /// The same for the implicit topics.
    implicit_from: Cell<u64>,
    /// Whether they have been resumed; once is all.
    implicit_resumed: Cell<bool>,
}

/// An event as a connection that resumes is sent it.
#[derive(Debug)]
pub(super) enum ReplayFrame {
    /// The frame, and what it costs.
    Made(Frame, Cost),
    /// Another thread renders its JSON.
    Rendering(RenderingJson),
}

/// What a Subscribe has brought about.
#[derive(Debug)]
pub enum Subscribed {
    /// The connection stands at this position, and gets from there on what relates
    /// to its topics.
    Live(Position),
    /// The same, and nothing came between that and the position that the client had.
    Resumed(Position),
    /// The same, but what the client had cannot be resumed from.
    NotResumed(Position, Gap),
    /// The connection resumes. Until it is live again its topics may not change.
    Behind(CatchUp),
}

impl Membership {
    /// Enters the connection into the tenant's index here.
    pub(super) fn new(
        hub: Rc<ShardHub>,
        here: Rc<TenantHere>,
        id: ConnectionId,
        user: &UserName,
        outbox: Rc<Outbox>,
    ) -> Self {
        let user = Topic::of_user(user);
        here.connect(&user, id, &outbox);
        if outbox.encoding() == Encoding::Json {
            hub.count_json(&here, true);
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

    /// Up to which offset events are to be delivered here before a Subscribe that has
    /// come now may be taken. `None`: it may be now. Else the connection is nudged when
    /// it [may](Self::has_reached).
    #[must_use]
    pub fn await_head(&self) -> Option<u64> {
        if is_planted(Fault::ConfirmsTheHead) || is_planted(Fault::ConfirmsBelowTheHead) {
            return None;
        }
        self.hub.await_head(&self.here, &self.outbox)
    }

    /// Has all delivered that the tenant has waiting.
    #[cfg(test)]
    pub(super) fn take_all(&self) {
        self.hub.take_all_of(&self.here);
    }

    /// Whether all events up to that offset are delivered here.
    #[must_use]
    pub fn has_reached(&self, offset: u64) -> bool {
        self.here.has_reached(offset)
    }

    /// Where the connection stands: all that its topics were to bring up to there is in
    /// its outbox, unless it catches up.
    #[must_use]
    pub fn position(&self) -> Position {
        if is_planted(Fault::PongsTheHead) {
            return self.here.tenant.head();
        }
        self.here.taken.get()
    }

    /// Adds the topics to what the connection gets, from where it stands: all that
    /// its older topics were to bring up to there is in its outbox, and all that
    /// comes after it will be, for the new topics too. That position is not below the
    /// head that the tenant's log had when the Subscribe came, if that was
    /// [awaited](Self::await_head).
    ///
    /// With `resume_from`, what came between that and the position is to be replayed.
    /// An error there: the epoch is none that this relay could have given.
    ///
    /// # Errors
    ///
    /// When it would have more than `topics_max` topics, and when there is no memory for
    /// more subscriptions.
    pub fn subscribe(
        &self,
        topics: &[Topic],
        topics_max: usize,
        resume_from: Option<Result<Position, EpochError>>,
    ) -> Result<Subscribed, SubscribeError> {
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
        let position = if is_planted(Fault::ConfirmsTheHead) {
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
            None => Subscribed::Live(position),
            Some(from) => self.resume(topics, from, position),
        })
    }

    fn resume(
        &self,
        topics: &[Topic],
        from: Result<Position, EpochError>,
        position: Position,
    ) -> Subscribed {
        let implicit =
            !self.implicit_resumed.replace(true) && !is_planted(Fault::ForgetsImplicitTopics);
        let whole = from.map_err(|_| Gap::UnknownEpoch).and_then(|from| {
            self.here
                .tenant
                .has_all_after(from, Instant::now())
                .map(|()| from)
        });
        match whole {
            // Nothing lies between, so it is complete, also when an event that this shard has
            // still to deliver has left the log or leaves it before it is the connection's
            // turn to read.
            Ok(_) | Err(Gap::Evicted) if from == Ok(position) => Subscribed::Resumed(position),
            Err(gap) => Subscribed::NotResumed(position, gap),
            Ok(from) => {
                self.outbox.fall_behind();
                Subscribed::Behind(CatchUp::new(topics, implicit, from.offset, position))
            }
        }
    }

    /// Takes the topics away; those that it did not have do not matter.
    pub fn unsubscribe(&self, topics: &[Topic]) {
        self.charge(Cost::SUBSCRIPTION.times(topics.len()));
        let mut subscribed = self.topics.borrow_mut();
        for topic in topics {
            if subscribed.remove(topic).is_some() {
                self.here.unsubscribe(topic, self.id);
                self.hub.tally().subscriptions.sub(1);
                self.release(subscription_bytes(topic));
            }
        }
    }
}

/// When the connection may have work done.
impl Membership {
    /// Returns true if work may be done for the connection now. Else it takes a place among
    /// those of its tenant that wait, and is nudged when its turn comes.
    pub fn may_work(&self, place: &mut Option<Place>) -> bool {
        let waiter = || Rc::clone(&self.outbox) as Rc<dyn Waiter>;
        self.here.work.may_work(place, waiter)
    }

    /// The same for a large write.
    pub fn may_write(&self, place: &mut Option<Place>) -> bool {
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

impl Membership {
    /// Takes the memory of subscriptions off the account, at most so many bytes.
    fn release(&self, bytes: usize) {
        let bytes = self.outbox.release_subscriptions(bytes);
        self.hub.memory().release(MemoryUse::Subscriptions, bytes);
    }
}

/// What a connection that catches up asks.
impl Membership {
    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Up to where the shard has taken the tenant's events from its inbox.
    pub(super) fn taken(&self) -> Position {
        self.here.taken.get()
    }

    /// What is left of its tenant's quantum.
    pub(super) fn quota(&self) -> Cost {
        self.here.work.quota()
    }

    /// Calls `f` with the events of a span of the log, oldest first, for as long as
    /// it says so and the slice allows. Gives the offset up to which the span is done.
    pub(super) fn read_log(
        &self,
        span: Span,
        slice: &mut ReadSlice,
        mut f: impl FnMut(&Arc<Event>) -> ControlFlow<()>,
    ) -> Result<u64, Gap> {
        // Taken first and looked at when the lock is released, for which the tenant's
        // publishers wait with all of their shard.
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

    /// Whether it is a topic that the connection has without asking.
    pub(super) fn is_implicit(&self, topic: &Topic) -> bool {
        *topic == self.user || topic.is_everyone()
    }

    /// Whether the connection is to get the event.
    pub(super) fn relates(&self, event: &Event) -> bool {
        let topics = self.topics.borrow();
        let is_its = |topic| topics.contains_key(topic) || self.is_implicit(topic);
        event.topics().iter().any(is_its)
    }

    /// Whether a subscription has brought the event already.
    pub(super) fn has_brought(&self, event: &Event) -> bool {
        let topics = self.topics.borrow();
        let served_from = |topic| match topics.get(topic) {
            Some(from) => Some(*from),
            None => self.is_implicit(topic).then(|| self.implicit_from.get()),
        };
        let is_served = |from| from < event.position().offset;
        let mut served = event.topics().iter().filter_map(served_from);
        served.any(is_served) && !is_planted(Fault::ReplaysWhatWasBrought)
    }

    /// Queues an event of a replay.
    pub(super) fn replay(&self, frame: Frame) {
        let is_json = matches!(frame, Frame::Json(_));
        let count = 1 + u64::from(is_json && is_planted(Fault::CountsJsonTwice));
        self.hub.tally().replayed.add(count);
        self.hub.tally().queued.add(1);
        self.outbox.push_from_log(frame, false);
    }

    /// Queues an event that was offered while the outbox was behind.
    pub(super) fn queue_owed(&self, frame: Frame) {
        self.outbox.push_from_log(frame, true);
    }

    /// The event as the connection takes it, with what that costs.
    pub(super) fn frame(&self, event: &Arc<Event>) -> Result<ReplayFrame, NoJson> {
        if self.outbox.encoding() == Encoding::Protobuf {
            let frame = Frame::Event(Arc::clone(event));
            return Ok(ReplayFrame::Made(frame, Cost::FRAME));
        }
        if event.renders_slowly() {
            let work = || self.hub.work().tenant(self.here.tenant.name());
            let replayed = &self.here.replayed_json;
            let rendering = replayed.render(event, work, self.hub.tally());
            return Ok(ReplayFrame::Rendering(rendering));
        }
        let frame = JsonFrame::of(event)?;
        self.hub.tally().json_replayed.add(1);
        let cost = Cost::FRAME + Cost::JSON_BYTE.times(frame.bytes().len());
        Ok(ReplayFrame::Made(Frame::Json(Arc::new(frame)), cost))
    }

    /// A replay is over: from that offset on its topics have been served.
    pub(super) fn replayed(&self, topics: &TopicSet, implicit: bool, from: u64) {
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

impl Drop for Membership {
    fn drop(&mut self) {
        // Topics may stay in the index for some turns, and nothing may come by them.
        self.outbox.leave();
        let mut topics = self.topics.take();
        self.hub.tally().subscriptions.sub(topics.len() as u64);
        self.release(usize::MAX);
        self.here.disconnect(&self.user, self.id);
        if self.outbox.encoding() == Encoding::Json {
            self.hub.count_json(&self.here, false);
        }
        if is_planted(Fault::LeavesAnIndexEntry) {
            let kept = topics.keys().next().cloned();
            kept.and_then(|topic| topics.remove(&topic));
        }
        self.hub.depart(&self.here, self.id, topics);
    }
}
