//! The hub's part on one shard: the tenants that have connections here, and the
//! inbox from which their events come. All of it lives on the shard's thread.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    ops::ControlFlow,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use indexmap::IndexMap;
use tokio::{
    sync::mpsc,
    task::yield_now,
    time::{Instant, sleep},
};

use super::{
    ShardId, ShardSeed,
    catch_up::CatchUp,
    inbox::Item,
    index::TenantIndex,
    registry::{Registry, TenantsFull},
    relief::Relief,
    subscribers::ConnectionId,
    tenant::{Span, Tenant},
};
use crate::{
    event::Event,
    log::Gap,
    outbox::{Offer, Outbox},
    planted::{Fault, is_planted, saw},
    protocol::{
        Position, TenantName, Topic, UserName,
        close::Ending,
        position::EpochError,
        topic::{TopicMap, TopicSet},
    },
    tally::Tally,
};

/// How many connections are woken to write before the shard looks for new events
/// again: so many, or this part of those that wait, so that many are not put off by
/// as many turns of everybody else's. What has come meanwhile is queued for those that are not woken yet, and
/// leaves them in the same system call: under load this decides how many frames a
/// write has.
const WAKES_A_TURN: usize = 16;
const PART_WOKEN_A_TURN: usize = 16;

/// For so many connections that are to be woken the shard keeps room.
const TO_WAKE_KEPT_ROOM_FOR: usize = 4096;

/// How many items are taken from the inbox before others have their turn.
const ITEMS_A_TURN: usize = 16;

/// How long a shard lets the others have their turn before it closes more
/// connections for want of memory.
const RELIEF_PAUSE: Duration = Duration::from_millis(1);

/// A shard's tenants and topics.
#[derive(Debug)]
pub struct ShardHub {
    id: ShardId,
    registry: Arc<Registry>,
    tally: Arc<Tally>,
    relief: Arc<Relief>,
    tenants: RefCell<IndexMap<TenantName, Rc<TenantHere>>>,
    inbox: RefCell<mpsc::Receiver<Item>>,
    /// The last event that was offered to outboxes.
    last_event: Cell<u64>,
    /// Outboxes with something to write, whose connections do not know of it yet.
    to_wake: RefCell<VecDeque<Rc<Outbox>>>,
    last_connection: Cell<ConnectionId>,
}

/// A tenant that has connections on this shard.
#[derive(Debug)]
struct TenantHere {
    tenant: Arc<Tenant>,
    /// The last position that has been taken from the inbox, or that needs not be.
    taken: Cell<Position>,
    index: RefCell<TenantIndex>,
    /// Nothing has been taken for it yet.
    #[cfg(test)]
    is_new: Cell<bool>,
}

#[cfg(test)]
impl TenantHere {
    fn take_position_late(&self) {
        if self.is_new.replace(false) && is_planted(Fault::TakesThePositionLate) {
            self.taken.set(self.tenant.head());
        }
    }
}

/// A Subscribe would take a connection over its bound of topics. Nothing was
/// subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a connection may have {topics_max} topics")]
pub struct TooManyTopics {
    /// The bound.
    pub topics_max: usize,
}

impl ShardHub {
    pub(super) fn new(seed: ShardSeed) -> Self {
        Self {
            id: seed.id,
            registry: seed.registry,
            tally: seed.tally,
            relief: seed.relief,
            tenants: RefCell::default(),
            inbox: RefCell::new(seed.inbox),
            last_event: Cell::default(),
            to_wake: RefCell::default(),
            last_connection: Cell::default(),
        }
    }

    /// What the shard has counted.
    #[must_use]
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Whether no tenant has a connection here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tenants.borrow().is_empty()
    }

    /// Takes items from the inbox for as long as there is somebody who could put
    /// one into it, and wakes the connections that have something to write.
    pub async fn run(&self) {
        while poll_fn(|context| self.poll_work(context)).await {
            self.take_waiting();
            self.wake_some();
            // Lets those write that were woken, and sockets be looked at: backends
            // are answered and post again before the next connections write.
            yield_now().await;
        }
    }

    /// Takes what waits in the inbox, without waiting itself, up to a bound. Who has
    /// put something there on this very thread need not wait for its receipt then.
    pub fn take_waiting(&self) {
        for _ in 0..ITEMS_A_TURN {
            if !self.take_next() {
                break;
            }
        }
    }

    /// Closes connections for as long as the events take more memory than they may:
    /// first the one that has waited longest, of all shards, to write an event that
    /// the log no longer has. To close another would free nothing.
    pub async fn relieve_memory(&self) {
        loop {
            self.relief.asked(self.id).await;
            while self.registry.is_over_memory() && self.free_some_memory() {
                // The others' turn, of which one may have older ones.
                sleep(RELIEF_PAUSE).await;
            }
            self.relief.has_nothing(self.id);
        }
    }

    /// Closes what is the oldest of all shards'; whether there is anything here that
    /// could be closed.
    fn free_some_memory(&self) -> bool {
        let mut holders = self.holders_of_old_events();
        holders.sort_by_key(|(placed, _)| *placed);
        for (placed, outbox) in &holders {
            if !self.registry.is_over_memory() || !self.relief.is_oldest(self.id, *placed) {
                break;
            }
            let events = outbox.end_and_discard(Ending::NoMemory);
            self.tally.dropped_slow.add(events);
            self.tally.queued.sub(events);
        }
        !holders.is_empty()
    }

    /// The outboxes whose oldest event has left the log, with the time when that was
    /// placed.
    fn holders_of_old_events(&self) -> Vec<(Instant, Rc<Outbox>)> {
        let mut holders = Vec::new();
        for here in self.tenants.borrow().values() {
            let tail = here.tenant.tail();
            here.index.borrow().for_each_connection(|outbox| {
                if let Some((placed, offset)) = outbox.oldest_event()
                    && offset <= tail.offset
                    && outbox.ending().is_none()
                {
                    holders.push((placed, Rc::clone(outbox)));
                }
            });
        }
        holders
    }

    /// Whether there is anything to do; `false` when there never will be.
    fn poll_work(&self, context: &mut Context<'_>) -> Poll<bool> {
        let next = self.inbox.borrow_mut().poll_recv(context);
        match next {
            Poll::Ready(Some(item)) => {
                self.take(&item);
                Poll::Ready(true)
            }
            Poll::Ready(None) => Poll::Ready(false),
            // A Subscribe may have taken the items and left the waking to us.
            Poll::Pending if self.to_wake.borrow().is_empty() => Poll::Pending,
            Poll::Pending => Poll::Ready(true),
        }
    }

    fn wake_some(&self) {
        let mut to_wake = self.to_wake.borrow_mut();
        let some = WAKES_A_TURN.max(to_wake.len() / PART_WOKEN_A_TURN);
        let some = to_wake.len().min(some);
        for outbox in to_wake.drain(..some) {
            outbox.wake();
        }
        if to_wake.is_empty() {
            to_wake.shrink_to(TO_WAKE_KEPT_ROOM_FOR);
        }
    }

    /// Makes a connection one of the tenant's: from here on its outbox gets the
    /// events for its user and for the whole tenant.
    ///
    /// # Errors
    ///
    /// When the tenant is new and there is no place for another.
    pub fn join(
        self: &Rc<Self>,
        tenant: &TenantName,
        user: &UserName,
        outbox: Rc<Outbox>,
    ) -> Result<Membership, TenantsFull> {
        let here = self.enter(tenant)?;
        let id = self.last_connection.get() + 1;
        self.last_connection.set(id);
        let user = Topic::of_user(user);
        let mut index = here.index.borrow_mut();
        index.add(id, &outbox);
        index.subscribe(&user, id, &outbox);
        drop(index);
        Ok(Membership {
            hub: Rc::clone(self),
            id,
            user,
            outbox,
            topics: RefCell::default(),
            implicit_from: Cell::new(here.taken.get().offset),
            implicit_resumed: Cell::new(false),
            here,
        })
    }

    /// Tells every connection here to end; `ending` is asked for each. What is in
    /// the inbox by then is still for them.
    pub fn end_all(&self, ending: impl Fn() -> Ending) {
        while self.take_next() {}
        for here in self.tenants.borrow().values() {
            here.index
                .borrow()
                .for_each_connection(|outbox| outbox.end(ending()));
        }
    }

    fn enter(&self, name: &TenantName) -> Result<Rc<TenantHere>, TenantsFull> {
        let mut tenants = self.tenants.borrow_mut();
        if let Some(here) = tenants.get(name) {
            return Ok(Rc::clone(here));
        }
        let (tenant, head) = self.registry.enter(name, self.id)?;
        let here = Rc::new(TenantHere {
            tenant,
            taken: Cell::new(head),
            index: RefCell::default(),
            #[cfg(test)]
            is_new: Cell::new(true),
        });
        tenants.insert(name.clone(), Rc::clone(&here));
        Ok(here)
    }

    /// Offers the events of an item to the connections here that they match.
    fn take(&self, item: &Item) {
        let tenants = self.tenants.borrow();
        let here = tenants
            .get(item.tenant.name())
            // A tenant that was forgotten and came back has another log.
            .filter(|here| Arc::ptr_eq(&here.tenant, &item.tenant));
        let here = match tenants.values().next() {
            first if is_planted(Fault::CrossesTenants) => first,
            _ => here,
        };
        let Some(here) = here else {
            return;
        };
        #[cfg(test)]
        here.take_position_late();
        let index = here.index.borrow();
        let mut to_wake = self.to_wake.borrow_mut();
        let first = self.last_event.get() + 1;
        for (number, event) in item.events.as_slice().iter().enumerate() {
            if event.position().offset <= here.taken.get().offset {
                saw("a tenant that came back to a full inbox");
                continue;
            }
            here.taken.set(event.position());
            self.last_event.set(self.last_event.get() + 1);
            let offer = Offer::new(event, first, self.last_event.get());
            let fanout = index.deliver(event, &offer, &mut to_wake);
            item.receipt.add(number, fanout.matched);
            self.tally.matched.add(fanout.matched);
            self.tally.dropped_slow.add(fanout.overflowed);
            self.tally.queued.add(fanout.matched - fanout.overflowed);
        }
    }

    /// Takes from the inbox all that the tenant's log has as of now, so that the
    /// tenant's connections here have it in their outboxes; gives the position up
    /// to which they have.
    ///
    /// An event is sent to the inbox before the lock is released under which the
    /// head is read here, so what is to be taken is there: nothing is waited for.
    fn take_up_to_head(&self, here: &TenantHere) -> Position {
        let head = here.tenant.head();
        if is_planted(Fault::ConfirmsTheHead) {
            return head;
        }
        while here.taken.get().offset < head.offset {
            if !self.take_next() {
                break;
            }
        }
        here.taken.get()
    }

    /// Takes one item from the inbox, if there is one.
    fn take_next(&self) -> bool {
        let next = self.inbox.borrow_mut().try_recv();
        if let Ok(item) = &next {
            self.take(item);
        }
        next.is_ok()
    }

    fn leave(&self, here: &TenantHere) {
        self.tenants.borrow_mut().swap_remove(here.tenant.name());
        self.registry.leave(&here.tenant, self.id);
    }
}

/// A connection's place in the hub. Dropped, it takes the connection out of
/// everything.
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

/// What a Subscribe has brought about.
#[derive(Debug)]
pub enum Subscribed {
    /// The connection stands at this position, and gets from there on what relates
    /// to its topics.
    Live(Position),
    /// The same, but what the client had cannot be resumed from.
    NotResumed(Position, Gap),
    /// The connection resumes. Until it is live again its topics may not change.
    Behind(CatchUp),
}

impl Membership {
    /// Adds the topics to what the connection gets, from where it stands: all that
    /// its older topics were to bring up to there is in its outbox, and all that
    /// comes after it will be, for the new topics too. That position is never below
    /// the head of the tenant's log as of the call.
    ///
    /// With `resume_from`, what came between that and the position is to be replayed.
    /// An error there: the epoch is none that this relay could have given.
    ///
    /// # Errors
    ///
    /// When it would have more than `topics_max` topics.
    pub fn subscribe(
        &self,
        topics: &[Topic],
        topics_max: usize,
        resume_from: Option<Result<Position, EpochError>>,
    ) -> Result<Subscribed, TooManyTopics> {
        let mut subscribed = self.topics.borrow_mut();
        let new: TopicSet = topics
            .iter()
            .filter(|topic| !subscribed.contains_key(*topic))
            .cloned()
            .collect();
        if subscribed.len() + new.len() > topics_max {
            return Err(TooManyTopics { topics_max });
        }
        let position = self.hub.take_up_to_head(&self.here);
        let mut index = self.here.index.borrow_mut();
        for topic in &new {
            index.subscribe(topic, self.id, &self.outbox);
        }
        self.hub.tally.subscriptions.add(new.len() as u64);
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
        let whole = from
            .map_err(|_| Gap::UnknownEpoch)
            .and_then(|from| self.here.tenant.has_all_after(from).map(|()| from));
        match whole {
            Err(gap) => Subscribed::NotResumed(position, gap),
            Ok(from) => {
                self.outbox.fall_behind();
                Subscribed::Behind(CatchUp::new(topics, implicit, from.offset, position))
            }
        }
    }

    /// Takes the topics away; those that it did not have do not matter.
    pub fn unsubscribe(&self, topics: &[Topic]) {
        let mut subscribed = self.topics.borrow_mut();
        let mut index = self.here.index.borrow_mut();
        for topic in topics {
            if subscribed.remove(topic).is_some() {
                index.unsubscribe(topic, self.id);
                self.hub.tally.subscriptions.sub(1);
            }
        }
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

    pub(super) fn read_log(
        &self,
        span: Span,
        count: usize,
        f: impl FnMut(&Arc<Event>) -> ControlFlow<()>,
    ) -> Result<u64, Gap> {
        self.here.tenant.read_log(span, count, f)
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
    pub(super) fn replay(&self, event: &Arc<Event>) {
        self.hub.tally.replayed.add(1);
        self.hub.tally.queued.add(1);
        self.outbox.push_from_log(event, false);
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
        let topics = self.topics.take();
        let mut index = self.here.index.borrow_mut();
        let kept = usize::from(is_planted(Fault::LeavesAnIndexEntry));
        for topic in topics.keys().skip(kept) {
            index.unsubscribe(topic, self.id);
        }
        index.unsubscribe(&self.user, self.id);
        index.remove(self.id);
        self.hub.tally.subscriptions.sub(topics.len() as u64);
        let last = index.is_empty();
        drop(index);
        if last {
            self.hub.leave(&self.here);
        }
    }
}
