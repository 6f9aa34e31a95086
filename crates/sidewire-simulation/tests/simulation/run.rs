//! Runs a simulation, from a seed to its outcome.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use sidewire::{memory::MemoryUse, planted};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc::Receiver,
    task::{JoinHandle, spawn_local},
    time::{Instant, sleep, timeout},
};

use super::{
    backend::SimulatedBackend,
    checker,
    client::SimulatedClient,
    dice::Dice,
    history::History,
    known::ResumeModel,
    response_client::ResponseClient,
    rights::RightsBackend,
    schemas::REVISIONS,
    stage::{PhaseSwitch, StagePhase},
    subscribe_backend::{PostedQuestion, QuestionTransport, SubscribeBackend, SubscribePolicy},
    topics::{TENANTS, TopicBits, USERS},
    world::{SHARDS, SimulatedShard, SimulatedWorld, SimulationSettings},
};

const CLIENTS: usize = 20;
/// Clients without a WebSocket, half of which poll.
pub(super) const RESPONSE_CLIENTS: usize = 4;
const BACKENDS: usize = 5;
const EVENTS: usize = 500;

/// Relative numbers of clients of the tenants.
const TENANT_WEIGHTS: [usize; TENANTS.len()] = [50, 30, 17, 3];

/// The outcome of a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RunOutcome {
    /// Hash of all that clients and backends received, with its times.
    pub(super) trace: u64,
    /// Number of occurrences, by name.
    pub(super) counts: BTreeMap<&'static str, u64>,
}

/// Runs a future on one thread with paused time, which advances whenever every task waits. Panics
/// if no task can continue.
fn simulate<T>(future: impl Future<Output = T>) -> T {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap()
        .block_on(async { timeout(Duration::from_hours(24), future).await })
        .expect("some task can continue")
}

/// Runs a seed. Panics if the relay violates its contract.
pub(super) fn run(seed: u64) -> RunOutcome {
    simulate(async move {
        let dice = Dice::new(seed, 0);
        let settings = SimulationSettings::drawn(&dice);
        let concurrency = settings.config.auth.subscribe.concurrency;
        let (transport, questions) = QuestionTransport::new(concurrency);
        let run = SimulationRun {
            world: Rc::new(SimulatedWorld::new(&settings, transport, seed)),
            history: Rc::new(History::new()),
            stage: PhaseSwitch::new(),
            policy: Rc::default(),
            settings,
            seed,
        };
        run.play(&dice, questions).await;
        run.check_nothing_is_left().await;
        checker::check(&run.history, &run.settings, run.dropped_client_events());
        run.outcome()
    })
}

struct SimulationRun {
    world: Rc<SimulatedWorld>,
    history: Rc<History>,
    stage: Rc<PhaseSwitch>,
    policy: Rc<SubscribePolicy>,
    settings: SimulationSettings,
    seed: u64,
}

impl SimulationRun {
    async fn play(&self, dice: &Dice, questions: Receiver<PostedQuestion>) {
        let world = Rc::clone(&self.world);
        let sweep = spawn_local(async move { world.sweep().await });
        let relay = Arc::clone(&self.world.relay);
        let asking = spawn_local(async move { relay.authorizer.run().await });
        let answering = spawn_local(self.subscribe_backend(questions).run());
        let watch = spawn_local(watch_sums(Rc::clone(&self.world)));
        let clients = (0..CLIENTS).map(|number| self.client(number));
        let others = (0..RESPONSE_CLIENTS).map(|number| self.response_client(number));
        let clients: Vec<_> = clients.chain(others).collect();
        let left = Rc::new(Cell::new(EVENTS));
        let backends: Vec<_> = (0..BACKENDS).map(|it| self.backend(it, &left)).collect();
        let meddler = spawn_local(self.interfere());
        let rights = spawn_local(self.rights_backend().run());
        let reloads = spawn_local(self.reload_schemas());
        if dice.percent(20) {
            sleep(dice.millis(3_000..20_000)).await;
            self.stage.enter(StagePhase::Drain);
            join(vec![meddler, rights]).await;
            self.history.count("drain");
            assert!(self.world.drain().await, "the drain takes too long");
            join(backends).await;
        } else {
            join(backends).await;
            self.stage.enter(StagePhase::Quiet);
            join(vec![meddler, rights]).await;
            // Time that the slowest link needs for a full outbox followed by a replay.
            sleep(Duration::from_secs(40)).await;
            self.stage.enter(StagePhase::Over);
        }
        join(clients).await;
        assert!(!watch.is_finished(), "the sums were watched to the end");
        watch.abort();
        sweep.abort();
        reloads.abort();
        // What is left of the questions ends with the connections that waited for it.
        assert!(!asking.is_finished() && !answering.is_finished());
    }

    fn client(&self, number: usize) -> JoinHandle<()> {
        let dice = Dice::new(self.seed, 100 + number as u64);
        let is_restless = number == 0;
        let topics_of_token = dice
            .percent(40)
            .then(|| TopicBits::drawn(&dice, dice.below(4)));
        let implicit = TopicBits::implicit(number % USERS) | topics_of_token.unwrap_or_default();
        let client = SimulatedClient {
            world: Rc::clone(&self.world),
            history: Rc::clone(&self.history),
            stage: Rc::clone(&self.stage),
            number,
            tenant: if is_restless {
                TENANTS.len() - 1
            } else {
                dice.weighted(&TENANT_WEIGHTS)
            },
            is_restless,
            speaks_json: number % 3 == 2,
            topics_of_token,
            shard: 0,
            known: ResumeModel::new(implicit),
            dice,
        };
        spawn_local(client.run())
    }

    fn response_client(&self, number: usize) -> JoinHandle<()> {
        let number = CLIENTS + number;
        let dice = Dice::new(self.seed, 100 + number as u64);
        let client = ResponseClient {
            world: Rc::clone(&self.world),
            history: Rc::clone(&self.history),
            stage: Rc::clone(&self.stage),
            number,
            tenant: dice.weighted(&TENANT_WEIGHTS),
            topics: TopicBits::drawn(&dice, dice.below(4)),
            polls: number.is_multiple_of(2),
            at: None,
            dice,
        };
        spawn_local(client.run())
    }

    fn backend(&self, number: usize, left: &Rc<Cell<usize>>) -> JoinHandle<()> {
        let backend = SimulatedBackend {
            world: Rc::clone(&self.world),
            history: Rc::clone(&self.history),
            dice: Dice::new(self.seed, 200 + number as u64),
            first_shard: self.settings.first_for_backends,
            left: Rc::clone(left),
        };
        spawn_local(backend.run())
    }

    fn rights_backend(&self) -> RightsBackend {
        RightsBackend {
            world: Rc::clone(&self.world),
            history: Rc::clone(&self.history),
            stage: Rc::clone(&self.stage),
            policy: Rc::clone(&self.policy),
            dice: Dice::new(self.seed, 500),
            first_shard: self.settings.first_for_backends,
        }
    }

    fn subscribe_backend(&self, questions: Receiver<PostedQuestion>) -> SubscribeBackend {
        let dice = Dice::new(self.seed, 600);
        let (record, policy) = ((&self.history, &self.stage), &self.policy);
        SubscribeBackend::new(record, dice, questions, policy, &self.settings)
    }

    /// Occasionally holds up a shard, or only the task that processes its inbox.
    fn interfere(&self) -> impl Future<Output = ()> + use<> {
        let (world, stage) = (Rc::clone(&self.world), Rc::clone(&self.stage));
        let dice = Dice::new(self.seed, 300);
        async move {
            while stage.phase() == StagePhase::Chaos {
                sleep(dice.millis(10..1500)).await;
                let shard = &world.shards[dice.below(SHARDS)];
                let (gate, pause) = if dice.percent(60) {
                    (&shard.inbox_gate, dice.millis(10..2500))
                } else {
                    (&shard.gate, dice.millis(5..800))
                };
                gate.close();
                sleep(pause).await;
                gate.open();
            }
        }
    }

    /// Reloads the schemas one after another.
    fn reload_schemas(&self) -> impl Future<Output = ()> + use<> {
        let (world, history) = (Rc::clone(&self.world), Rc::clone(&self.history));
        let dice = Dice::new(self.seed, 400);
        async move {
            for revision in 1..REVISIONS {
                sleep(dice.millis(500..12_000)).await;
                history.record_reload();
                world.serve_schema(revision);
            }
        }
    }

    /// Checks that nothing is left once all clients have disconnected and the window has expired.
    async fn check_nothing_is_left(&self) {
        sleep(Duration::from_secs(20)).await;
        for shard in &self.world.shards {
            let tally = shard.shard.hub.tally();
            let left = [tally.connections.total(), tally.subscriptions.get()];
            assert_eq!(left, [0; 2], "{tally:?}");
            assert!(shard.shard.hub.is_empty(), "a tenant is left on a shard");
            // No flow waits for ever to be scheduled.
            assert!(shard.shard.hub.is_idle(), "a flow of work is left");
            assert!(
                shard.shard.hub.work_queue().is_forgotten(),
                "a tenant's work is left"
            );
        }
        self.world.check_nothing_is_queued();
        self.world.check_tasks().await;
        let config = &self.settings.config;
        sleep(config.replay.age.max(config.ingest.message_id_age)).await;
        self.world.registry.sweep(Instant::now());
        while self.world.relay.authorizer.sweep() {}
        let memory = self.world.registry.memory();
        let presence = memory.held_bytes(MemoryUse::Presence);
        if self.world.relay.is_draining() && presence > 0 {
            // Nobody is shown to leave in a drain, so what was present still is.
            return;
        }
        assert_eq!(presence, 0, "presence is left");
        assert_eq!(memory.held_bytes(MemoryUse::Events), 0);
        assert_eq!(memory.held_bytes(MemoryUse::Authorization), 0);
        assert!(self.world.registry.is_empty(), "a tenant is left");
    }

    /// Returns the most deliveries of clients' events that the relay has dropped.
    fn dropped_client_events(&self) -> u64 {
        let of_shard = |shard: &SimulatedShard| {
            let tally = shard.shard.hub.tally();
            // A full inbox is counted once for all connections of the shard.
            tally.dropped_catching_up.get()
                + tally.dropped_outbox.get()
                + tally.dropped_inbox.get() * CLIENTS as u64
        };
        self.world.shards.iter().map(of_shard).sum()
    }

    fn outcome(&self) -> RunOutcome {
        let mut counts = self.history.counts.take();
        counts.extend(planted::seen());
        RunOutcome {
            trace: self.history.trace_hash(),
            counts,
        }
    }
}

async fn join(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        if let Err(error) = task.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Checks the sums and bounds periodically. Never returns.
async fn watch_sums(world: Rc<SimulatedWorld>) {
    loop {
        sleep(Duration::from_millis(37)).await;
        world.check_sums();
        world.check_bounds();
    }
}
