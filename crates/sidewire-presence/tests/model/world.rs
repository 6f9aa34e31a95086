//! The toy relay and the truth side by side: takes the steps of a schedule, and compares the two
//! after each.

use std::collections::{BTreeMap, BTreeSet};

use sidewire_presence::{ConnectionKey, PresenceKey, PresenceLimits};
use sidewire_protocol::Topic;

use crate::{
    pages,
    relay::{Applied, ChangedView, Fault, Relay},
    replica::{Replica, all_keys, same_entries},
    schedule::{PAYLOADS, PLACES, SHARDS, Step, named_topics, subscriptions, user},
    truth::{Record, Refused, Truth, seen_of},
};

pub(crate) type Outcome = Result<(), String>;

#[derive(Debug)]
pub(crate) struct World {
    relay: Relay,
    truth: Truth,
    limits: PresenceLimits,
    places: [Option<ConnectionKey>; PLACES.len()],
    next_id: u64,
    now: i64,
    /// The shards with connections.
    shards: BTreeMap<usize, Replica>,
}

/// Takes the steps, then lets everything come to rest.
pub(crate) fn run(steps: &[Step], fault: Option<Fault>) -> Outcome {
    let mut world = World::new(fault);
    for step in steps {
        let before = world.truth.clone();
        world.take(step)?;
        world.note_changes(&before);
        world.check_book()?;
    }
    world.settle()?;
    world.end_all()
}

impl World {
    fn new(fault: Option<Fault>) -> Self {
        Self {
            relay: Relay::new(fault),
            truth: Truth::default(),
            limits: PresenceLimits {
                messages_per_user: 16,
                users_per_topic: 1_000,
                bytes_per_tenant: 1 << 20,
            },
            places: [None; PLACES.len()],
            next_id: 0,
            now: 1_000,
            shards: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: &Step) -> Outcome {
        self.now += 1;
        match step {
            Step::Toggle { place } => self.toggle(*place),
            Step::EndLinger { index } => self.end_linger(*index),
            Step::Set {
                place,
                payload,
                named,
            } => return self.set(*place, PAYLOADS[*payload], *named),
            Step::Withdraw { place, payload } => self.withdraw(*place, PAYLOADS[*payload]),
            Step::Subscribe { place, topics } => {
                if let Some(index) = self.index_of(*place) {
                    self.relay.subscribe(index, &subscriptions(*topics));
                }
            }
            Step::Unsubscribe { place, topics } => {
                self.unsubscribe(*place, &subscriptions(*topics));
            }
            Step::ContinueSnapshot { place, limit } => {
                if let Some(index) = self.index_of(*place) {
                    self.relay.continue_snapshot(index, *limit);
                }
            }
            Step::Apply { shard } => return self.apply(*shard).map(drop),
            Step::Read { place, frames } => return self.read(*place, *frames),
            Step::Limit {
                messages,
                users,
                bytes,
            } => {
                self.limits = PresenceLimits {
                    messages_per_user: *messages,
                    users_per_topic: *users,
                    bytes_per_tenant: *bytes,
                };
            }
            Step::Settle => return self.settle(),
        }
        Ok(())
    }

    fn index_of(&self, place: usize) -> Option<usize> {
        let key = self.places[place]?;
        self.relay
            .connections
            .iter()
            .position(|connection| connection.key == key)
    }

    fn toggle(&mut self, place: usize) {
        let (shard, name) = PLACES[place];
        if let Some(index) = self.index_of(place) {
            let key = self.relay.connections[index].key;
            self.truth.linger(key);
            self.relay.end(index);
            self.places[place] = None;
            if !self
                .relay
                .connections
                .iter()
                .any(|other| other.key.shard == shard)
            {
                self.shards.remove(&shard);
            }
        } else {
            let key = ConnectionKey {
                shard,
                id: self.next_id,
            };
            self.next_id += 1;
            self.relay.connect(key, &user(name));
            self.places[place] = Some(key);
            let truth = &self.truth;
            self.shards
                .entry(shard)
                .or_insert_with(|| Replica::of(truth));
        }
    }

    fn end_linger(&mut self, index: usize) {
        if let Some((key, _)) = self.relay.lingering.get(index) {
            self.truth.end(*key);
            self.relay.end_linger(index);
        }
    }

    fn set(&mut self, place: usize, payload: u32, named: u8) -> Outcome {
        let named = named_topics(named);
        let Some(index) = self.index_of(place) else {
            return Ok(());
        };
        let connection = &self.relay.connections[index];
        let topics = named.iter().filter(|topic| connection.covers(topic));
        let mut record = Record {
            number: 0,
            connection: connection.key,
            key: PresenceKey {
                user: connection.user.clone(),
                payload,
            },
            topics: topics.cloned().collect(),
            named: named.clone(),
            lingers: false,
            since: self.now,
            message_bytes: 10,
        };
        if record.topics.is_empty() {
            return Ok(());
        }
        let limits = self.limits;
        let taken = self.relay.set(index, payload, &named, &limits, self.now);
        record.number = *taken.as_ref().unwrap_or(&0);
        let refused = self.truth.set(record, &limits);
        let refusal = taken.err();
        let agrees = refusal.as_ref().map_or(refused.is_empty(), |refusal| {
            refused.contains(&Refused::from(refusal))
        });
        same("refusal", &agrees, &true)
    }

    fn withdraw(&mut self, place: usize, payload: u32) {
        if let Some(index) = self.index_of(place) {
            self.truth
                .withdraw(self.relay.connections[index].key, payload);
            self.relay.withdraw(index, payload);
        }
    }

    fn unsubscribe(&mut self, place: usize, lost: &BTreeSet<Topic>) {
        if let Some(index) = self.index_of(place) {
            self.relay.unsubscribe(index, lost);
            let connection = &self.relay.connections[index];
            self.truth
                .restrict(connection.key, &connection.subscriptions);
        }
    }

    fn read(&mut self, place: usize, frames: usize) -> Outcome {
        let Some(index) = self.index_of(place) else {
            return Ok(());
        };
        for _ in 0..frames {
            self.relay.connections[index].read()?;
        }
        self.relay.pay_owed(index);
        Ok(())
    }

    /// Lets a shard apply a transition, and compares it with what the replica makes of it. Returns
    /// false if there is none.
    fn apply(&mut self, shard: usize) -> Result<bool, String> {
        let Some(applied) = self.relay.apply(shard) else {
            let has_more = self
                .shards
                .get(&shard)
                .is_some_and(|replica| !replica.changed.is_empty());
            return same("end of the transitions", &has_more, &false).map(|()| false);
        };
        let replica = self.shards.get_mut(&shard);
        let replica = replica.ok_or("a shard without connections has changes")?;
        let next = replica.changed.pop_front();
        same("next key", &Some(&applied.key), &next.as_ref())?;
        let after = self.truth.of_key(&applied.key);
        let before = replica.apply(&applied.key, &after);
        same_entries("before", &applied.before, &before)?;
        same_entries("after", &applied.after, &after)?;
        self.check_changed_views(shard, &applied, &before, &after)?;
        Ok(true)
    }

    fn check_changed_views(
        &self,
        shard: usize,
        applied: &Applied,
        before: &[Record],
        after: &[Record],
    ) -> Outcome {
        let mut changed: Vec<ChangedView> = Vec::new();
        for connection in self
            .relay
            .connections
            .iter()
            .filter(|c| c.key.shard == shard)
        {
            let number =
                |records| seen_of(records, &connection.subscriptions).map(|record| record.number);
            if number(before) != number(after) {
                changed.push((connection.key, number(before), number(after)));
            }
        }
        same("changed views", &applied.changed, &changed)
    }

    /// Notes for each shard which keys a step has changed.
    fn note_changes(&mut self, before: &Truth) {
        let has_changed = |key: &PresenceKey| self.truth.of_key(key) != before.of_key(key);
        for key in all_keys().filter(has_changed) {
            let is_empty = self.truth.of_key(&key).is_empty();
            for replica in self.shards.values_mut() {
                replica.note_change(&key, is_empty);
            }
        }
    }

    /// Compares the book with the truth, and what it says of the shards with the replicas.
    fn check_book(&self) -> Outcome {
        let book = &self.relay.book;
        same("entries", &book.len(), &self.truth.0.len())?;
        same("bytes", &book.bytes(), &self.truth.bytes())?;
        let waiting = self
            .shards
            .iter()
            .filter(|(_, replica)| !replica.changed.is_empty());
        let waiting: Vec<_> = waiting.map(|(shard, _)| *shard).collect();
        same("waiting shards", &book.waiting_shards().collect(), &waiting)?;
        let is_empty = self.truth.0.is_empty() && waiting.is_empty();
        same("emptiness", &book.is_empty(), &is_empty)?;
        for (shard, replica) in &self.shards {
            for key in all_keys() {
                let applied = book.applied(*shard, &key);
                same_entries("applied", &applied, replica.records(&key))?;
            }
        }
        pages::check(book, &self.truth)
    }

    /// Lets shards, snapshots and clients do all that they have to do, and compares what the
    /// clients know with the truth.
    fn settle(&mut self) -> Outcome {
        for shard in 0..SHARDS {
            while self.apply(shard)? {}
        }
        for index in 0..self.relay.connections.len() {
            while !self.relay.connections[index].is_at_rest() {
                self.relay.continue_snapshot(index, 2);
                self.relay.connections[index].read()?;
                self.relay.pay_owed(index);
            }
        }
        self.check_views()
    }

    fn check_views(&self) -> Outcome {
        for connection in &self.relay.connections {
            for key in all_keys().filter(|key| key.user != connection.user) {
                let records = self.truth.of_key(&key);
                let sees = seen_of(&records, &connection.subscriptions).map(|seen| seen.number);
                let known = connection.client.view.get(&key).map(|known| known.number);
                let what = format!("view of {key:?} at {:?}", connection.key);
                same(&what, &known, &sees)?;
            }
        }
        Ok(())
    }

    /// Ends all connections and lingers, after which nothing may be left.
    fn end_all(&mut self) -> Outcome {
        for place in 0..PLACES.len() {
            if self.index_of(place).is_some() {
                self.toggle(place);
            }
        }
        while !self.relay.lingering.is_empty() {
            self.end_linger(0);
        }
        same("emptiness at the end", &self.relay.book.is_empty(), &true)?;
        same("bytes at the end", &self.relay.book.bytes(), &0)
    }
}

pub(crate) fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Outcome {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?} instead of {expected:?}"))
}
