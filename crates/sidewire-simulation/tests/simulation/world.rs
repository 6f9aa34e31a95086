//! The whole relay on one thread: two shards and everything above the sockets, wired as in
//! `server`, with settings drawn from the seed.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use sidewire::{
    auth::{
        Algorithm, Authenticator, NewToken, Secret, SigningKey, TokenRules, TokenVerifier,
        VerificationKey,
    },
    backend::BackendTransport,
    config::Config,
    connection,
    http::ListenerKind,
    hub::{InboxLimits, TenantRegistry},
    ingest,
    memory::MemoryUse,
    planted::{PlantedFault, is_planted, note_schema},
    relay::{LiveSettings, Relay, RelayBuilder, ShardContext},
    scheduler::Cost,
};
use sidewire_protocol::{TenantName, UserName, clock::Clock, random::RandomSource};
use tokio::{
    task::{JoinHandle, spawn_local},
    time::{Instant, interval, timeout_at},
};

use super::{
    dice::Dice,
    gate::Gate,
    pipe::PipeStream,
    run::RESPONSE_CLIENTS,
    schemas, subscribe_backend,
    tokens::{ClientToken, LEEWAY, parsed},
    topics::TENANTS,
};

/// The address that clients connect from.
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The time of day at which every simulation begins.
pub(super) const BEGIN: Duration = Duration::from_secs(1_800_000_000);

pub(super) const SHARDS: usize = 2;

/// As in `server`.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
const CALLS_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of events in a batch, maximum cost of an event in bytes, and (below) maximum
/// number of events in inboxes.
pub(super) const BATCH_MAX: usize = 6;
pub(super) const COST_MAX: u64 = 2_000;

/// Maximum cost of an event's JSON, in bytes.
pub(super) const JSON_COST_MAX: u64 = 9_000;
/// Little memory, but not so little that backends are refused for minutes: each client without a
/// WebSocket is charged with 18 KB.
const SMALL_MEMORY: usize = 170_000 + RESPONSE_CLIENTS * 18_000;
const INBOXES_MAX: u64 = (SHARDS * 12 * BATCH_MAX) as u64;

/// Maximum cost of the presence messages that no longer stand, in bytes: those that shards still
/// show or that connections are owed.
const PRESENCE_MAX: u64 = 200_000;

/// The settings of the relay, drawn from the seed.
#[derive(Debug)]
pub(super) struct SimulationSettings {
    pub(super) config: Config,
    pub(super) inbox: InboxLimits,
    /// The first shard that serves backends. Such a shard processes its inbox with every call.
    pub(super) first_for_backends: usize,
    /// Percentage of polls at which a task yields.
    pub(super) yields_percent: u64,
    /// True if a backend is asked about each Subscribe.
    pub(super) asks_backend: bool,
}

impl SimulationSettings {
    pub(super) fn drawn(dice: &Dice) -> Self {
        let mut config = Config::default();
        config.limits.outbox_frames = *dice.pick(&[4, 8, 16, 40]);
        config.limits.outbox_bytes = *dice.pick(&[2_000, 6_000, 20_000]);
        config.replay.events = *dice.pick(&[8, 20, 40, 60, 200, 1_000]);
        config.replay.bytes = *dice.pick(&[6_000, 30_000, 1 << 20]);
        config.replay.age = *dice.pick(&[
            Duration::from_secs(2),
            Duration::from_secs(8),
            Duration::from_secs(300),
        ]);
        config.replay.process_bytes = *dice.pick(&[1 << 20, 1 << 20, 30_000]);
        config.replay.enabled = !dice.percent(3);
        config.limits.memory_max = *dice.pick(&[1 << 30, 1 << 30, SMALL_MEMORY]);
        if config.limits.memory_max < 2 * config.replay.process_bytes {
            // The config requires memory beyond the logs. Without it no event could be rendered
            // for a JSON client that resumes.
            config.replay.process_bytes = 30_000;
        }
        // The message ids' part of the memory is budgeted apart.
        config.limits.memory_max += config.ingest.message_id_bytes_max;
        // The clients send without pauses.
        let wide = NonZeroU32::MAX;
        config.limits.user_burst = wide;
        config.limits.address_handshakes_per_minute = NonZeroU32::MAX;
        config.limits.tenant_burst = wide;
        config.limits.heartbeat_burst = wide;
        config.limits.refusals_per_minute = NonZeroU32::new(10_000).unwrap();
        config.ingest.inbox_timeout = dice.millis(100..600);
        config.ingest.ack_timeout = dice.millis(200..1500);
        config.client.write_timeout = dice.millis(800..3000);
        config.client.drain_timeout = Duration::from_secs(10);
        config.client.ping_interval = dice.millis(700..2500);
        config.client.idle_timeout = *dice.pick(&[
            Duration::from_secs(3),
            Duration::from_secs(6),
            Duration::from_secs(60),
        ]);
        config.client.message_timeout = *dice.pick(&[3, 30].map(Duration::from_secs));
        let limits = &mut config.limits;
        let some = |counts: &[u32]| NonZeroU32::new(*dice.pick(counts)).unwrap();
        limits.user_burst = some(&[8, 30, 10_000]);
        limits.user_period = *dice.pick(&[2, 10].map(Duration::from_secs));
        limits.tenant_burst = some(&[3, 20, 10_000]);
        limits.tenant_period = *dice.pick(&[2, 10].map(Duration::from_secs));
        limits.heartbeat_burst = some(&[3, 60]);
        limits.heartbeat_period = *dice.pick(&[2, 10].map(Duration::from_secs));
        limits.refusals_per_minute = some(&[6, 100, 100]);
        limits.user_event_burst = some(&[6, 60, 10_000]);
        limits.user_event_period = *dice.pick(&[2, 10].map(Duration::from_secs));
        config.presence.linger = *dice.pick(&[0, 300, 2_000, 5_000].map(Duration::from_millis));
        config.presence.messages_per_user = *dice.pick(&[16, 16, 1]);
        config.presence.users_per_topic = *dice.pick(&[1_000, 2, 1]);
        config.presence.owed = *dice.pick(&[1_000, 1_000, 2]);
        let subscribe = &mut config.auth.subscribe;
        subscribe.timeout = *dice.pick(&[300, 1_000, 2_000].map(Duration::from_millis));
        subscribe.ttl = *dice.pick(&[0, 2, 60].map(Duration::from_secs));
        subscribe.negative_ttl = *dice.pick(&[0, 500, 5_000].map(Duration::from_millis));
        subscribe.entries = *dice.pick(&[100_000, 100_000, 3]);
        subscribe.concurrency = *dice.pick(&[64, 64, 2]);
        Self {
            config,
            inbox: InboxLimits {
                places: dice.within(4..12),
                places_per_tenant: dice.within(2..6),
            },
            first_for_backends: *dice.pick(&[0, 1, 1]),
            yields_percent: *dice.pick(&[0, 5, 20, 50]),
            asks_backend: dice.percent(50),
        }
    }
}

pub(super) struct SimulatedWorld {
    pub(super) relay: Arc<Relay>,
    pub(super) registry: Arc<TenantRegistry>,
    pub(super) shards: Vec<SimulatedShard>,
    key: SigningKey,
    rules: TokenRules,
}

pub(super) struct SimulatedShard {
    pub(super) shard: Rc<ShardContext>,
    /// The gate of all its tasks.
    pub(super) gate: Rc<Gate>,
    /// The gate of the task that processes the inbox.
    pub(super) inbox_gate: Rc<Gate>,
    /// The tasks of its connections.
    tasks: Rc<RefCell<Vec<JoinHandle<()>>>>,
}

impl SimulatedWorld {
    pub(super) fn new(
        settings: &SimulationSettings,
        transport: Arc<dyn BackendTransport>,
        seed: u64,
    ) -> Self {
        let (key, rules, authenticator) = authentication();
        let schema = schemas::of_revision(0);
        note_schema(&schema);
        let live = LiveSettings {
            authenticator,
            subscribe_backend: settings.asks_backend.then(subscribe_backend::target),
            ..LiveSettings::open(settings.config.clone(), schema)
        };
        let parts = RelayBuilder::new(live, RandomSource::from_seed(seed))
            .clock(Clock::simulated(BEGIN))
            .shards(SHARDS)
            .inbox_limits(settings.inbox)
            .backend_transport(transport)
            .build();
        let relay = parts.relay;
        let shards = parts
            .shard_builders
            .into_iter()
            .zip([1, 2])
            .map(|(builder, number)| {
                let shard = Rc::new(ShardContext::new(Arc::clone(&relay), builder));
                let gate = |actor| Gate::new(Dice::new(seed, actor), settings.yields_percent);
                SimulatedShard::start(shard, gate(1_000 + number), gate(2_000 + number))
            })
            .collect();
        Self {
            relay,
            registry: parts.registry,
            shards,
            key,
            rules,
        }
    }

    /// Replaces the schema, as a reload does.
    pub(super) fn serve_schema(&self, revision: usize) {
        let schema = schemas::of_revision(revision);
        note_schema(&schema);
        let mut live = LiveSettings::clone(&self.relay.live());
        live.schema = schema;
        self.relay.replace_settings(live);
    }

    /// Evicts expired events periodically. Never returns.
    pub(super) async fn sweep(&self) {
        let mut ticks = interval(SWEEP_EVERY);
        loop {
            self.registry.sweep(ticks.tick().await);
            while self.relay.authorizer.sweep() {}
        }
    }

    /// Returns a token with these claims as a client presents it.
    pub(super) fn token(&self, token: &ClientToken) -> String {
        let token = NewToken {
            tenant: TenantName::parse(TENANTS[token.tenant]).unwrap(),
            user: UserName::parse(&format!("u{}", token.user)).unwrap(),
            expires_at: Some(token.expires_at),
            topics: token.grant.list(),
            subscribe: token.claim.map(parsed),
        };
        self.key.mint(&token, &self.rules).unwrap()
    }

    /// Checks that each matched, replayed or relayed event is counted once as written, dropped or
    /// queued.
    /// (Skipped for some faults that the model is to find, though the sums show them too.)
    pub(super) fn check_sums(&self) {
        if is_planted(PlantedFault::DropsOwedEvents)
            || is_planted(PlantedFault::TakesThePositionLate)
        {
            return;
        }
        for shard in &self.shards {
            let tally = shard.shard.hub.tally();
            let dropped: u64 = tally.dropped().iter().map(|cell| cell.get()).sum();
            let sum = tally.written.get() + dropped + tally.queued.get();
            let all = tally.matched.get() + tally.replayed.get() + tally.relayed.get();
            assert_eq!(all, sum, "{tally:?}");
            // The work that was done has been charged.
            let offers = usize::try_from(tally.matched.get()).unwrap();
            let replayed = usize::try_from(tally.replayed.get()).unwrap();
            let least = Cost::STEP.times(offers) + Cost::FRAME.times(replayed);
            let charged = shard.shard.hub.total_charged();
            assert!(charged >= least, "{charged:?} is charged for {least:?}");
        }
    }

    /// Checks the memory held: the logs' share, and for each connection a full outbox and one
    /// batch beyond it.
    pub(super) fn check_bounds(&self) {
        let (live, registry) = (self.relay.live(), &self.registry);
        let config = &live.config;
        let logs = registry.log_bytes();
        assert!(logs <= config.replay.process_bytes as u64, "{logs} in logs");
        assert!(registry.len() <= TENANTS.len());
        let connections = self
            .shards
            .iter()
            .map(|it| it.shard.hub.tally().connections.total());
        let frames = (config.limits.outbox_frames + BATCH_MAX) as u64;
        let cost_max = COST_MAX + JSON_COST_MAX;
        let outboxes = connections.sum::<u64>() * frames * cost_max;
        let beside = registry.memory().held_bytes(MemoryUse::Events) - logs;
        // A message that is present, and one that says that its user is absent, each in binary and
        // as JSON; and those that shards have not replaced yet.
        let presence = 8 * registry.memory().held_bytes(MemoryUse::Presence) + PRESENCE_MAX;
        assert!(
            beside <= outboxes + INBOXES_MAX * cost_max + presence,
            "{beside} in outboxes"
        );
    }

    pub(super) fn check_nothing_is_queued(&self) {
        self.check_sums();
        for shard in &self.shards {
            let queued = shard.shard.hub.tally().queued.get();
            assert!(
                queued == 0 || is_planted(PlantedFault::DropsOwedEvents),
                "{queued} are queued"
            );
        }
    }

    /// Checks that the tasks of all connections have ended, none with a panic.
    pub(super) async fn check_tasks(&self) {
        for shard in &self.shards {
            for task in shard.tasks.take() {
                assert!(task.is_finished(), "a task is left");
                task.await.expect("no task of the relay panics");
            }
        }
    }

    /// Drains the relay as `server` does. Returns true if the drain was completed in time.
    pub(super) async fn drain(&self) -> bool {
        let began = Instant::now();
        let timeout = self.relay.live().config.client.drain_timeout;
        self.relay.begin_drain();
        let calls_end = began + (timeout / 2).min(CALLS_TIMEOUT);
        let answered = timeout_at(calls_end, self.relay.calls.wait()).await.is_ok();
        for shard in &self.shards {
            shard.end_all().await;
        }
        self.relay.clients.close();
        let closed = timeout_at(began + timeout, self.relay.clients.wait()).await;
        answered && closed.is_ok()
    }
}

impl SimulatedShard {
    fn start(shard: Rc<ShardContext>, gate: Rc<Gate>, inbox_gate: Rc<Gate>) -> Self {
        let started = Self {
            shard,
            gate,
            inbox_gate,
            tasks: Rc::default(),
        };
        let [deliveries, others @ ..] = started.shard.background_tasks(Duration::ZERO);
        spawn_local(started.gate.behind(started.inbox_gate.behind(deliveries)));
        for task in others {
            spawn_local(started.gate.behind(task));
        }
        started
    }

    pub(super) fn serve_client(&self, wire: PipeStream) {
        let (shard, gate) = (Rc::clone(&self.shard), Rc::clone(&self.gate));
        let tasks = Rc::clone(&self.tasks);
        self.spawn(async move {
            if let Some(conversation) = connection::serve_stream(shard, wire, PEER, ()).await {
                let task = spawn_local(gate.behind(conversation));
                tasks.borrow_mut().push(task);
            }
        });
    }

    pub(super) fn serve_backend(&self, wire: PipeStream) {
        let shard = Rc::clone(&self.shard);
        self.spawn(ingest::serve(shard, wire, ListenerKind::Tcp, ()));
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let task = spawn_local(self.gate.behind(task));
        self.tasks.borrow_mut().push(task);
    }

    /// Closes all connections once the shard's gate is open.
    async fn end_all(&self) {
        let shard = Rc::clone(&self.shard);
        let told = self.gate.behind(async move { shard.end_clients() });
        spawn_local(told).await.unwrap();
    }
}

fn authentication() -> (SigningKey, TokenRules, Authenticator) {
    let secret = Secret::new([7; 32]);
    let rules = TokenRules {
        leeway: LEEWAY,
        ..TokenRules::default()
    };
    let algorithm = Algorithm::HS256;
    let key = VerificationKey::from_secret(algorithm, None, &secret).unwrap();
    let verifier = TokenVerifier::new(vec![key], rules.clone()).unwrap();
    let signing = SigningKey::from_secret(algorithm, None, &secret).unwrap();
    (signing, rules, Authenticator::Tokens(verifier))
}
