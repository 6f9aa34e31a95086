//! Wires listeners and shards together, starts them and drains them. Knows none of their
//! details.

mod accept;
mod handshakes;
mod inherited;
mod key_sets;
mod listener;
mod listeners;
mod reload;
mod shards;
mod startup;
mod turned_away;
mod unix_socket;
mod window;

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use sidewire_protocol::random::RandomSource;
use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{ConfigError, ListenAddress},
    hub::TenantRegistry,
    inspector::{DevAddresses, Inspector},
    limits::SocketPool,
    ops::{self, Health, ListeningGuard, OpsService},
    relay::{Relay, RelayBuilder, RelayParts},
    repeated,
    setup::{RelaySetup, log_certificate_problem},
    telemetry,
    window_file::WindowFile,
};
use accept::{BackendAcceptor, ClientAcceptor, serve_ops};
use handshakes::HandshakeLimiter;
use key_sets::KeySetTasks;
use listeners::RelayListeners;
use shards::ShardThreads;
use startup::{log_schema, log_warnings, shard_count, socket_limits};
use window::{WindowSaving, take_window};

pub use inherited::{InheritError, InheritedSockets};

/// Interval between sweeps, which drop expired events from the tenants' logs, full buckets from
/// the limits, and expired answers of the backend.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Time limit, at the end of a drain, for the first requests of connections accepted by then.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_millis(500);

/// Time limit, when a drain begins, for running calls. After it, the clients' connections are
/// closed even if calls are still running.
const CALLS_TIMEOUT: Duration = Duration::from_secs(5);

/// Identifies a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerName {
    /// The listener for WebSocket clients.
    Client,
    /// The listener for backends.
    Ingest,
    /// The listener for metrics and health.
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

/// An error that keeps a relay from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be opened.
    #[error("cannot listen on {address} ({listener}.listen): {source}{}", listen_hint(source.kind(), *listener))]
    Listen {
        /// The listener.
        listener: ListenerName,
        /// The address it should listen on.
        address: ListenAddress,
        /// The error of the system.
        source: io::Error,
    },
    /// The configuration does not allow an inherited socket at its address.
    #[error("the inherited sockets do not match the configuration:\n{0}")]
    Inherited(ConfigError),
    /// The window could not be kept.
    #[error(
        "cannot keep the window in {} (replay.keep_file): {source}\n  hint: {}",
        path.display(),
        window_hint(source.kind())
    )]
    WindowFile {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The thread of a shard could not be started.
    #[error("cannot start a shard: {0}")]
    Shard(io::Error),
    /// The system provides no random numbers.
    #[error("cannot get random numbers from the system: {0}")]
    Random(#[from] getrandom::Error),
}

/// Returns what to do if the window file cannot be used.
fn window_hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::FileTooLarge => {
            "raise the limit of file sizes (`ulimit -f`, `LimitFSIZE=` of the unit)"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room for it",
        _ => "its directory must exist and be writable for the relay's user",
    }
}

/// Returns what to do if a listener cannot be opened, as another line of the error.
fn listen_hint(kind: io::ErrorKind, listener: ListenerName) -> String {
    let hint = match kind {
        io::ErrorKind::AddrInUse => {
            "another process listens there, which `ss -ltnp` or `ss -lxp` names; stop it, or change"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE or a socket unit of systemd, and a Unix socket a directory that the relay's user may write to; or change"
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "the directory of the socket must exist; under systemd `RuntimeDirectory=` makes it. Or change"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address; change",
        _ => return String::new(),
    };
    format!("\n  hint: {hint} {listener}.listen")
}

/// A running relay. Its listeners are served by tasks of the runtime on which it was started,
/// its connections by threads of its own.
#[derive(Debug)]
pub struct RelayServer {
    relay: Arc<Relay>,
    health: Arc<Health>,
    shards: Arc<ShardThreads>,
    sockets: Arc<SocketPool>,
    key_sets: KeySetTasks,
    tasks: JoinSet<()>,
    /// Cancelled to stop accepting from inherited sockets: the process that opened them holds
    /// them too, and the kernel keeps new connections for the next relay.
    handed_back: CancellationToken,
    /// True if the client or the ingest socket is inherited.
    is_handed_over: bool,
    registry: Arc<TenantRegistry>,
    /// The file that keeps the logs for the next start.
    window_file: Option<WindowFile>,
    addresses: ListenAddresses,
}

/// The addresses on which a relay listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddresses {
    /// The address for WebSocket clients.
    pub client: SocketAddr,
    /// The address for backends.
    pub ingest: ListenAddress,
    /// The address for metrics and health.
    pub ops: ListenAddress,
}

impl RelayServer {
    /// Opens the listeners and starts the shards.
    ///
    /// # Errors
    ///
    /// If a listener cannot be opened or a shard cannot be started.
    pub fn start(setup: RelaySetup) -> Result<Self, StartError> {
        Self::start_with(setup, InheritedSockets::default())
    }

    /// Starts a relay on inherited sockets, and opens the listeners that are not among them.
    ///
    /// # Errors
    ///
    /// As for [`Self::start`], and if the configuration does not allow an inherited socket at its
    /// address.
    pub fn start_with(setup: RelaySetup, inherited: InheritedSockets) -> Result<Self, StartError> {
        telemetry::install_panic_hook();
        let shard_count = shard_count(&setup.live.config);
        let room = socket_limits(&setup.live.config, shard_count);
        let sockets = SocketPool::new(room);
        let is_handed_over = [inherited.client.is_some(), inherited.ingest.is_some()];
        let listeners = RelayListeners::open(&setup, inherited)?;
        let addresses = listeners.addresses.clone();
        let handed_back = CancellationToken::new();
        // Sockets opened by the relay are accepted from until the end, and new connections are
        // told when to reconnect. (Their token is never cancelled.)
        let [client_stop, ingest_stop] = is_handed_over.map(|is_handed_over| {
            if is_handed_over {
                handed_back.clone()
            } else {
                CancellationToken::new()
            }
        });

        let window = take_window(&setup.live)?;
        let RelayParts {
            relay,
            registry,
            tallies,
            shard_builders,
        } = RelayBuilder::new(setup.live, RandomSource::from_system()?)
            .shards(shard_count)
            .window(window.kept)
            .build();
        if let Some(found) = window.found {
            relay.metrics.window_file_found(found);
        }
        log_schema(&relay.live().schema, "schema compiled");
        log_warnings(&relay.live().schema);
        log_certificate_problem(&relay.live(), relay.clock.unix_seconds());
        let shards =
            Arc::new(ShardThreads::start(&relay, shard_builders).map_err(StartError::Shard)?);

        let health = Arc::new(Health::new(Arc::clone(&relay)));
        let inspector = relay.live().config.ops.inspector.then(|| {
            let dev = setup.dev.zip(dev_addresses(&addresses));
            let (relay, registry) = (Arc::clone(&relay), Arc::clone(&registry));
            Inspector::new(relay, tallies.clone(), registry, dev)
        });
        let ops = OpsService::new(
            Arc::clone(&relay),
            tallies,
            Arc::clone(&registry),
            Arc::clone(&health),
            inspector,
        );
        let ops = Arc::new(ops);
        let mut key_sets = KeySetTasks::default();
        key_sets.restart_tasks(&relay, &shards);

        let mut tasks = JoinSet::new();
        let accepting = ClientAcceptor {
            listener: listeners.client,
            stop: client_stop,
            handshakes: HandshakeLimiter::new(room.clients),
            sockets: sockets.clone(),
            relay: relay.clone(),
            shards: shards.clone(),
        };
        tasks.spawn(accept_while_listening(
            health.register_listener(),
            accepting.run(),
        ));
        let accepting = BackendAcceptor {
            listener: listeners.ingest,
            stop: ingest_stop,
            sockets: sockets.clone(),
            relay: relay.clone(),
            shards: shards.clone(),
        };
        tasks.spawn(accept_while_listening(
            health.register_listener(),
            accepting.run(),
        ));
        let serving = serve_ops(listeners.ops, sockets.clone(), relay.clone(), ops);
        tasks.spawn(serving);
        tasks.spawn(sweep_periodically(registry.clone(), relay.clone()));
        tasks.spawn(become_ready(shards.clone(), health.clone()));
        tasks.spawn(watch_shards(health.clone()));
        tasks.spawn(repeated::report_repeats());
        let asking = relay.clone();
        tasks.spawn(async move { asking.authorizer.run().await });
        Ok(Self {
            relay,
            health,
            shards,
            sockets,
            key_sets,
            tasks,
            handed_back,
            is_handed_over: is_handed_over.contains(&true),
            registry,
            window_file: window.file,
            addresses,
        })
    }

    /// Returns the addresses on which it listens.
    #[must_use]
    pub fn addresses(&self) -> &ListenAddresses {
        &self.addresses
    }

    /// Waits until the relay serves connections.
    pub async fn ready(&self) {
        self.health.wait_until_running().await;
    }

    /// Waits until an essential part of the relay fails, normally for ever.
    pub async fn failed(&self) {
        self.shards.failed().await;
    }

    /// Shuts the relay down: accepts nothing new, answers the running calls, writes the queued
    /// frames and closes every connection, and writes the window, within
    /// `client.drain_timeout`. Returns true if every call was answered and every connection
    /// closed in time. If a call was not, no window is written, since it would lack events.
    pub async fn drain(mut self) -> bool {
        let began = Instant::now();
        if self.is_handed_over {
            self.handed_back.cancel();
            tracing::info!("no longer accepting on inherited sockets");
        }
        let timeout = self.relay.live().config.client.drain_timeout;
        self.health.set_draining();
        self.relay.begin_drain();
        // A hanging call must not delay closing the clients' connections.
        let calls_end = began + (timeout / 2).min(CALLS_TIMEOUT);
        let deadline = began + timeout;
        let mut answered = timeout_at(calls_end, self.relay.calls.wait()).await.is_ok();
        let mut saving = None;
        if answered {
            // Nothing more is appended.
            saving = self.begin_saving();
        }
        let closed = timeout_at(deadline, self.shards.drain(&self.relay.clients))
            .await
            .is_ok();
        if !answered {
            answered = timeout_at(deadline, self.relay.calls.wait()).await.is_ok();
            if answered {
                saving = self.begin_saving();
            } else if self.window_file.is_some() {
                tracing::error!(
                    "no window is written, because calls of backends are still under way, so no client can resume after the next start"
                );
            }
        }
        let drained = answered && closed;
        self.key_sets.stop().await;
        self.tasks.shutdown().await;
        // Connections accepted at the last moment are told to reconnect if they send a request
        // soon.
        let last = deadline.min(Instant::now() + LAST_ANSWERS_TIMEOUT);
        drop(timeout_at(last, self.sockets.wait_until_answered()).await);
        if let Some(saving) = saving {
            saving.finish(deadline).await;
        }
        // A shard that is not drained is not waited for: it ends with the process.
        if let Some(shards) = Arc::into_inner(self.shards).filter(|_| drained) {
            shards.stop();
        }
        drained
    }

    /// Begins to write the window for the next start, if a file is configured.
    fn begin_saving(&mut self) -> Option<WindowSaving> {
        let file = self.window_file.take()?;
        Some(WindowSaving::begin(
            file,
            self.registry.clone(),
            &self.relay,
        ))
    }
}

/// Returns where the inspector of `sidewire dev` reaches the other listeners, which are on TCP.
fn dev_addresses(addresses: &ListenAddresses) -> Option<DevAddresses> {
    Some(DevAddresses {
        client: addresses.client,
        ingest: addresses.ingest.tcp_address()?,
    })
}

/// Runs a listener's accept loop. The relay is not ready if a loop ends, which drops `listening`.
async fn accept_while_listening(listening: ListeningGuard, accepting: impl Future<Output = ()>) {
    accepting.await;
    drop(listening);
}

async fn become_ready(shards: Arc<ShardThreads>, health: Arc<Health>) {
    shards.wait_until_up().await;
    health.set_running();
}

/// Notifies systemd's watchdog while the shards respond.
async fn watch_shards(health: Arc<Health>) {
    let is_well = || async { health.shards_answer().await };
    ops::feed_watchdog(is_well).await;
}

async fn sweep_periodically(registry: Arc<TenantRegistry>, relay: Arc<Relay>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        registry.sweep(now);
        relay.limits.sweep();
        while relay.authorizer.sweep() {
            yield_now().await;
        }
    }
}
