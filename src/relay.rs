//! The state that all shards of a relay share, and the state of one shard. Wires their parts
//! together, and contains no other logic.

mod builder;

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use futures_util::future::LocalBoxFuture;
use rustls::ServerConfig;
use sidewire_protocol::{clock::Clock, close::CloseReason, random::RandomSource, schema::Schema};
use tokio_util::task::TaskTracker;

use crate::{
    alarms::Alarms,
    auth::{Authenticator, IngestKeys, SharedKey},
    authorizer::SubscribeAuthorizer,
    backend::BackendTarget,
    config::Config,
    http::RequestIds,
    hub::{HubPublisher, ShardBuilder, ShardHub},
    limits::Limits,
    outbox::OutboxPool,
    scheduler::TenantWork,
    telemetry::Metrics,
    tls::ChainValidity,
    turn_meter::TurnMeter,
};
use builder::{authorizer_settings, outbox_limits, presence_settings, publish_timeouts};

pub use builder::{RelayBuilder, RelayParts};

/// Size of a shard's read buffer, and so of the largest read from a socket, in bytes.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The state that all shards of a relay share.
#[derive(Debug)]
pub struct Relay {
    live: ArcSwap<LiveSettings>,
    /// Appends events to the logs and delivers them to the shards.
    pub publisher: HubPublisher,
    /// Rate limits and connection limits.
    pub limits: Limits,
    /// Asks the backend whether clients may subscribe.
    pub authorizer: SubscribeAuthorizer,
    /// The clock for the time of day.
    pub clock: Clock,
    /// The source of random numbers.
    pub random: Arc<RandomSource>,
    /// Metrics, except those counted on the path of an event.
    pub metrics: Arc<Metrics>,
    /// True while the relay is shutting down and accepts nothing new.
    draining: AtomicBool,
    /// Number of clients when the relay began to shut down.
    drained_clients: AtomicUsize,
    /// The running calls of backends.
    pub calls: TaskTracker,
    /// The admitted clients.
    pub clients: TaskTracker,
}

/// The settings that a reload may change while connections stay open.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// The configuration.
    pub config: Config,
    /// The schema of the application's messages.
    pub schema: Arc<Schema>,
    /// Authenticates clients.
    pub authenticator: Authenticator,
    /// The keys of backends.
    pub ingest_keys: IngestKeys,
    /// The backend that is asked whether clients may subscribe; `None` if none is.
    pub subscribe_backend: Option<Arc<BackendTarget>>,
    /// The key of the inspector; `None` if it is off.
    pub inspector_key: Option<SharedKey>,
    /// TLS configuration of the client listener; `None` if it does not use TLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// The time within which the certificate of the client listener and its chain are valid; `None`
    /// without TLS.
    pub certificate: Option<ChainValidity>,
}

impl LiveSettings {
    /// Returns the settings of a relay that asks nobody for credentials and does not use TLS.
    #[must_use]
    pub fn open(config: Config, schema: Arc<Schema>) -> Self {
        Self {
            config,
            schema,
            authenticator: Authenticator::Open,
            ingest_keys: IngestKeys::default(),
            subscribe_backend: None,
            inspector_key: None,
            tls: None,
            certificate: None,
        }
    }

    fn clients_need_tokens(&self) -> bool {
        matches!(self.authenticator, Authenticator::Tokens(_))
    }

    fn backends_need_keys(&self) -> bool {
        !self.ingest_keys.is_empty()
    }
}

impl Relay {
    /// Returns the settings in force. Do not hold the guard for long: a reload does not change
    /// what it refers to.
    #[must_use]
    pub fn live(&self) -> Guard<Arc<LiveSettings>> {
        self.live.load()
    }

    /// Returns the settings in force, which the caller may keep beyond a reload.
    #[must_use]
    pub fn live_shared(&self) -> Arc<LiveSettings> {
        self.live.load_full()
    }

    /// Puts other settings in force, and updates the parts that hold a copy of config values,
    /// except those of the shards. Returns the old settings.
    pub fn replace_settings(&self, live: LiveSettings) -> Arc<LiveSettings> {
        let live = Arc::new(live);
        let old = self.live.swap(Arc::clone(&live));
        let config = &live.config;
        self.publisher.configure(
            publish_timeouts(config),
            config.limits.tenants,
            config.memory_limits(),
        );
        self.limits.configure(config);
        self.authorizer.configure(authorizer_settings(&live));
        self.metrics
            .set_authentication_required(live.clients_need_tokens(), live.backends_need_keys());
        self.metrics.set_certificate(live.certificate);
        old
    }

    /// Refuses all calls and handshakes from now on. Those under way continue.
    pub fn begin_drain(&self) {
        self.drained_clients
            .store(self.clients.len(), Ordering::Relaxed);
        self.draining.store(true, Ordering::Release);
        self.metrics.drain_begun();
        self.calls.close();
    }

    /// Returns true if the relay is shutting down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns the delay after which a disconnected client should reconnect. It is random within
    /// `client.drain_spread`, so that clients do not all reconnect at once. When the relay shuts
    /// down, it is at most 1 ms for each client that was connected: few need not wait long.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        let mut spread = self.live().config.client.drain_spread;
        if self.is_draining() {
            let clients = self.drained_clients.load(Ordering::Relaxed);
            spread = spread.min(Duration::from_millis(clients as u64));
        }
        let spread = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.random.below(spread.saturating_add(1)))
    }
}

/// The state that the connections of one shard share. Stays on the shard's thread.
#[derive(Debug)]
pub struct ShardContext {
    /// The relay.
    pub relay: Arc<Relay>,
    /// The shard's part of the hub.
    pub hub: Rc<ShardHub>,
    /// Limits and buffers that its outboxes share.
    pub outboxes: Rc<OutboxPool>,
    /// Wakes its connections at their deadlines.
    pub alarms: Rc<Alarms>,
    /// The flow in which the handshakes of its clients are scheduled.
    pub handshakes: TenantWork,
    /// The flow of work for backends that is charged to no tenant: reading large bodies and
    /// refusing calls.
    pub backend_work: Rc<TenantWork>,
    /// Measures the turns of its event loop.
    pub turn_meter: Rc<TurnMeter>,
    /// The ids of the calls of backends that bring none of their own.
    pub request_ids: RequestIds,
    /// Buffer for reading from sockets, borrowed for the duration of a read.
    pub read_buffer: RefCell<Box<[u8]>>,
}

impl ShardContext {
    /// Creates a shard without connections. It stays on the thread that created it.
    #[must_use]
    pub fn new(relay: Arc<Relay>, builder: ShardBuilder) -> Self {
        let hub = Rc::new(builder.build());
        let (handshakes, backend_work) = (
            hub.work_queue().tenantless_work(),
            Rc::new(hub.work_queue().tenantless_work()),
        );
        let outboxes = OutboxPool::new(outbox_limits(&relay.live().config));
        hub.configure_presence(presence_settings(&relay.live().config));
        let turn_meter = Rc::new(TurnMeter::new(Arc::clone(hub.tally())));
        Self {
            request_ids: RequestIds::new(relay.clock.unix_seconds(), hub.id()),
            relay,
            hub,
            outboxes,
            alarms: Rc::default(),
            handshakes,
            backend_work,
            turn_meter,
            read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into()),
        }
    }

    /// Returns the background tasks of the shard, which must run as long as it does. The first
    /// delivers events ([`ShardHub::run`] with this `look_interval`), the second rings the alarms.
    /// They end only by a panic.
    #[must_use]
    pub fn background_tasks(&self, look_interval: Duration) -> [LocalBoxFuture<'static, ()>; 5] {
        // Separate tasks, so that events and new connections get a fair share of each turn:
        // events go on while all clients reconnect.
        let alarms = Rc::clone(&self.alarms);
        let [deliveries, relief, calls, presence] = [(); 4].map(|()| Rc::clone(&self.hub));
        [
            Box::pin(async move { deliveries.run(look_interval).await }),
            Box::pin(async move { alarms.run().await }),
            Box::pin(async move { relief.relieve_memory().await }),
            Box::pin(async move { calls.answer_calls().await }),
            Box::pin(async move { presence.end_lingering().await }),
        ]
    }

    /// Updates the shard's copies of config values after a reload, and wakes the connections.
    pub fn apply_reload(&self) {
        let live = self.relay.live();
        self.outboxes.set_limits(outbox_limits(&live.config));
        self.hub.configure_presence(presence_settings(&live.config));
        self.hub.nudge_all();
    }

    /// Begins to close the connections of all clients, because the relay is shutting down.
    pub fn end_clients(&self) {
        let relay = &self.relay;
        self.hub.end_all(|| CloseReason::drain(relay.retry_after()));
    }
}
