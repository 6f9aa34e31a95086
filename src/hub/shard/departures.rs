//! Removes the topics of closed connections from the index, in parts.

use std::rc::Rc;

use super::{ShardHub, ShardTenant};
use crate::{
    hub::{subscribers::ConnectionId, subscriptions::SubscribedTopics},
    scheduler::Cost,
};

/// A closed connection, and those of its topics that are still in the index.
#[derive(Debug)]
pub(super) struct DepartedConnection {
    id: ConnectionId,
    topics: SubscribedTopics<u64>,
}

impl DepartedConnection {
    /// Removes at most `most` topics from the index. Returns the number removed.
    fn remove_topics(&mut self, here: &ShardTenant, most: usize) -> usize {
        let mut count = 0;
        for topic in self.topics.by_ref().take(most) {
            here.unsubscribe(&topic, self.id);
            count += 1;
        }
        count
    }
}

impl ShardTenant {
    /// Removes topics from the index until the tenant's quota is used. Returns the number
    /// removed.
    fn remove_departed_topics(&self) -> usize {
        let mut departed = self.departed.borrow_mut();
        let most = Cost::SUBSCRIPTION.fits_into(self.departures.quota());
        let mut count = 0;
        while let Some(first) = departed.front_mut() {
            count += first.remove_topics(self, most - count);
            if first.topics.len() > 0 {
                break;
            }
            departed.pop_front();
        }
        count
    }
}

impl ShardHub {
    /// Removes the topics of a closed connection from the index: as many as the tenant's quota
    /// allows now, and the others in later turns.
    pub(in crate::hub) fn remove_departed(
        &self,
        here: &Rc<ShardTenant>,
        id: ConnectionId,
        topics: SubscribedTopics<u64>,
    ) {
        here.departed
            .borrow_mut()
            .push_back(DepartedConnection { id, topics });
        if self.departures.borrow().has_time() {
            self.remove_departed_topics(here);
        }
        if !here.departed.borrow().is_empty() {
            self.departures.borrow_mut().activate(here);
        }
        if !self.departures.borrow().is_empty() {
            self.work.wake();
        }
    }

    /// Continues the departures of earlier turns.
    pub(super) fn continue_departures(&self) {
        self.departures.borrow_mut().begin_turn();
        while !self.departures.borrow().is_empty() {
            let next = self.departures.borrow_mut().next(|_| true);
            let Some(here) = next else {
                break;
            };
            self.remove_departed_topics(&here);
            let has_more = !here.departed.borrow().is_empty();
            self.departures.borrow_mut().put_back(here, has_more);
        }
    }

    fn remove_departed_topics(&self, here: &Rc<ShardTenant>) {
        if here.departed.borrow().is_empty() {
            return;
        }
        let topics = here.remove_departed_topics();
        if topics > 0 {
            let cost = Cost::SUBSCRIPTION.times(topics);
            self.departures.borrow_mut().charge(here, cost);
        }
        if here.departed.borrow().is_empty() && here.index.borrow().is_empty() {
            self.leave_tenant(here);
        }
    }
}
