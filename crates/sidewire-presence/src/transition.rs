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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::testing::{entry, lingering};

    fn transition(before: &[Entry<()>], after: &[Entry<()>]) -> Transition<()> {
        Transition {
            key: PresenceKey {
                user: sidewire_protocol::UserName::parse("ann").unwrap(),
                payload: 7,
            },
            before: before.into(),
            after: after.into(),
        }
    }

    /// The connections whose view changes, with the entries' numbers, and how often subscribers
    /// were asked for. Connections 1 to 3 are subscribed to `a:1`, and 3 to 5 to `a:2`.
    type Changed = Vec<(u64, Option<u64>, Option<u64>)>;
    fn changed(before: &[Entry<()>], after: &[Entry<()>]) -> (Changed, usize) {
        let (asked, mut changed) = (Cell::new(0), Vec::new());
        let subscribers = |topic: &Topic, found: &mut dyn FnMut(u64)| {
            asked.set(asked.get() + 1);
            let ids = if topic.id() == "1" { 1..=3 } else { 3..=5 };
            ids.rev().for_each(found);
        };
        let number = |entry: Option<&Entry<()>>| entry.map(|entry| entry.order);
        transition(before, after).for_each_changed_view(subscribers, |id, saw, sees| {
            changed.push((id, number(saw), number(sees)));
        });
        (changed, asked.get())
    }

    #[test]
    fn each_connection_whose_view_changes_is_reported_once_in_order() {
        let before = [entry(11, 2, &["a:2"]), entry(10, 1, &["a:1"])];
        let after = [entry(11, 3, &["a:2", "a:1"]), entry(10, 1, &["a:1"])];
        let expected = vec![
            (1, Some(1), Some(3)),
            (2, Some(1), Some(3)),
            (3, Some(2), Some(3)),
            (4, Some(2), Some(3)),
            (5, Some(2), Some(3)),
        ];
        assert_eq!(changed(&before, &after).0, expected);
    }

    #[test]
    fn a_connection_that_sees_another_current_entry_is_not_reported() {
        let before = [entry(11, 2, &["a:2"]), entry(10, 1, &["a:1"])];
        let after = [lingering(entry(11, 2, &["a:2"])), entry(10, 1, &["a:1"])];
        assert_eq!(changed(&before, &after).0, [(3, Some(2), Some(1))]);
    }

    #[test]
    fn an_older_entry_takes_the_place_of_a_newer_one_on_the_topic_that_this_has_lost() {
        let older = entry(10, 1, &["a:2"]);
        let before = [entry(11, 2, &["a:1", "a:2"]), older.clone()];
        let after = [entry(11, 2, &["a:1"]), older];
        let expected = [(4, Some(2), Some(1)), (5, Some(2), Some(1))];
        assert_eq!(changed(&before, &after).0, expected);
    }

    #[test]
    fn no_subscriber_is_asked_for_when_an_entry_begins_to_linger_or_ends_behind_another() {
        let (current, old) = ([entry(10, 1, &["a:1"])], lingering(entry(10, 1, &["a:1"])));
        let returned = entry(11, 2, &["a:1", "a:2"]);
        let (faded, with_return) = ([old.clone()], [returned.clone(), old]);
        assert_eq!(changed(&current, &faded), (vec![], 0));
        assert_eq!(changed(&with_return, &[returned]), (vec![], 0));
    }
}
