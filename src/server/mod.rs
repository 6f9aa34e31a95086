//! Wiring: listeners, shards, and how they begin and end. Knows no details of any
//! of them.

mod listener;
mod shards;
mod turned_away;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper::StatusCode;
use rustix::process::{Resource, getrlimit};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    auth::Authenticator,
    clock::Clock,
    config::{Config, Listen},
    hub::{self, InboxLimits, PublishTimeouts, Registry, RegistryLimits},
    limits::{self, Limit, Limits, Sockets},
    log::{MessageIdLimits, Window},
    ops::{self, Metrics, Ops},
    random::Random,
    relay::Relay,
    setup::Setup,
    tally::Tally,
};
use listener::{Buffers, Listener};
use shards::{Peer, Shards};
use turned_away::TurnedAway;

/// How often what is too old is looked for in the tenants' logs, and what is full again
/// among the buckets of the limits.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

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
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
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
    ops: Arc<Ops>,
    shards: Arc<Shards>,
    tasks: JoinSet<()>,
    addresses: Addresses,
}

/// Where a relay listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For WebSocket clients.
    pub client: SocketAddr,
    /// For backends.
    pub ingest: SocketAddr,
    /// For metrics and health.
    pub ops: SocketAddr,
}

impl Server {
    /// Opens the listeners and starts the shards.
    ///
    /// # Errors
    ///
    /// When one of them cannot be.
    pub fn start(setup: Setup) -> Result<Self, StartError> {
        ops::watch_panics();
        let config = &setup.live.config;
        let sockets_max = sockets_max(config);
        let buffers = Buffers {
            send: config.client.send_buffer,
            receive: config.client.receive_buffer,
        };
        let client = bind(ListenerName::Client, config.client.listen, Some(buffers))?;
        let ingest = bind(ListenerName::Ingest, tcp(&config.ingest.listen), None)?;
        let ops_listener = bind(ListenerName::Ops, tcp(&config.ops.listen), None)?;
        let addresses = Addresses {
            client: client.address(),
            ingest: ingest.address(),
            ops: ops_listener.address(),
        };

        let random = Arc::new(Random::from_system()?);
        let registry = Arc::new(Registry::new(registry_limits(config), Arc::clone(&random)));
        let tallies: Vec<Arc<Tally>> = (0..shard_count(config)).map(|_| Arc::default()).collect();
        let timeouts = PublishTimeouts {
            inbox: config.ingest.inbox_timeout,
            ack: config.ingest.ack_timeout,
        };
        let (publisher, seeds) = hub::hub(&registry, timeouts, &tallies);
        let metrics = Arc::new(Metrics::new(
            matches!(setup.live.authenticator, Authenticator::Tokens(_)),
            !setup.live.ingest_keys.is_empty(),
        ));
        let ops = Arc::new(Ops::new(
            Arc::clone(&metrics),
            tallies,
            Arc::clone(&registry),
        ));
        let relay = Arc::new(Relay {
            limits: Limits::new(&setup.live.config),
            live: ArcSwap::from_pointee(setup.live),
            schema: setup.schema,
            publisher,
            clock: Clock::system(),
            random,
            metrics,
            draining: AtomicBool::new(false),
            calls: TaskTracker::new(),
            clients: TaskTracker::new(),
        });
        let shards = Arc::new(Shards::start(&relay, seeds).map_err(StartError::Shard)?);

        let mut tasks = JoinSet::new();
        let sockets = Sockets::new(sockets_max);
        tasks.spawn(accept_clients(
            client,
            sockets,
            relay.clone(),
            shards.clone(),
        ));
        tasks.spawn(accept_backends(ingest, relay.clone(), shards.clone()));
        tasks.spawn(serve_ops(ops_listener, relay.clone(), ops.clone()));
        tasks.spawn(sweep(registry, relay.clone()));
        tasks.spawn(become_ready(shards.clone(), ops.clone()));
        Ok(Self {
            relay,
            ops,
            shards,
            tasks,
            addresses,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until it takes what comes.
    pub async fn ready(&self) {
        self.ops.ready().await;
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
        let timeout = self.relay.live().config.client.drain_timeout;
        self.relay.draining.store(true, Ordering::Release);
        self.ops.set_draining();
        self.relay.calls.close();
        // A call that hangs must not keep the clients from being told.
        let calls_end = began + (timeout / 2).min(CALLS_TIMEOUT);
        let answered = timeout_at(calls_end, self.relay.calls.wait()).await.is_ok();
        let closed = timeout_at(began + timeout, self.shards.drain(&self.relay.clients))
            .await
            .is_ok();
        self.tasks.shutdown().await;
        // A shard that has not come to its end is not waited for: the process's end
        // is its end too.
        let drained = answered && closed;
        if let Some(shards) = Arc::into_inner(self.shards).filter(|_| drained) {
            shards.stop();
        }
        drained
    }
}

fn tcp(listen: &Listen) -> SocketAddr {
    listen
        .tcp()
        .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn bind(
    listener: ListenerName,
    address: SocketAddr,
    buffers: Option<Buffers>,
) -> Result<Listener, StartError> {
    Listener::bind(address, buffers).map_err(|source| StartError::Listen {
        listener,
        address,
        source,
    })
}

fn shard_count(config: &Config) -> usize {
    match config.limits.shards {
        0 => available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

fn registry_limits(config: &Config) -> RegistryLimits {
    RegistryLimits {
        tenants: config.limits.tenants,
        log_bytes: config.replay.process_bytes as u64,
        memory_bytes: config.limits.memory_max as u64,
        window: Window {
            events: if config.replay.enabled {
                config.replay.events
            } else {
                0
            },
            bytes: config.replay.bytes,
            age: config.replay.age,
        },
        inbox: InboxLimits::default(),
        message_ids: MessageIdLimits {
            age: config.ingest.message_id_age,
            count: config.ingest.message_ids_max,
            bytes: config.ingest.message_id_bytes_max,
        },
    }
}

/// How many sockets of clients the process's limit of descriptors leaves room for.
fn sockets_max(config: &Config) -> usize {
    let Some(descriptors) = getrlimit(Resource::Nofile).current else {
        return usize::MAX;
    };
    let count = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let clients = limits::client_sockets_max(count, shard_count(config));
    match config.limits.connections {
        Some(connections) if u64::from(connections.get()) > clients as u64 => tracing::warn!(
            descriptors,
            clients,
            connections,
            "the limit of descriptors leaves fewer connections of clients than limits.connections asks for"
        ),
        _ => tracing::info!(
            descriptors,
            clients,
            "the limit of descriptors bounds the connections of clients"
        ),
    }
    clients
}

async fn accept_clients(
    listener: Listener,
    sockets: Arc<Sockets>,
    relay: Arc<Relay>,
    shards: Arc<Shards>,
) {
    let mut turned_away = TurnedAway::default();
    loop {
        let (stream, peer) = listener
            .accept(|error| accept_failed(&relay.metrics, error))
            .await;
        match sockets.take() {
            Some(seat) => shards.assign(Peer::Client(peer, seat), stream).await,
            None => {
                relay.metrics.exceeded(Limit::Descriptors);
                relay
                    .metrics
                    .handshake_refused(StatusCode::SERVICE_UNAVAILABLE);
                turned_away.tell(stream, relay.retry_after());
            }
        }
    }
}

async fn accept_backends(listener: Listener, relay: Arc<Relay>, shards: Arc<Shards>) {
    loop {
        let (stream, _) = listener
            .accept(|error| accept_failed(&relay.metrics, error))
            .await;
        shards.assign(Peer::Backend, stream).await;
    }
}

async fn serve_ops(listener: Listener, relay: Arc<Relay>, ops: Arc<Ops>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener
            .accept(|error| accept_failed(&relay.metrics, error))
            .await;
        while connections.try_join_next().is_some() {}
        if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
            connections.spawn(ops::serve(ops.clone(), stream));
        }
    }
}

async fn become_ready(shards: Arc<Shards>, ops: Arc<Ops>) {
    shards.up().await;
    ops.set_ready();
}

fn accept_failed(metrics: &Metrics, error: &io::Error) {
    metrics.accept_failed();
    tracing::warn!(%error, "no connection can be accepted");
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
