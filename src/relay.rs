//! The state that all shards of a relay share, and the state of one shard. Contains no wiring and
//! no logic.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use rustls::ServerConfig;
use sidewire_protocol::{clock::Clock, random::RandomSource, schema::Schema};
use tokio_util::task::TaskTracker;

use crate::{
    alarms::Alarms,
    auth::{Authenticator, IngestKeys},
    config::Config,
    hub::{HubPublisher, ShardHub},
    limits::Limits,
    outbox::{OutboxLimits, OutboxPool},
    scheduler::TenantWork,
    telemetry::Metrics,
    turn_meter::TurnMeter,
};

/// Size of a shard's read buffer, and so of the largest read from a socket, in bytes.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The state that all shards of a relay share.
#[derive(Debug)]
pub struct Relay {
    /// The settings that a reload may change. Read them through [`Relay::live`].
    pub live: ArcSwap<LiveSettings>,
    /// Appends events to the logs and delivers them to the shards.
    pub publisher: HubPublisher,
    /// Rate limits and connection limits.
    pub limits: Limits,
    /// The clock for the time of day.
    pub clock: Clock,
    /// The source of random numbers.
    pub random: Arc<RandomSource>,
    /// Metrics, except those counted on the path of an event.
    pub metrics: Arc<Metrics>,
    /// True while the relay is shutting down and accepts nothing new.
    pub draining: AtomicBool,
    /// The running calls of backends.
    pub calls: TaskTracker,
    /// The admitted clients.
    pub clients: TaskTracker,
}

/// The settings that a reload may change while connections stay open.
#[derive(Debug)]
pub struct LiveSettings {
    /// The configuration.
    pub config: Config,
    /// The schema of the application's messages.
    pub schema: Arc<Schema>,
    /// Authenticates clients.
    pub authenticator: Authenticator,
    /// The keys of backends.
    pub ingest_keys: IngestKeys,
    /// TLS configuration of the client listener; `None` if it does not use TLS.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Relay {
    /// Returns the settings in force. Do not hold the guard for long: a reload does not change
    /// what it refers to.
    #[must_use]
    pub fn live(&self) -> Guard<Arc<LiveSettings>> {
        self.live.load()
    }

    /// Returns true if the relay is shutting down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns the delay after which a disconnected client should reconnect. It is random within
    /// `client.drain_spread`, so that clients do not all reconnect at once.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        let spread = self.live().config.client.drain_spread.as_millis();
        let spread = u64::try_from(spread).unwrap_or(u64::MAX);
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
    /// Buffer for reading from sockets, borrowed for the duration of a read.
    pub read_buffer: RefCell<Box<[u8]>>,
}

impl ShardContext {
    /// Creates a shard without connections.
    #[must_use]
    pub fn new(relay: Arc<Relay>, hub: Rc<ShardHub>) -> Self {
        let (handshakes, backend_work) = (
            hub.work_queue().tenantless_work(),
            Rc::new(hub.work_queue().tenantless_work()),
        );
        let outboxes = OutboxPool::new(OutboxLimits::from_config(&relay.live().config.limits));
        let turn_meter = Rc::new(TurnMeter::new(Arc::clone(hub.tally())));
        Self {
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
}
