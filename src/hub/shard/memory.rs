//! A shard's part in keeping the process within its memory limits.

use std::{cmp::Reverse, rc::Rc, time::Duration};

use sidewire_protocol::close::CloseReason;
use tokio::time::sleep;

use super::ShardHub;
use crate::{hub::relief::ReliefCandidate, memory::MemoryUse, outbox::Outbox};

/// Pause that gives other shards time to act before this one closes more connections for want of
/// memory.
const RELIEF_PAUSE: Duration = Duration::from_millis(1);

impl ShardHub {
    /// Closes connections for as long as memory is short. Across all shards, connections are
    /// closed in the order of their `ReliefCandidate`s.
    pub async fn relieve_memory(&self) {
        loop {
            self.relief.wait_for_request(self.id).await;
            self.announce_first();
            // Every shard must announce its first candidate before any is closed. And if nothing
            // can be closed, the memory belongs to events still being delivered, which must not
            // be delayed by this search.
            sleep(RELIEF_PAUSE).await;
            while self.registry.is_short_of_memory() && self.free_some_memory() {
                sleep(RELIEF_PAUSE).await;
            }
            self.relief.announce_none(self.id);
        }
    }

    /// Announces to the other shards what this one would close first.
    fn announce_first(&self) {
        let candidates = self.relief_candidates();
        if let Some(first) = candidates.iter().map(|(candidate, _)| *candidate).min() {
            self.relief.announce_candidate(self.id, first);
        }
    }

    /// Closes the connections that come before all candidates of other shards. Returns true if
    /// this shard has any candidate.
    fn free_some_memory(&self) -> bool {
        let mut candidates = self.relief_candidates();
        candidates.sort_by_key(|(candidate, _)| *candidate);
        for (candidate, outbox) in &candidates {
            if !self.is_relief_needed(*candidate) {
                continue;
            }
            if !self.relief.announce_candidate(self.id, *candidate) {
                break;
            }
            self.close_candidate(*candidate, outbox);
        }
        !candidates.is_empty()
    }

    /// Returns true if the kind of memory that closing this candidate frees is short.
    fn is_relief_needed(&self, candidate: ReliefCandidate) -> bool {
        let memory = self.memory();
        match candidate {
            ReliefCandidate::OldEvent(_) => memory.is_exceeded(),
            ReliefCandidate::BegunMessage(_) => memory.is_overdrawn(MemoryUse::BegunMessages),
            ReliefCandidate::Poll(_) | ReliefCandidate::Subscriptions(_) => {
                memory.is_overdrawn(MemoryUse::Subscriptions)
            }
        }
    }

    /// Closes the connection. The memory that it holds is released from the account at once, so
    /// that no more connections are closed than necessary.
    fn close_candidate(&self, candidate: ReliefCandidate, outbox: &Outbox) {
        match candidate {
            ReliefCandidate::OldEvent(_) => {}
            ReliefCandidate::BegunMessage(_) => {
                self.begun_messages.close_oldest();
            }
            ReliefCandidate::Poll(_) | ReliefCandidate::Subscriptions(_) => {
                let bytes = outbox.release_subscriptions(usize::MAX);
                self.memory().release(MemoryUse::Subscriptions, bytes);
            }
        }
        let events = outbox.end_and_discard(CloseReason::NoMemory);
        self.tally.dropped_slow.add(events);
        self.tally.queued.sub(events);
    }

    /// Returns the connections on this shard that could be closed to free memory.
    fn relief_candidates(&self) -> Vec<(ReliefCandidate, Rc<Outbox>)> {
        let is_exceeded = self.memory().is_exceeded();
        let closes_subscribers = self.memory().is_overdrawn(MemoryUse::Subscriptions);
        let mut candidates = Vec::new();
        if self.memory().is_overdrawn(MemoryUse::BegunMessages) {
            let begun = self.begun_messages.by_age();
            let begun = begun.into_iter();
            candidates
                .extend(begun.map(|(at, outbox)| (ReliefCandidate::BegunMessage(at), outbox)));
        }
        for here in self.tenants.borrow().values() {
            let tail = here.tenant.tail();
            here.index.borrow().for_each_connection(|outbox| {
                if outbox.signals().ending().is_some() {
                    return;
                }
                // An event that only the outbox holds: it has left the log, or is queued as JSON.
                let oldest = outbox.oldest_event().filter(|_| is_exceeded);
                if let Some(oldest) = oldest
                    && (!oldest.is_in_log || oldest.offset <= tail.offset)
                {
                    let candidate = ReliefCandidate::OldEvent(oldest.placed);
                    candidates.push((candidate, Rc::clone(outbox)));
                }
                let bytes = outbox.subscription_bytes();
                if closes_subscribers && bytes > 0 {
                    // A poll is soon over anyway, and its client has nothing to set up again.
                    let candidate = match outbox.takes_stored_only() {
                        true => ReliefCandidate::Poll(Reverse(bytes)),
                        false => ReliefCandidate::Subscriptions(Reverse(bytes)),
                    };
                    candidates.push((candidate, Rc::clone(outbox)));
                }
            });
        }
        candidates
    }
}
