//! Builds the parts that the shards of a relay share from a configuration, and derives their
//! limits.

use std::{
    sync::{Arc, atomic::AtomicBool},
    thread::available_parallelism,
};

use arc_swap::ArcSwap;
use rustix::process::{Resource, getrlimit};
use sidewire_protocol::{
    clock::Clock,
    random::RandomSource,
    schema::{Schema, SchemaSize, Severity},
};
use tokio_util::task::TaskTracker;

use crate::{
    auth::Authenticator,
    config::{Config, IngestSection},
    hub::{self, InboxLimits, PublishTimeouts, RegistryLimits, ShardBuilder, TenantRegistry},
    limits::{Limits, SocketLimits},
    log::{LogWindow, MessageIdLimits},
    relay::Relay,
    setup::RelaySetup,
    tally::ShardTally,
    telemetry::Metrics,
};

/// The parts of a relay that is not running yet.
pub(super) struct RelayParts {
    pub(super) relay: Arc<Relay>,
    pub(super) registry: Arc<TenantRegistry>,
    /// The counters of each shard.
    pub(super) tallies: Vec<Arc<ShardTally>>,
    /// The builder of each shard.
    pub(super) seeds: Vec<ShardBuilder>,
}

impl RelayParts {
    /// Builds the parts as configured.
    ///
    /// # Errors
    ///
    /// If the system provides no random numbers.
    pub(super) fn build(setup: RelaySetup) -> Result<Self, getrandom::Error> {
        let config = &setup.live.config;
        let random = Arc::new(RandomSource::from_system()?);
        let registry = Arc::new(TenantRegistry::new(
            registry_limits(config),
            Arc::clone(&random),
        ));
        let tallies: Vec<Arc<ShardTally>> =
            (0..shard_count(config)).map(|_| Arc::default()).collect();
        let timeouts = publish_timeouts(&config.ingest);
        let (publisher, seeds) = hub::build_hub(&registry, timeouts, &tallies);
        let metrics = Arc::new(Metrics::new(
            matches!(setup.live.authenticator, Authenticator::Tokens(_)),
            !setup.live.ingest_keys.is_empty(),
        ));
        let clock = Clock::system();
        metrics.config_loaded(clock.unix_seconds());
        metrics.set_schema_revision(setup.live.schema.revision());
        log_schema(&setup.live.schema, "schema compiled");
        log_warnings(&setup.live.schema);
        let relay = Arc::new(Relay {
            limits: Limits::new(&setup.live.config),
            live: ArcSwap::from_pointee(setup.live),
            publisher,
            clock,
            random,
            metrics,
            draining: AtomicBool::new(false),
            calls: TaskTracker::new(),
            clients: TaskTracker::new(),
        });
        Ok(Self {
            relay,
            registry,
            tallies,
            seeds,
        })
    }
}

/// Logs how large the schema is and how long it took to compile.
pub(super) fn log_schema(schema: &Schema, message: &str) {
    let SchemaSize {
        events,
        messages,
        files,
    } = schema.size();
    tracing::info!(
        revision = %schema.revision(),
        envelope = schema.envelope_name(),
        events,
        messages,
        files,
        milliseconds = u64::try_from(schema.compile_time().as_millis()).unwrap_or(u64::MAX),
        "{message}"
    );
}

/// Logs the schema's warnings. Its notes are shown only by `sidewire check`.
pub(super) fn log_warnings(schema: &Schema) {
    let warnings = schema.diagnostics().iter();
    for warning in warnings.filter(|it| it.severity == Severity::Warning) {
        tracing::warn!(
            file = warning.file.as_deref(),
            line = warning.line,
            hint = warning.hint.as_deref(),
            "schema: {}",
            warning.message
        );
    }
}

/// Returns the configured time limits for publishing an event.
pub(super) fn publish_timeouts(ingest: &IngestSection) -> PublishTimeouts {
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
        memory: config.memory_limits(),
        window: LogWindow {
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

/// Returns and logs the number of sockets that the process's file descriptor limit allows.
pub(super) fn socket_limits(config: &Config) -> SocketLimits {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let room = SocketLimits::from_descriptors(count, shard_count(config));
    let clients = room.clients;
    match config.limits.connections {
        Some(connections) if u64::from(connections.get()) > clients as u64 => tracing::warn!(
            descriptors,
            clients,
            connections,
            "the file descriptor limit allows fewer client connections than limits.connections"
        ),
        _ => tracing::info!(
            descriptors,
            clients,
            "the file descriptor limit bounds the number of client connections"
        ),
    }
    room
}
