//! Client messages that are still arriving on one shard, and the memory that they hold. Knows no
//! frames.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
};

use sidewire_protocol::close::CloseReason;
use tokio::time::Instant;

use crate::{
    memory::{MemoryAccount, MemoryExceeded, MemoryUse},
    outbox::Outbox,
};

/// The unit in which memory is reserved, in bytes.
const BLOCK_BYTES: usize = 4 * 1024;

/// The time at which a message began to arrive, and a number that makes the key unique.
type BegunMessageKey = (Instant, u64);

/// The messages of one shard that have begun to arrive and are not complete.
///
/// If there is no memory for a message, other connections are closed, that with the oldest
/// message first: a peer that intends to complete a message does so within moments, so the oldest
/// messages are probably those that are never completed.
#[derive(Debug)]
pub struct BegunMessages {
    account: Arc<MemoryAccount>,
    by_age: RefCell<BTreeMap<BegunMessageKey, HeldMessage>>,
    last: Cell<u64>,
}

#[derive(Debug)]
struct HeldMessage {
    outbox: Rc<Outbox>,
    bytes: usize,
}

/// The memory of a begun message. Dropping it releases the memory.
#[derive(Debug)]
pub struct BegunMessageMemory {
    messages: Rc<BegunMessages>,
    key: BegunMessageKey,
}

impl BegunMessages {
    pub(super) fn new(account: &Arc<MemoryAccount>) -> Rc<Self> {
        Rc::new(Self {
            account: Arc::clone(account),
            by_age: RefCell::default(),
            last: Cell::default(),
        })
    }

    /// Reserves memory for a message that begins now on this outbox's connection.
    ///
    /// # Errors
    ///
    /// When there is no room, and no other connection with a begun message on this shard could be
    /// closed to make some.
    pub fn reserve(
        self: &Rc<Self>,
        outbox: &Rc<Outbox>,
        bytes: usize,
    ) -> Result<BegunMessageMemory, MemoryExceeded> {
        self.last.set(self.last.get() + 1);
        let key = (Instant::now(), self.last.get());
        let holding = HeldMessage {
            outbox: Rc::clone(outbox),
            bytes: 0,
        };
        self.by_age.borrow_mut().insert(key, holding);
        let message = BegunMessageMemory {
            messages: Rc::clone(self),
            key,
        };
        message.grow_to(bytes)?;
        Ok(message)
    }

    /// Returns the connections with a begun message, oldest first, and the times at which the
    /// messages began.
    pub(super) fn by_age(&self) -> Vec<(Instant, Rc<Outbox>)> {
        let by_age = self.by_age.borrow();
        let by_age = by_age.iter();
        by_age
            .map(|((began, _), holding)| (*began, Rc::clone(&holding.outbox)))
            .collect()
    }

    /// Closes the connection with the oldest message and releases its memory. Returns false if
    /// there is none.
    pub(super) fn close_oldest(&self) -> bool {
        self.close_oldest_except(None)
    }

    fn close_oldest_except(&self, kept: Option<BegunMessageKey>) -> bool {
        let mut by_age = self.by_age.borrow_mut();
        let oldest = by_age.keys().find(|key| Some(**key) != kept).copied();
        let Some(holding) = oldest.and_then(|oldest| by_age.remove(&oldest)) else {
            return false;
        };
        let bytes = holding.bytes;
        self.account.release(MemoryUse::BegunMessages, bytes);
        holding.outbox.signals().request_end(CloseReason::NoMemory);
        true
    }
}

impl BegunMessageMemory {
    /// Reserves memory until the message has at least `bytes`.
    ///
    /// # Errors
    ///
    /// When there is no room for them, and when the connection is being closed to make room for
    /// another.
    pub fn grow_to(&self, bytes: usize) -> Result<(), MemoryExceeded> {
        let held = {
            let by_age = self.messages.by_age.borrow();
            by_age.get(&self.key).ok_or(MemoryExceeded)?.bytes
        };
        let missing = bytes.next_multiple_of(BLOCK_BYTES).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let account = &self.messages.account;
        while let Err(exceeded) = account.try_hold(MemoryUse::BegunMessages, missing) {
            if !self.messages.close_oldest_except(Some(self.key)) {
                return Err(exceeded);
            }
        }
        if let Some(holding) = self.messages.by_age.borrow_mut().get_mut(&self.key) {
            holding.bytes += missing;
        }
        Ok(())
    }
}

impl Drop for BegunMessageMemory {
    fn drop(&mut self) {
        if let Some(holding) = self.messages.by_age.borrow_mut().remove(&self.key) {
            let account = &self.messages.account;
            account.release(MemoryUse::BegunMessages, holding.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::MemoryLimits,
        outbox::{OutboxLimits, OutboxPool},
    };

    const LIMITS: MemoryLimits = MemoryLimits {
        // 16 blocks are guaranteed to begun messages, and 80 more are free.
        max: 256 * BLOCK_BYTES as u64,
        window: 0,
    };
    const ROOM: usize = 96 * BLOCK_BYTES;

    fn messages() -> (Rc<BegunMessages>, [Rc<Outbox>; 3]) {
        let pool = OutboxPool::new(OutboxLimits {
            frames: 1,
            bytes: 1,
        });
        let account = Arc::new(MemoryAccount::new(LIMITS));
        let outboxes = [(); 3].map(|()| Rc::new(Outbox::new(&pool)));
        (BegunMessages::new(&account), outboxes)
    }

    fn held(messages: &BegunMessages) -> u64 {
        messages.account.held_bytes(MemoryUse::BegunMessages)
    }

    #[test]
    fn memory_is_reserved_in_blocks_as_a_message_grows_and_released_with_it() {
        let (messages, [outbox, ..]) = messages();
        let message = messages.reserve(&outbox, 1).unwrap();
        assert_eq!(held(&messages), BLOCK_BYTES as u64);
        message.grow_to(BLOCK_BYTES).unwrap();
        assert_eq!(held(&messages), BLOCK_BYTES as u64);
        message.grow_to(BLOCK_BYTES + 1).unwrap();
        assert_eq!(held(&messages), 2 * BLOCK_BYTES as u64);
        drop(message);
        assert_eq!(held(&messages), 0);
        assert!(messages.by_age().is_empty());
    }

    #[test]
    fn without_room_the_connection_with_the_oldest_message_is_closed() {
        let (messages, [first, second, third]) = messages();
        let oldest = messages.reserve(&first, ROOM / 2).unwrap();
        let other = messages.reserve(&second, ROOM / 2).unwrap();
        let newest = messages.reserve(&third, BLOCK_BYTES).unwrap();
        assert_eq!(first.signals().ending(), Some(CloseReason::NoMemory));
        assert_eq!(
            (second.signals().ending(), third.signals().ending()),
            (None, None)
        );
        assert_eq!(held(&messages), (ROOM / 2 + BLOCK_BYTES) as u64);
        // It cannot grow any more, and its memory is not released twice.
        assert!(oldest.grow_to(ROOM).is_err());
        drop(oldest);
        assert_eq!(held(&messages), (ROOM / 2 + BLOCK_BYTES) as u64);
        drop((other, newest));
        assert_eq!(held(&messages), 0);
    }

    #[test]
    fn a_message_larger_than_all_the_available_memory_is_refused() {
        let (messages, [first, second, _]) = messages();
        let _other = messages.reserve(&first, BLOCK_BYTES).unwrap();
        assert!(messages.reserve(&second, ROOM + 1).is_err());
        assert_eq!(first.signals().ending(), Some(CloseReason::NoMemory));
        assert_eq!(held(&messages), 0);
    }
}
