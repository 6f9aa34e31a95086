//! A shard's part in keeping the process within its memory.

use std::{rc::Rc, time::Duration};

use tokio::time::{Instant, sleep};

use super::ShardHub;
use crate::{outbox::Outbox, protocol::close::Ending};

/// How long a shard lets the others have their turn before it closes more
/// connections for want of memory.
const RELIEF_PAUSE: Duration = Duration::from_millis(1);

impl ShardHub {
    /// Closes connections for as long as the events take more memory than they may:
    /// first the one that has waited longest, of all shards, to write an event that
    /// no log holds. To close another would free nothing.
    pub async fn relieve_memory(&self) {
        loop {
            self.relief.asked(self.id).await;
            self.tell_oldest();
            // All tell first. And where nothing can be closed, what takes the memory is
            // on its way, and not to be kept waiting by looking for it.
            sleep(RELIEF_PAUSE).await;
            while self.registry.is_over_memory() && self.free_some_memory() {
                sleep(RELIEF_PAUSE).await;
            }
            self.relief.has_nothing(self.id);
        }
    }

    /// Tells the other shards the age of what this one would close first.
    fn tell_oldest(&self) {
        let holders = self.holders_of_old_events();
        if let Some(oldest) = holders.iter().map(|(placed, _)| *placed).min() {
            self.relief.is_oldest(self.id, oldest);
        }
    }

    /// Closes what is the oldest of all shards'; whether there is anything here that
    /// could be closed.
    fn free_some_memory(&self) -> bool {
        let mut holders = self.holders_of_old_events();
        holders.sort_by_key(|(placed, _)| *placed);
        for (placed, outbox) in &holders {
            if !self.registry.is_over_memory() || !self.relief.is_oldest(self.id, *placed) {
                break;
            }
            let events = outbox.end_and_discard(Ending::NoMemory);
            self.tally.dropped_slow.add(events);
            self.tally.queued.sub(events);
        }
        !holders.is_empty()
    }

    /// The outboxes whose oldest event has left the log, or waits as JSON, which no log
    /// holds; with the time when it was placed.
    fn holders_of_old_events(&self) -> Vec<(Instant, Rc<Outbox>)> {
        let mut holders = Vec::new();
        for here in self.tenants.borrow().values() {
            let tail = here.tenant.tail();
            here.index.borrow().for_each_connection(|outbox| {
                if let Some(oldest) = outbox.oldest_event()
                    && (oldest.is_json || oldest.offset <= tail.offset)
                    && outbox.ending().is_none()
                {
                    holders.push((oldest.placed, Rc::clone(outbox)));
                }
            });
        }
        holders
    }
}
