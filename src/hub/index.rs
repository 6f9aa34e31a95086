//! Which outboxes of one tenant on one shard get the events of a topic. Knows
//! nothing beyond the tenant: there is no way to ask it for another's topics.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use indexmap::IndexMap;

use crate::{
    event::Delivery,
    outbox::{Offered, Outbox, Stamp},
    protocol::{
        Topic, UserName,
        topic::{TENANT_KIND, USER_KIND},
    },
};

/// Names a connection within its shard.
pub(super) type ConnectionId = u64;

/// The outboxes of a topic. An `IndexMap`, since its values lie next to each
/// other for the fan-out and one is removed in constant time.
type Outboxes = IndexMap<ConnectionId, Rc<Outbox>>;

/// The connections of one tenant on one shard and what they are subscribed to.
#[derive(Debug, Default)]
pub(super) struct TenantIndex {
    connections: Outboxes,
    users: HashMap<UserName, Outboxes>,
    topics: HashMap<Topic, Outboxes>,
}

/// What an event met in the index.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fanout {
    /// Connections that it relates to, those included that had no room.
    pub(super) matched: u64,
    /// Of these, the ones that had no room and will be closed.
    pub(super) overflowed: u64,
}

impl TenantIndex {
    /// Adds a connection, with the topics that each has without asking.
    pub(super) fn add(&mut self, id: ConnectionId, user: &UserName, outbox: &Rc<Outbox>) {
        self.connections.insert(id, Rc::clone(outbox));
        self.users
            .entry(user.clone())
            .or_default()
            .insert(id, Rc::clone(outbox));
    }

    /// Takes a connection out of all but its topics.
    pub(super) fn remove(&mut self, id: ConnectionId, user: &UserName) {
        self.connections.swap_remove(&id);
        if let Some(outboxes) = self.users.get_mut(user) {
            outboxes.swap_remove(&id);
            if outboxes.is_empty() {
                self.users.remove(user);
            }
        }
    }

    /// Subscribes a connection to a topic.
    pub(super) fn subscribe(&mut self, topic: &Topic, id: ConnectionId, outbox: &Rc<Outbox>) {
        self.topics
            .entry(topic.clone())
            .or_default()
            .insert(id, Rc::clone(outbox));
    }

    /// Ends a connection's subscription of a topic.
    pub(super) fn unsubscribe(&mut self, topic: &Topic, id: ConnectionId) {
        if let Some(outboxes) = self.topics.get_mut(topic) {
            outboxes.swap_remove(&id);
            if outboxes.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// The outbox of every connection.
    pub(super) fn connections(&self) -> impl Iterator<Item = &Rc<Outbox>> {
        self.connections.values()
    }

    /// Whether no connection is left.
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.users.is_empty() && self.topics.is_empty()
    }

    /// Offers an event to each connection that it relates to, once. Those that
    /// have to be woken for it are added to `to_wake`.
    pub(super) fn deliver(
        &self,
        delivery: &Rc<Delivery>,
        stamp: Stamp,
        to_wake: &mut VecDeque<Rc<Outbox>>,
    ) -> Fanout {
        let mut fanout = Fanout::default();
        for topic in delivery.event().topics() {
            for outbox in self.outboxes(topic).into_iter().flat_map(Outboxes::values) {
                match outbox.offer(delivery, stamp) {
                    Offered::Taken { was_empty } => {
                        fanout.matched += 1;
                        if was_empty {
                            to_wake.push_back(Rc::clone(outbox));
                        }
                    }
                    Offered::Overflowed => {
                        fanout.matched += 1;
                        fanout.overflowed += 1;
                    }
                    Offered::TakenBefore | Offered::Ended => {}
                }
            }
        }
        fanout
    }

    fn outboxes(&self, topic: &Topic) -> Option<&Outboxes> {
        match topic.kind() {
            USER_KIND => self.users.get(topic.id()),
            TENANT_KIND => topic.is_wildcard().then_some(&self.connections),
            _ => self.topics.get(topic),
        }
    }
}
