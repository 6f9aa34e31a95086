//! A connection of the toy relay: what it is subscribed to, what it has been sent and is owed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sidewire_presence::{ConnectionKey, PresenceKey, SnapshotCursor, ViewUpdate};
use sidewire_protocol::{Topic, UserName};

use crate::{
    client::{Client, Frame, covers_one},
    message::Message,
};

/// The number of frames beyond which nothing of presence is queued.
const OUTBOX_FRAMES: usize = 2;

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) key: ConnectionKey,
    pub(crate) user: UserName,
    pub(crate) subscriptions: BTreeSet<Topic>,
    /// The subscriptions of which the snapshot is not complete, with how far it has come.
    pub(crate) snapshots: VecDeque<(Topic, Option<SnapshotCursor>)>,
    /// The keys of which something could not be queued, with a message from which the absent one
    /// can be made.
    pub(crate) owed: BTreeMap<PresenceKey, Message>,
    pub(crate) client: Client,
    outbox: VecDeque<Frame>,
}

impl Connection {
    pub(crate) fn new(key: ConnectionKey, user: UserName) -> Self {
        Self {
            key,
            user,
            subscriptions: BTreeSet::new(),
            snapshots: VecDeque::new(),
            owed: BTreeMap::new(),
            client: Client::new(key),
            outbox: VecDeque::new(),
        }
    }

    pub(crate) fn covers(&self, topic: &Topic) -> bool {
        covers_one(&self.subscriptions, topic)
    }

    /// Queues a frame for which there is always room.
    pub(crate) fn confirm(&mut self, frame: Frame) {
        self.outbox.push_back(frame);
    }

    /// Queues an update of a key, or marks the key as owed.
    pub(crate) fn offer(&mut self, update: &ViewUpdate<'_, Message>) {
        let (ViewUpdate::Present(entry) | ViewUpdate::Absent(entry)) = update;
        let message = entry.message.clone();
        if self.has_room() && !self.owed.contains_key(&message.key) {
            self.outbox.push_back(match update {
                ViewUpdate::Present(_) => Frame::Present(message),
                ViewUpdate::Absent(_) => Frame::Absent(message),
            });
        } else {
            self.owed.insert(message.key.clone(), message);
        }
    }

    /// Removes a key of which something is owed, if there is room for it.
    pub(crate) fn next_owed(&mut self) -> Option<(PresenceKey, Message)> {
        if self.has_room() {
            self.owed.pop_first()
        } else {
            None
        }
    }

    /// Lets the client read a frame. Returns false if there is none.
    pub(crate) fn read(&mut self) -> Result<bool, String> {
        let Some(frame) = self.outbox.pop_front() else {
            return Ok(false);
        };
        self.client.receive(frame)?;
        Ok(true)
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        self.outbox.is_empty() && self.owed.is_empty() && self.snapshots.is_empty()
    }

    fn has_room(&self) -> bool {
        self.outbox.len() < OUTBOX_FRAMES
    }
}
