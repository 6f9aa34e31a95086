//! Builds the parts of a relay from its settings, and translates the configuration into the
//! limits of these parts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize},
};

use arc_swap::ArcSwap;
use sidewire_protocol::{clock::Clock, random::RandomSource};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{LiveSettings, Relay};
use crate::{
    authorizer::{AuthorizerSettings, SubscribeAuthorizer},
    backend::{BackendSettings, BackendTransport, HttpTransport},
    config::Config,
    hub::{
        HubParts, InboxLimits, KeptWindow, PresenceSettings, PublishTimeouts, RegistryLimits,
        ShardBuilder, TenantRegistry,
    },
    limits::Limits,
    log::{LogWindow, MessageIdLimits},
    outbox::OutboxLimits,
    tally::ShardTally,
    telemetry::Metrics,
};

/// Builds a relay that does not run yet. Unless told otherwise, it has one shard, inboxes of the
/// usual size, and the system's clock.
#[derive(Debug)]
pub struct RelayBuilder {
    live: LiveSettings,
    random: Arc<RandomSource>,
    clock: Clock,
    shards: usize,
    inbox: InboxLimits,
    transport: Arc<dyn BackendTransport>,
    window: Option<KeptWindow>,
}

/// A relay that does not run yet.
#[derive(Debug)]
pub struct RelayParts {
    /// The state that the shards share.
    pub relay: Arc<Relay>,
    /// The tenants.
    pub registry: Arc<TenantRegistry>,
    /// The counters of each shard.
    pub tallies: Vec<Arc<ShardTally>>,
    /// The builder of each shard.
    pub shard_builders: Vec<ShardBuilder>,
}

impl RelayBuilder {
    /// Creates a builder for a relay with these settings.
    #[must_use]
    pub fn new(live: LiveSettings, random: RandomSource) -> Self {
        Self {
            live,
            random: Arc::new(random),
            clock: Clock::system(),
            shards: 1,
            inbox: InboxLimits::default(),
            transport: Arc::new(HttpTransport::default()),
            window: None,
        }
    }

    /// Sets the clock for the time of day.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Sets the number of shards.
    #[must_use]
    pub fn shards(self, shards: usize) -> Self {
        Self { shards, ..self }
    }

    /// Sets the limits of the shards' inboxes.
    #[must_use]
    pub fn inbox_limits(self, inbox: InboxLimits) -> Self {
        Self { inbox, ..self }
    }

    /// Sets what carries questions to the backend.
    #[must_use]
    pub fn backend_transport(self, transport: Arc<dyn BackendTransport>) -> Self {
        Self { transport, ..self }
    }

    /// Sets what the relay begins with from an earlier one.
    #[must_use]
    pub fn window(self, window: Option<KeptWindow>) -> Self {
        Self { window, ..self }
    }

    /// Builds the relay.
    #[must_use]
    pub fn build(self) -> RelayParts {
        let config = &self.live.config;
        let limits = registry_limits(config, self.inbox);
        let mut registry = TenantRegistry::new(limits, Arc::clone(&self.random));
        if let Some(window) = self.window {
            registry.restore(window, Instant::now());
        }
        let registry = Arc::new(registry);
        let hub = HubParts::new(
            &registry,
            publish_timeouts(config),
            self.shards,
            &self.clock,
        );
        let metrics = Metrics::new(
            self.live.clients_need_tokens(),
            self.live.backends_need_keys(),
        );
        metrics.config_loaded(self.clock.unix_seconds());
        metrics.set_schema_revision(self.live.schema.revision());
        metrics.set_certificate(self.live.certificate);
        let tallies = hub.shard_builders.iter().map(|it| Arc::clone(it.tally()));
        let tallies = tallies.collect();
        let authorizer = SubscribeAuthorizer::new(
            authorizer_settings(&self.live),
            self.transport,
            Arc::clone(registry.memory()),
            Arc::clone(&self.random),
            &metrics,
        );
        let relay = Arc::new(Relay {
            authorizer,
            limits: Limits::new(config),
            live: ArcSwap::from_pointee(self.live),
            publisher: hub.publisher,
            clock: self.clock,
            random: self.random,
            metrics: Arc::new(metrics),
            draining: AtomicBool::new(false),
            drained_clients: AtomicUsize::new(0),
            calls: TaskTracker::new(),
            clients: TaskTracker::new(),
        });
        RelayParts {
            relay,
            registry,
            tallies,
            shard_builders: hub.shard_builders,
        }
    }
}

/// Returns the configured limits of the tenants and their logs.
fn registry_limits(config: &Config, inbox: InboxLimits) -> RegistryLimits {
    let (replay, ingest) = (&config.replay, &config.ingest);
    RegistryLimits {
        tenants: config.limits.tenants,
        log_bytes: replay.process_bytes as u64,
        memory: config.memory_limits(),
        window: LogWindow {
            events: if replay.enabled { replay.events } else { 0 },
            bytes: replay.bytes,
            age: replay.age,
        },
        inbox,
        message_ids: MessageIdLimits {
            age: ingest.message_id_age,
            count: ingest.message_ids_max,
            bytes: ingest.message_id_bytes_max,
        },
    }
}

/// Returns the configured time limits for publishing an event.
pub(super) fn publish_timeouts(config: &Config) -> PublishTimeouts {
    PublishTimeouts {
        inbox: config.ingest.inbox_timeout,
        ack: config.ingest.ack_timeout,
    }
}

/// Returns what a shard needs to know of the configuration for presence.
pub(super) fn presence_settings(config: &Config) -> PresenceSettings {
    PresenceSettings {
        linger: config.presence.linger,
        owed_max: config.presence.owed,
    }
}

/// Returns the configured settings of the authorization by the backend.
pub(super) fn authorizer_settings(live: &LiveSettings) -> AuthorizerSettings {
    let subscribe = &live.config.auth.subscribe;
    AuthorizerSettings {
        backend: BackendSettings {
            target: live.subscribe_backend.clone(),
            timeout: subscribe.timeout,
            concurrency: subscribe.concurrency,
        },
        ttl: subscribe.ttl,
        negative_ttl: subscribe.negative_ttl,
        entries: subscribe.entries,
    }
}

/// Returns the configured limits of an outbox.
pub(super) fn outbox_limits(config: &Config) -> OutboxLimits {
    OutboxLimits {
        frames: config.limits.outbox_frames,
        bytes: config.limits.outbox_bytes,
    }
}
