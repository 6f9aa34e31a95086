//! A tenant on one shard: who is connected, what waits to be delivered, and who waits
//! for that.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
};

use super::departures::Departed;
#[cfg(test)]
use crate::planted::{Fault, is_planted};
use crate::{
    hub::{
        inbox::Item, index::TenantIndex, large_json::ReplayedJson, subscribers::ConnectionId,
        tenant::Tenant, wakes::Due,
    },
    outbox::Outbox,
    protocol::{Position, Topic},
    scheduler::{Cost, Flow, QUANTUM, TenantWork},
};

/// A tenant whose items are all delivered keeps room for so many more.
pub(super) const WAITING_KEPT_ROOM_FOR: usize = 16;

/// A tenant that has connections on this shard.
#[derive(Debug)]
pub(in crate::hub) struct TenantHere {
    pub(in crate::hub) tenant: Arc<Tenant>,
    /// The last position that has been delivered here, or that needs not be.
    pub(in crate::hub) taken: Cell<Position>,
    pub(in crate::hub) index: RefCell<TenantIndex>,
    /// Items that came out of the inbox and wait for the tenant's turn.
    pub(super) waiting: RefCell<VecDeque<Waiting>>,
    /// Its turns to have these delivered.
    pub(super) deliveries: Flow,
    /// Those of its connections that are to be woken.
    pub(super) due: Rc<Due>,
    /// Connections that have gone, of which topics are still in the index.
    pub(super) departed: RefCell<VecDeque<Departed>>,
    /// Its turns to have these taken out.
    pub(super) departures: Flow,
    /// Connections that wait until the events up to an offset are delivered, in the
    /// order of those.
    pub(super) awaited: RefCell<VecDeque<(u64, Rc<Outbox>)>>,
    /// Connections that take events as JSON.
    pub(super) json_connections: Cell<usize>,
    /// Its deliveries wait until an event is rendered.
    pub(super) is_rendering: Cell<bool>,
    /// What was rendered for connections that resume.
    pub(in crate::hub) replayed_json: ReplayedJson,
    /// What is done for its connections beside deliveries.
    pub(in crate::hub) work: TenantWork,
    /// Their large writes.
    pub(in crate::hub) writes: TenantWork,
    /// Nothing has been taken for it yet.
    #[cfg(test)]
    is_new: Cell<bool>,
}

/// An item of which some events may be delivered already.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) item: Item,
    /// How many of its events are.
    pub(super) done: usize,
    /// The number of its first event that was offered; 0 if none was.
    pub(super) first: u64,
}

impl TenantHere {
    /// A tenant of which all up to `head` need not be delivered here.
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
            waiting: RefCell::default(),
            deliveries: Flow::default(),
            due: Rc::default(),
            departed: RefCell::default(),
            departures: Flow::default(),
            awaited: RefCell::default(),
            json_connections: Cell::default(),
            is_rendering: Cell::default(),
            replayed_json: ReplayedJson::default(),
            work,
            writes,
            #[cfg(test)]
            is_new: Cell::new(true),
        }
    }

    /// Adds a connection, with the topic of its user.
    pub(in crate::hub) fn connect(&self, user: &Topic, id: ConnectionId, outbox: &Rc<Outbox>) {
        self.index.borrow_mut().add(id, outbox);
        self.tenant.audience().connected();
        self.subscribe(user, id, outbox);
    }

    /// Takes a connection out, except for the topics that it subscribed to.
    pub(in crate::hub) fn disconnect(&self, user: &Topic, id: ConnectionId) {
        self.unsubscribe(user, id);
        self.index.borrow_mut().remove(id);
        self.tenant.audience().disconnected();
    }

    /// Subscribes a connection to a topic.
    pub(in crate::hub) fn subscribe(&self, topic: &Topic, id: ConnectionId, outbox: &Rc<Outbox>) {
        if self.index.borrow_mut().subscribe(topic, id, outbox) {
            self.tenant.audience().add(topic);
        }
    }

    /// Ends a connection's subscription of a topic.
    pub(in crate::hub) fn unsubscribe(&self, topic: &Topic, id: ConnectionId) {
        if self.index.borrow_mut().unsubscribe(topic, id) {
            self.tenant.audience().remove(topic);
        }
    }

    /// Whether all of the log up to that offset has been delivered here.
    pub(in crate::hub) fn has_reached(&self, offset: u64) -> bool {
        self.taken.get().offset >= offset
    }

    /// Tells some of the connections that waited for what has been delivered: each has its
    /// Subscribe taken then. Returns what that costs.
    pub(super) fn nudge_awaited(&self) -> Cost {
        let mut awaited = self.awaited.borrow_mut();
        let mut cost = Cost::ZERO;
        while cost < QUANTUM {
            let reached = |(offset, _): &mut (u64, _)| self.has_reached(*offset);
            let Some((_, outbox)) = awaited.pop_front_if(reached) else {
                break;
            };
            outbox.nudge();
            cost += Cost::CALL;
        }
        if awaited.is_empty() {
            awaited.shrink_to(WAITING_KEPT_ROOM_FOR);
        }
        cost
    }

    /// Whether something is to be delivered.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Whether somebody is to be told yet.
    pub(super) fn has_awaited(&self) -> bool {
        let awaited = self.awaited.borrow();
        let next = awaited.front();
        next.is_some_and(|(offset, _)| self.has_reached(*offset))
    }

    #[cfg(test)]
    pub(super) fn take_position_late(&self) {
        if self.is_new.replace(false) && is_planted(Fault::TakesThePositionLate) {
            self.taken.set(self.tenant.head());
        }
    }
}
