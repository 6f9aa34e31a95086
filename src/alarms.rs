//! The alarm clock of a shard: one timer serves the deadlines of all its connections, each of
//! which has at most one alarm set. Knows nothing of what the deadlines are for.

use std::{cell::RefCell, collections::BTreeMap, future::pending, rc::Rc};

use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, sleep_until},
};

use crate::outbox::Outbox;

/// Maximum number of alarms that ring in one turn. Each may end a connection, which takes 20 to
/// 30 µs.
const RUNG_AT_ONCE_MAX: usize = 16;

/// The time at which an alarm rings, and a number that distinguishes alarms set for the same
/// time.
type AlarmKey = (Instant, u64);

/// The alarms that are set on a shard. A tokio timer for each connection would take three times
/// the memory, and would be polled whenever the connection is woken to write.
#[derive(Debug, Default)]
pub struct Alarms {
    set: RefCell<AlarmQueue>,
    /// Notified when an alarm is set that is earlier than all others.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct AlarmQueue {
    alarms: BTreeMap<AlarmKey, Rc<Outbox>>,
    last: u64,
}

/// A set alarm. Dropping it cancels it.
#[derive(Debug)]
pub struct Alarm {
    alarms: Rc<Alarms>,
    key: AlarmKey,
}

impl Alarms {
    /// Rings alarms forever. If many are due at the same time, it yields to other tasks between
    /// batches.
    pub async fn run(&self) {
        loop {
            match self.next_deadline() {
                Some(next) if next <= Instant::now() => {
                    self.ring_due(Instant::now());
                    yield_now().await;
                }
                next => self.wait_until(next).await,
            }
        }
    }

    /// Waits until `next`, or until an alarm is set that is earlier than all others.
    async fn wait_until(&self, next: Option<Instant>) {
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

    /// Sets an alarm that [rings](crate::outbox::ConnectionSignals::ring_alarm) the connection of
    /// this outbox at that time.
    pub(super) fn set_alarm(self: &Rc<Self>, at: Instant, outbox: &Rc<Outbox>) -> Alarm {
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

    /// Returns the time of the earliest alarm.
    fn next_deadline(&self) -> Option<Instant> {
        let set = self.set.borrow();
        set.alarms.keys().next().map(|(at, _)| *at)
    }

    /// Rings some of the alarms that are due at `now`, the earliest first.
    fn ring_due(&self, now: Instant) {
        let mut set = self.set.borrow_mut();
        for _ in 0..RUNG_AT_ONCE_MAX {
            match set.alarms.first_entry() {
                Some(first) if first.key().0 <= now => first.remove().signals().ring_alarm(),
                _ => break,
            }
        }
    }
}

impl Alarm {
    /// The time at which it rings.
    pub(super) fn deadline(&self) -> Instant {
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
    async fn only_some_of_the_alarms_due_at_the_same_time_ring_at_once() {
        LocalSet::new()
            .run_until(async {
                let alarms = Rc::new(Alarms::default());
                let clock = Rc::clone(&alarms);
                spawn_local(async move { clock.run().await });
                let pool = OutboxPool::new(OutboxLimits {
                    frames: 1,
                    bytes: 1,
                });
                let at = Instant::now() + Duration::from_secs(1);
                let outboxes: Vec<_> = (0..1000).map(|_| Rc::new(Outbox::new(&pool))).collect();
                let _set: Vec<_> = outboxes.iter().map(|it| alarms.set_alarm(at, it)).collect();
                advance(Duration::from_secs(1)).await;
                let mut rung = 0;
                while rung < outboxes.len() {
                    let now = outboxes
                        .iter()
                        .filter(|it| it.signals().take_alarm())
                        .count();
                    assert!(now <= RUNG_AT_ONCE_MAX, "{now}");
                    rung += now;
                    yield_now().await;
                }
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_alarm_rings_at_its_time_whatever_the_order_of_setting() {
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
                let _a = alarms.set_alarm(start + 3 * second, &a);
                yield_now().await;
                let _b = alarms.set_alarm(start + second, &b);
                let dropped = alarms.set_alarm(start + second, &c);
                yield_now().await;
                drop(dropped);
                let mut rung = Vec::new();
                for _ in 0..4 {
                    rung.push([&a, &b, &c].map(|outbox| outbox.signals().take_alarm()));
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
