//! The presence of one tenant, and the operations that change it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use sidewire_protocol::{Topic, UserName, topic_map::LargeTopicMap};

use crate::{
    ConnectionKey, Entry, EntryList, PresenceKey, PresenceLimits, PresenceRefusal, Transition,
    entry_bytes,
    pending::PendingChanges,
    places::{Place, Places},
};

/// The presence of one tenant in the whole process.
///
/// The operations of connections change it at once, and number the messages in one order. Each
/// shard that has connections of the tenant learns of the changes by
/// [`next_transition`](Self::next_transition). What it has applied up to now is not stored
/// anywhere: it is what the book has, but for the keys that are pending for the shard.
///
/// `M` is a handle of a message, of which a clone is cheap.
#[derive(Debug)]
pub struct PresenceBook<M> {
    pub(crate) keys: BTreeMap<PresenceKey, EntryList<M>>,
    pub(crate) places: Places,
    /// The number of users with an entry on the topic.
    users: LargeTopicMap<u32>,
    pub(crate) shards: BTreeMap<usize, PendingChanges<M>>,
    next_order: u64,
    bytes: usize,
}

/// A presence message that a connection has sent.
#[derive(Debug)]
pub struct NewMessage<M> {
    /// The number of the payload's field in the envelope.
    pub payload: u32,
    /// The message.
    pub message: M,
    /// The size of the message in bytes.
    pub message_bytes: usize,
    /// All topics that the message names, each once.
    pub named: Vec<Topic>,
    /// Those of them that the connection is subscribed to; at least one.
    pub topics: Vec<Topic>,
}

impl<M> Default for PresenceBook<M> {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            places: Places::default(),
            users: LargeTopicMap::default(),
            shards: BTreeMap::new(),
            next_order: 0,
            bytes: 0,
        }
    }
}

/// What shards need.
impl<M> PresenceBook<M> {
    /// Registers a shard, which has its first connection of the tenant. It has applied everything.
    pub fn enter_shard(&mut self, shard: usize) {
        self.shards.entry(shard).or_default();
    }

    /// Forgets a shard, which has no more connections of the tenant. Entries of its connections
    /// stay.
    pub fn leave_shard(&mut self, shard: usize) {
        self.shards.remove(&shard);
    }

    /// The shards that have a transition to apply. After each operation that changes the book,
    /// they have to be woken.
    pub fn waiting_shards(&self) -> impl Iterator<Item = usize> {
        let waiting = self
            .shards
            .iter()
            .filter(|(_, pending)| !pending.is_empty());
        waiting.map(|(shard, _)| *shard)
    }

    /// The next change for the shard, or `None` if it has applied everything. Keys come in the
    /// order in which they changed first. From here on the shard counts as having applied the
    /// transition, so it must offer it to its connections before it does anything else.
    pub fn next_transition(&mut self, shard: usize) -> Option<Transition<M>> {
        let (key, before) = self.shards.get_mut(&shard)?.pop()?;
        let after = self.entries(&key);
        Some(Transition { key, before, after })
    }

    /// The entries of the key as the shard last applied them.
    #[must_use]
    pub fn applied(&self, shard: usize, key: &PresenceKey) -> EntryList<M> {
        let pending = self.shards.get(&shard);
        match pending.and_then(|pending| pending.before(key)) {
            Some(before) => before.clone(),
            None => self.entries(key),
        }
    }
}

/// The size of the book.
impl<M> PresenceBook<M> {
    /// The sum of [`entry_bytes`] of all entries. Besides these, entries that have ended are kept
    /// until every shard has applied their end.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.values().map(|entries| entries.len()).sum()
    }

    /// Returns true if there is no entry, and no shard has anything to apply.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.waiting_shards().next().is_none()
    }
}

/// What connections do.
impl<M: Clone> PresenceBook<M> {
    /// Takes a message of a connection, in place of the one that it sent before with the same
    /// payload. `now` is in Unix seconds.
    ///
    /// # Errors
    ///
    /// Fails if the message would exceed a bound; then the earlier message stands.
    pub fn set(
        &mut self,
        connection: ConnectionKey,
        user: &UserName,
        new: NewMessage<M>,
        limits: &PresenceLimits,
        now: i64,
    ) -> Result<(), PresenceRefusal> {
        let key = PresenceKey::new(user, new.payload);
        let entries = self.entries(&key);
        let replaced = entries.iter().find(|entry| entry.connection == connection);
        let entry = self.new_entry(connection, new, replaced, now);
        self.check_bounds(user, &entry, replaced, limits)?;
        self.next_order += 1;
        self.replace(&key, replaced, Some(entry));
        Ok(())
    }

    /// Ends the connection's message with this payload.
    pub fn withdraw(&mut self, connection: ConnectionKey, user: &UserName, payload: u32) {
        let key = PresenceKey::new(user, payload);
        let entries = self.entries(&key);
        let withdrawn = entries.iter().find(|entry| entry.connection == connection);
        if withdrawn.is_some() {
            self.replace(&key, withdrawn, None);
        }
    }

    /// Takes the topics that are `gone` from the connection's messages: its subscriptions no
    /// longer cover them. A message ends when it has no topic left.
    pub fn unsubscribe(
        &mut self,
        connection: ConnectionKey,
        user: &UserName,
        gone: impl Fn(&Topic) -> bool,
    ) {
        let loses_topics = |entry: &Entry<M>| entry.is_on(&gone);
        self.change_each(connection, user, loses_topics, |entry| {
            let rest = entry.topics.iter().filter(|topic| !gone(topic));
            let topics: Arc<[Topic]> = rest.cloned().collect();
            (!topics.is_empty()).then(|| Entry {
                topics,
                ..entry.clone()
            })
        });
    }

    /// Lets the messages of a connection that has ended linger. Returns true if there are any;
    /// then [`end_linger`](Self::end_linger) has to follow.
    pub fn end_connection(&mut self, connection: ConnectionKey, user: &UserName) -> bool {
        let is_current = |entry: &Entry<M>| !entry.lingers;
        self.change_each(connection, user, is_current, |entry| {
            Some(Entry {
                lingers: true,
                ..entry.clone()
            })
        })
    }

    /// Ends the messages of a connection, which has ended before.
    pub fn end_linger(&mut self, connection: ConnectionKey, user: &UserName) {
        self.change_each(connection, user, |_| true, |_| None);
    }
}

impl<M> PresenceBook<M> {
    /// The entries of a key.
    pub(crate) fn entries(&self, key: &PresenceKey) -> EntryList<M> {
        self.keys.get(key).cloned().unwrap_or_default()
    }

    /// The keys of a user, in order, with their entries. There are no more than the user may have
    /// messages.
    pub(crate) fn keys_of(
        &self,
        user: &UserName,
    ) -> btree_map::Range<'_, PresenceKey, EntryList<M>> {
        self.keys.range(PresenceKey::all_of(user))
    }

    fn new_entry(
        &self,
        connection: ConnectionKey,
        new: NewMessage<M>,
        replaced: Option<&Entry<M>>,
        now: i64,
    ) -> Entry<M> {
        let bytes = entry_bytes(new.message_bytes, &new.named);
        let named: Arc<[Topic]> = new.named.into();
        // One list if the two are the same.
        let topics = if new.topics.len() == named.len() {
            named.clone()
        } else {
            new.topics.into()
        };
        let was_there = |topic: &Topic| replaced.is_some_and(|entry| entry.topics.contains(topic));
        let since = match replaced {
            Some(replaced) if topics.iter().all(was_there) => replaced.since,
            _ => now,
        };
        Entry {
            connection,
            message: new.message,
            topics,
            named,
            order: self.next_order,
            lingers: false,
            since,
            bytes,
        }
    }

    fn check_bounds(
        &self,
        user: &UserName,
        new: &Entry<M>,
        replaced: Option<&Entry<M>>,
        limits: &PresenceLimits,
    ) -> Result<(), PresenceRefusal> {
        let messages: usize = self.keys_of(user).map(|(_, entries)| entries.len()).sum();
        if replaced.is_none() && messages >= limits.messages_per_user {
            return Err(PresenceRefusal::UserMessages);
        }
        let is_full = |topic: &&Topic| {
            !self.places.contains(&Place::new(topic, user))
                && self.user_count(topic) >= limits.users_per_topic
        };
        if let Some(topic) = new.topics.iter().find(is_full) {
            return Err(PresenceRefusal::TopicUsers(topic.clone()));
        }
        let bytes = self.bytes - replaced.map_or(0, |entry| entry.bytes) + new.bytes;
        if bytes > limits.bytes_per_tenant.max(self.bytes) {
            return Err(PresenceRefusal::TenantBytes);
        }
        Ok(())
    }

    fn user_count(&self, topic: &Topic) -> usize {
        self.users.get(topic).map_or(0, |users| *users as usize)
    }
}

impl<M: Clone> PresenceBook<M> {
    /// Replaces each entry of the connection that `is_affected` with what `change` makes of it.
    /// Returns true if there are any.
    fn change_each(
        &mut self,
        connection: ConnectionKey,
        user: &UserName,
        is_affected: impl Fn(&Entry<M>) -> bool,
        change: impl Fn(&Entry<M>) -> Option<Entry<M>>,
    ) -> bool {
        let is_wanted = |entry: &&Entry<M>| entry.connection == connection && is_affected(entry);
        let affected = self.keys_of(user).filter_map(|(key, entries)| {
            let entry = entries.iter().find(is_wanted)?;
            Some((key.clone(), entry.clone()))
        });
        let affected: Vec<_> = affected.collect();
        for (key, entry) in &affected {
            self.replace(key, Some(entry), change(entry));
        }
        !affected.is_empty()
    }

    /// Replaces an entry of a key, and records the change for every shard.
    fn replace(&mut self, key: &PresenceKey, old: Option<&Entry<M>>, new: Option<Entry<M>>) {
        // The new one first, so that a topic of both stays in place.
        if let Some(new) = &new {
            self.account_for(key, new);
        }
        if let Some(old) = old {
            self.discount(key, old);
        }
        let before = self.entries(key);
        let is_other = |entry: &&Entry<M>| old.is_none_or(|old| old.order != entry.order);
        let mut after: Vec<_> = before.iter().filter(is_other).cloned().collect();
        after.extend(new);
        after.sort_by_key(|entry| Reverse(entry.order));
        for pending in self.shards.values_mut() {
            pending.record(key, &before, &after);
        }
        if after.is_empty() {
            self.keys.remove(key);
        } else {
            self.keys.insert(key.clone(), after.into());
        }
    }

    fn account_for(&mut self, key: &PresenceKey, entry: &Entry<M>) {
        self.bytes += entry.bytes;
        for topic in entry.topics.iter() {
            if self.places.add(Place::new(topic, &key.user)) {
                *self.users.get_or_default(topic) += 1;
            }
        }
    }

    fn discount(&mut self, key: &PresenceKey, entry: &Entry<M>) {
        self.bytes -= entry.bytes;
        for topic in entry.topics.iter() {
            if self.places.remove(Place::new(topic, &key.user)) {
                self.user_left(topic);
            }
        }
    }

    fn user_left(&mut self, topic: &Topic) {
        if let Some(users) = self.users.get_mut(topic) {
            *users -= 1;
            if *users == 0 {
                self.users.remove(topic);
            }
        }
    }
}
