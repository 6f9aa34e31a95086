//! Connections that have gone, whose topics are taken out of the index in parts.

use std::{collections::hash_map::IntoIter, rc::Rc};

use super::{ShardHub, TenantHere};
use crate::{
    hub::subscribers::ConnectionId,
    protocol::{Topic, topic::TopicMap},
};

/// How many topics of connections that have gone are taken out of the index in a turn: 0.1
/// to 0.4 ms.
pub(super) const TOPICS_LEFT_A_TURN: usize = 512;

/// A shard without departures keeps room for so many.
const KEPT_ROOM_FOR: usize = 64;

/// A connection that has gone and the topics of it that are still in the index.
#[derive(Debug)]
pub(super) struct Departure {
    here: Rc<TenantHere>,
    id: ConnectionId,
    topics: IntoIter<Topic, u64>,
}

impl Departure {
    /// Takes topics out of the index, `most` at the most. Returns how many those were.
    fn take_out(&mut self, most: usize) -> usize {
        let mut count = 0;
        for (topic, _) in self.topics.by_ref().take(most) {
            self.here.unsubscribe(&topic, self.id);
            count += 1;
        }
        count
    }
}

impl ShardHub {
    /// Takes the topics of a connection that has gone out of the index, as many as the turn
    /// allows at once and the others in the next turns.
    pub(in crate::hub) fn depart(
        &self,
        here: &Rc<TenantHere>,
        id: ConnectionId,
        topics: TopicMap<u64>,
    ) {
        let departure = Departure {
            here: Rc::clone(here),
            id,
            topics: topics.into_iter(),
        };
        self.departures.borrow_mut().push_back(departure);
        self.take_out_departed();
        if !self.departures.borrow().is_empty() {
            self.wake();
        }
    }

    /// Goes on with the departures of earlier turns.
    pub(super) fn continue_departures(&self) {
        self.departing_left.set(TOPICS_LEFT_A_TURN);
        self.take_out_departed();
    }

    fn take_out_departed(&self) {
        let mut departures = self.departures.borrow_mut();
        while let Some(departure) = departures.front_mut() {
            let left = self.departing_left.get();
            self.departing_left.set(left - departure.take_out(left));
            if departure.topics.len() > 0 {
                break;
            }
            let gone = departures.pop_front();
            if let Some(Departure { here, .. }) = gone
                && here.index.borrow().is_empty()
            {
                self.leave(&here);
            }
        }
        if departures.is_empty() {
            departures.shrink_to(KEPT_ROOM_FOR);
        }
    }
}
