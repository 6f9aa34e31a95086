//! What is remembered of one presence message, and which message a connection sees.

use std::{fmt, ops::RangeInclusive, str::FromStr, sync::Arc};

use sidewire_protocol::{Topic, UserName};

/// A connection, in the whole process. Its text is `<shard>-<id>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    /// The shard that owns the connection.
    pub shard: usize,
    /// The connection's number on that shard; no other connection ever has it.
    pub id: u64,
}

impl fmt::Display for ConnectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.id)
    }
}

/// A text is not the id of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the id of a connection")]
pub struct ConnectionKeyError;

impl FromStr for ConnectionKey {
    type Err = ConnectionKeyError;

    fn from_str(text: &str) -> Result<Self, ConnectionKeyError> {
        let key = text.split_once('-').and_then(|(shard, id)| {
            Some(Self {
                shard: shard.parse().ok()?,
                id: id.parse().ok()?,
            })
        });
        // Each connection has one text: without signs and leading zeros.
        key.filter(|key| key.to_string() == text)
            .ok_or(ConnectionKeyError)
    }
}

/// What a connection sees one message of: a user, and a presence payload of the schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PresenceKey {
    /// The user who sends the messages.
    pub user: UserName,
    /// The number of the payload's field in the envelope.
    pub payload: u32,
}

/// The last message that one connection sent for one key.
#[derive(Debug, Clone)]
pub struct Entry<M> {
    /// The connection that sent the message.
    pub connection: ConnectionKey,
    /// The message.
    pub message: M,
    /// The topics on which it can be seen: those that it names and its connection has been
    /// subscribed to ever since.
    pub topics: Arc<[Topic]>,
    /// All topics that the message names.
    pub named: Arc<[Topic]>,
    /// The number of the message among all of its tenant, which grows. It stays the same as long
    /// as the entry has this message, so two entries with the same number show the same message.
    pub order: u64,
    /// The connection has ended, and the message is shown a little longer.
    pub lingers: bool,
    /// Since when the connection has been present on all of the topics, in Unix seconds.
    pub since: i64,
    /// What the entry counts for in its tenant's bytes; see [`entry_bytes`](crate::entry_bytes).
    pub bytes: usize,
}

/// The entries of one key, newest first. A change makes a new list.
pub type EntryList<M> = Arc<[Entry<M>]>;

impl PresenceKey {
    pub(crate) fn new(user: &UserName, payload: u32) -> Self {
        Self {
            user: user.clone(),
            payload,
        }
    }

    /// All keys of the user.
    pub(crate) fn all_of(user: &UserName) -> RangeInclusive<Self> {
        Self::new(user, u32::MIN)..=Self::new(user, u32::MAX)
    }
}

impl<M> Entry<M> {
    /// Returns true if the connection that is subscribed to these topics can see the entry.
    pub(crate) fn is_on(&self, is_subscribed: impl Fn(&Topic) -> bool) -> bool {
        self.topics.iter().any(is_subscribed)
    }
}

/// The entry that a connection sees of a key with these entries: the newest on a topic that the
/// connection is subscribed to, but one that lingers only if there is no other.
///
/// `is_subscribed` also holds for topics that a wildcard covers.
pub fn seen<M>(entries: &[Entry<M>], is_subscribed: impl Fn(&Topic) -> bool) -> Option<&Entry<M>> {
    by_rank(entries).find(|entry| entry.is_on(&is_subscribed))
}

/// The entries in the order in which a connection prefers them.
pub(crate) fn by_rank<M>(entries: &[Entry<M>]) -> impl Iterator<Item = &Entry<M>> {
    let current = entries.iter().filter(|entry| !entry.lingers);
    current.chain(entries.iter().filter(|entry| entry.lingers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{entry, lingering, topic};

    #[test]
    fn the_newest_entry_on_a_subscribed_topic_is_seen_and_a_lingering_one_only_without_another() {
        let entries = [
            lingering(entry(4, 4, &["a:1", "a:2"])),
            entry(3, 3, &["a:3"]),
            entry(2, 2, &["a:1", "a:3"]),
            lingering(entry(1, 1, &["a:2"])),
        ];
        for (subscriptions, expected) in [
            (vec!["a:1"], Some(2)),
            (vec!["a:2"], Some(4)),
            (vec!["a:3"], Some(3)),
            (vec!["a:1", "a:3"], Some(3)),
            (vec!["a:2", "a:1"], Some(2)),
            (vec!["a:4"], None),
            (vec![], None),
        ] {
            let subscribed = |is: &Topic| subscriptions.iter().any(|text| topic(text) == *is);
            let seen = seen(&entries, subscribed).map(|entry| entry.order);
            assert_eq!(seen, expected, "{subscriptions:?}");
        }
    }
}
