//! The alarm clock of a shard: one timer for the deadlines of all its connections,
//! of which each has at most one set. Knows no deadlines.

use std::{cell::RefCell, collections::BTreeMap, future::pending, rc::Rc};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::outbox::Outbox;

/// When an alarm rings, and which of those that ring then it is.
type Key = (Instant, u64);

/// The alarms that are set on one shard. A tokio timer each would be three times
/// the memory, and would be looked at by every connection that is woken to write.
#[derive(Debug, Default)]
pub struct Alarms {
    set: RefCell<Set>,
    /// Told when an alarm is set that rings before all others.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Set {
    alarms: BTreeMap<Key, Rc<Outbox>>,
    last: u64,
}

/// An alarm that is set. Dropped, it does not ring.
#[derive(Debug)]
pub(super) struct Alarm {
    alarms: Rc<Alarms>,
    key: Key,
}

impl Alarms {
    /// Rings for ever.
    pub async fn run(&self) {
        loop {
            let next = self.ring_until(Instant::now());
            let rest = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.sooner.notified() => {}
                () = rest => {}
            }
        }
    }

    /// Has the connection of this outbox [rung](Outbox::ring) at that time.
    pub(super) fn set(self: &Rc<Self>, at: Instant, outbox: &Rc<Outbox>) -> Alarm {
        let mut set = self.set.borrow_mut();
        set.last += 1;
        let key = (at, set.last);
        set.alarms.insert(key, Rc::clone(outbox));
        if set.alarms.first_key_value().map(|(first, _)| *first) == Some(key) {
            self.sooner.notify_one();
        }
        Alarm {
            alarms: Rc::clone(self),
            key,
        }
    }

    /// Rings what is set up to `now`, and gives when the next rings.
    fn ring_until(&self, now: Instant) -> Option<Instant> {
        let mut set = self.set.borrow_mut();
        while let Some(first) = set.alarms.first_entry() {
            let at = first.key().0;
            if at > now {
                return Some(at);
            }
            first.remove().ring();
        }
        None
    }
}

impl Alarm {
    /// When it rings.
    pub(super) fn at(&self) -> Instant {
        self.key.0
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.alarms.set.borrow_mut().alarms.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        task::{LocalSet, spawn_local, yield_now},
        time::advance,
    };

    use super::*;
    use crate::outbox::{OutboxLimits, OutboxPool};

    #[tokio::test(start_paused = true)]
    async fn each_rings_at_its_time_whatever_the_order_in_which_they_are_set() {
        LocalSet::new()
            .run_until(async {
                let alarms = Rc::new(Alarms::default());
                let clock = Rc::clone(&alarms);
                spawn_local(async move { clock.run().await });
                let limits = OutboxLimits {
                    frames: 1,
                    bytes: 1,
                };
                let pool = OutboxPool::new(limits);
                let [a, b, c] = [(); 3].map(|()| Rc::new(Outbox::new(&pool)));
                let start = Instant::now();
                let second = Duration::from_secs(1);
                let _a = alarms.set(start + 3 * second, &a);
                yield_now().await;
                let _b = alarms.set(start + second, &b);
                let dropped = alarms.set(start + second, &c);
                yield_now().await;
                drop(dropped);
                let mut rung = Vec::new();
                for _ in 0..4 {
                    rung.push([&a, &b, &c].map(|outbox| outbox.take_rung()));
                    advance(second).await;
                    yield_now().await;
                }
                let (none, only_a, only_b) = (
                    [false, false, false],
                    [true, false, false],
                    [false, true, false],
                );
                assert_eq!(rung, [none, only_b, none, only_a]);
                assert!(alarms.set.borrow().alarms.is_empty());
            })
            .await;
    }
}
