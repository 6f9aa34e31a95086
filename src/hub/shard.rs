//! The hub's part on one shard: the tenants that have connections here, and the
//! inbox from which their events come. All of it lives on the shard's thread.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use indexmap::IndexMap;
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
    time::{Instant, sleep},
};

use super::{
    ShardId, ShardSeed,
    admin::{CALLS_MAX, Call, TenantLook},
    inbox::Item,
    index::TenantIndex,
    membership::Membership,
    registry::{Registry, TenantsFull},
    relief::Relief,
    subscribers::ConnectionId,
    tenant::Tenant,
    wakes::{Due, Wakes},
};
use crate::{
    outbox::{Offer, Outbox},
    planted::{Fault, is_planted, saw},
    protocol::{Position, TenantName, Topic, UserName, close::Ending},
    tally::Tally,
};

/// How many slices of tenants' events are delivered before others have their turn.
const SLICES_A_TURN: usize = 16;

/// A slice is one item, or a part of one: a batch is cut where so much has been
/// delivered, and goes on when it is the tenant's turn again. One event is never cut.
const DELIVERIES_A_SLICE: usize = 1024;

/// How many connections that have waited for what a slice brought are told so with it.
/// The others are told with the tenant's next: each has its Subscribe taken then.
const NUDGES_A_SLICE: usize = 32;

/// What an event costs beside its deliveries, in deliveries.
const EVENT_COST: usize = 16;

/// A tenant whose items are all delivered keeps room for so many more.
const WAITING_KEPT_ROOM_FOR: usize = 16;

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
    calls: RefCell<mpsc::Receiver<Call>>,
    /// Those with items that wait, in the order of their turns.
    to_serve: RefCell<VecDeque<Rc<TenantHere>>>,
    /// The last event that was offered to outboxes.
    last_event: Cell<u64>,
    wakes: Wakes,
    /// The turn that is under way, or was.
    turn: Cell<u64>,
    last_connection: Cell<ConnectionId>,
}

/// A tenant that has connections on this shard.
#[derive(Debug)]
pub(super) struct TenantHere {
    pub(super) tenant: Arc<Tenant>,
    /// The last position that has been delivered here, or that needs not be.
    pub(super) taken: Cell<Position>,
    pub(super) index: RefCell<TenantIndex>,
    /// Items that came out of the inbox and wait for the tenant's turn.
    waiting: RefCell<VecDeque<Waiting>>,
    /// Whether it stands among those that are to be served.
    has_turn: Cell<bool>,
    /// Those of its connections that are to be woken.
    due: Rc<Due>,
    /// The turn in which it was served last.
    served_in: Cell<u64>,
    /// Connections that wait until the events up to an offset are delivered, in the
    /// order of those.
    awaited: RefCell<VecDeque<(u64, Rc<Outbox>)>>,
    /// Nothing has been taken for it yet.
    #[cfg(test)]
    is_new: Cell<bool>,
}

/// An item of which some events may be delivered already.
#[derive(Debug)]
struct Waiting {
    item: Item,
    /// How many of its events are.
    done: usize,
    /// The number of its first event that was offered; 0 if none was.
    first: u64,
}

impl TenantHere {
    /// Tells some of those who waited for what has been delivered.
    fn nudge_awaited(&self) {
        let mut awaited = self.awaited.borrow_mut();
        for _ in 0..NUDGES_A_SLICE {
            let reached = |(offset, _): &mut (u64, _)| *offset <= self.taken.get().offset;
            let Some((_, outbox)) = awaited.pop_front_if(reached) else {
                break;
            };
            outbox.nudge();
        }
        if awaited.is_empty() {
            awaited.shrink_to(WAITING_KEPT_ROOM_FOR);
        }
    }

    fn has_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Whether somebody is to be told yet.
    fn has_awaited(&self) -> bool {
        let awaited = self.awaited.borrow();
        let next = awaited.front();
        next.is_some_and(|(offset, _)| *offset <= self.taken.get().offset)
    }

    #[cfg(test)]
    fn take_position_late(&self) {
        if self.is_new.replace(false) && is_planted(Fault::TakesThePositionLate) {
            self.taken.set(self.tenant.head());
        }
    }
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
            calls: RefCell::new(seed.calls),
            to_serve: RefCell::default(),
            last_event: Cell::default(),
            wakes: Wakes::default(),
            turn: Cell::default(),
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

    /// Delivers what comes into the inbox for as long as there is somebody who could
    /// put something there, and wakes the connections that have something to write.
    pub async fn run(&self) {
        while poll_fn(|context| self.poll_work(context)).await {
            self.take_waiting();
            self.wakes.wake_some();
            // Lets those write that were woken, and sockets be looked at: backends
            // are answered and post again before the next connections write.
            yield_now().await;
        }
    }

    /// Delivers what waits, without waiting itself, up to a bound: a slice of each
    /// tenant in turn, or all slices of a turn for one that is alone.
    pub fn take_waiting(&self) {
        let turn = self.turn.get() + 1;
        self.turn.set(turn);
        let mut tenants = 0;
        for _ in 0..SLICES_A_TURN {
            self.empty_inbox();
            if self.take_slice(|here| here.served_in.get() != turn) {
                tenants += 1;
            } else if tenants != 1 || !self.take_slice(TenantHere::has_waiting) {
                break;
            }
        }
    }

    /// Delivers a slice of the tenant's, unless it has enough to write. Who has put
    /// something into the inbox on this very thread need not wait for its receipt then,
    /// and takes no more of the thread's time than it has given it to do.
    pub fn take_waiting_of(&self, tenant: &TenantName) {
        self.empty_inbox();
        let here = self.tenants.borrow().get(tenant).cloned();
        if let Some(here) = here.filter(|here| !here.due.has_full_write()) {
            self.deliver_slice(&here);
        }
    }

    /// Closes connections for as long as the events take more memory than they may:
    /// first the one that has waited longest, of all shards, to write an event that
    /// the log no longer has. To close another would free nothing.
    pub async fn relieve_memory(&self) {
        loop {
            self.relief.asked(self.id).await;
            self.tell_oldest();
            // All tell first. And where nothing can be closed, what takes the memory is
            // on its way, and not to be kept waiting by looking for it.
            sleep(RELIEF_PAUSE).await;
            while self.registry.is_over_memory() && self.free_some_memory() {
                sleep(RELIEF_PAUSE).await;
            }
            self.relief.has_nothing(self.id);
        }
    }

    /// Tells the other shards the age of what this one would close first.
    fn tell_oldest(&self) {
        let holders = self.holders_of_old_events();
        if let Some(oldest) = holders.iter().map(|(placed, _)| *placed).min() {
            self.relief.is_oldest(self.id, oldest);
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
                self.queue(item);
                Poll::Ready(true)
            }
            Poll::Ready(None) => Poll::Ready(false),
            // Others may have emptied the inbox and left the rest to us.
            Poll::Pending if self.is_idle() => Poll::Pending,
            Poll::Pending => Poll::Ready(true),
        }
    }

    fn is_idle(&self) -> bool {
        self.to_serve.borrow().is_empty() && self.wakes.is_empty()
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
        Ok(Membership::new(Rc::clone(self), here, id, user, outbox))
    }

    /// Answers what is asked beside events, for as long as there is somebody who could
    /// ask.
    pub async fn answer_calls(&self) {
        let mut waiting = VecDeque::new();
        loop {
            // Whether it is there is not to hang on what others ask, so pings go first.
            while waiting.len() < CALLS_MAX {
                let next = self.calls.borrow_mut().try_recv();
                match next {
                    Ok(Call::Ping(answer)) => tell(answer, ()),
                    Ok(call) => waiting.push_back(call),
                    Err(_) => break,
                }
            }
            if let Some(call) = waiting.pop_front() {
                self.answer(call);
                yield_now().await;
                continue;
            }
            match poll_fn(|context| self.calls.borrow_mut().poll_recv(context)).await {
                Some(call) => waiting.push_back(call),
                None => break,
            }
        }
    }

    fn answer(&self, call: Call) {
        // Late, it would end connections that have come since, or be work in vain.
        if call.is_given_up() {
            return;
        }
        match call {
            Call::Ping(answer) => tell(answer, ()),
            Call::Disconnect(tenant, user, answer) => tell(answer, self.disconnect(&tenant, &user)),
            Call::Look(tenant, answer) => tell(answer, self.look(&tenant)),
        }
    }

    /// Tells the connections of a user to end: how many are not ending already.
    fn disconnect(&self, tenant: &TenantName, user: &UserName) -> u64 {
        let tenants = self.tenants.borrow();
        let Some(here) = tenants.get(tenant) else {
            return 0;
        };
        let mut ended = 0;
        here.index
            .borrow()
            .for_each_subscriber(&Topic::of_user(user), |outbox| {
                if outbox.ending().is_none() {
                    outbox.end(Ending::Disconnected);
                    ended += 1;
                }
            });
        ended
    }

    fn look(&self, tenant: &TenantName) -> TenantLook {
        let tenants = self.tenants.borrow();
        let Some(here) = tenants.get(tenant) else {
            return TenantLook::default();
        };
        let index = here.index.borrow();
        let mut look = TenantLook {
            connections: index.connections_len() as u64,
            ..TenantLook::default()
        };
        for topic in index.topics() {
            let names = if topic.is_implicit() {
                &mut look.users
            } else {
                &mut look.topics
            };
            names.push(topic.hash());
        }
        look
    }

    /// Has every connection here look at what may have changed for it.
    pub fn ring_all(&self) {
        for here in self.tenants.borrow().values() {
            here.index
                .borrow()
                .for_each_connection(|outbox| outbox.ring());
        }
    }

    /// Tells every connection here to end; `ending` is asked for each. What is in
    /// the inbox by then is still for them.
    pub fn end_all(&self, ending: impl Fn() -> Ending) {
        self.empty_inbox();
        while let Some(here) = self.next_to_serve(|_| true) {
            while self.deliver_slice(&here) {}
        }
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
            waiting: RefCell::default(),
            has_turn: Cell::default(),
            due: Rc::default(),
            served_in: Cell::default(),
            awaited: RefCell::default(),
            #[cfg(test)]
            is_new: Cell::new(true),
        });
        tenants.insert(name.clone(), Rc::clone(&here));
        Ok(here)
    }

    /// Up to which offset the tenant's events are to be delivered here, so that its
    /// connections here have all that its log has as of now in their outboxes. `None`
    /// when they are, if need be by this: for a slice of them nobody has to wait. Else
    /// the connection is nudged when they are.
    ///
    /// An event is sent to the inbox before the lock is released under which the
    /// head is read here, so what is to be delivered is there.
    pub(super) fn await_head(&self, here: &Rc<TenantHere>, outbox: &Rc<Outbox>) -> Option<u64> {
        let head = here.tenant.head().offset;
        if here.taken.get().offset < head {
            self.empty_inbox();
            // Many that come at once have one between them.
            if here.awaited.borrow().is_empty() && !here.due.has_full_write() {
                self.deliver_slice(here);
            }
        }
        let awaits = here.taken.get().offset < head;
        if awaits {
            let mut awaited = here.awaited.borrow_mut();
            awaited.push_back((head, Rc::clone(outbox)));
        }
        awaits.then_some(head)
    }

    /// Delivers all that the tenant has waiting.
    #[cfg(test)]
    pub(super) fn take_all_of(&self, here: &Rc<TenantHere>) {
        self.empty_inbox();
        while self.deliver_slice(here) {}
    }

    /// Delivers a slice of the tenant whose turn it is, of those that `may` have one. Who
    /// has a full write waiting has none.
    fn take_slice(&self, may: impl Fn(&TenantHere) -> bool) -> bool {
        let Some(here) = self.next_to_serve(|here| may(here) && !here.due.has_full_write()) else {
            return false;
        };
        here.served_in.set(self.turn.get());
        self.deliver_slice(&here);
        if here.has_waiting() || here.has_awaited() {
            here.has_turn.set(true);
            self.to_serve.borrow_mut().push_back(here);
        }
        true
    }

    /// Takes the next one out that is to be served now. Those before it keep their order
    /// behind the others.
    fn next_to_serve(&self, now: impl Fn(&TenantHere) -> bool) -> Option<Rc<TenantHere>> {
        let mut to_serve = self.to_serve.borrow_mut();
        for _ in 0..to_serve.len() {
            let here = to_serve.pop_front()?;
            if now(&here) {
                here.has_turn.set(false);
                return Some(here);
            }
            to_serve.push_back(here);
        }
        None
    }

    /// Takes all items out of the inbox; there are no more than it has places for.
    fn empty_inbox(&self) {
        let mut inbox = self.inbox.borrow_mut();
        while let Ok(item) = inbox.try_recv() {
            self.queue(item);
        }
    }

    /// Has an item wait for its tenant's turn, if that is here.
    fn queue(&self, item: Item) {
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
        here.waiting.borrow_mut().push_back(Waiting {
            item,
            done: 0,
            first: 0,
        });
        if !here.has_turn.replace(true) {
            self.to_serve.borrow_mut().push_back(Rc::clone(here));
        }
    }

    /// Offers the events of the tenant's first item to the connections here that they
    /// match, up to a bound. Whether there was one.
    fn deliver_slice(&self, here: &Rc<TenantHere>) -> bool {
        let mut waiting = here.waiting.borrow_mut();
        let Some(Waiting { item, done, first }) = waiting.front_mut() else {
            here.nudge_awaited();
            return false;
        };
        #[cfg(test)]
        here.take_position_late();
        let index = here.index.borrow();
        let mut due = here.due.queue().borrow_mut();
        let due_before = due.len();
        let events = item.events.as_slice();
        let mut cost = 0;
        for event in events.get(*done..).unwrap_or_default() {
            if cost >= DELIVERIES_A_SLICE || cost > 0 && due.has_full_write() {
                break;
            }
            let place = *done;
            *done += 1;
            if event.position().offset <= here.taken.get().offset {
                saw("a tenant that came back to a full inbox");
                continue;
            }
            here.taken.set(event.position());
            let number = self.last_event.get() + 1;
            self.last_event.set(number);
            if *first == 0 {
                *first = number;
            }
            let offer = Offer::new(event, *first, number);
            let fanout = due.deliver(event.frame().len(), |due| index.deliver(event, &offer, due));
            item.receipt.add(place, fanout.matched);
            self.tally.matched.add(fanout.matched);
            self.tally.dropped_slow.add(fanout.overflowed);
            self.tally.queued.add(fanout.matched - fanout.overflowed);
            let deliveries = usize::try_from(fanout.matched).unwrap_or(usize::MAX);
            cost = deliveries.saturating_add(cost + EVENT_COST);
        }
        let is_done = *done == events.len();
        self.wakes
            .add(&here.due, due_before, due.len() - due_before);
        here.nudge_awaited();
        if is_done {
            waiting.pop_front();
            if waiting.is_empty() && waiting.capacity() > WAITING_KEPT_ROOM_FOR {
                waiting.shrink_to(WAITING_KEPT_ROOM_FOR);
            }
        }
        true
    }

    pub(super) fn leave(&self, here: &TenantHere) {
        self.tenants.borrow_mut().swap_remove(here.tenant.name());
        // Nobody is here any more who could get it.
        drop(here.waiting.take());
        self.registry.leave(&here.tenant, self.id);
    }
}

/// Answers a question. Who no longer waits for the answer does not get it.
fn tell<T>(answer: oneshot::Sender<T>, value: T) {
    drop(answer.send(value));
}
