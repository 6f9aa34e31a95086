//! One change as a shard applies it, and whose view it alters.

use sidewire_protocol::{Topic, topic::TopicSet};

use crate::{Entry, EntryList, PresenceKey, entry::by_rank};

/// The change of one key, as a shard applies it: several changes of the book may be merged in it.
#[derive(Debug)]
pub struct Transition<M> {
    /// What has changed.
    pub key: PresenceKey,
    /// The entries as the shard last applied them.
    pub before: EntryList<M>,
    /// The entries of now.
    pub after: EntryList<M>,
}

impl<M> Transition<M> {
    /// Calls `report` for each connection of the shard that sees another message than before, with
    /// the connection's number and the entries that it saw and sees. Connections are reported in
    /// the order of their numbers.
    ///
    /// `subscribers` lists the shard's connections that are subscribed to a topic, also by a
    /// wildcard. The cost is proportional to the subscribers of the topics concerned.
    pub fn for_each_changed_view(
        &self,
        subscribers: impl Fn(&Topic, &mut dyn FnMut(u64)),
        mut report: impl FnMut(u64, Option<&Entry<M>>, Option<&Entry<M>>),
    ) {
        let (before, after) = (places_by_rank(&self.before), places_by_rank(&self.after));
        let is_same = |(a, b): (&RankedPlace<'_, M>, &RankedPlace<'_, M>)| {
            a.topic == b.topic && a.entry.order == b.entry.order
        };
        if before.len() == after.len() && before.iter().zip(&after).all(is_same) {
            return;
        }
        let mut hits = Vec::new();
        find_subscribers(Side::Before, &before, &subscribers, &mut hits);
        find_subscribers(Side::After, &after, &subscribers, &mut hits);
        hits.sort_unstable();
        for of_connection in hits.chunk_by(|a, b| a.connection == b.connection) {
            let saw = best(of_connection, Side::Before, &before);
            let sees = best(of_connection, Side::After, &after);
            if let Some(hit) = of_connection.first()
                && saw.map(|entry| entry.order) != sees.map(|entry| entry.order)
            {
                report(hit.connection, saw, sees);
            }
        }
    }
}

/// The best entry of a key on a topic.
struct RankedPlace<'e, M> {
    topic: &'e Topic,
    entry: &'e Entry<M>,
}

/// The topics of the entries, in the order in which connections prefer the entries. Each topic
/// comes once, with its best entry.
fn places_by_rank<M>(entries: &[Entry<M>]) -> Vec<RankedPlace<'_, M>> {
    let mut known = TopicSet::default();
    let mut places = Vec::new();
    for entry in by_rank(entries) {
        for topic in entry.topics.iter() {
            if known.insert(topic.clone()) {
                places.push(RankedPlace { topic, entry });
            }
        }
    }
    places
}

/// A connection that sees or saw an entry. They are sorted by connection, and then so that the
/// best entry comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    connection: u64,
    side: Side,
    /// The index of the place.
    rank: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Before,
    After,
}

fn find_subscribers<M>(
    side: Side,
    places: &[RankedPlace<'_, M>],
    subscribers: impl Fn(&Topic, &mut dyn FnMut(u64)),
    hits: &mut Vec<Hit>,
) {
    for (rank, place) in places.iter().enumerate() {
        subscribers(place.topic, &mut |connection| {
            hits.push(Hit {
                connection,
                side,
                rank,
            });
        });
    }
}

fn best<'e, M>(
    of_connection: &[Hit],
    side: Side,
    places: &[RankedPlace<'e, M>],
) -> Option<&'e Entry<M>> {
    let hit = of_connection.iter().find(|hit| hit.side == side)?;
    places.get(hit.rank).map(|place| place.entry)
}
