//! The changes that a shard has not applied yet.

use std::{collections::BTreeMap, ops::RangeBounds};

use crate::{
    Entry, EntryList, PresenceKey,
    places::{Place, Places},
};

/// The keys that have changed since a shard applied them, in the order of their first change, each
/// with the entries that the shard knows. Changes of a key that is pending are merged, so a key
/// takes room only if the shard knows entries of it or the book has some.
#[derive(Debug)]
pub(crate) struct PendingChanges<M> {
    keys: BTreeMap<PresenceKey, PendingKey<M>>,
    /// The same keys, by [`PendingKey::number`].
    queue: BTreeMap<u64, PresenceKey>,
    next_number: u64,
    /// Where the entries are that the shard knows of these keys.
    places: Places,
}

#[derive(Debug)]
struct PendingKey<M> {
    number: u64,
    /// The entries as the shard last applied them.
    before: EntryList<M>,
}

impl<M> Default for PendingChanges<M> {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            queue: BTreeMap::new(),
            next_number: 0,
            places: Places::default(),
        }
    }
}

impl<M> PendingChanges<M> {
    /// Records that the key's entries were `before` and are `after` now.
    pub(crate) fn record(&mut self, key: &PresenceKey, before: &EntryList<M>, after: &[Entry<M>]) {
        match self.keys.get(key) {
            Some(pending) if pending.before.is_empty() && after.is_empty() => {
                let number = pending.number;
                self.keys.remove(key);
                self.queue.remove(&number);
            }
            Some(_) => {}
            None => self.insert(key.clone(), before.clone()),
        }
    }

    fn insert(&mut self, key: PresenceKey, before: EntryList<M>) {
        for place in places_of(&key, &before) {
            self.places.add(place);
        }
        let number = self.next_number;
        self.next_number += 1;
        self.queue.insert(number, key.clone());
        self.keys.insert(key, PendingKey { number, before });
    }

    /// Removes the key that has been pending for longest, with the entries that the shard knows.
    pub(crate) fn pop(&mut self) -> Option<(PresenceKey, EntryList<M>)> {
        let (_, key) = self.queue.pop_first()?;
        let before = self.keys.remove(&key)?.before;
        for place in places_of(&key, &before) {
            self.places.remove(place);
        }
        Some((key, before))
    }

    /// The entries that the shard knows of the key, if it is pending.
    pub(crate) fn before(&self, key: &PresenceKey) -> Option<&EntryList<M>> {
        self.keys.get(key).map(|pending| &pending.before)
    }

    /// The first pending key in the range.
    pub(crate) fn first_key_in(
        &self,
        range: impl RangeBounds<PresenceKey>,
    ) -> Option<&PresenceKey> {
        self.keys.range(range).next().map(|(key, _)| key)
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

fn places_of<M>(key: &PresenceKey, entries: &[Entry<M>]) -> impl Iterator<Item = Place> {
    let topics = entries.iter().flat_map(|entry| entry.topics.iter());
    topics.map(|topic| Place::new(topic, &key.user))
}
