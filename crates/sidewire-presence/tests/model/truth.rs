//! The presence of a tenant, written a second time: a plain list of messages that is searched as
//! the contract's sentences say.

use std::collections::BTreeSet;

use sidewire_presence::{ConnectionKey, PresenceKey, PresenceLimits, PresenceRefusal};
use sidewire_protocol::{Topic, UserName};

use crate::client::covers_one;

/// A message that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) number: u64,
    pub(crate) connection: ConnectionKey,
    pub(crate) key: PresenceKey,
    pub(crate) topics: BTreeSet<Topic>,
    pub(crate) named: BTreeSet<Topic>,
    pub(crate) lingers: bool,
    pub(crate) since: i64,
    pub(crate) message_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    UserMessages,
    TopicUsers,
    TenantBytes,
}

impl From<&PresenceRefusal> for Refused {
    fn from(refusal: &PresenceRefusal) -> Self {
        match refusal {
            PresenceRefusal::UserMessages => Self::UserMessages,
            PresenceRefusal::TopicUsers(_) => Self::TopicUsers,
            PresenceRefusal::TenantBytes => Self::TenantBytes,
        }
    }
}

impl Record {
    fn bytes(&self) -> usize {
        let texts: usize = self.named.iter().map(|topic| topic.as_str().len()).sum();
        self.message_bytes + 400 + texts + 200 * (self.named.len() - 1)
    }
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Truth(pub(crate) Vec<Record>);

impl Truth {
    /// Takes the message, or says which bounds it would exceed.
    pub(crate) fn set(&mut self, mut new: Record, limits: &PresenceLimits) -> Vec<Refused> {
        let mut next = self.clone();
        let is_replaced = |old: &Record| old.connection == new.connection && old.key == new.key;
        if let Some(old) = self.0.iter().find(|old| is_replaced(old))
            && new.topics.is_subset(&old.topics)
        {
            new.since = old.since;
        }
        next.0.retain(|old| !is_replaced(old));
        next.0.push(new.clone());
        let refused = self.exceeded(&next, &new, limits);
        if refused.is_empty() {
            *self = next;
        }
        refused
    }

    /// The bounds that the next state exceeds by more than this one.
    fn exceeded(&self, next: &Self, new: &Record, limits: &PresenceLimits) -> Vec<Refused> {
        let grows_beyond =
            |size: &dyn Fn(&Self) -> usize, max| size(next) > max && size(next) > size(self);
        let mut refused = Vec::new();
        if grows_beyond(
            &|truth| truth.messages_of(&new.key.user),
            limits.messages_per_user,
        ) {
            refused.push(Refused::UserMessages);
        }
        let is_full = |topic: &&Topic| {
            grows_beyond(&|truth| truth.users_on(topic).len(), limits.users_per_topic)
        };
        if new.topics.iter().any(|topic| is_full(&topic)) {
            refused.push(Refused::TopicUsers);
        }
        if grows_beyond(&Self::bytes, limits.bytes_per_tenant) {
            refused.push(Refused::TenantBytes);
        }
        refused
    }

    pub(crate) fn withdraw(&mut self, connection: ConnectionKey, payload: u32) {
        self.0
            .retain(|record| record.connection != connection || record.key.payload != payload);
    }

    /// The connection is subscribed to these topics and no others from now on.
    pub(crate) fn restrict(&mut self, connection: ConnectionKey, subscriptions: &BTreeSet<Topic>) {
        for record in self
            .0
            .iter_mut()
            .filter(|record| record.connection == connection)
        {
            record
                .topics
                .retain(|topic| covers_one(subscriptions, topic));
        }
        self.0.retain(|record| !record.topics.is_empty());
    }

    pub(crate) fn linger(&mut self, connection: ConnectionKey) {
        for record in self
            .0
            .iter_mut()
            .filter(|record| record.connection == connection)
        {
            record.lingers = true;
        }
    }

    pub(crate) fn end(&mut self, connection: ConnectionKey) {
        self.0.retain(|record| record.connection != connection);
    }

    /// The records of a key, newest first.
    pub(crate) fn of_key(&self, key: &PresenceKey) -> Vec<Record> {
        let mut records: Vec<_> = self
            .0
            .iter()
            .filter(|record| record.key == *key)
            .cloned()
            .collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.number));
        records
    }

    pub(crate) fn users_on(&self, topic: &Topic) -> BTreeSet<UserName> {
        let there = self.0.iter().filter(|record| record.topics.contains(topic));
        there.map(|record| record.key.user.clone()).collect()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(Record::bytes).sum()
    }

    fn messages_of(&self, user: &UserName) -> usize {
        self.0
            .iter()
            .filter(|record| record.key.user == *user)
            .count()
    }
}

/// What a connection with these subscriptions sees among the records of a key: "the newest current
/// message with a topic that the connection is subscribed to, else the newest lingering one, else
/// nothing".
pub(crate) fn seen_of<'r>(
    records: &'r [Record],
    subscriptions: &BTreeSet<Topic>,
) -> Option<&'r Record> {
    let visible = |record: &&Record| {
        record
            .topics
            .iter()
            .any(|topic| covers_one(subscriptions, topic))
    };
    let newest = |lingers| {
        let candidates = records.iter().filter(|record| record.lingers == lingers);
        candidates
            .filter(visible)
            .max_by_key(|record| record.number)
    };
    newest(false).or_else(|| newest(true))
}
