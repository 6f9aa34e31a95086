//! Readiness of the relay and the check for systemd's watchdog, determined by asking the shards
//! themselves. Knows nothing about HTTP.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

use crate::{hub::SHARD_TIMEOUT, relay::Relay};

/// Result of a check that passes.
const OK: &str = "ok";

/// Phase of the relay's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HealthPhase {
    /// Some part does not run yet.
    Starting,
    /// All parts run.
    Running,
    /// The relay is shutting down.
    Draining,
}

/// Names and results of the checks. A result is `ok` or a description of the fault.
pub(super) type HealthChecks = [(&'static str, String); 5];

/// The health of one relay.
#[derive(Debug)]
pub struct Health {
    relay: Arc<Relay>,
    phase: watch::Sender<HealthPhase>,
    /// Number of listeners that accept connections now.
    listening: AtomicUsize,
    /// Number of listeners that have begun to, and should still.
    listeners: AtomicUsize,
}

/// Marks a listener as accepting connections until it is dropped.
#[derive(Debug)]
pub struct ListeningGuard(Arc<Health>);

impl Drop for ListeningGuard {
    fn drop(&mut self) {
        self.0.listening.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Health {
    /// Creates the health of a relay that is starting.
    #[must_use]
    pub fn new(relay: Arc<Relay>) -> Self {
        Self {
            relay,
            phase: watch::Sender::new(HealthPhase::Starting),
            listening: AtomicUsize::new(0),
            listeners: AtomicUsize::new(0),
        }
    }

    /// Registers a listener that accepts connections from now on.
    #[must_use]
    pub fn register_listener(self: &Arc<Self>) -> ListeningGuard {
        self.listening.fetch_add(1, Ordering::AcqRel);
        self.listeners.fetch_add(1, Ordering::AcqRel);
        ListeningGuard(Arc::clone(self))
    }

    /// Marks the relay as running, unless it is draining already.
    pub fn set_running(&self) {
        self.phase.send_if_modified(|now| {
            let is_starting = *now == HealthPhase::Starting;
            if is_starting {
                *now = HealthPhase::Running;
            }
            is_starting
        });
    }

    /// Marks the relay as shutting down.
    pub fn set_draining(&self) {
        self.phase.send_replace(HealthPhase::Draining);
    }

    /// Waits until all parts run.
    pub async fn wait_until_running(&self) {
        let mut phase = self.phase.subscribe();
        // Fails only if the sender is dropped, and `self` holds it.
        drop(phase.wait_for(|now| *now == HealthPhase::Running).await);
    }

    /// Returns true if each shard answers in time.
    pub async fn shards_answer(&self) -> bool {
        self.relay
            .publisher
            .admin()
            .ping(SHARD_TIMEOUT)
            .await
            .is_ok()
    }

    /// Runs all checks.
    pub(super) async fn run_checks(&self) -> HealthChecks {
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
                when(phase == HealthPhase::Starting, "the relay is starting"),
            ),
            (
                "drain",
                when(phase == HealthPhase::Draining, "the relay is shutting down"),
            ),
            (
                "listeners",
                check(
                    (listening < listeners).then(|| {
                        format!("{listening} of {listeners} listeners accept connections")
                    }),
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

/// Returns the results of the checks that failed.
pub(super) fn failed_checks(checks: &HealthChecks) -> impl Iterator<Item = &str> {
    let found = checks.iter().map(|(_, found)| found.as_str());
    found.filter(|found| *found != OK)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::{task::spawn_local, time::Instant};

    use super::*;
    use crate::connection::testing::{ConnectionFixture, simulate};

    async fn wrong(health: &Health) -> Vec<(&'static str, String)> {
        let checks = health.run_checks().await;
        checks
            .into_iter()
            .filter(|(_, found)| found != OK)
            .collect()
    }

    #[test]
    fn a_relay_is_ready_when_its_shards_answer_and_not_before() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let health = Arc::new(Health::new(Arc::clone(&fixture.shard.relay)));
            let listening = health.register_listener();
            health.set_running();
            // No task answers the shard's calls, as if it were stuck.
            let began = Instant::now();
            let silent = [("shards", "shard 0 does not answer".to_owned())];
            assert_eq!(wrong(&health).await, silent);
            assert_eq!(began.elapsed(), SHARD_TIMEOUT);
            assert!(!health.shards_answer().await);

            let hub = Rc::clone(&fixture.shard.hub);
            spawn_local(async move { hub.answer_calls().await });
            assert_eq!(wrong(&health).await, []);
            assert!(health.shards_answer().await);
            drop(listening);
            let deaf = "0 of 1 listeners accept connections".to_owned();
            assert_eq!(wrong(&health).await, [("listeners", deaf)]);
        });
    }

    #[test]
    fn a_drain_that_begins_before_the_start_is_over_is_reported() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let hub = Rc::clone(&fixture.shard.hub);
            spawn_local(async move { hub.answer_calls().await });
            let health = Health::new(Arc::clone(&fixture.shard.relay));
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
