//! The keys on the topics of a subscription, as a shard has applied them, in parts.

use std::ops::Bound;

use sidewire_protocol::{Topic, UserName};

use crate::{EntryList, PresenceBook, PresenceKey, places::Place};

/// Some of the keys on the topics of a subscription.
#[derive(Debug)]
pub struct SnapshotPart<M> {
    /// The keys, in order. A key that is on several topics of a wildcard comes with each of them.
    pub keys: Vec<AppliedKey<M>>,
    /// Where the next part begins, or `None` if this is the last one.
    pub next: Option<SnapshotCursor>,
}

/// A key on a topic, with its entries as the shard last applied them.
#[derive(Debug)]
pub struct AppliedKey<M> {
    /// The topic and the key. The part after it begins here.
    pub cursor: SnapshotCursor,
    /// The entries, at least one of which is on the topic.
    pub entries: EntryList<M>,
}

/// How far a snapshot has come. It orders by topic, and then by key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotCursor {
    /// The topic of the last key.
    pub topic: Topic,
    /// The last key.
    pub key: PresenceKey,
}

impl<M> PresenceBook<M> {
    /// The keys with an entry on the topics of a subscription, in the state that the shard has
    /// applied. A wildcard, `kind:*`, stands for all topics of the kind. Begins behind `after`, or
    /// at the start, and looks at no more than `limit` keys.
    ///
    /// A connection for which the transitions of the shard are applied as well, from the first part
    /// on, ends up with the right view, whatever changes between the parts: what comes in behind
    /// the cursor comes by transition.
    #[must_use]
    pub fn snapshot_part(
        &self,
        shard: usize,
        subscription: &Topic,
        after: Option<&SnapshotCursor>,
        limit: usize,
    ) -> SnapshotPart<M> {
        let mut keys = Vec::new();
        let mut next = after.cloned();
        for _ in 0..limit {
            next = self.next_cursor(shard, subscription, next.as_ref());
            let Some(cursor) = next.clone() else {
                break;
            };
            let entries = self.applied(shard, &cursor.key);
            if entries
                .iter()
                .any(|entry| entry.topics.contains(&cursor.topic))
            {
                keys.push(AppliedKey { cursor, entries });
            }
        }
        SnapshotPart { keys, next }
    }

    /// The next key of the same user, or else the first one of the next user on a topic.
    fn next_cursor(
        &self,
        shard: usize,
        subscription: &Topic,
        after: Option<&SnapshotCursor>,
    ) -> Option<SnapshotCursor> {
        if let Some(SnapshotCursor { topic, key }) = after {
            let payload = Bound::Excluded(key.payload);
            if let Some(key) = self.next_key(shard, &key.user, payload) {
                let topic = topic.clone();
                return Some(SnapshotCursor { topic, key });
            }
        }
        let place = self.next_place(shard, subscription, after)?;
        let key = self.next_key(shard, place.user.as_ref()?, Bound::Included(u32::MIN))?;
        let topic = place.topic;
        Some(SnapshotCursor { topic, key })
    }

    /// The first key of the user from this payload on, in the book or pending for the shard.
    fn next_key(&self, shard: usize, user: &UserName, from: Bound<u32>) -> Option<PresenceKey> {
        let key = |payload| PresenceKey::new(user, payload);
        let range = (from.map(key), Bound::Included(key(u32::MAX)));
        let in_book = self.keys.range(range.clone()).next().map(|(key, _)| key);
        let pending = self.shards.get(&shard);
        let pending = pending.and_then(|pending| pending.first_key_in(range));
        first_of(in_book, pending).cloned()
    }

    /// The next user on a topic of the subscription, in the book or as the shard knows it.
    fn next_place(
        &self,
        shard: usize,
        subscription: &Topic,
        after: Option<&SnapshotCursor>,
    ) -> Option<Place> {
        let after = match after {
            Some(SnapshotCursor { topic, key }) => Place::new(topic, &key.user),
            None => Place::before_all(subscription)?,
        };
        let in_book = self.places.after(&after).next();
        let pending = self.shards.get(&shard);
        let pending = pending.and_then(|pending| pending.places().after(&after).next());
        let next = first_of(in_book, pending)?;
        covers(subscription, &next.topic).then(|| next.clone())
    }
}

fn first_of<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn covers(subscription: &Topic, topic: &Topic) -> bool {
    subscription == topic || subscription.is_wildcard() && subscription.kind() == topic.kind()
}
