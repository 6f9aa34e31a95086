//! The hub's part on one shard: the tenants that have connections here, and the
//! inbox from which their events come. All of it lives on the shard's thread.

mod calls;
mod departures;
mod memory;
mod rendering;
mod tenant_here;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use indexmap::IndexMap;
use tokio::{sync::mpsc, task::yield_now, time::Instant};

pub(super) use self::tenant_here::TenantHere;
use self::tenant_here::{WAITING_KEPT_ROOM_FOR, Waiting};
use super::{
    ShardId, ShardSeed,
    admin::ShardCalls,
    begun_messages::BegunMessages,
    inbox::Item,
    membership::Membership,
    registry::{Registry, TenantsFull},
    relief::Relief,
    subscribers::ConnectionId,
    wakes::WakeQueue,
};
use crate::{
    memory::MemoryAccount,
    outbox::{Offer, Outbox},
    planted::{Fault, is_planted, saw},
    protocol::{TenantName, UserName, close::Ending},
    scheduler::{Cost, DeficitQueue, QUANTUM, WorkQueue},
    tally::Tally,
};

/// How long a shard that has something to do leaves sockets and timers alone. A look takes
/// 1 to 2 µs, as long as a turn in which little is to be done.
pub const LOOK_INTERVAL: Duration = Duration::from_micros(64);

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
    /// Tenants with items that wait to be delivered.
    deliveries: RefCell<DeficitQueue<TenantHere>>,
    /// Tenants with connections that are to be woken to write.
    wakes: WakeQueue,
    /// Tenants with connections that have gone, of which topics are still in the index.
    departures: RefCell<DeficitQueue<TenantHere>>,
    /// What tasks do for tenants.
    work: Rc<WorkQueue>,
    /// The large writes of connections.
    writes: Rc<WorkQueue>,
    /// The last event that was offered to outboxes.
    last_event: Cell<u64>,
    last_connection: Cell<ConnectionId>,
    /// All connections are told to end: nothing is put off any more.
    is_ending: Cell<bool>,
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
            deliveries: RefCell::new(DeficitQueue::new(|here| &here.deliveries)),
            wakes: WakeQueue::default(),
            departures: RefCell::new(DeficitQueue::new(|here| &here.departures)),
            work: Rc::default(),
            writes: Rc::default(),
            last_event: Cell::default(),
            last_connection: Cell::default(),
            is_ending: Cell::default(),
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

    /// What tasks of the shard do for tenants.
    #[must_use]
    pub fn work(&self) -> &Rc<WorkQueue> {
        &self.work
    }

    /// Delivers what comes into the inbox for as long as there is somebody who could
    /// put something there, and wakes the connections that have something to write. While
    /// there is something to do, sockets and timers are looked at after `look_interval`, or
    /// after every turn where that is zero.
    pub async fn run(self: &Rc<Self>, look_interval: Duration) {
        let mut last_look = Instant::now();
        while poll_fn(|context| self.poll_work(context)).await {
            self.take_waiting();
            for queue in [&self.work, &self.writes] {
                if !queue.is_idle() {
                    queue.begin_turn();
                }
            }
            if !self.departures.borrow().is_empty() {
                self.continue_departures();
            }
            self.wakes.wake_some();
            // Those that were woken write before the next are woken.
            run_ready_tasks().await;
            if last_look.elapsed() >= look_interval {
                // Backends are answered and post again before the next connections write.
                yield_now().await;
                last_look = Instant::now();
            }
        }
    }

    /// Delivers what waits, without waiting itself, for a turn.
    pub fn take_waiting(self: &Rc<Self>) {
        self.empty_inbox();
        self.deliveries.borrow_mut().begin_turn();
        loop {
            // A tenant that has a full write waiting gains nothing by having more.
            let is_ready = |here: &TenantHere| !here.due.has_full_write();
            let next = self.deliveries.borrow_mut().next(is_ready);
            let Some(here) = next else {
                break;
            };
            let has_more = loop {
                let Some(cost) = self.deliver_slice(&here, here.deliveries.quota()) else {
                    break false;
                };
                self.deliveries.borrow_mut().charge(&here, cost);
                let has_more = here.has_waiting() || here.has_awaited();
                if !has_more || !here.deliveries.has_quota() || !is_ready(&here) {
                    break has_more;
                }
            };
            self.deliveries.borrow_mut().put_back(here, has_more);
        }
    }

    /// Delivers a quantum of the tenant's, unless it has enough to write: what somebody has
    /// put into the inbox on this very thread then need not wait for the tenant's turn.
    /// Returns what that cost, which the caller is to charge.
    pub fn take_waiting_of(self: &Rc<Self>, tenant: &TenantName) -> Cost {
        self.empty_inbox();
        let here = self.tenants.borrow().get(tenant).cloned();
        here.filter(|here| !here.due.has_full_write())
            .and_then(|here| self.deliver_slice(&here, QUANTUM))
            .unwrap_or_default()
    }

    /// Whether there is anything to do; `false` when there never will be.
    fn poll_work(&self, context: &mut Context<'_>) -> Poll<bool> {
        // What is in the inbox is taken out in the turn that follows.
        if !self.is_idle() {
            return Poll::Ready(true);
        }
        let next = self.inbox.borrow_mut().poll_recv(context);
        match next {
            Poll::Ready(Some(item)) => {
                self.queue(item);
                Poll::Ready(true)
            }
            Poll::Ready(None) => Poll::Ready(false),
            Poll::Pending => {
                self.work.register(context);
                self.writes.register(context);
                Poll::Pending
            }
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.deliveries.borrow().is_empty()
            && self.departures.borrow().is_empty()
            && self.wakes.is_empty()
            && self.work.is_idle()
            && self.writes.is_idle()
    }

    /// What was charged for deliveries and for the work of tasks, which may have delivered
    /// something for themselves.
    #[cfg(test)]
    pub(crate) fn charged(&self) -> Cost {
        self.deliveries.borrow().charged() + self.work.charged()
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

    /// Has every connection here look at what may have changed for it, in the turns of its
    /// tenant.
    pub fn ring_all(&self) {
        for here in self.tenants.borrow().values() {
            here.index.borrow().for_each_connection(|outbox| {
                outbox.set_rung();
                here.due.queue().borrow_mut().ring(outbox);
            });
            self.wake_rung(here);
        }
    }

    /// Has the connections of the tenant that were rung woken in its turns.
    fn wake_rung(&self, here: &TenantHere) {
        self.wakes.activate(&here.due);
        self.work.wake();
    }

    /// Tells every connection here to end; `ending` is asked for each. What is in
    /// the inbox by then is still for them.
    pub fn end_all(self: &Rc<Self>, ending: impl Fn() -> Ending) {
        self.is_ending.set(true);
        self.empty_inbox();
        for here in self.tenants.borrow().values() {
            while let Some(cost) = self.deliver_slice(here, QUANTUM) {
                self.deliveries.borrow_mut().charge(here, cost);
            }
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
        let (work, writes) = (self.work.tenant(name), self.writes.tenant(name));
        let here = Rc::new(TenantHere::new(tenant, head, work, writes));
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
    pub(super) fn await_head(
        self: &Rc<Self>,
        here: &Rc<TenantHere>,
        outbox: &Rc<Outbox>,
    ) -> Option<u64> {
        let head = here.tenant.head().offset;
        if !here.has_reached(head) {
            self.empty_inbox();
            // Many that come at once have one between them.
            if here.awaited.borrow().is_empty() && !here.due.has_full_write() {
                let cost = self.deliver_slice(here, QUANTUM);
                here.work.charge(cost.unwrap_or_default());
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
    pub(super) fn take_all_of(self: &Rc<Self>, here: &Rc<TenantHere>) {
        self.empty_inbox();
        while self.deliver_slice(here, QUANTUM).is_some() {}
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
        self.deliveries.borrow_mut().activate(here);
    }

    /// Offers the events of the tenant's first item to the connections here that they
    /// match, until the quota is used; one event is never cut, and one that has to be
    /// rendered first is waited for. Then tells those that waited for that. Returns what it
    /// cost, if there was something to do.
    fn deliver_slice(self: &Rc<Self>, here: &Rc<TenantHere>, quota: Cost) -> Option<Cost> {
        let mut waiting = here.waiting.borrow_mut();
        let is_rendering = here.is_rendering.get() && !self.is_ending.get();
        let next = waiting.front_mut().filter(|_| !is_rendering);
        let Some(Waiting { item, done, first }) = next else {
            let cost = here.nudge_awaited();
            return (cost > Cost::ZERO).then_some(cost);
        };
        #[cfg(test)]
        here.take_position_late();
        let index = here.index.borrow();
        let mut due = here.due.queue().borrow_mut();
        let events = item.events.as_slice();
        let mut cost = Cost::ZERO;
        let delivery = item.delivery.delivery();
        let rest = events.iter().zip(delivery.events()).skip(*done);
        for (event, delivered) in rest {
            if cost >= quota || cost > Cost::ZERO && due.has_full_write() {
                break;
            }
            if event.renders_slowly() && self.renders_first(here, event, delivery, *done) {
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
            cost += Cost::FRAME + Cost::STEP.times(fanout.offers);
            if let Some(bytes) = offer.made_json_bytes() {
                saw("JSON that was made only for the delivery");
                self.tally.json_delivered.add(1);
                cost += Cost::JSON_BYTE.times(bytes);
            }
        }
        let is_done = *done == events.len();
        if due.len() > 0 {
            self.wakes.activate(&here.due);
        }
        cost += here.nudge_awaited();
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
        let connections = &here.json_connections;
        if joined {
            self.tally.json_connections.add(1);
            connections.set(connections.get() + 1);
        } else {
            self.tally.json_connections.sub(1);
            connections.set(connections.get() - 1);
        }
    }

    pub(super) fn leave(&self, here: &TenantHere) {
        self.tenants.borrow_mut().swap_remove(here.tenant.name());
        // Nobody is here any more who could get it.
        drop(here.waiting.take());
        self.registry.leave(&here.tenant, self.id);
    }
}

/// Lets the tasks run that are ready, as [`yield_now`] does, but without a look at sockets and
/// timers before the caller goes on.
async fn run_ready_tasks() {
    let mut has_run = false;
    poll_fn(|context| {
        if has_run {
            return Poll::Ready(());
        }
        has_run = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
