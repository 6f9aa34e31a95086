//! A shard's part in keeping the process within its memory.

use std::{cmp::Reverse, rc::Rc, time::Duration};

use tokio::time::sleep;

use super::ShardHub;
use crate::{hub::relief::Candidate, memory::MemoryUse, outbox::Outbox, protocol::close::Ending};

/// How long a shard lets the others have their turn before it closes more
/// connections for want of memory.
const RELIEF_PAUSE: Duration = Duration::from_millis(1);

impl ShardHub {
    /// Closes connections for as long as more memory is held than may be, of all shards'
    /// those first that come first as `Candidate`s.
    pub async fn relieve_memory(&self) {
        loop {
            self.relief.asked(self.id).await;
            self.tell_first();
            // All tell first. And where nothing can be closed, what takes the memory is
            // on its way, and not to be kept waiting by looking for it.
            sleep(RELIEF_PAUSE).await;
            while self.registry.is_short_of_memory() && self.free_some_memory() {
                sleep(RELIEF_PAUSE).await;
            }
            self.relief.has_nothing(self.id);
        }
    }

    /// Tells the other shards what this one would close first.
    fn tell_first(&self) {
        let candidates = self.candidates();
        if let Some(first) = candidates.iter().map(|(candidate, _)| *candidate).min() {
            self.relief.is_first(self.id, first);
        }
    }

    /// Closes what comes before all that other shards would close. Returns true if there
    /// is anything here that could be closed.
    fn free_some_memory(&self) -> bool {
        let mut candidates = self.candidates();
        candidates.sort_by_key(|(candidate, _)| *candidate);
        for (candidate, outbox) in &candidates {
            if !self.is_to_be_freed(*candidate) {
                continue;
            }
            if !self.relief.is_first(self.id, *candidate) {
                break;
            }
            self.free(*candidate, outbox);
        }
        !candidates.is_empty()
    }

    /// Returns true if memory is short of what closing such a candidate frees.
    fn is_to_be_freed(&self, candidate: Candidate) -> bool {
        let memory = self.memory();
        match candidate {
            Candidate::OldEvent(_) => memory.is_exceeded(),
            Candidate::BegunMessage(_) => memory.is_overdrawn(MemoryUse::BegunMessages),
            Candidate::Subscriptions(_) => memory.is_overdrawn(MemoryUse::Subscriptions),
        }
    }

    /// Closes the connection. What it holds is off the account at once, so that no more
    /// are closed than have to be.
    fn free(&self, candidate: Candidate, outbox: &Outbox) {
        match candidate {
            Candidate::OldEvent(_) => {}
            Candidate::BegunMessage(_) => {
                self.begun_messages.close_oldest();
            }
            Candidate::Subscriptions(_) => {
                let bytes = outbox.release_subscriptions(usize::MAX);
                self.memory().release(MemoryUse::Subscriptions, bytes);
            }
        }
        let events = outbox.end_and_discard(Ending::NoMemory);
        self.tally.dropped_slow.add(events);
        self.tally.queued.sub(events);
    }

    /// The connections here that could be closed for want of memory.
    fn candidates(&self) -> Vec<(Candidate, Rc<Outbox>)> {
        let is_exceeded = self.memory().is_exceeded();
        let closes_subscribers = self.memory().is_overdrawn(MemoryUse::Subscriptions);
        let mut candidates = Vec::new();
        if self.memory().is_overdrawn(MemoryUse::BegunMessages) {
            let begun = self.begun_messages.by_age();
            let begun = begun.into_iter();
            candidates.extend(begun.map(|(at, outbox)| (Candidate::BegunMessage(at), outbox)));
        }
        for here in self.tenants.borrow().values() {
            let tail = here.tenant.tail();
            here.index.borrow().for_each_connection(|outbox| {
                if outbox.ending().is_some() {
                    return;
                }
                // One that no log holds: it has left the log, or waits as JSON.
                let oldest = outbox.oldest_event().filter(|_| is_exceeded);
                if let Some(oldest) = oldest
                    && (oldest.is_json || oldest.offset <= tail.offset)
                {
                    let candidate = Candidate::OldEvent(oldest.placed);
                    candidates.push((candidate, Rc::clone(outbox)));
                }
                let bytes = outbox.subscriptions();
                if closes_subscribers && bytes > 0 {
                    let candidate = Candidate::Subscriptions(Reverse(bytes));
                    candidates.push((candidate, Rc::clone(outbox)));
                }
            });
        }
        candidates
    }
}
