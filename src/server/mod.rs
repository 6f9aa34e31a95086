//! Wiring: listeners, shards, and how they begin and end. Knows no details of any
//! of them.

mod inherited;
mod key_sets;
mod listener;
mod reload;
mod shards;
mod turned_away;
mod unix_socket;

use std::{
    fmt, io,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustix::process::{Resource, getrlimit};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::Authenticator,
    clock::Clock,
    config::{Config, ConfigError, Ingest, Listen},
    http::Problem,
    hub::{self, InboxLimits, PublishTimeouts, Registry, RegistryLimits},
    limits::{self, Limit, Limits, Sockets},
    log::{MessageIdLimits, Window},
    ops::{self, Health, Listening, Metrics, Ops},
    protocol::ErrorCode,
    random::Random,
    relay::Relay,
    setup::Setup,
    tally::Tally,
};
use inherited::LocalSocket;
use key_sets::KeySets;
use listener::{Buffers, Listener, LocalListener, LocalStream};
use shards::{Connection, Shards};
use turned_away::TurnedAway;
use unix_socket::Access;

pub use inherited::{InheritError, Inherited};

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
        let config = &setup.live.config;
        let sockets_max = sockets_max(config);
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

        let random = Arc::new(Random::from_system()?);
        let registry = Arc::new(Registry::new(registry_limits(config), Arc::clone(&random)));
        let tallies: Vec<Arc<Tally>> = (0..shard_count(config)).map(|_| Arc::default()).collect();
        let timeouts = publish_timeouts(&config.ingest);
        let (publisher, seeds) = hub::hub(&registry, timeouts, &tallies);
        let metrics = Arc::new(Metrics::new(
            matches!(setup.live.authenticator, Authenticator::Tokens(_)),
            !setup.live.ingest_keys.is_empty(),
        ));
        let clock = Clock::system();
        metrics.configured(clock.unix_seconds());
        let relay = Arc::new(Relay {
            limits: Limits::new(&setup.live.config),
            live: ArcSwap::from_pointee(setup.live),
            schema: setup.schema,
            publisher,
            clock,
            random,
            metrics: Arc::clone(&metrics),
            draining: AtomicBool::new(false),
            calls: TaskTracker::new(),
            clients: TaskTracker::new(),
        });
        let shards = Arc::new(Shards::start(&relay, seeds).map_err(StartError::Shard)?);

        let health = Arc::new(Health::new(Arc::clone(&relay), 2));
        let ops = Ops::new(metrics, tallies, Arc::clone(&registry), Arc::clone(&health));
        let ops = Arc::new(ops);
        let mut key_sets = KeySets::default();
        key_sets.follow(&relay, &shards);

        let mut tasks = JoinSet::new();
        let accepting = AcceptClients {
            listener: listeners.client,
            stop: client_stop,
            sockets: Sockets::new(sockets_max),
            relay: relay.clone(),
            shards: shards.clone(),
        };
        tasks.spawn(listen(health.listening(), accepting.run()));
        let (listener, stop) = (listeners.ingest, ingest_stop);
        let accepting = accept_backends(listener, stop, relay.clone(), shards.clone());
        tasks.spawn(listen(health.listening(), accepting));
        tasks.spawn(serve_ops(listeners.ops, relay.clone(), ops));
        tasks.spawn(sweep(registry, relay.clone()));
        tasks.spawn(become_ready(shards.clone(), health.clone()));
        tasks.spawn(watch(health.clone()));
        Ok(Self {
            relay,
            health,
            shards,
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
        // A shard that has not come to its end is not waited for: the process's end
        // is its end too.
        let drained = answered && closed;
        if let Some(shards) = Arc::into_inner(self.shards).filter(|_| drained) {
            shards.stop();
        }
        drained
    }
}

/// The sockets of a relay, which listen.
struct Listeners {
    client: Listener,
    ingest: LocalListener,
    ops: LocalListener,
    addresses: Addresses,
}

impl Listeners {
    /// Takes over what there is, and opens the rest.
    fn open(setup: &Setup, inherited: Inherited) -> Result<Self, StartError> {
        let config = &setup.live.config;
        let groups = setup.socket_groups;
        let buffers = Some(Buffers {
            send: config.client.send_buffer,
            receive: config.client.receive_buffer,
        });
        let is_handed_over = !inherited.is_empty();
        let client = match inherited.client {
            Some(socket) => Listener::inherit(socket, buffers),
            None => Listener::bind(config.client.listen, buffers),
        };
        let client_address = Listen::Tcp(config.client.listen);
        let (client, client_address) = opened(
            ListenerName::Client,
            &client_address,
            client.and_then(|it| it.address().map(|address| (it, address))),
        )?;
        let (ingest, ingest_address) = local(
            ListenerName::Ingest,
            &config.ingest.listen,
            inherited.ingest,
            Access {
                mode: config.ingest.socket_mode.bits(),
                group: groups.ingest,
            },
        )?;
        let (ops, ops_address) = local(
            ListenerName::Ops,
            &config.ops.listen,
            inherited.ops,
            Access {
                mode: config.ops.socket_mode.bits(),
                group: groups.ops,
            },
        )?;
        let addresses = Addresses {
            client: client_address,
            ingest: ingest_address,
            ops: ops_address,
        };
        if is_handed_over {
            check(config, &addresses)?;
        }
        Ok(Self {
            client,
            ingest,
            ops,
            addresses,
        })
    }
}

/// Whether the configuration would allow to listen there: who started the relay may
/// have opened a door that nobody guards.
fn check(config: &Config, addresses: &Addresses) -> Result<(), StartError> {
    let mut config = config.clone();
    config.client.listen = addresses.client;
    config.ingest.listen = addresses.ingest.clone();
    config.ops.listen = addresses.ops.clone();
    config.check().map_err(StartError::Inherited)
}

fn local(
    listener: ListenerName,
    listen: &Listen,
    inherited: Option<LocalSocket>,
    access: Access,
) -> Result<(LocalListener, Listen), StartError> {
    let found = match inherited {
        Some(LocalSocket::Tcp(socket)) => LocalListener::inherit_tcp(socket),
        Some(LocalSocket::Unix(socket)) => LocalListener::inherit_unix(socket),
        None => LocalListener::bind(listen, access),
    };
    opened(
        listener,
        listen,
        found.and_then(|it| it.address().map(|address| (it, address))),
    )
}

fn opened<T>(
    listener: ListenerName,
    address: &Listen,
    outcome: io::Result<T>,
) -> Result<T, StartError> {
    outcome.map_err(|source| StartError::Listen {
        listener,
        address: address.clone(),
        source,
    })
}

fn publish_timeouts(ingest: &Ingest) -> PublishTimeouts {
    PublishTimeouts {
        inbox: ingest.inbox_timeout,
        ack: ingest.ack_timeout,
    }
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

/// Takes the connections of clients, until `stop` says so; what is accepted by then is
/// served.
struct AcceptClients {
    listener: Listener,
    stop: CancellationToken,
    sockets: Arc<Sockets>,
    relay: Arc<Relay>,
    shards: Arc<Shards>,
}

impl AcceptClients {
    async fn run(self) {
        let mut turned_away = TurnedAway::default();
        let metrics = &self.relay.metrics;
        let accept = || self.listener.accept(|error| accept_failed(metrics, error));
        while let Some((stream, peer)) = self.stop.run_until_cancelled(accept()).await {
            match self.sockets.take() {
                Some(seat) => {
                    let connection = Connection::Client(stream, peer, seat);
                    self.shards.assign(connection).await;
                }
                None => self.turn_away(stream, &mut turned_away),
            }
        }
    }

    fn turn_away(&self, stream: TcpStream, turned_away: &mut TurnedAway) {
        let metrics = &self.relay.metrics;
        metrics.exceeded(Limit::Descriptors);
        // Who speaks TLS would not understand an answer, and has to do with the end.
        if self.relay.live().tls.is_none() {
            let problem = Problem::unavailable(
                ErrorCode::RateLimitExceeded,
                format!("there are {}", Limit::Descriptors),
                self.relay.retry_after(),
            );
            metrics.handshake_refused(problem.status());
            turned_away.tell(stream, problem);
        }
    }
}

async fn accept_backends(
    listener: LocalListener,
    stop: CancellationToken,
    relay: Arc<Relay>,
    shards: Arc<Shards>,
) {
    let accept = || listener.accept(|error| accept_failed(&relay.metrics, error));
    while let Some(stream) = stop.run_until_cancelled(accept()).await {
        shards.assign(Connection::Backend(stream)).await;
    }
}

async fn serve_ops(listener: LocalListener, relay: Arc<Relay>, ops: Arc<Ops>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = listener
            .accept(|error| accept_failed(&relay.metrics, error))
            .await;
        while connections.try_join_next().is_some() {}
        match stream {
            LocalStream::Tcp(stream) => {
                if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
                    connections.spawn(ops::serve(ops.clone(), stream));
                }
            }
            LocalStream::Unix(stream) => {
                if let Ok(stream) = tokio::net::UnixStream::from_std(stream) {
                    connections.spawn(ops::serve(ops.clone(), stream));
                }
            }
        }
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
