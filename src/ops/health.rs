//! Whether the relay should get traffic: asked of the shards themselves, not of what
//! somebody has noted. Knows no HTTP.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use crate::relay::Relay;

/// How long a shard may take to answer.
pub const SHARD_TIMEOUT: Duration = Duration::from_secs(1);

/// What a check says that has found nothing wrong.
const OK: &str = "ok";

/// How far the relay has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not everything runs yet.
    Starting,
    /// It takes what comes.
    Running,
    /// It is shutting down.
    Draining,
}

/// What is looked at, and what was found: `ok`, or what is wrong.
pub(super) type Checks = [(&'static str, String); 5];

/// The health of one relay.
#[derive(Debug)]
pub struct Health {
    relay: Arc<Relay>,
    phase: watch::Sender<Phase>,
    /// How many of the listeners take connections, and how many should: all that have
    /// begun to.
    listening: AtomicUsize,
    listeners: AtomicUsize,
}

/// A listener that takes connections, for as long as this is held.
#[derive(Debug)]
pub struct Listening(Arc<Health>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.listening.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Health {
    /// Of a relay that is starting.
    #[must_use]
    pub fn new(relay: Arc<Relay>) -> Self {
        Self {
            relay,
            phase: watch::Sender::new(Phase::Starting),
            listening: AtomicUsize::new(0),
            listeners: AtomicUsize::new(0),
        }
    }

    /// A listener takes connections from now on.
    #[must_use]
    pub fn listening(self: &Arc<Self>) -> Listening {
        self.listening.fetch_add(1, Ordering::AcqRel);
        self.listeners.fetch_add(1, Ordering::AcqRel);
        Listening(Arc::clone(self))
    }

    /// Everything runs, unless the end has begun already.
    pub fn set_running(&self) {
        self.phase.send_if_modified(|now| {
            let is_starting = *now == Phase::Starting;
            if is_starting {
                *now = Phase::Running;
            }
            is_starting
        });
    }

    /// The end has begun.
    pub fn set_draining(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Waits until everything runs.
    pub async fn running(&self) {
        let mut phase = self.phase.subscribe();
        // It fails only without a sender, and here is one.
        drop(phase.wait_for(|now| *now == Phase::Running).await);
    }

    /// Whether each shard answers in time.
    pub async fn shards_answer(&self) -> bool {
        self.relay
            .publisher
            .admin()
            .ping(SHARD_TIMEOUT)
            .await
            .is_ok()
    }

    /// Looks at everything.
    pub(super) async fn checks(&self) -> Checks {
        let shards = self.relay.publisher.admin().ping(SHARD_TIMEOUT).await;
        let phase = *self.phase.borrow();
        let listeners = self.listeners.load(Ordering::Acquire);
        let listening = self.listening.load(Ordering::Acquire);
        let has_no_key = self.relay.live().authenticator.has_no_key();
        let check = |wrong: Option<String>| wrong.unwrap_or_else(|| OK.to_owned());
        let when = |is: bool, wrong: &str| check(is.then(|| wrong.to_owned()));
        [
            (
                "start",
                when(phase == Phase::Starting, "the relay is starting"),
            ),
            (
                "drain",
                when(phase == Phase::Draining, "the relay is shutting down"),
            ),
            (
                "listeners",
                check(
                    (listening < listeners)
                        .then(|| format!("{listening} of {listeners} listeners take connections")),
                ),
            ),
            (
                "shards",
                check(shards.err().map(|silent| silent.to_string())),
            ),
            (
                "keys",
                when(
                    has_no_key,
                    "no key set has been fetched yet, so no token can be verified",
                ),
            ),
        ]
    }
}

/// What is wrong, where something is.
pub(super) fn faults(checks: &Checks) -> impl Iterator<Item = &str> {
    let found = checks.iter().map(|(_, found)| found.as_str());
    found.filter(|found| *found != OK)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::{task::spawn_local, time::Instant};

    use super::*;
    use crate::connection::testing::{Bench, simulate};

    async fn wrong(health: &Health) -> Vec<(&'static str, String)> {
        let checks = health.checks().await;
        checks
            .into_iter()
            .filter(|(_, found)| found != OK)
            .collect()
    }

    #[test]
    fn a_relay_is_ready_when_its_shards_answer_and_not_before() {
        simulate(async {
            let bench = Bench::new();
            let health = Arc::new(Health::new(Arc::clone(&bench.shard.relay)));
            let listening = health.listening();
            health.set_running();
            // Nobody serves the shard's inbox: it is stuck.
            let began = Instant::now();
            let silent = [("shards", "shard 0 does not answer".to_owned())];
            assert_eq!(wrong(&health).await, silent);
            assert_eq!(began.elapsed(), SHARD_TIMEOUT);
            assert!(!health.shards_answer().await);

            let hub = Rc::clone(&bench.shard.hub);
            spawn_local(async move { hub.answer_calls().await });
            assert_eq!(wrong(&health).await, []);
            assert!(health.shards_answer().await);
            drop(listening);
            let deaf = "0 of 1 listeners take connections".to_owned();
            assert_eq!(wrong(&health).await, [("listeners", deaf)]);
        });
    }

    #[test]
    fn the_end_counts_even_where_the_start_is_not_over() {
        simulate(async {
            let bench = Bench::new();
            let hub = Rc::clone(&bench.shard.hub);
            spawn_local(async move { hub.answer_calls().await });
            let health = Health::new(Arc::clone(&bench.shard.relay));
            let names = |wrong: Vec<(&'static str, String)>| {
                wrong.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
            };
            assert_eq!(names(wrong(&health).await), ["start"]);
            health.set_draining();
            health.set_running();
            assert_eq!(names(wrong(&health).await), ["drain"]);
        });
    }
}
