//! The hub's part on one shard: the tenants that have connections here, and the
//! inbox from which their events come. All of it lives on the shard's thread.

mod calls;
mod departures;
mod memory;
mod reading;
mod tenant_here;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use indexmap::IndexMap;
use tokio::{sync::mpsc, task::yield_now};

use self::{
    departures::{Departure, TOPICS_LEFT_A_TURN},
    tenant_here::{WAITING_KEPT_ROOM_FOR, Waiting},
};
pub(super) use self::{reading::ReadingPlace, tenant_here::TenantHere};
use super::{
    ShardId, ShardSeed,
    admin::ShardCalls,
    begun_messages::BegunMessages,
    inbox::Item,
    membership::Membership,
    registry::{Registry, TenantsFull},
    relief::Relief,
    subscribers::ConnectionId,
    wakes::Wakes,
};
use crate::{
    memory::MemoryAccount,
    outbox::{Offer, Outbox},
    planted::{Fault, is_planted, saw},
    protocol::{TenantName, UserName, close::Ending},
    tally::Tally,
};

/// How many slices of tenants' events are delivered before others have their turn.
const SLICES_A_TURN: usize = 16;

/// A slice is one item, or a part of one: a batch is cut where its events have been
/// offered so often, and goes on when it is the tenant's turn again. One event is never
/// cut.
const OFFERS_A_SLICE: usize = 1024;

/// What an event costs beside its topics and offers, in offers.
const EVENT_COST: usize = 16;

/// To make so many bytes of JSON takes as long as an offer.
const JSON_BYTES_AN_OFFER: usize = 8;

/// A shard's tenants and topics.
#[derive(Debug)]
pub struct ShardHub {
    id: ShardId,
    registry: Arc<Registry>,
    tally: Arc<Tally>,
    relief: Arc<Relief>,
    tenants: RefCell<IndexMap<TenantName, Rc<TenantHere>>>,
    inbox: RefCell<mpsc::Receiver<Item>>,
    calls: RefCell<ShardCalls>,
    /// Those with items that wait, in the order of their turns.
    to_serve: RefCell<VecDeque<Rc<TenantHere>>>,
    /// Those with connections that wait to read the log, in the order of their turns.
    to_read: RefCell<VecDeque<Rc<TenantHere>>>,
    /// Connections that have gone, of which topics are still in the index.
    departures: RefCell<VecDeque<Departure>>,
    /// How many of these topics may be taken out in this turn.
    departing_left: Cell<usize>,
    /// Wakes the task that takes the turns.
    waker: RefCell<Option<Waker>>,
    /// The last event that was offered to outboxes.
    last_event: Cell<u64>,
    wakes: Wakes,
    /// The turn that is under way, or was.
    turn: Cell<u64>,
    last_connection: Cell<ConnectionId>,
    begun_messages: Rc<BegunMessages>,
}

impl ShardHub {
    pub(super) fn new(seed: ShardSeed) -> Self {
        Self {
            id: seed.id,
            begun_messages: BegunMessages::new(seed.registry.memory()),
            registry: seed.registry,
            tally: seed.tally,
            relief: seed.relief,
            tenants: RefCell::default(),
            inbox: RefCell::new(seed.inbox),
            calls: RefCell::new(seed.calls),
            to_serve: RefCell::default(),
            to_read: RefCell::default(),
            departures: RefCell::default(),
            departing_left: Cell::new(TOPICS_LEFT_A_TURN),
            waker: RefCell::default(),
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

    /// What messages that have begun to arrive here hold.
    #[must_use]
    pub fn begun_messages(&self) -> &Rc<BegunMessages> {
        &self.begun_messages
    }

    /// Whether no tenant has a connection here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tenants.borrow().is_empty()
    }

    /// Whether no tenant but this one has a connection here.
    #[must_use]
    pub fn has_none_beside(&self, tenant: &TenantName) -> bool {
        let tenants = self.tenants.borrow();
        tenants.len() <= 1 && tenants.keys().all(|name| name == tenant)
    }

    /// Delivers what comes into the inbox for as long as there is somebody who could
    /// put something there, and wakes the connections that have something to write.
    pub async fn run(&self) {
        while poll_fn(|context| self.poll_work(context)).await {
            self.take_waiting();
            self.begin_reading();
            self.continue_departures();
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
    /// and takes no more of the thread's time than it has given it to do. Gives what that
    /// cost, in offers of an event to a connection.
    pub fn take_waiting_of(&self, tenant: &TenantName) -> usize {
        self.empty_inbox();
        let here = self.tenants.borrow().get(tenant).cloned();
        here.filter(|here| !here.due.has_full_write())
            .and_then(|here| self.deliver_slice(&here))
            .unwrap_or_default()
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
            Poll::Pending if self.is_idle() => {
                match &mut *self.waker.borrow_mut() {
                    Some(waker) => waker.clone_from(context.waker()),
                    waker => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            Poll::Pending => Poll::Ready(true),
        }
    }

    fn is_idle(&self) -> bool {
        self.to_serve.borrow().is_empty()
            && self.to_read.borrow().is_empty()
            && self.departures.borrow().is_empty()
            && self.wakes.is_empty()
    }

    /// Has a turn taken for something that did not come through the inbox.
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
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
        Ok(Membership::new(Rc::clone(self), here, id, user, outbox))
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
            while self.deliver_slice(&here).is_some() {}
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
        let here = Rc::new(TenantHere::new(tenant, head));
        tenants.insert(name.clone(), Rc::clone(&here));
        Ok(here)
    }

    /// Up to which offset the tenant's events are to be delivered here, so that its
    /// connections here have all that its log has as of now in their outboxes. `None`
    /// when they are, if need be by this: for a slice of them nobody has to wait, unless
    /// others wait or a full write does. Else the connection is nudged when they are.
    ///
    /// An event is sent to the inbox before the lock is released under which the
    /// head is read here, so what is to be delivered is there.
    pub(super) fn await_head(&self, here: &Rc<TenantHere>, outbox: &Rc<Outbox>) -> Option<u64> {
        let head = here.tenant.head().offset;
        if !here.has_reached(head) {
            self.empty_inbox();
            // Many that come at once have one between them.
            if here.awaited.borrow().is_empty() && !here.due.has_full_write() {
                self.deliver_slice(here);
            }
        }
        let awaits = !here.has_reached(head);
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
        while self.deliver_slice(here).is_some() {}
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
    /// match, up to a bound. Gives what that cost, in offers, if there was one.
    fn deliver_slice(&self, here: &Rc<TenantHere>) -> Option<usize> {
        let mut waiting = here.waiting.borrow_mut();
        let Some(Waiting { item, done, first }) = waiting.front_mut() else {
            here.nudge_awaited();
            return None;
        };
        #[cfg(test)]
        here.take_position_late();
        let index = here.index.borrow();
        let mut due = here.due.queue().borrow_mut();
        let due_before = due.len();
        let events = item.events.as_slice();
        let mut cost = 0;
        let rest = events.iter().zip(item.delivery.events()).skip(*done);
        for (event, delivered) in rest {
            if cost >= OFFERS_A_SLICE || cost > 0 && due.has_full_write() {
                break;
            }
            *done += 1;
            if here.has_reached(event.position().offset) {
                saw("a tenant that came back to a full inbox");
                continue;
            }
            here.taken.set(event.position());
            let number = self.last_event.get() + 1;
            self.last_event.set(number);
            if *first == 0 {
                *first = number;
            }
            let offer = Offer::new(event, delivered.json(), *first, number);
            let fanout = due.deliver(
                |due| index.deliver(event, &offer, due),
                || offer.bytes_max(),
            );
            delivered.add_matched(fanout.matched);
            self.tally.matched.add(fanout.matched);
            self.tally.dropped_slow.add(fanout.overflowed);
            self.tally.queued.add(fanout.matched - fanout.overflowed);
            cost += EVENT_COST + fanout.offers;
            if let Some(bytes) = offer.made_json_bytes() {
                saw("JSON that was made only for the delivery");
                self.tally.json_delivered.add(1);
                cost += bytes / JSON_BYTES_AN_OFFER;
            }
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
        Some(cost)
    }

    /// The account of the memory that the process holds for others.
    pub(super) fn memory(&self) -> &MemoryAccount {
        self.registry.memory()
    }

    /// A connection that takes events as JSON has come, or one has gone.
    pub(super) fn count_json(&self, here: &TenantHere, joined: bool) {
        self.registry.count_json(&here.tenant, joined);
        if joined {
            self.tally.json_connections.add(1);
        } else {
            self.tally.json_connections.sub(1);
        }
    }

    pub(super) fn leave(&self, here: &TenantHere) {
        self.tenants.borrow_mut().swap_remove(here.tenant.name());
        // Nobody is here any more who could get it.
        drop(here.waiting.take());
        self.registry.leave(&here.tenant, self.id);
    }
}
