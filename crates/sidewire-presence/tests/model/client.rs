//! A client that keeps presence as the contract says.

use std::collections::{BTreeMap, BTreeSet};

use sidewire_presence::{ConnectionKey, PresenceKey};
use sidewire_protocol::Topic;

use crate::message::Message;

/// What a connection is sent.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    Subscribed(BTreeSet<Topic>),
    Unsubscribed(BTreeSet<Topic>),
    Present(Message),
    /// The message with the absent value in place.
    Absent(Message),
}

#[derive(Debug)]
pub(crate) struct Client {
    connection: ConnectionKey,
    subscriptions: BTreeSet<Topic>,
    pub(crate) view: BTreeMap<PresenceKey, Message>,
    /// The last message that it has had of each key from each connection.
    had: BTreeMap<(PresenceKey, ConnectionKey), u64>,
}

impl Client {
    pub(crate) fn new(connection: ConnectionKey) -> Self {
        Self {
            connection,
            subscriptions: BTreeSet::new(),
            view: BTreeMap::new(),
            had: BTreeMap::new(),
        }
    }

    pub(crate) fn receive(&mut self, frame: Frame) -> Result<(), String> {
        match frame {
            Frame::Present(message) | Frame::Absent(message)
                if message.sender == self.connection =>
            {
                return Err(format!("{message:?} comes back to its sender"));
            }
            Frame::Subscribed(topics) => self.subscriptions.extend(topics),
            Frame::Unsubscribed(topics) => {
                self.subscriptions.retain(|topic| !topics.contains(topic));
                let remaining = &self.subscriptions;
                self.view.retain(|_, last| names_one_of(last, remaining));
            }
            Frame::Present(message) => self.present(message)?,
            Frame::Absent(message) => {
                self.view.remove(&message.key);
            }
        }
        Ok(())
    }

    fn present(&mut self, message: Message) -> Result<(), String> {
        let of_sender = (message.key.clone(), message.sender);
        let had = self.had.insert(of_sender, message.number);
        if had.is_some_and(|had| had > message.number) {
            return Err(format!("{had:?} was followed by {message:?}"));
        }
        self.view.insert(message.key.clone(), message);
        Ok(())
    }
}

fn names_one_of(message: &Message, subscriptions: &BTreeSet<Topic>) -> bool {
    let is_covered = |topic: &Topic| covers_one(subscriptions, topic);
    message.named.iter().any(is_covered)
}

/// Returns true if one of the subscriptions, which may be wildcards, covers the topic.
pub(crate) fn covers_one(subscriptions: &BTreeSet<Topic>, topic: &Topic) -> bool {
    let wildcard = Topic::new(topic.kind(), "*").unwrap();
    subscriptions.contains(topic) || subscriptions.contains(&wildcard)
}
