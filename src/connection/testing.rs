//! A shard without threads and sockets, under paused time, and a client with its own
//! implementation of WebSocket frames: what it observes does not depend on the code under test.

mod client;
mod stream;

use std::{
    cell::RefCell,
    future::Future,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    rc::Rc,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use sidewire_protocol::{
    EnvelopeEncoding, MessageId, TenantName, Topic, UserName, clock::Clock, random::RandomSource,
    schema::Schema,
};
use tokio::{
    io::{duplex, split},
    runtime::{Builder, LocalOptions},
    task::{JoinHandle, spawn_local, yield_now},
    time::{Instant, timeout},
};

pub(super) use self::client::{FrameClient, ObservedEnd};
use self::stream::RelayEndStream;
use super::{admitted::AdmittedClient, task::run_connection};
use crate::{
    auth::{Authenticator, Grant, Identity},
    backend::{self, BackendTarget, testing::FakeTransport},
    config::Config,
    event::{EventDraft, EventDraftParts},
    hub::{PublishedEvents, TenantRegistry},
    limits::{Limit, UserKey},
    memory::{MemoryLimits, MemoryUse},
    relay::{LiveSettings, RelayBuilder, ShardContext},
    tally::ShardTally,
    telemetry::ScrapeSources,
    transport::TransportKind,
};

/// The address that clients connect from.
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The time of day at which every test begins.
pub(super) const NOW: Duration = Duration::from_secs(1_800_000_000);

/// Room in the stream for more than any test sends.
pub(super) const WIDE: usize = 64 << 20;

static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| Arc::new(Schema::bundled().unwrap()));

/// Runs a test on one thread with paused time, which advances by itself whenever every task
/// waits. A test in which no task can continue fails.
pub(crate) fn simulate<T>(test: impl Future<Output = T>) -> T {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap()
        .block_on(async {
            timeout(Duration::from_hours(24), test)
                .await
                .expect("somebody can go on")
        })
}

/// Lets all tasks run until they wait, without time passing.
pub(crate) async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

/// A shard of its own, with a hub that delivers what is published.
pub(crate) struct ConnectionFixture {
    pub(crate) shard: Rc<ShardContext>,
    registry: Arc<TenantRegistry>,
    /// Runs the hub, which delivers what is published.
    taking: RefCell<JoinHandle<()>>,
}

/// Options of a client's connection.
struct ClientLink {
    buffer: usize,
    expires_at: Option<Duration>,
    is_endless: bool,
    takes: bool,
    encoding: EnvelopeEncoding,
    user: &'static str,
    subscriptions: Option<Vec<Topic>>,
}

impl ClientLink {
    fn new(buffer: usize) -> Self {
        Self {
            buffer,
            expires_at: None,
            is_endless: false,
            takes: false,
            encoding: EnvelopeEncoding::Protobuf,
            user: "ann",
            subscriptions: None,
        }
    }
}

impl ConnectionFixture {
    /// Creates a shard with the default configuration.
    pub(crate) fn new() -> Self {
        Self::with_settings(|_| ())
    }

    /// Creates a shard with other settings. The log keeps nothing, so that the only events in
    /// memory are in outboxes.
    pub(super) fn with_settings(settings: impl FnOnce(&mut Config)) -> Self {
        Self::with_log(|config| {
            settings(config);
            config.replay.events = 0;
        })
    }

    /// Creates a shard with other settings and a log that keeps as many events as they say.
    pub(super) fn with_log(settings: impl FnOnce(&mut Config)) -> Self {
        Self::build(settings, None)
    }

    fn build(
        settings: impl FnOnce(&mut Config),
        asked: Option<(Arc<FakeTransport>, Arc<BackendTarget>)>,
    ) -> Self {
        let mut config = Config::default();
        // Tests check every received frame, and few are about heartbeats.
        config.client.ping_interval = Duration::from_hours(48);
        config.client.idle_timeout = Duration::from_hours(96);
        // Clients may send anything at any rate; tests of the limits set them.
        config.limits.address_handshakes_per_minute = NonZeroU32::MAX;
        config.limits.user_burst = NonZeroU32::MAX;
        config.limits.tenant_burst = NonZeroU32::MAX;
        config.limits.heartbeat_burst = NonZeroU32::MAX;
        config.limits.refusals_per_minute = NonZeroU32::MAX;
        settings(&mut config);
        let mut live = LiveSettings::open(config, Arc::clone(&SCHEMA));
        let (transport, target) = asked.unzip();
        live.subscribe_backend = target;
        let mut builder =
            RelayBuilder::new(live, RandomSource::from_seed(1)).clock(Clock::simulated(NOW));
        if let Some(transport) = transport {
            builder = builder.backend_transport(transport);
        }
        let parts = builder.build();
        let [builder] = parts.shard_builders.try_into().unwrap();
        let shard = Rc::new(ShardContext::new(parts.relay, builder));
        // Tests that relieve memory or call the shard run the other tasks themselves.
        let [deliveries, alarms, .., lingering] = shard.background_tasks(Duration::ZERO);
        spawn_local(alarms);
        spawn_local(lingering);
        let relay = Arc::clone(&shard.relay);
        spawn_local(async move { relay.authorizer.run().await });
        Self {
            shard,
            registry: parts.registry,
            taking: RefCell::new(spawn_local(deliveries)),
        }
    }

    /// Limits the memory of all events to this many bytes.
    pub(super) fn bound_memory(&self, bytes: u64) {
        self.registry.memory().set_limits(MemoryLimits {
            max: bytes,
            window: 0,
        });
    }

    /// Stops the shard from delivering what is published, until it is told to resume.
    pub(super) fn stop_delivering(&self) {
        self.taking.borrow().abort();
    }

    pub(super) fn resume_delivering(&self) {
        let [deliveries, ..] = self.shard.background_tasks(Duration::ZERO);
        *self.taking.borrow_mut() = spawn_local(deliveries);
    }

    /// Applies other settings, as a reload does.
    pub(super) fn reload(&self, settings: impl FnOnce(&mut Config)) {
        self.replace_settings(|live| settings(&mut live.config));
    }

    /// Applies another way to authenticate.
    pub(super) fn set_authenticator(&self, authenticator: Authenticator) {
        self.replace_settings(|live| live.authenticator = authenticator);
    }

    /// Applies another schema.
    pub(super) fn set_schema(&self, schema: Arc<Schema>) {
        self.replace_settings(|live| live.schema = schema);
    }

    /// Changes some settings, as a reload does.
    pub(crate) fn replace_settings(&self, change: impl FnOnce(&mut LiveSettings)) {
        let mut live = LiveSettings::clone(&self.shard.relay.live());
        change(&mut live);
        self.shard.relay.replace_settings(live);
        self.shard.apply_reload();
    }

    /// Connects a client of the tenant `acme`, with a stream that holds `buffer` bytes each way.
    pub(super) fn connect(&self, buffer: usize) -> FrameClient {
        self.connect_until(None, buffer)
    }

    /// Connects a client with a token that expires at that time.
    pub(super) fn connect_until(&self, expires_at: Option<Duration>, buffer: usize) -> FrameClient {
        self.connect_over(ClientLink {
            expires_at,
            ..ClientLink::new(buffer)
        })
    }

    /// Connects a client that speaks JSON.
    pub(super) fn connect_json(&self, buffer: usize) -> FrameClient {
        self.connect_over(ClientLink {
            encoding: EnvelopeEncoding::Json,
            ..ClientLink::new(buffer)
        })
    }

    /// Connects a client of this user that speaks JSON.
    pub(super) fn connect_json_as(&self, user: &'static str, buffer: usize) -> FrameClient {
        self.connect_over(ClientLink {
            encoding: EnvelopeEncoding::Json,
            user,
            ..ClientLink::new(buffer)
        })
    }

    /// Connects a client that speaks JSON, with a token that expires at that time.
    pub(super) fn connect_json_until(&self, expires_at: Duration, buffer: usize) -> FrameClient {
        self.connect_over(ClientLink {
            encoding: EnvelopeEncoding::Json,
            expires_at: Some(expires_at),
            ..ClientLink::new(buffer)
        })
    }

    /// Connects a client whose token subscribes to these topics.
    pub(super) fn connect_claiming(
        &self,
        encoding: EnvelopeEncoding,
        topics: &[&str],
    ) -> FrameClient {
        let topics = topics.iter().map(|topic| Topic::parse(topic).unwrap());
        self.connect_over(ClientLink {
            encoding,
            subscriptions: Some(topics.collect()),
            ..ClientLink::new(WIDE)
        })
    }

    /// Connects a client over a stream that the relay can never shut down, such as TLS to a
    /// client that does not read.
    pub(super) fn connect_endlessly(&self, expires_at: Option<Duration>) -> FrameClient {
        self.connect_over(ClientLink {
            expires_at,
            is_endless: true,
            ..ClientLink::new(WIDE)
        })
    }

    /// Connects a client over a stream that accepts everything it is given, and passes on what
    /// fits into the buffer.
    pub(super) fn connect_encrypted(&self, buffer: usize) -> FrameClient {
        self.connect_over(ClientLink {
            takes: true,
            ..ClientLink::new(buffer)
        })
    }

    /// Creates a shard that asks a backend over this transport, with other settings.
    pub(super) fn asking(
        transport: &Arc<FakeTransport>,
        settings: impl FnOnce(&mut Config),
    ) -> Self {
        let target = backend::testing::target("http://localhost/");
        Self::build(settings, Some((Arc::clone(transport), target)))
    }

    fn connect_over(&self, link: ClientLink) -> FrameClient {
        let (ours, theirs) = duplex(link.buffer);
        let was_reset = Rc::default();
        let wire = RelayEndStream {
            stream: theirs,
            is_endless: link.is_endless,
            taken: link.takes.then(Vec::new),
            was_reset: Rc::clone(&was_reset),
        };
        let talk = run_connection(
            Rc::clone(&self.shard),
            self.try_admit(
                link.user,
                link.expires_at,
                link.encoding,
                link.subscriptions,
            )
            .unwrap(),
            wire,
            Bytes::new(),
            (),
        );
        let task = spawn_local(async move {
            talk.await;
            Instant::now()
        });
        let (read, write) = split(ours);
        FrameClient {
            read,
            write: Some(write),
            unparsed: Vec::new(),
            piece: usize::MAX,
            task,
            was_reset,
        }
    }

    pub(super) fn admit(&self, expires_at: Option<Duration>) -> AdmittedClient {
        self.try_admit("ann", expires_at, EnvelopeEncoding::Protobuf, None)
            .unwrap()
    }

    /// Admits a client whose token subscribes to these topics.
    pub(super) fn try_admit(
        &self,
        user: &str,
        expires_at: Option<Duration>,
        encoding: EnvelopeEncoding,
        subscriptions: Option<Vec<Topic>>,
    ) -> Result<AdmittedClient, Limit> {
        let identity = Identity {
            tenant: TenantName::parse("acme").unwrap(),
            user: UserName::parse(user).unwrap(),
            grant: Grant::Everything,
            subscriptions,
            expires_at,
            token_expires_at: expires_at,
            key: None,
        };
        let who = UserKey {
            tenant: identity.tenant.clone(),
            user: identity.user.clone(),
        };
        AdmittedClient::new(
            &self.shard,
            identity,
            who,
            PEER,
            encoding,
            TransportKind::WebSocket,
        )
    }

    /// Publishes events for all clients, in one batch.
    pub(super) async fn publish(
        &self,
        events: impl IntoIterator<Item = EventDraft>,
    ) -> PublishedEvents {
        let tenant = TenantName::parse("acme").unwrap();
        let published = self
            .shard
            .relay
            .publisher
            .append(&tenant, events.into_iter().collect())
            .await
            .unwrap()
            .wait_acknowledged()
            .await;
        assert!(published.acknowledged);
        published
    }

    pub(super) fn tally(&self) -> &ShardTally {
        self.shard.hub.tally()
    }

    /// The bytes of all events in memory.
    pub(super) fn event_bytes(&self) -> u64 {
        self.registry.memory().held_bytes(MemoryUse::Events)
    }

    /// Returns the number of connections that have ended for this reason.
    pub(super) fn closed(&self, reason: &str) -> u64 {
        self.metric(&format!(
            "sidewire_connections_closed_total{{transport=\"websocket\",reason=\"{reason}\"}}"
        ))
    }

    /// Returns the value of this series, given by name and labels.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let scraped = self.scrape();
        let mut lines = scraped.lines().filter_map(|line| line.split_once(' '));
        lines
            .find_map(|(name, value)| (name == series).then_some(value))
            .expect("there is such a series")
            .parse()
            .unwrap()
    }

    /// Returns the metrics as Prometheus would get them.
    pub(super) fn scrape(&self) -> String {
        let relay = &self.shard.relay;
        relay.metrics.render(&ScrapeSources {
            tallies: &[Arc::clone(self.shard.hub.tally())],
            registry: &self.registry,
            inbox_items: relay.publisher.inbox_items(),
            tenant_labels: relay.live().config.ops.tenant_labels,
            key_sets_fetched_at: 0,
        })
    }

    /// Checks that each event that matched is counted exactly once.
    pub(super) fn check_sums(&self) {
        let tally = self.tally();
        let dropped: u64 = tally.dropped().iter().map(|cell| cell.get()).sum();
        assert_eq!(
            tally.matched.get() + tally.replayed.get() + tally.relayed.get(),
            tally.written.get() + dropped + tally.queued.get(),
            "{tally:?}"
        );
    }

    /// Checks that all connections have gone and have left nothing behind.
    pub(super) fn check_nothing_is_left(&self) {
        self.check_sums();
        let tally = self.tally();
        let connections = tally.connections.of(TransportKind::WebSocket);
        let left = [&tally.queued, connections, &tally.subscriptions];
        assert_eq!(left.map(|it| it.get()), [0; 3]);
        assert_eq!(tally.blocked.count(), 0);
        let memory = self.registry.memory();
        let held = MemoryUse::ALL.map(|what| memory.held_bytes(what));
        assert_eq!(held, [0; MemoryUse::ALL.len()]);
        assert!(self.shard.hub.is_empty());
    }

    /// Checks that all connections have gone and have left nothing behind but the events in the
    /// log.
    pub(super) fn check_nothing_but_the_log_is_left(&self) {
        self.registry
            .sweep(Instant::now() + Duration::from_hours(24));
        self.check_nothing_is_left();
    }
}

/// An event for every client, with `filler` times the byte 7 as its content.
pub(super) fn event(filler: usize) -> EventDraft {
    event_about("tenant:*", filler)
}

/// An event about the topic, with `filler` times the byte 7 as its content.
pub(super) fn event_about(topic: &str, filler: usize) -> EventDraft {
    // Field 100, length-delimited: the application's.
    let mut payload = vec![0xa2, 0x06];
    prost::encoding::encode_varint(filler as u64, &mut payload);
    payload.resize(payload.len() + filler, 7);
    EventDraft::new(EventDraftParts {
        kept: &[&payload],
        message_id: MessageId::parse("event").unwrap(),
        append_message_id: true,
        append_timestamp: None,
        topics: Arc::new([Topic::parse(topic).unwrap()]),
        schema: Arc::clone(&SCHEMA),
    })
}
