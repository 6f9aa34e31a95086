//! The hub's part on one shard: the tenants that have connections here, and the inbox from which
//! their events come. Lives on the shard's thread.

mod calls;
mod client_events;
mod deliveries;
mod departures;
mod memory;
mod rendering;
mod shard_tenant;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use indexmap::IndexMap;
use sidewire_presence::ConnectionKey;
use sidewire_protocol::{TenantName, close::CloseReason};
use tokio::{sync::mpsc, task::yield_now, time::Instant};

pub(super) use self::shard_tenant::ShardTenant;
use super::{
    ShardBuilder, ShardId,
    admin::ShardCalls,
    begun_messages::BegunMessages,
    connection::HubConnection,
    inbox::InboxItem,
    presence::ShardPresence,
    registry::{TenantRegistry, TenantsFull},
    relief::MemoryRelief,
    roster::ConnectionProfile,
    subscribers::ConnectionId,
    tenant::Tenant,
    wakes::WakeQueue,
};
use crate::{
    memory::MemoryAccount,
    outbox::Outbox,
    scheduler::{Cost, DeficitQueue, QUANTUM, WorkQueue},
    tally::ShardTally,
};

/// Longest time that a busy shard goes without polling sockets and timers. A poll takes 1 to 2
/// µs, as long as a turn with little to do.
pub const LOOK_INTERVAL: Duration = Duration::from_micros(64);

/// A shard's tenants and topics.
#[derive(Debug)]
pub struct ShardHub {
    id: ShardId,
    registry: Arc<TenantRegistry>,
    tally: Arc<ShardTally>,
    relief: Arc<MemoryRelief>,
    tenants: RefCell<IndexMap<TenantName, Rc<ShardTenant>>>,
    inbox: RefCell<mpsc::Receiver<InboxItem>>,
    calls: RefCell<ShardCalls>,
    /// Tenants with undelivered items.
    deliveries: RefCell<DeficitQueue<ShardTenant>>,
    /// Tenants with connections waiting to be woken to write.
    wakes: WakeQueue,
    /// Tenants with topics of closed connections still in the index.
    departures: RefCell<DeficitQueue<ShardTenant>>,
    /// Work that tasks do for tenants.
    work: Rc<WorkQueue>,
    /// The large writes of connections.
    writes: Rc<WorkQueue>,
    /// Number of the last event offered to outboxes.
    last_event: Cell<u64>,
    last_connection: Cell<ConnectionId>,
    /// True once all connections have been told to end; from then on no work is deferred.
    is_ending: Cell<bool>,
    begun_messages: Rc<BegunMessages>,
    presence: ShardPresence,
}

impl ShardHub {
    pub(super) fn new(builder: ShardBuilder) -> Self {
        Self {
            id: builder.id,
            begun_messages: BegunMessages::new(builder.registry.memory()),
            presence: ShardPresence::new(builder.presence, builder.clock),
            registry: builder.registry,
            tally: builder.tally,
            relief: builder.relief,
            tenants: RefCell::default(),
            inbox: RefCell::new(builder.inbox),
            calls: RefCell::new(builder.calls),
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

    /// Returns the shard's counters.
    #[must_use]
    pub fn tally(&self) -> &Arc<ShardTally> {
        &self.tally
    }

    /// Returns the memory held by client messages that are still arriving on this shard.
    #[must_use]
    pub fn begun_messages(&self) -> &Rc<BegunMessages> {
        &self.begun_messages
    }

    /// Returns true if no tenant has a connection on this shard.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tenants.borrow().is_empty()
    }

    /// Returns the queue of the work that the shard's tasks do for tenants.
    #[must_use]
    pub fn work_queue(&self) -> &Rc<WorkQueue> {
        &self.work
    }

    /// Delivers items from the inbox and wakes connections that have something to write, until
    /// every sender of the inbox is gone. While there is work, sockets and timers are polled
    /// every `look_interval`, or after every turn if that is zero.
    pub async fn run(self: &Rc<Self>, look_interval: Duration) {
        let mut last_look = Instant::now();
        while poll_fn(|context| self.poll_work(context)).await {
            self.deliver_pending();
            for queue in [&self.work, &self.writes] {
                if !queue.is_idle() {
                    queue.begin_turn();
                }
            }
            if !self.departures.borrow().is_empty() {
                self.continue_departures();
            }
            self.wakes.wake_some();
            // The woken connections write before the next ones are woken.
            run_ready_tasks().await;
            if last_look.elapsed() >= look_interval {
                // This answers backends, which then post again before the next connections write.
                yield_now().await;
                last_look = Instant::now();
            }
        }
    }

    /// Delivers queued items within the budget of one turn. Does not wait for new ones.
    pub fn deliver_pending(self: &Rc<Self>) {
        self.drain_inbox();
        self.take_presence_mail();
        self.deliveries.borrow_mut().begin_turn();
        loop {
            // A tenant with a full write pending gains nothing from more events.
            let is_ready = |here: &ShardTenant| !here.due.has_full_write();
            let next = self.deliveries.borrow_mut().next(is_ready);
            let Some(here) = next else {
                break;
            };
            let has_more = loop {
                let Some(cost) = self.deliver_slice(&here, here.deliveries.quota()) else {
                    break false;
                };
                self.deliveries.borrow_mut().charge(&here, cost);
                let has_more =
                    here.has_waiting() || here.has_awaited() || here.has_presence_changes.get();
                if !has_more || !here.deliveries.has_quota() || !is_ready(&here) {
                    break has_more;
                }
            };
            self.deliveries.borrow_mut().put_back(here, has_more);
        }
    }

    /// Delivers up to a quantum of the tenant's items, unless a full write is pending: so an item
    /// that was put into the inbox on this very thread need not wait until the tenant is
    /// scheduled. Returns the cost, which the caller must charge.
    pub fn deliver_one_slice(self: &Rc<Self>, tenant: &TenantName) -> Cost {
        self.drain_inbox();
        let here = self.tenants.borrow().get(tenant).cloned();
        here.filter(|here| !here.due.has_full_write())
            .and_then(|here| self.deliver_slice(&here, QUANTUM))
            .unwrap_or_default()
    }

    /// Resolves to true when there is work, and to false when there never will be any again.
    fn poll_work(&self, context: &mut Context<'_>) -> Poll<bool> {
        // The turn that follows drains the inbox.
        if !self.is_idle() {
            return Poll::Ready(true);
        }
        let mailbox = self.presence_mailbox();
        if mailbox.is_some_and(|mailbox| mailbox.poll_mail(context).is_ready()) {
            return Poll::Ready(true);
        }
        let next = self.inbox.borrow_mut().poll_recv(context);
        match next {
            Poll::Ready(Some(item)) => {
                self.enqueue_item(item);
                Poll::Ready(true)
            }
            Poll::Ready(None) => Poll::Ready(false),
            Poll::Pending => {
                self.work.register_waker(context);
                self.writes.register_waker(context);
                Poll::Pending
            }
        }
    }

    /// Returns true if nothing is left to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.deliveries.borrow().is_empty()
            && self.departures.borrow().is_empty()
            && self.wakes.is_empty()
            && self.work.is_idle()
            && self.writes.is_idle()
    }

    /// Returns the cost charged so far for deliveries and for the work of tasks, which may have
    /// delivered items themselves.
    #[cfg(any(test, feature = "testing"))]
    pub fn total_charged(&self) -> Cost {
        self.deliveries.borrow().total_charged() + self.work.total_charged()
    }

    /// Adds a connection to the tenant. From now on its outbox receives the events for its user
    /// and for the whole tenant.
    ///
    /// # Errors
    ///
    /// When the tenant is new and the relay has as many tenants as it may have.
    pub fn join_tenant(
        self: &Rc<Self>,
        tenant: &TenantName,
        profile: ConnectionProfile,
        outbox: Rc<Outbox>,
    ) -> Result<HubConnection, TenantsFull> {
        let here = self.enter_tenant(tenant)?;
        let id = self.last_connection.get() + 1;
        self.last_connection.set(id);
        Ok(HubConnection::new(
            Rc::clone(self),
            here,
            id,
            profile,
            outbox,
        ))
    }

    /// Wakes every connection on this shard, as its tenant is scheduled, to check what may have
    /// changed for it.
    pub fn nudge_all(&self) {
        for here in self.tenants.borrow().values() {
            here.index.borrow().for_each_connection(|outbox| {
                outbox.signals().set_alarm();
                here.due.queue().borrow_mut().push_nudge(outbox);
            });
            self.wake_nudged(here);
        }
    }

    /// Queues the tenant to have its rung connections woken.
    fn wake_nudged(&self, here: &ShardTenant) {
        self.wakes.activate(&here.due);
        self.work.wake();
    }

    /// Tells every connection on this shard to end, each with a reason returned by `ending`.
    /// Items already in the inbox are delivered first.
    pub fn end_all(self: &Rc<Self>, ending: impl Fn() -> CloseReason) {
        self.is_ending.set(true);
        self.drain_inbox();
        for here in self.tenants.borrow().values() {
            while let Some(cost) = self.deliver_slice(here, QUANTUM) {
                self.deliveries.borrow_mut().charge(here, cost);
            }
            here.index
                .borrow()
                .for_each_connection(|outbox| outbox.signals().request_end(ending()));
        }
    }

    /// Returns the key of a connection of this shard.
    pub(super) fn connection_key(&self, id: ConnectionId) -> ConnectionKey {
        ConnectionKey { shard: self.id, id }
    }

    /// Returns the tenant's part of this shard, if it has connections here.
    pub(super) fn tenant_here(&self, tenant: &Arc<Tenant>) -> Option<Rc<ShardTenant>> {
        let tenants = self.tenants.borrow();
        let here = tenants.get(tenant.name())?;
        // A tenant that was forgotten and created again is another one.
        Arc::ptr_eq(&here.tenant, tenant).then(|| Rc::clone(here))
    }

    /// Schedules the tenant's deliveries.
    pub(super) fn activate_deliveries(&self, here: &Rc<ShardTenant>) {
        self.deliveries.borrow_mut().activate(here);
    }

    fn enter_tenant(&self, name: &TenantName) -> Result<Rc<ShardTenant>, TenantsFull> {
        let mut tenants = self.tenants.borrow_mut();
        if let Some(here) = tenants.get(name) {
            return Ok(Rc::clone(here));
        }
        let (tenant, head) = self.registry.enter_shard(name, self.id)?;
        let (work, writes) = (self.work.tenant_work(name), self.writes.tenant_work(name));
        let here = Rc::new(ShardTenant::new(tenant, head, work, writes));
        tenants.insert(name.clone(), Rc::clone(&here));
        Ok(here)
    }

    /// Returns the offset that must be delivered here before the outboxes of the tenant's
    /// connections on this shard have all that its log has now. The outbox is then nudged once
    /// that offset is delivered. Returns `None` if it is delivered already, or if one slice
    /// delivered by this call is enough. It delivers none while other connections wait or a full
    /// write is pending.
    ///
    /// An event is sent to the inbox before the lock under which `head` is read here is released,
    /// so all events up to the head are in the inbox.
    pub(super) fn await_head(
        self: &Rc<Self>,
        here: &Rc<ShardTenant>,
        outbox: &Rc<Outbox>,
    ) -> Option<u64> {
        let head = here.tenant.head().offset;
        if !here.has_reached(head) {
            self.drain_inbox();
            // Connections that arrive together share one slice.
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

    /// Delivers all queued items of the tenant.
    #[cfg(test)]
    pub(super) fn deliver_all_of(self: &Rc<Self>, here: &Rc<ShardTenant>) {
        self.drain_inbox();
        while self.deliver_slice(here, QUANTUM).is_some() {}
    }

    /// Schedules the connections that must be woken.
    pub(super) fn schedule_wakes(&self, here: &ShardTenant) {
        if here.due.queue().borrow().len() > 0 {
            self.wakes.activate(&here.due);
        }
    }

    /// Returns the index of the shard.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    pub(super) fn registry(&self) -> &TenantRegistry {
        &self.registry
    }

    pub(super) fn presence(&self) -> &ShardPresence {
        &self.presence
    }

    /// Returns true once all connections have been told to end.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.get()
    }

    /// Returns the account of the memory that the process holds for clients and backends.
    pub(super) fn memory(&self) -> &MemoryAccount {
        self.registry.memory()
    }

    /// Counts a JSON connection that has joined or left.
    pub(super) fn count_json_connection(&self, here: &ShardTenant, joined: bool) {
        self.registry.count_json_connection(&here.tenant, joined);
        let connections = &here.json_connections;
        if joined {
            self.tally.json_connections.add(1);
            connections.set(connections.get() + 1);
        } else {
            self.tally.json_connections.sub(1);
            connections.set(connections.get() - 1);
        }
    }

    pub(super) fn leave_tenant(&self, here: &ShardTenant) {
        self.tenants.borrow_mut().swap_remove(here.tenant.name());
        // No connection is left to receive these items.
        drop(here.waiting.take());
        self.registry.leave_shard(&here.tenant, self.id);
    }
}

/// Lets ready tasks run, as [`yield_now`] does, but without polling sockets and timers before the
/// caller continues.
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
