//! A tenant's presence book, and its account in the memory budget.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sidewire_presence::{
    ConnectionKey, EntryList, NewMessage, PageCursor, PresenceBook, PresenceKey, PresenceLimits,
    PresencePage, PresenceRefusal, SnapshotCursor, SnapshotPart, Transition, entry_bytes,
};
use sidewire_protocol::{Topic, UserName};

use super::{PresenceMailbox, PresenceMessage};
use crate::{
    hub::{ShardId, tenant::Tenant},
    memory::{MemoryAccount, MemoryExceeded, MemoryUse},
    planted::fault,
};

type Book = PresenceBook<Arc<PresenceMessage>>;

/// The presence of one tenant. Takes no memory while nobody is present.
#[derive(Debug, Default)]
pub(in crate::hub) struct TenantPresence(Mutex<Option<Box<PresenceState>>>);

#[derive(Debug, Default)]
struct PresenceState {
    book: Book,
    /// The shards that have been told that they have changes to apply, and have not applied all
    /// of them.
    told: Vec<ShardId>,
}

/// The reason for which a presence message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresenceRefused {
    /// A bound of presence is reached.
    #[error(transparent)]
    Bound(#[from] PresenceRefusal),
    /// There is no memory for it.
    #[error(transparent)]
    NoMemory(#[from] MemoryExceeded),
}

/// What an operation on a tenant's book needs besides the book.
#[derive(Debug, Clone, Copy)]
pub(super) struct PresenceContext<'a> {
    pub(super) tenant: &'a Arc<Tenant>,
    pub(super) mailboxes: &'a [PresenceMailbox],
    pub(super) account: &'a MemoryAccount,
}

impl PresenceState {
    /// Tells the shards that have changes to apply, unless they have been told.
    fn tell_shards(&mut self, context: PresenceContext<'_>) {
        for shard in self.book.waiting_shards() {
            if !self.told.contains(&shard)
                && let Some(mailbox) = context.mailboxes.get(shard)
            {
                self.told.push(shard);
                mailbox.post(context.tenant);
            }
        }
    }
}

impl TenantPresence {
    /// Returns true if nobody is present, and no shard has changes to apply.
    pub(in crate::hub) fn is_empty(&self) -> bool {
        self.lock().is_none()
    }

    /// Adds a shard, which has applied all changes up to now. `enter` is called under the lock of
    /// the presence.
    pub(in crate::hub) fn enter_shard<R>(&self, shard: ShardId, enter: impl FnOnce() -> R) -> R {
        let mut state = self.lock();
        if let Some(state) = &mut *state {
            state.book.enter_shard(shard);
            state.told.retain(|told| *told != shard);
        }
        enter()
    }

    /// Removes a shard. `leave` is called under the lock of the presence.
    pub(in crate::hub) fn leave_shard(&self, shard: ShardId, leave: impl FnOnce()) {
        let mut state = self.lock();
        if let Some(state) = &mut *state {
            state.book.leave_shard(shard);
        }
        drop_if_empty(&mut state);
        leave();
    }

    /// Takes a message of a connection, in place of its earlier one.
    ///
    /// # Errors
    ///
    /// When a bound is reached; then the earlier one stands.
    pub(super) fn set(
        &self,
        context: PresenceContext<'_>,
        connection: ConnectionKey,
        user: &UserName,
        message: NewMessage<Arc<PresenceMessage>>,
        limits: &PresenceLimits,
        now: i64,
    ) -> Result<(), PresenceRefused> {
        let bytes = entry_bytes(message.message_bytes, &message.named);
        context.account.try_hold(MemoryUse::Presence, bytes)?;
        let mut state = self.lock();
        let present = state.get_or_insert_with(|| {
            let mut present = Box::<PresenceState>::default();
            for shard in context.tenant.shards() {
                present.book.enter_shard(shard);
            }
            present
        });
        let before = present.book.bytes();
        let payload = message.payload;
        let result = present.book.set(connection, user, message, limits, now);
        if result.is_err() && fault!(RefusesAndForgets) {
            present.book.withdraw(connection, user, payload);
        }
        // What is held is more than what has been added, if the message replaces another.
        let surplus = before + bytes - present.book.bytes();
        context.account.release(MemoryUse::Presence, surplus);
        present.tell_shards(context);
        drop_if_empty(&mut state);
        Ok(result?)
    }

    /// Changes the book, if there is one, in a way that adds nothing to it.
    pub(super) fn reduce(&self, context: PresenceContext<'_>, change: impl FnOnce(&mut Book)) {
        let mut state = self.lock();
        let Some(present) = &mut *state else {
            return;
        };
        let before = present.book.bytes();
        change(&mut present.book);
        let freed = before - present.book.bytes();
        context.account.release(MemoryUse::Presence, freed);
        present.tell_shards(context);
        drop_if_empty(&mut state);
    }

    /// Returns the next change that the shard has to apply. The caller applies it before it reads
    /// anything else of the presence.
    pub(super) fn next_transition(
        &self,
        shard: ShardId,
    ) -> Option<Transition<Arc<PresenceMessage>>> {
        let mut state = self.lock();
        let present = state.as_mut()?;
        let next = present.book.next_transition(shard);
        if next.is_none() {
            present.told.retain(|told| *told != shard);
        }
        drop_if_empty(&mut state);
        next
    }

    /// Returns the entries of a key, as the shard has applied them.
    pub(super) fn applied(
        &self,
        shard: ShardId,
        key: &PresenceKey,
    ) -> EntryList<Arc<PresenceMessage>> {
        match &*self.lock() {
            Some(present) => present.book.applied(shard, key),
            None => EntryList::default(),
        }
    }

    /// Returns a part of what is present on a topic, as the shard has applied it.
    pub(super) fn snapshot_part(
        &self,
        shard: ShardId,
        topic: &Topic,
        after: Option<&SnapshotCursor>,
        limit: usize,
    ) -> SnapshotPart<Arc<PresenceMessage>> {
        match &*self.lock() {
            Some(present) => present.book.snapshot_part(shard, topic, after, limit),
            None => SnapshotPart {
                keys: Vec::new(),
                next: None,
            },
        }
    }

    /// Lists the users on the topics.
    pub(in crate::hub) fn page(
        &self,
        topics: &[Topic],
        after: Option<&PageCursor>,
        limit: usize,
    ) -> PresencePage<Arc<PresenceMessage>> {
        match &*self.lock() {
            Some(present) => present.book.page(topics, after, limit),
            None => Book::default().page(topics, after, limit),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<PresenceState>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_if_empty(state: &mut Option<Box<PresenceState>>) {
    if state
        .as_ref()
        .is_some_and(|present| present.book.is_empty())
    {
        *state = None;
    }
}
