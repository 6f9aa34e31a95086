//! What all shards of one relay share. Wires nothing and decides nothing.

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
use tokio_util::task::TaskTracker;

use crate::{
    auth::{Authenticator, IngestKeys},
    clock::Clock,
    config::Config,
    connection::Alarms,
    hub::{Publisher, ShardHub},
    limits::Limits,
    ops::Metrics,
    outbox::{OutboxLimits, OutboxPool},
    random::Random,
    scheduler::TenantWork,
    schema::Schema,
    turn_meter::TurnMeter,
};

/// What a shard's read buffer holds: so much is taken from a socket at once.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// One relay.
#[derive(Debug)]
pub struct Relay {
    /// What a reload may change. Read through [`Relay::live`].
    pub live: ArcSwap<Live>,
    /// The way of events into logs and shards.
    pub publisher: Publisher,
    /// How often and how many.
    pub limits: Limits,
    /// The time of day.
    pub clock: Clock,
    /// Randomness.
    pub random: Arc<Random>,
    /// What is counted beside the path of an event.
    pub metrics: Arc<Metrics>,
    /// Whether the relay is shutting down and takes nothing new.
    pub draining: AtomicBool,
    /// The calls of backends that are under way.
    pub calls: TaskTracker,
    /// The clients that were let in.
    pub clients: TaskTracker,
}

/// What a reload may change while connections go on.
#[derive(Debug)]
pub struct Live {
    /// What the operator decided.
    pub config: Config,
    /// The messages of the application.
    pub schema: Arc<Schema>,
    /// The way in for clients.
    pub authenticator: Authenticator,
    /// The keys of backends.
    pub ingest_keys: IngestKeys,
    /// What is shown to clients; `None` where their listener speaks no TLS.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Relay {
    /// What holds now. For the moment: who holds it for longer holds what was.
    #[must_use]
    pub fn live(&self) -> Guard<Arc<Live>> {
        self.live.load()
    }

    /// Whether the relay is shutting down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// When a client that has to go should come back: somewhere in the configured
    /// spread, so that not all come at once.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        let spread = self.live().config.client.drain_spread.as_millis();
        let spread = u64::try_from(spread).unwrap_or(u64::MAX);
        Duration::from_millis(self.random.below(spread.saturating_add(1)))
    }
}

/// What the connections of one shard share. Stays on the shard's thread.
#[derive(Debug)]
pub struct Shard {
    /// The relay.
    pub relay: Arc<Relay>,
    /// The shard's part of the hub.
    pub hub: Rc<ShardHub>,
    /// What its outboxes have in common.
    pub outboxes: Rc<OutboxPool>,
    /// What wakes its connections when they are late.
    pub alarms: Rc<Alarms>,
    /// Its clients' handshakes, which are a flow of work of their own.
    pub handshakes: TenantWork,
    /// What is done for backends and charged to no tenant: what is large is read, and calls
    /// are refused. Likewise.
    pub backend_work: Rc<TenantWork>,
    /// Measures the turns of its event loop.
    pub turn_meter: Rc<TurnMeter>,
    /// Lent to whoever reads from a socket, for as long as that takes.
    pub read_buffer: RefCell<Box<[u8]>>,
}

impl Shard {
    /// A shard without connections.
    #[must_use]
    pub fn new(relay: Arc<Relay>, hub: Rc<ShardHub>) -> Self {
        let (handshakes, backend_work) = (hub.work().shared(), Rc::new(hub.work().shared()));
        let outboxes = OutboxPool::new(OutboxLimits::of(&relay.live().config.limits));
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
