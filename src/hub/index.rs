//! Maps topics to the outboxes of one tenant on one shard. Knows only this tenant: it cannot be
//! asked for another tenant's topics.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
    rc::Rc,
};

use sidewire_protocol::{Topic, topic_map::LargeTopicMap};

use super::{
    subscribers::{ConnectionId, Subscribers},
    wildcards::{WildcardMap, covers_its_kind},
};
use crate::{
    event::Event,
    outbox::{ClientEventOffer, ClientEventOutcome, EventOffer, OfferOutcome, Outbox},
};

/// The connections of one tenant on one shard, and their subscriptions.
#[derive(Debug, Default)]
pub(super) struct TenantIndex {
    connections: Subscribers,
    /// Includes the user topic of each connection.
    topics: LargeTopicMap<Subscribers>,
    wildcards: WildcardMap<Subscribers>,
}

/// The connections that are subscribed to a topic, and those that are to its kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct TopicMembers<'a>([Option<&'a Subscribers>; 2]);

impl TopicMembers<'_> {
    /// Returns the number of subscriptions: a connection may have both.
    pub(super) fn len(self) -> usize {
        self.0.into_iter().flatten().map(Subscribers::len).sum()
    }

    pub(super) fn contains(self, id: ConnectionId) -> bool {
        let mut sets = self.0.into_iter().flatten();
        sets.any(|subscribers| subscribers.get(id).is_some())
    }

    /// Returns the ids of the connections, in order.
    pub(super) fn ids(self) -> BTreeSet<ConnectionId> {
        let mut ids = BTreeSet::new();
        for subscribers in self.0.into_iter().flatten() {
            subscribers.for_each(|id, _| {
                ids.insert(id);
            });
        }
        ids
    }
}

/// Counts of one event's fan-out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct FanoutCounts {
    /// Connections that match the event, including those without room for it.
    pub(super) matched: u64,
    /// Matching connections that had no room and will be closed.
    pub(super) overflowed: u64,
    /// Work done for the event: its topics, and its kinds if there are wildcards, plus the
    /// connections subscribed to each, so a connection counts once for each subscription that
    /// matches the event.
    pub(super) offers: usize,
}

/// Counts of the fan-out of an event of a client.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct RelayCounts {
    /// Connections that took it.
    pub(super) taken: u64,
    /// Connections that did not, because they are catching up.
    pub(super) catching_up: u64,
    /// Connections that did not, because their outboxes have no room.
    pub(super) outbox_full: u64,
    /// Connections subscribed to each topic, plus the topics.
    pub(super) offers: usize,
}

impl FanoutCounts {
    /// Offers the event to the subscribers of one of its topics or kinds.
    // Does not use `for_each`: its closure call took 16 more of the 73 instructions of a delivery.
    #[inline(always)]
    fn offer_to_each(
        &mut self,
        offer: &EventOffer<'_>,
        subscribers: Option<&Subscribers>,
        due: &mut VecDeque<Rc<Outbox>>,
    ) {
        self.offers += 1 + subscribers.map_or(0, Subscribers::len);
        match subscribers {
            None | Some(Subscribers::None) => {}
            Some(Subscribers::One(_, outbox)) => self.offer_to(offer, outbox, due),
            Some(Subscribers::Many(many)) => {
                for outbox in many.values() {
                    self.offer_to(offer, outbox, due);
                }
            }
        }
    }

    /// Offers the event to one more connection.
    // Inlined together with `Outbox::offer`, which gives the reason.
    #[inline(always)]
    fn offer_to(
        &mut self,
        offer: &EventOffer<'_>,
        outbox: &Rc<Outbox>,
        due: &mut VecDeque<Rc<Outbox>>,
    ) {
        match outbox.offer(offer) {
            OfferOutcome::Taken { to_wake } => {
                self.matched += 1;
                if to_wake {
                    due.push_back(Rc::clone(outbox));
                }
            }
            OfferOutcome::Overflowed => {
                self.matched += 1;
                self.overflowed += 1;
            }
            OfferOutcome::Owed => self.matched += 1,
            OfferOutcome::TakenBefore | OfferOutcome::Ended => {}
        }
    }
}

impl TenantIndex {
    /// Adds a connection, which then receives the events for the whole tenant.
    pub(super) fn add_connection(&mut self, id: ConnectionId, outbox: &Rc<Outbox>) {
        self.connections.insert(id, outbox);
    }

    /// Removes a connection, except from its topics.
    pub(super) fn remove_connection(&mut self, id: ConnectionId) {
        self.connections.remove(id);
    }

    /// Subscribes a connection to a topic. Returns true if it is the topic's first
    /// subscriber.
    pub(super) fn subscribe(
        &mut self,
        topic: &Topic,
        id: ConnectionId,
        outbox: &Rc<Outbox>,
    ) -> bool {
        let subscribers = if covers_its_kind(topic) {
            self.wildcards.get_or_default(topic)
        } else {
            self.topics.get_or_default(topic)
        };
        let is_first = subscribers.is_empty();
        subscribers.insert(id, outbox);
        is_first
    }

    /// Ends a connection's subscription to a topic. Returns true if it was the topic's last
    /// subscriber.
    pub(super) fn unsubscribe(&mut self, topic: &Topic, id: ConnectionId) -> bool {
        let is_wildcard = covers_its_kind(topic);
        let subscribers = if is_wildcard {
            self.wildcards.get_mut(topic.kind())
        } else {
            self.topics.get_mut(topic)
        };
        let Some(subscribers) = subscribers else {
            return false;
        };
        subscribers.remove(id);
        let was_last = subscribers.is_empty();
        if was_last && is_wildcard {
            self.wildcards.remove(topic.kind());
        } else if was_last {
            self.topics.remove(topic);
        }
        was_last
    }

    /// Returns the outbox of a connection.
    pub(super) fn outbox(&self, id: ConnectionId) -> Option<&Rc<Outbox>> {
        self.connections.get(id)
    }

    /// Calls `f` with the outbox of every connection.
    pub(super) fn for_each_connection(&self, mut f: impl FnMut(&Rc<Outbox>)) {
        self.connections.for_each(|_, outbox| f(outbox));
    }

    /// Calls `f` with every connection that is subscribed to the topic, and its outbox; twice if it
    /// is also subscribed to the topic's kind.
    pub(super) fn for_each_subscriber(
        &self,
        topic: &Topic,
        mut f: impl FnMut(ConnectionId, &Rc<Outbox>),
    ) {
        for subscribers in self.members(topic).0.into_iter().flatten() {
            subscribers.for_each(&mut f);
        }
    }

    /// Returns the connections that get events of the topic.
    pub(super) fn members(&self, topic: &Topic) -> TopicMembers<'_> {
        TopicMembers([self.subscribers_of(topic), self.wildcards.get(topic.kind())])
    }

    /// Returns up to `limit` of the topics whose text contains `search`, those with most
    /// subscriptions, and the number of topics that were looked at, at most `looked_at_max`.
    /// Wildcards are topics here; implicit topics are left out.
    pub(super) fn busiest_topics(
        &self,
        search: &str,
        limit: usize,
        looked_at_max: usize,
    ) -> (Vec<Topic>, usize) {
        let mut looked_at = 0;
        let mut found: Vec<_> = self
            .wildcards
            .topics()
            .chain(self.topics.keys())
            .take(looked_at_max)
            .inspect(|_| looked_at += 1)
            .filter(|topic| !topic.is_implicit() && topic.as_str().contains(search))
            .map(|topic| (self.members(topic).len(), topic))
            .collect();
        if found.len() > limit {
            found.select_nth_unstable_by_key(limit, |(count, _)| Reverse(*count));
            found.truncate(limit);
        }
        let topics = found.into_iter().map(|(_, topic)| topic.clone()).collect();
        (topics, looked_at)
    }

    /// Returns the number of topics and wildcards, with the topics of users.
    pub(super) fn topics_len(&self) -> usize {
        self.topics.len() + self.wildcards.len()
    }

    /// Returns true if no connection and no subscription is left.
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.topics.is_empty() && self.wildcards.is_empty()
    }

    /// Offers an event once to each matching connection. Those that must be woken for it are
    /// added to `due`.
    pub(super) fn offer_event(
        &self,
        event: &Event,
        offer: &EventOffer<'_>,
        due: &mut VecDeque<Rc<Outbox>>,
    ) -> FanoutCounts {
        let mut fanout = FanoutCounts::default();
        for topic in event.topics() {
            fanout.offer_to_each(offer, self.subscribers_of(topic), due);
        }
        if !self.wildcards.is_empty() {
            self.offer_by_kind(event, offer, due, &mut fanout);
        }
        fanout
    }

    /// Offers an event of a client once to each connection that is subscribed to one of the
    /// topics, except to the `sender`. Those that must be woken for it are added to `due`.
    pub(super) fn offer_client_event(
        &self,
        topics: &[Topic],
        sender: Option<ConnectionId>,
        offer: &ClientEventOffer<'_>,
        due: &mut VecDeque<Rc<Outbox>>,
    ) -> RelayCounts {
        let mut counts = RelayCounts::default();
        for topic in topics {
            counts.offers += 1;
            self.for_each_subscriber(topic, |id, outbox| {
                counts.offers += 1;
                if sender == Some(id) {
                    return;
                }
                match outbox.offer_client_event(offer) {
                    ClientEventOutcome::Taken { to_wake } => {
                        counts.taken += 1;
                        if to_wake {
                            due.push_back(Rc::clone(outbox));
                        }
                    }
                    ClientEventOutcome::CatchingUp => counts.catching_up += 1,
                    ClientEventOutcome::NoRoom => counts.outbox_full += 1,
                    ClientEventOutcome::OfferedBefore
                    | ClientEventOutcome::Unwanted
                    | ClientEventOutcome::Ended => {}
                }
            });
        }
        counts
    }

    /// Offers an event to the subscribers of wildcards, with one look-up for each kind that its
    /// topics have.
    // Not inlined, so that the path of events without wildcards stays as it is.
    #[inline(never)]
    pub(super) fn offer_by_kind(
        &self,
        event: &Event,
        offer: &EventOffer<'_>,
        due: &mut VecDeque<Rc<Outbox>>,
        fanout: &mut FanoutCounts,
    ) {
        let topics = event.topics();
        for (index, topic) in topics.iter().enumerate() {
            let kind = topic.kind();
            let mut earlier = topics.iter().take(index);
            if !earlier.any(|earlier| earlier.kind() == kind) {
                fanout.offer_to_each(offer, self.wildcards.get(kind), due);
            }
        }
    }

    fn subscribers_of(&self, topic: &Topic) -> Option<&Subscribers> {
        if topic.is_everyone() {
            Some(&self.connections)
        } else {
            self.topics.get(topic)
        }
    }
}
