//! Wiring: listeners, shards, and how they begin and end. Knows no details of any
//! of them.

mod accept;
mod handshakes;
mod inherited;
mod key_sets;
mod listener;
mod listeners;
mod parts;
mod reload;
mod shards;
mod turned_away;
mod unix_socket;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{ConfigError, Listen},
    hub::Registry,
    limits::Sockets,
    ops::{self, Health, Listening, Ops},
    relay::Relay,
    repeated,
    setup::Setup,
};
use accept::{AcceptBackends, AcceptClients, serve_ops};
use handshakes::Handshakes;
use key_sets::KeySets;
use listeners::Listeners;
use parts::{Parts, room};
use shards::Shards;

pub use inherited::{InheritError, Inherited};

/// How often what is too old is looked for in the tenants' logs, and what is full again
/// among the buckets of the limits.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// How long is waited in the end for the first request of who was accepted by then.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_millis(500);

/// How long calls that are under way when the end begins may take, before the
/// clients are told all the same.
const CALLS_TIMEOUT: Duration = Duration::from_secs(5);

/// Which of the listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerName {
    /// Of the WebSocket clients.
    Client,
    /// Of the backends.
    Ingest,
    /// For metrics and health.
    Ops,
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Ingest => "ingest",
            Self::Ops => "ops",
        })
    }
}

/// Why a relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be opened.
    #[error("cannot listen on {address} ({listener}.listen): {source}")]
    Listen {
        /// Which.
        listener: ListenerName,
        /// Where.
        address: Listen,
        /// What the system says.
        source: io::Error,
    },
    /// A socket that was handed over is not where the configuration allows one.
    #[error("the sockets that were handed over are none for this configuration:\n{0}")]
    Inherited(ConfigError),
    /// A thread could not be started.
    #[error("cannot start a shard: {0}")]
    Shard(io::Error),
    /// The system has no randomness.
    #[error("cannot get random numbers from the system: {0}")]
    Random(#[from] getrandom::Error),
}

/// A relay that runs. Its listeners are served by tasks of the runtime on which it
/// was started, its connections by threads of its own.
#[derive(Debug)]
pub struct Server {
    relay: Arc<Relay>,
    health: Arc<Health>,
    shards: Arc<Shards>,
    sockets: Arc<Sockets>,
    key_sets: KeySets,
    tasks: JoinSet<()>,
    /// Cancelled when nothing is to be accepted any more from sockets that whoever
    /// started the relay holds too: the kernel keeps what comes for the next one.
    handed_back: CancellationToken,
    /// Whether there are such sockets.
    is_handed_over: bool,
    addresses: Addresses,
}

/// Where a relay listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// For WebSocket clients.
    pub client: SocketAddr,
    /// For backends.
    pub ingest: Listen,
    /// For metrics and health.
    pub ops: Listen,
}

impl Server {
    /// Opens the listeners and starts the shards.
    ///
    /// # Errors
    ///
    /// When one of them cannot be.
    pub fn start(setup: Setup) -> Result<Self, StartError> {
        Self::start_with(setup, Inherited::default())
    }

    /// The same with the sockets that are there already; the others are opened.
    ///
    /// # Errors
    ///
    /// As for [`Self::start`], and when a socket is not where the configuration allows
    /// one.
    pub fn start_with(setup: Setup, inherited: Inherited) -> Result<Self, StartError> {
        ops::watch_panics();
        let room = room(&setup.live.config);
        let sockets = Sockets::new(room);
        let is_handed_over = [inherited.client.is_some(), inherited.ingest.is_some()];
        let listeners = Listeners::open(&setup, inherited)?;
        let addresses = listeners.addresses.clone();
        let handed_back = CancellationToken::new();
        // A socket of our own is accepted from to the end: who comes is told when to
        // come back. (Nobody ever cancels the other token.)
        let [client_stop, ingest_stop] = is_handed_over.map(|is_handed_over| {
            if is_handed_over {
                handed_back.clone()
            } else {
                CancellationToken::new()
            }
        });

        let Parts {
            relay,
            registry,
            tallies,
            seeds,
        } = Parts::make(setup)?;
        let shards = Arc::new(Shards::start(&relay, seeds).map_err(StartError::Shard)?);

        let health = Arc::new(Health::new(Arc::clone(&relay)));
        let ops = Ops::new(
            Arc::clone(&relay),
            tallies,
            Arc::clone(&registry),
            Arc::clone(&health),
        );
        let ops = Arc::new(ops);
        let mut key_sets = KeySets::default();
        key_sets.follow(&relay, &shards);

        let mut tasks = JoinSet::new();
        let accepting = AcceptClients {
            listener: listeners.client,
            stop: client_stop,
            handshakes: Handshakes::new(room.clients),
            sockets: sockets.clone(),
            relay: relay.clone(),
            shards: shards.clone(),
        };
        tasks.spawn(listen(health.listening(), accepting.run()));
        let accepting = AcceptBackends {
            listener: listeners.ingest,
            stop: ingest_stop,
            sockets: sockets.clone(),
            relay: relay.clone(),
            shards: shards.clone(),
        };
        tasks.spawn(listen(health.listening(), accepting.run()));
        let serving = serve_ops(listeners.ops, sockets.clone(), relay.clone(), ops);
        tasks.spawn(serving);
        tasks.spawn(sweep(registry, relay.clone()));
        tasks.spawn(become_ready(shards.clone(), health.clone()));
        tasks.spawn(watch(health.clone()));
        tasks.spawn(repeated::report());
        Ok(Self {
            relay,
            health,
            shards,
            sockets,
            key_sets,
            tasks,
            handed_back,
            is_handed_over: is_handed_over.contains(&true),
            addresses,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Waits until it takes what comes.
    pub async fn ready(&self) {
        self.health.running().await;
    }

    /// Waits for ever, unless a part of the relay fails without which it cannot go
    /// on.
    pub async fn failed(&self) {
        self.shards.failed().await;
    }

    /// Ends the relay: nothing new is taken, the calls under way are answered,
    /// what is queued is written, and every connection is closed; at the latest
    /// when the configured time is over. Whether all of it came to its end.
    pub async fn drain(mut self) -> bool {
        let began = Instant::now();
        if self.is_handed_over {
            self.handed_back.cancel();
            tracing::info!("what comes by inherited sockets now is left to the next relay");
        }
        let timeout = self.relay.live().config.client.drain_timeout;
        self.relay.draining.store(true, Ordering::Release);
        self.health.set_draining();
        self.relay.calls.close();
        // A call that hangs must not keep the clients from being told.
        let calls_end = began + (timeout / 2).min(CALLS_TIMEOUT);
        let answered = timeout_at(calls_end, self.relay.calls.wait()).await.is_ok();
        let closed = timeout_at(began + timeout, self.shards.drain(&self.relay.clients))
            .await
            .is_ok();
        self.key_sets.stop().await;
        self.tasks.shutdown().await;
        // Who was accepted in the last moment is told to come back, if it asks soon.
        let last = (began + timeout).min(Instant::now() + LAST_ANSWERS_TIMEOUT);
        drop(timeout_at(last, self.sockets.answered()).await);
        // A shard that has not come to its end is not waited for: the process's end
        // is its end too.
        let drained = answered && closed;
        if let Some(shards) = Arc::into_inner(self.shards).filter(|_| drained) {
            shards.stop();
        }
        drained
    }
}

/// The relay is not ready when one of its listeners is gone.
async fn listen(listening: Listening, accepting: impl Future<Output = ()>) {
    accepting.await;
    drop(listening);
}

async fn become_ready(shards: Arc<Shards>, health: Arc<Health>) {
    shards.up().await;
    health.set_running();
}

/// Has systemd know that the shards answer.
async fn watch(health: Arc<Health>) {
    let is_well = || async { health.shards_answer().await };
    ops::feed_watchdog(is_well).await;
}

async fn sweep(registry: Arc<Registry>, relay: Arc<Relay>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        registry.sweep(now);
        relay.limits.sweep();
    }
}
