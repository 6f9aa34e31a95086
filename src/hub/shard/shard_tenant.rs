//! A tenant on one shard: its connections, its undelivered items, and the connections that wait
//! for them.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
};

use super::departures::DepartedConnection;
#[cfg(any(test, feature = "testing"))]
use crate::planted::fault;
use crate::{
    hub::{
        inbox::InboxItem, index::TenantIndex, large_json::ReplayJsonCache,
        presence::PresenceBacklogs, revocation::PendingRevocations, roster::ConnectionRoster,
        subscribers::ConnectionId, tenant::Tenant, wakes::TenantWakes,
    },
    outbox::Outbox,
    scheduler::{Cost, Flow, QUANTUM, TenantWork},
};
use sidewire_protocol::{Position, Topic};

/// Capacity, in items, that a tenant's empty queue keeps.
pub(super) const WAITING_KEPT_ROOM_FOR: usize = 16;

/// A tenant that has connections on this shard.
#[derive(Debug)]
pub(in crate::hub) struct ShardTenant {
    pub(in crate::hub) tenant: Arc<Tenant>,
    /// The last position that has been delivered here, or that need not be.
    pub(in crate::hub) taken: Cell<Position>,
    pub(in crate::hub) index: RefCell<TenantIndex>,
    pub(in crate::hub) roster: ConnectionRoster,
    /// Items from the inbox that wait until the tenant is scheduled.
    pub(super) waiting: RefCell<VecDeque<PendingItem>>,
    /// The tenant's flow in the deliveries queue.
    pub(super) deliveries: Flow,
    /// Connections waiting to be woken.
    pub(in crate::hub) due: Rc<TenantWakes>,
    /// Closed connections with topics that are still in the index.
    pub(super) departed: RefCell<VecDeque<DepartedConnection>>,
    /// The tenant's flow in the departures queue.
    pub(super) departures: Flow,
    /// Connections that wait until the events up to an offset are delivered, in ascending order
    /// of offset.
    pub(super) awaited: RefCell<VecDeque<(u64, Rc<Outbox>)>>,
    /// Number of JSON connections.
    pub(super) json_connections: Cell<usize>,
    /// True while deliveries wait for an event that is being rendered.
    pub(super) is_rendering: Cell<bool>,
    /// True while there are presence changes that the shard has not applied.
    pub(in crate::hub) has_presence_changes: Cell<bool>,
    /// True if the next slice of deliveries begins with presence changes, so that these and the
    /// events take turns.
    pub(super) is_presence_next: Cell<bool>,
    /// What connections have not been sent yet of the presence that they see.
    pub(in crate::hub) presence_backlogs: PresenceBacklogs,
    /// Revocations that connections have not carried out yet.
    pub(in crate::hub) revocations: PendingRevocations,
    /// Events rendered recently for resuming connections.
    pub(in crate::hub) replayed_json: ReplayJsonCache,
    /// The tenant's flow of work for its connections, apart from deliveries.
    pub(in crate::hub) work: TenantWork,
    /// The tenant's flow of large writes.
    pub(in crate::hub) writes: TenantWork,
    /// True until the first item is delivered.
    #[cfg(any(test, feature = "testing"))]
    is_new: Cell<bool>,
}

/// An item that may be delivered in part.
#[derive(Debug)]
pub(super) struct PendingItem {
    pub(super) item: InboxItem,
    /// Number of its events that have been delivered.
    pub(super) done: usize,
    /// Number of its first event that was offered, if any was.
    pub(super) first: Option<u64>,
}

impl ShardTenant {
    /// Creates a tenant. Its events up to `head` need not be delivered here.
    pub(super) fn new(
        tenant: Arc<Tenant>,
        head: Position,
        work: TenantWork,
        writes: TenantWork,
    ) -> Self {
        Self {
            tenant,
            taken: Cell::new(head),
            index: RefCell::default(),
            roster: ConnectionRoster::default(),
            waiting: RefCell::default(),
            deliveries: Flow::default(),
            due: Rc::default(),
            departed: RefCell::default(),
            departures: Flow::default(),
            awaited: RefCell::default(),
            json_connections: Cell::default(),
            is_rendering: Cell::default(),
            has_presence_changes: Cell::default(),
            is_presence_next: Cell::default(),
            presence_backlogs: PresenceBacklogs::default(),
            revocations: PendingRevocations::default(),
            replayed_json: ReplayJsonCache::default(),
            work,
            writes,
            #[cfg(any(test, feature = "testing"))]
            is_new: Cell::new(true),
        }
    }

    /// Adds a connection, with the topic of its user.
    pub(in crate::hub) fn add_connection(
        &self,
        user: &Topic,
        id: ConnectionId,
        outbox: &Rc<Outbox>,
    ) {
        self.index.borrow_mut().add_connection(id, outbox);
        self.tenant.audience().add_connection();
        self.subscribe(user, id, outbox);
    }

    /// Removes a connection, except for the topics that it subscribed to.
    pub(in crate::hub) fn remove_connection(&self, user: &Topic, id: ConnectionId) {
        self.unsubscribe(user, id);
        self.roster.remove(id);
        self.index.borrow_mut().remove_connection(id);
        self.tenant.audience().remove_connection();
    }

    /// Subscribes a connection to a topic.
    pub(in crate::hub) fn subscribe(&self, topic: &Topic, id: ConnectionId, outbox: &Rc<Outbox>) {
        if self.index.borrow_mut().subscribe(topic, id, outbox) {
            self.tenant.audience().add_topic(topic);
        }
    }

    /// Ends a connection's subscription to a topic.
    pub(in crate::hub) fn unsubscribe(&self, topic: &Topic, id: ConnectionId) {
        if self.index.borrow_mut().unsubscribe(topic, id) {
            self.tenant.audience().remove_topic(topic);
        }
    }

    /// Returns true if the log up to that offset has been delivered here.
    pub(in crate::hub) fn has_reached(&self, offset: u64) -> bool {
        self.taken.get().offset >= offset
    }

    /// Wakes connections that waited for what has now been delivered, up to about a quantum. Each
    /// then has its Subscribe processed. Returns the cost.
    pub(super) fn nudge_awaited(&self) -> Cost {
        let mut awaited = self.awaited.borrow_mut();
        let mut cost = Cost::ZERO;
        while cost < QUANTUM {
            let reached = |(offset, _): &mut (u64, _)| self.has_reached(*offset);
            let Some((_, outbox)) = awaited.pop_front_if(reached) else {
                break;
            };
            outbox.signals().nudge();
            cost += Cost::CALL;
        }
        if awaited.is_empty() {
            awaited.shrink_to(WAITING_KEPT_ROOM_FOR);
        }
        cost
    }

    /// Returns true if items are waiting to be delivered.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Returns true if presence changes come before the items that wait.
    pub(super) fn applies_presence_first(&self, is_delivering: bool) -> bool {
        self.has_presence_changes.get() && (!is_delivering || self.is_presence_next.get())
    }

    /// Returns true if a waiting connection can be woken now.
    pub(super) fn has_awaited(&self) -> bool {
        let awaited = self.awaited.borrow();
        let next = awaited.front();
        next.is_some_and(|(offset, _)| self.has_reached(*offset))
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn take_position_late(&self) {
        if self.is_new.replace(false) && fault!(TakesThePositionLate) {
            self.taken.set(self.tenant.head());
        }
    }
}
