//! A relay without sockets and threads: shards that apply the book's transitions, and connections
//! that are sent what follows from them. It does what the crate's documentation asks for, except
//! for a planted [`Fault`].

use std::collections::BTreeSet;

use sidewire_presence::{
    ConnectionKey, Entry, EntryList, NewMessage, PresenceBook, PresenceKey, PresenceLimits,
    PresenceRefusal, ViewUpdate, seen, update_after_change, update_after_unsubscribe,
};
use sidewire_protocol::{Topic, UserName};

use crate::{
    client::{Frame, covers_one},
    connection::Connection,
    message::{Message, MessageParts},
};

/// A mistake that a relay could make with the book. The model has to find each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A snapshot shows what the book has, and not what the shard has applied.
    SnapshotAhead,
    /// A snapshot ends after its first part.
    SnapshotCut,
    /// An absent message that is owed is not sent later.
    OwedAbsentForgotten,
    /// After an Unsubscribe nothing is sent of what is now seen instead.
    UnsubscribeNotLookedThrough,
    /// After an Unsubscribe the client is trusted to forget, whatever it was sent before.
    UnsubscribeTrusted,
    /// After an Unsubscribe no absent message is sent.
    UnsubscribeSilent,
    /// The sender's Unsubscribe leaves its messages as they are.
    UnsubscribeOfSenderIgnored,
    /// Transitions do not reach those who are subscribed by a wildcard.
    WildcardForgotten,
    /// The end of a linger ends what the user's other connections have sent.
    LingerEndsUser,
    /// A connection that is sent a hand-over is sent the absent message.
    HandOverIsAbsent,
}

#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) book: PresenceBook<Message>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) lingering: Vec<(ConnectionKey, UserName)>,
    messages: u64,
    fault: Option<Fault>,
}

/// A connection whose view a transition changed, with the numbers of the messages.
pub(crate) type ChangedView = (ConnectionKey, Option<u64>, Option<u64>);

/// A transition that was applied.
pub(crate) struct Applied {
    pub(crate) key: PresenceKey,
    pub(crate) before: EntryList<Message>,
    pub(crate) after: EntryList<Message>,
    pub(crate) changed: Vec<ChangedView>,
}

impl Relay {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self {
            book: PresenceBook::default(),
            connections: Vec::new(),
            lingering: Vec::new(),
            messages: 0,
            fault,
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(crate) fn connect(&mut self, key: ConnectionKey, user: &UserName) {
        self.book.enter_shard(key.shard);
        self.connections.push(Connection::new(key, user.clone()));
    }

    /// Ends a connection.
    pub(crate) fn end(&mut self, index: usize) {
        let Connection { key, user, .. } = self.connections.remove(index);
        if self.book.end_connection(key, &user) {
            self.lingering.push((key, user));
        }
        if !self
            .connections
            .iter()
            .any(|other| other.key.shard == key.shard)
        {
            self.book.leave_shard(key.shard);
        }
    }

    pub(crate) fn end_linger(&mut self, index: usize) {
        let (key, user) = self.lingering.remove(index);
        self.book.end_linger(key, &user);
        if self.has(Fault::LingerEndsUser) {
            for other in self.connections.iter().filter(|other| other.user == user) {
                self.book.end_linger(other.key, &user);
            }
        }
    }

    /// Sends a message of a connection. Returns its number if it is taken.
    pub(crate) fn set(
        &mut self,
        index: usize,
        payload: u32,
        named: &BTreeSet<Topic>,
        limits: &PresenceLimits,
        now: i64,
    ) -> Result<u64, PresenceRefusal> {
        let Connection { key, user, .. } = &self.connections[index];
        let topics = named
            .iter()
            .filter(|topic| self.connections[index].covers(topic));
        self.messages += 1;
        let message = Message::new(MessageParts {
            number: self.messages,
            key: PresenceKey {
                user: user.clone(),
                payload,
            },
            sender: *key,
            named: named.iter().cloned().collect(),
        });
        let new = NewMessage {
            payload,
            message_bytes: 10,
            named: message.named.clone(),
            topics: topics.cloned().collect(),
            message,
        };
        self.book.set(*key, user, new, limits, now)?;
        Ok(self.messages)
    }

    pub(crate) fn withdraw(&mut self, index: usize, payload: u32) {
        let Connection { key, user, .. } = &self.connections[index];
        self.book.withdraw(*key, user, payload);
    }

    pub(crate) fn subscribe(&mut self, index: usize, topics: &BTreeSet<Topic>) {
        let connection = &mut self.connections[index];
        let new: BTreeSet<_> = topics
            .difference(&connection.subscriptions)
            .cloned()
            .collect();
        connection.subscriptions.extend(new.iter().cloned());
        connection.confirm(Frame::Subscribed(topics.clone()));
        connection
            .snapshots
            .extend(new.into_iter().map(|topic| (topic, None)));
    }

    /// Sends a part of a connection's next snapshot. Returns false if there is none.
    pub(crate) fn continue_snapshot(&mut self, index: usize, limit: usize) -> bool {
        let ahead = self.has(Fault::SnapshotAhead);
        let cut = self.has(Fault::SnapshotCut);
        let connection = &mut self.connections[index];
        let Some((subscription, after)) = connection.snapshots.pop_front() else {
            return false;
        };
        let shard = if ahead {
            usize::MAX
        } else {
            connection.key.shard
        };
        let part = self
            .book
            .snapshot_part(shard, &subscription, after.as_ref(), limit);
        for key in part.keys {
            let sees = seen(&key.entries, |topic| connection.covers(topic));
            if let Some(update) = update_after_change(connection.key, None, sees) {
                connection.offer(&update);
            }
        }
        if let Some(next) = part.next.filter(|_| !cut) {
            connection.snapshots.push_front((subscription, Some(next)));
        }
        true
    }

    pub(crate) fn unsubscribe(&mut self, index: usize, lost: &BTreeSet<Topic>) {
        let connection = &mut self.connections[index];
        let had = connection.subscriptions.clone();
        connection
            .subscriptions
            .retain(|topic| !lost.contains(topic));
        connection.confirm(Frame::Unsubscribed(lost.clone()));
        if self.fault != Some(Fault::UnsubscribeOfSenderIgnored) {
            let gone = |topic: &Topic| !connection.covers(topic);
            self.book
                .unsubscribe(connection.key, &connection.user, gone);
        }
        if !self.has(Fault::UnsubscribeNotLookedThrough) {
            self.look_through(index, &had, lost);
        }
        let connection = &mut self.connections[index];
        connection
            .snapshots
            .retain(|(topic, _)| !lost.contains(topic));
    }

    /// Sends what a connection sees instead after it has lost these topics.
    fn look_through(&mut self, index: usize, had: &BTreeSet<Topic>, lost: &BTreeSet<Topic>) {
        let (trusted, silent) = (
            self.has(Fault::UnsubscribeTrusted),
            self.has(Fault::UnsubscribeSilent),
        );
        let connection = &mut self.connections[index];
        let is_complete = !connection
            .snapshots
            .iter()
            .any(|(topic, _)| lost.contains(topic));
        for subscription in lost.intersection(had) {
            let shard = connection.key.shard;
            let part = self
                .book
                .snapshot_part(shard, subscription, None, usize::MAX);
            for key in part.keys {
                let is_owed = connection.owed.contains_key(&key.cursor.key);
                let update = update_after_unsubscribe(
                    connection.key,
                    &key.entries,
                    |topic| covers_one(had, topic),
                    |topic| connection.covers(topic),
                    trusted || is_complete && !is_owed,
                );
                let is_sent = |update: &ViewUpdate<'_, _>| {
                    !silent || matches!(update, ViewUpdate::Present(_))
                };
                if let Some(update) = update.filter(is_sent) {
                    connection.offer(&update);
                }
            }
        }
    }

    /// Lets a shard apply its next transition.
    pub(crate) fn apply(&mut self, shard: usize) -> Option<Applied> {
        let transition = self.book.next_transition(shard)?;
        let no_wildcards = self.has(Fault::WildcardForgotten);
        let mut views = Vec::new();
        let subscribers = |topic: &Topic, found: &mut dyn FnMut(u64)| {
            for connection in self.connections.iter().filter(|c| c.key.shard == shard) {
                let exact = connection.subscriptions.contains(topic);
                if exact || !no_wildcards && connection.covers(topic) {
                    found(connection.key.id);
                }
            }
        };
        transition.for_each_changed_view(subscribers, |id, saw, sees| {
            views.push((ConnectionKey { shard, id }, saw.cloned(), sees.cloned()));
        });
        let number = |entry: &Entry<Message>| entry.message.number;
        let mut changed = Vec::new();
        for (key, saw, sees) in &views {
            changed.push((*key, saw.as_ref().map(number), sees.as_ref().map(number)));
            self.send_change(*key, saw.as_ref(), sees.as_ref());
        }
        Some(Applied {
            key: transition.key,
            before: transition.before,
            after: transition.after,
            changed,
        })
    }

    fn send_change(
        &mut self,
        receiver: ConnectionKey,
        saw: Option<&Entry<Message>>,
        sees: Option<&Entry<Message>>,
    ) {
        let update = match (saw, sees) {
            (Some(saw), Some(sees))
                if self.has(Fault::HandOverIsAbsent) && saw.connection != sees.connection =>
            {
                Some(ViewUpdate::Absent(saw))
            }
            _ => update_after_change(receiver, saw, sees),
        };
        let receiver = self
            .connections
            .iter_mut()
            .find(|other| other.key == receiver);
        if let (Some(receiver), Some(update)) = (receiver, update) {
            receiver.offer(&update);
        }
    }

    /// Sends what is owed to a connection as far as there is room.
    pub(crate) fn pay_owed(&mut self, index: usize) {
        let forgotten = self.has(Fault::OwedAbsentForgotten);
        let connection = &mut self.connections[index];
        while let Some((key, last)) = connection.next_owed() {
            let entries = self.book.applied(connection.key.shard, &key);
            let sees = seen(&entries, |topic| connection.covers(topic));
            if let Some(update) = update_after_change(connection.key, None, sees) {
                connection.offer(&update);
            } else if sees.is_none() && !forgotten {
                connection.confirm(Frame::Absent(last));
            }
        }
    }
}
