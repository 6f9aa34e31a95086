//! The message ids that backends gave to a tenant's recent events: a backend that posts one of
//! them again is answered with its original position. Bounded by time and count for a tenant, and
//! by bytes for the process. Knows only fingerprints, not the texts of ids or bodies.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hashbrown::HashTable;
use tokio::time::Instant;

use crate::event::Fingerprint;

/// Bytes charged for a remembered id. It takes 56 bytes in the queue and 5 in the table; both
/// grow by doubling, so they may be half empty.
pub const MESSAGE_ID_BYTES: usize = 128;

/// Bounds of the remembered message ids.
#[derive(Debug, Clone, Copy)]
pub struct MessageIdLimits {
    /// Time for which an id is remembered.
    pub age: Duration,
    /// Most ids of one tenant.
    pub count: usize,
    /// Most bytes for the process.
    pub bytes: usize,
}

impl Default for MessageIdLimits {
    fn default() -> Self {
        Self {
            age: Duration::from_mins(5),
            count: 100_000,
            bytes: 64 << 20,
        }
    }
}

/// The memory that message ids of all tenants use, and its bounds.
#[derive(Debug)]
pub struct MessageIdBudget {
    limits: MessageIdLimits,
    ids: AtomicUsize,
    tenants: AtomicUsize,
}

impl MessageIdBudget {
    /// Creates an unused budget.
    #[must_use]
    pub fn new(limits: MessageIdLimits) -> Self {
        Self {
            limits,
            ids: AtomicUsize::new(0),
            tenants: AtomicUsize::new(0),
        }
    }

    /// Returns the bytes charged.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ids() * MESSAGE_ID_BYTES
    }

    /// Returns the most bytes that may be charged.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.limits.bytes
    }

    /// Returns true if the budget is exceeded.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.ids() > self.ids_max()
    }

    /// Returns the number of ids to forget so that a part of the budget becomes free, and not
    /// every new id needs a search for room.
    #[must_use]
    pub fn excess(&self) -> usize {
        self.ids().saturating_sub(self.target_count())
    }

    /// Returns the number of ids that leaves a part of the budget free.
    #[must_use]
    pub fn target_count(&self) -> usize {
        self.ids_max() / 8 * 7
    }

    fn ids(&self) -> usize {
        self.ids.load(Ordering::Relaxed)
    }

    fn ids_max(&self) -> usize {
        self.limits.bytes / MESSAGE_ID_BYTES
    }

    /// Returns the number of ids that each tenant may keep if all want more.
    fn fair_share(&self) -> usize {
        self.ids_max() / self.tenants.load(Ordering::Relaxed).max(1)
    }
}

/// The outcome of a lookup of a known message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageIdMatch {
    /// The id was given to the same body, at this offset.
    Duplicate(u64),
    /// The id was given to another body.
    Conflict,
}

/// The remembered ids of one tenant, oldest first.
#[derive(Debug)]
pub struct MessageIds {
    queue: VecDeque<RememberedId>,
    /// The numbers of the queue's entries, by their ids. Numbers grow by one and wrap around.
    numbers: HashTable<u32>,
    first_number: u32,
    budget: Arc<MessageIdBudget>,
}

/// A remembered message id.
#[derive(Debug, Clone, Copy)]
pub struct RememberedId {
    /// The hashes of the id and of the body that it was given to.
    pub fingerprint: Fingerprint,
    /// The offset of its event.
    pub offset: u64,
    /// The time since which it is remembered.
    pub since: Instant,
}

impl MessageIds {
    /// Creates an empty set, which counts as a tenant of the budget.
    #[must_use]
    pub fn new(budget: Arc<MessageIdBudget>) -> Self {
        budget.tenants.fetch_add(1, Ordering::Relaxed);
        Self {
            queue: VecDeque::new(),
            numbers: HashTable::new(),
            first_number: 0,
            budget,
        }
    }

    /// Returns the number of remembered ids.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns true if no id is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns the remembered ids, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &RememberedId> {
        self.queue.iter()
    }

    /// Looks up the event's id.
    #[must_use]
    pub fn find(&self, fingerprint: &Fingerprint, now: Instant) -> Option<MessageIdMatch> {
        let is_it = |number: &u32| {
            self.get(*number).is_some_and(|known| {
                known.fingerprint.id == fingerprint.id && !self.is_expired(known, now)
            })
        };
        let number = self.numbers.find(hash_of(fingerprint), is_it)?;
        let known = self.get(*number)?;
        Some(if known.fingerprint.body == fingerprint.body {
            MessageIdMatch::Duplicate(known.offset)
        } else {
            MessageIdMatch::Conflict
        })
    }

    /// Remembers an id that is not known, and forgets old ones as needed to make room.
    pub fn remember(&mut self, fingerprint: Fingerprint, offset: u64, now: Instant) {
        let number = self.number_of(self.queue.len());
        self.queue.push_back(RememberedId {
            fingerprint,
            offset,
            since: now,
        });
        let (queue, first) = (&self.queue, self.first_number);
        let hash_of_number = |number: &u32| hash_in(queue, first, *number);
        self.numbers
            .insert_unique(hash_of(&fingerprint), number, hash_of_number);
        self.budget.ids.fetch_add(1, Ordering::Relaxed);
        self.make_room();
    }

    /// Ids stay until they are too old, unless a limit is exceeded. If that of the process is, a
    /// tenant forgets only ids above its share.
    fn make_room(&mut self) {
        while self.len() > self.budget.limits.count
            || (self.budget.is_exceeded() && self.len() > self.budget.fair_share())
        {
            self.forget_oldest(1);
        }
    }

    /// Forgets ids that are too old, at most `most`. Returns true if those were all.
    pub fn forget_expired(&mut self, now: Instant, most: usize) -> bool {
        let expired = self.queue.iter().take(most);
        let expired = expired.take_while(|known| self.is_expired(known, now));
        let count = expired.count();
        self.forget_oldest(count);
        count < most
    }

    /// Forgets the `count` oldest ids.
    pub fn forget_oldest(&mut self, count: usize) {
        for _ in 0..count {
            let Some(oldest) = self.queue.pop_front() else {
                return;
            };
            let number = self.first_number;
            self.first_number = number.wrapping_add(1);
            let entry = self
                .numbers
                .find_entry(hash_of(&oldest.fingerprint), |it| *it == number);
            if let Ok(entry) = entry {
                entry.remove();
            }
            self.budget.ids.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Releases memory if less than half of it is in use.
    pub fn shrink(&mut self) {
        let len = self.queue.len();
        if self.queue.capacity() > 2 * len {
            self.queue.shrink_to(len);
            let (queue, first) = (&self.queue, self.first_number);
            self.numbers
                .shrink_to(len, |number| hash_in(queue, first, *number));
        }
    }

    fn get(&self, number: u32) -> Option<&RememberedId> {
        get(&self.queue, self.first_number, number)
    }

    /// Returns the number of the entry at this index of the queue.
    fn number_of(&self, place: usize) -> u32 {
        // The count is bounded, so a queue has fewer entries than there are numbers.
        self.first_number
            .wrapping_add(u32::try_from(place).unwrap_or(u32::MAX))
    }

    fn is_expired(&self, known: &RememberedId, now: Instant) -> bool {
        now.saturating_duration_since(known.since) >= self.budget.limits.age
    }
}

impl Drop for MessageIds {
    fn drop(&mut self) {
        self.budget.ids.fetch_sub(self.len(), Ordering::Relaxed);
        self.budget.tenants.fetch_sub(1, Ordering::Relaxed);
    }
}

fn get(queue: &VecDeque<RememberedId>, first_number: u32, number: u32) -> Option<&RememberedId> {
    queue.get(usize::try_from(number.wrapping_sub(first_number)).ok()?)
}

/// The id is a keyed hash already.
fn hash_of(fingerprint: &Fingerprint) -> u64 {
    fingerprint
        .id
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn hash_in(queue: &VecDeque<RememberedId>, first_number: u32, number: u32) -> u64 {
    get(queue, first_number, number).map_or(0, |known| hash_of(&known.fingerprint))
}

#[cfg(test)]
mod tests;
