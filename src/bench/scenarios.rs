//! The scenarios: what is opened, posted, waited for and measured, in which
//! order. Knows no socket.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use super::{
    BenchError, Plan, Progress, Scenario, Speech, Window,
    clients::Shared,
    engine::{Engine, Load, Opened, Script},
    event::{Mould, Run},
    latency::{Latencies, percentiles},
    limits,
    report::{Block, GeneratorUse, Growth, Report, micros_each, per_second},
    server_process::ServerProcess,
    tally::{Counts, Tally},
};
use crate::{clock::Clock, random::Random, schema::Schema};

/// How long an event may be on its way before it counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// How many are on the one topic of the scenario `growth`.
const GROWTH_SUBSCRIBERS: usize = 100;

/// The server is at rest when it has used less than this in so much time.
const REST_CPU: Duration = Duration::from_millis(1);
const REST_TIME: Duration = Duration::from_millis(50);

/// How long it is waited for.
const REST_MAX: Duration = Duration::from_secs(10);

/// Runs the scenario.
///
/// # Errors
///
/// When it cannot be run at all. What has gone wrong in a run that came to its end
/// stands in the report.
pub fn run(
    plan: Plan,
    schema: &Schema,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, BenchError> {
    limits::prepare(&plan)?;
    let pid = plan.server_pid;
    let server = pid.map(|pid| {
        ServerProcess::new(pid).map_err(|source| BenchError::ServerProcess { pid, source })
    });
    let meters = Meters {
        server: server.transpose()?,
    };
    let mut bench = Bench {
        scenario: plan.scenario,
        report: Report::empty(&plan),
        engine: engine(plan, schema, progress)?,
        meters,
    };
    bench.run()?;
    Ok(bench.finish())
}

/// The loop, with everything made beforehand that is said in it.
fn engine<'p>(
    plan: Plan,
    schema: &Schema,
    progress: &'p mut dyn FnMut(Progress),
) -> Result<Engine<'p>, BenchError> {
    let run = Run::new(&Random::from_system()?);
    let now = Clock::system().unix_seconds();
    let mould = Mould::new(schema, run, now, plan.payload_bytes)?;
    let channels = Channels::of(&plan);
    let target = plan.target;
    let connections = (0..plan.scenario.fanout().connections)
        .map(|connection| {
            let channel = channels.of_connection(connection);
            Ok((channel, target.handshake(connection, channel)?))
        })
        .collect::<Result<_, BenchError>>()?;
    let subscribes = (0..channels.subscribed)
        .map(|channel| target.subscribe(mould.topic(channel)))
        .collect();
    let calls = (0..channels.published)
        .map(|channel| target.call(&mould, channel, plan.scenario.batch()))
        .collect::<Result<_, _>>()?;
    let shared = Shared {
        buffer: Vec::new(),
        tally: Tally::new(channels.published),
        latencies: Latencies::new()?,
        is_measuring: false,
        run,
        epoch: Instant::now(),
    };
    let script = Script {
        connections,
        subscribes,
    };
    Engine::new(target, script, calls, shared, progress)
}

/// A channel is a topic of a tenant. Events go to the first ones in turn.
#[derive(Debug, Clone, Copy)]
struct Channels {
    published: usize,
    subscribed: usize,
    /// How many connections share the first one.
    on_first: usize,
}

impl Channels {
    fn of(plan: &Plan) -> Self {
        let topics = plan.scenario.fanout().topics;
        let tenants = match &plan.target.speech {
            Speech::Relay(relay) => relay.tenants,
            Speech::Floor(_) => 1,
        };
        let each = topics.max(tenants).max(1);
        match plan.scenario {
            Scenario::Growth { .. } => Self {
                published: 1,
                subscribed: topics,
                on_first: GROWTH_SUBSCRIBERS,
            },
            Scenario::Idle { .. } | Scenario::Connect { .. } => Self {
                published: 0,
                subscribed: each,
                on_first: 1,
            },
            _ => Self {
                published: each,
                subscribed: each,
                on_first: 1,
            },
        }
    }

    fn of_connection(&self, connection: usize) -> usize {
        let beyond_first = (connection + 1).saturating_sub(self.on_first);
        beyond_first
            .checked_rem(self.subscribed)
            .unwrap_or_default()
    }
}

/// Processor time and memory.
struct Meters {
    server: Option<ServerProcess>,
}

/// What the meters show at one time.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    server_cpu: Option<Duration>,
    generator_cpu: Duration,
}

impl Meters {
    fn read(&self) -> Result<Reading, BenchError> {
        Ok(Reading {
            at: Instant::now(),
            server_cpu: self.server.as_ref().map(ServerProcess::cpu).transpose()?,
            generator_cpu: own_cpu(),
        })
    }

    fn memory_bytes(&self) -> Result<Option<u64>, BenchError> {
        let memory = self.server.as_ref().map(ServerProcess::memory_bytes);
        Ok(memory.transpose()?)
    }
}

/// What lies between two readings.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    time: Duration,
    server_cpu: Option<Duration>,
    generator_cpu: Duration,
}

impl Used {
    fn between(from: Reading, to: Reading) -> Self {
        let server_cpu = to.server_cpu.zip(from.server_cpu);
        Self {
            time: to.at - from.at,
            server_cpu: server_cpu.map(|(to, from)| to.saturating_sub(from)),
            generator_cpu: to.generator_cpu.saturating_sub(from.generator_cpu),
        }
    }

    fn add(&mut self, other: Self) {
        self.time += other.time;
        self.generator_cpu += other.generator_cpu;
        self.server_cpu = match (self.server_cpu, other.server_cpu) {
            (Some(sum), Some(other)) => Some(sum + other),
            (sum, other) => sum.or(other),
        };
    }
}

fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// One run.
struct Bench<'p> {
    scenario: Scenario,
    engine: Engine<'p>,
    meters: Meters,
    report: Report,
}

impl Bench<'_> {
    fn run(&mut self) -> Result<(), BenchError> {
        let all = 0..self.scenario.fanout().connections;
        self.engine.open_publishers(self.scenario.publishers())?;
        match self.scenario {
            Scenario::Latency { rate, window, .. } => {
                self.open(all)?;
                let interval = Duration::try_from_secs_f64(1.0 / rate);
                let interval = interval.unwrap_or(Duration::MAX);
                self.measure(Load::Paced(interval), window)
            }
            Scenario::Throughput {
                outstanding,
                window,
                ..
            }
            | Scenario::Selective {
                outstanding,
                window,
                ..
            } => {
                self.open(all)?;
                self.measure(Load::Full(outstanding), window)
            }
            Scenario::Ingest { window, .. } => self.measure(Load::Answered, window),
            Scenario::Idle { settle, .. } => self.idle(all, settle),
            Scenario::Connect { window, .. } => self.connect(all, window),
            Scenario::Growth {
                few,
                many,
                blocks,
                outstanding,
                window,
            } => self.growth([few, many], blocks, Load::Full(outstanding), window),
        }
    }

    /// Opens clients, and notes what that took.
    fn open(&mut self, connections: Range<usize>) -> Result<(), BenchError> {
        let count = connections.len();
        let before = self.meters.read()?;
        let opened = self.engine.open(connections, self.report.concurrency)?;
        let used = Used::between(before, self.meters.read()?);
        if opened.connects == 0 && count > 0 {
            let reason = self.engine.first_failure.clone().unwrap_or_default();
            return Err(BenchError::NobodySubscribed(reason));
        }
        self.note_opened(&opened, used);
        Ok(())
    }

    fn note_opened(&mut self, opened: &Opened, used: Used) {
        let report = &mut self.report;
        report.connects = opened.connects;
        report.connects_per_s = per_second(opened.connects, opened.took);
        report.connect_failures = opened.failures;
        if let Some(cpu) = used.server_cpu {
            let server = report.server.get_or_insert_default();
            server.cpu_us_per_connect = micros_each(cpu, opened.connects);
        }
    }

    /// Warms up, then measures, then waits for what is under way.
    fn measure(&mut self, load: Load, window: Window) -> Result<(), BenchError> {
        self.engine.drive("warming up", load, window.warmup)?;
        let (before, used) = self.drive_measured(load, window.duration)?;
        let counts = self.engine.shared.tally.counts();
        self.note_used(before, counts, used);
        self.settle()
    }

    /// Measures; gives what was counted before and what was used.
    fn drive_measured(
        &mut self,
        load: Load,
        duration: Duration,
    ) -> Result<(Counts, Used), BenchError> {
        let (counts, answers) = (self.engine.shared.tally.counts(), self.engine.answers);
        self.engine.shared.is_measuring = true;
        let before = self.meters.read()?;
        self.engine.drive("measuring", load, duration)?;
        let used = Used::between(before, self.meters.read()?);
        self.engine.shared.is_measuring = false;
        self.report.calls += self.engine.answers - answers;
        Ok((counts, used))
    }

    fn note_used(&mut self, before: Counts, after: Counts, used: Used) {
        let report = &mut self.report;
        let (events, deliveries) = (
            after.stored - before.stored,
            after.deliveries - before.deliveries,
        );
        report.seconds = used.time.as_secs_f64();
        report.events = events;
        report.deliveries = deliveries;
        report.events_per_s = per_second(events, used.time);
        report.deliveries_per_s = per_second(deliveries, used.time);
        report.generator = generator_use(used);
        if let Some(cpu) = used.server_cpu {
            let server = report.server.get_or_insert_default();
            server.cpu_s = cpu.as_secs_f64();
            server.cpu_us_per_event = micros_each(cpu, events);
            server.cpu_us_per_delivery = micros_each(cpu, deliveries);
        }
    }

    fn settle(&mut self) -> Result<(), BenchError> {
        self.engine.settle(Instant::now() + LOST_AFTER)
    }

    fn idle(&mut self, all: Range<usize>, settle: Duration) -> Result<(), BenchError> {
        let before_bytes = self.meters.memory_bytes()?;
        self.open(all)?;
        let before = self.meters.read()?;
        self.engine.idle("settling", settle)?;
        let counts = Counts::default();
        self.note_used(counts, counts, Used::between(before, self.meters.read()?));
        let after_bytes = self.meters.memory_bytes()?;
        if let Some((before, after)) = before_bytes.zip(after_bytes) {
            let server = self.report.server.get_or_insert_default();
            server.memory_bytes_before = Some(before);
            server.memory_bytes_after = Some(after);
            let grown = after as f64 - before as f64;
            server.memory_bytes_per_connection = Some(grown / self.report.connects as f64);
        }
        Ok(())
    }

    /// Opens all, closes all, and again; only the opening is measured.
    fn connect(&mut self, all: Range<usize>, window: Window) -> Result<(), BenchError> {
        let begun = Instant::now();
        let (mut opened, mut used) = (Opened::default(), Used::default());
        while begun.elapsed() < window.warmup + window.duration {
            let is_warm = begun.elapsed() >= window.warmup;
            let before = self.meters.read()?;
            let wave = self.engine.open(all.clone(), self.report.concurrency)?;
            if wave.connects == 0 {
                let reason = self.engine.first_failure.clone().unwrap_or_default();
                return Err(BenchError::NobodySubscribed(reason));
            }
            if is_warm {
                opened.add(&wave);
                used.add(Used::between(before, self.meters.read()?));
            }
            self.engine.close(all.clone());
            self.rest()?;
        }
        self.note_used(Counts::default(), Counts::default(), used);
        self.note_opened(&opened, used);
        Ok(())
    }

    /// Waits until the server has nothing more to do.
    fn rest(&mut self) -> Result<(), BenchError> {
        let until = Instant::now() + REST_MAX;
        loop {
            let before = self.meters.read()?;
            self.engine.idle("resting", REST_TIME)?;
            let used = Used::between(before, self.meters.read()?);
            let is_at_rest = used.server_cpu.is_none_or(|cpu| cpu < REST_CPU);
            if is_at_rest || Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// In blocks: few, many, many, few, few, many, …, so that half of them need no
    /// opening and closing, and what drifts meets both alike.
    fn growth(
        &mut self,
        [few, many]: [usize; 2],
        blocks: usize,
        load: Load,
        window: Window,
    ) -> Result<(), BenchError> {
        if self.meters.server.is_none() {
            return Err(BenchError::NoServerProcess);
        }
        self.open(0..few)?;
        let mut connected = few;
        let counts = self.engine.shared.tally.counts();
        let (mut found, mut sum) = (Vec::new(), Used::default());
        for block in 0..2 * blocks {
            let wanted = if matches!(block % 4, 0 | 3) {
                few
            } else {
                many
            };
            self.have(connected, wanted)?;
            connected = wanted;
            self.engine.drive("warming up", load, window.warmup)?;
            let (before, used) = self.drive_measured(load, window.duration)?;
            let events = self.engine.shared.tally.counts().stored - before.stored;
            found.push(Block {
                connections: wanted,
                events,
                cpu_us_per_event: used
                    .server_cpu
                    .and_then(|cpu| micros_each(cpu, events))
                    .unwrap_or(f64::NAN),
            });
            sum.add(used);
            self.settle()?;
        }
        self.note_used(counts, self.engine.shared.tally.counts(), sum);
        self.report.growth = Some(Growth::of(found, few));
        Ok(())
    }

    /// Opens or closes clients until so many are connected.
    fn have(&mut self, connected: usize, wanted: usize) -> Result<(), BenchError> {
        if wanted == connected {
            return Ok(());
        }
        if wanted > connected {
            self.open(connected..wanted)?;
        } else {
            self.engine.close(wanted..connected);
        }
        self.rest()
    }

    fn finish(self) -> Report {
        let (engine, mut report) = (self.engine, self.report);
        let counts = engine.shared.tally.counts();
        report.lost = engine.lost();
        report.duplicated = counts.duplicated;
        report.reordered = counts.reordered;
        report.foreign = counts.foreign;
        report.refused = counts.refused;
        report.disconnects = engine.disconnects;
        let latencies = &engine.shared.latencies;
        report.latency_us = percentiles(&latencies.each);
        report.last_latency_us = percentiles(&latencies.last);
        report.answer_latency_us = percentiles(&latencies.answer);
        report.first_failure = engine.first_failure;
        report
    }
}

fn generator_use(used: Used) -> GeneratorUse {
    let cpu_s = used.generator_cpu.as_secs_f64();
    GeneratorUse {
        cpu_s,
        cpu_share: cpu_s / used.time.as_secs_f64(),
    }
}
