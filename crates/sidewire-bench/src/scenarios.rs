//! The scenarios: what is opened, posted and measured, in which order. Knows nothing about
//! sockets.

use std::{
    cmp::Ordering,
    ops::Range,
    time::{Duration, Instant},
};

use sidewire_protocol::{clock::Clock, random::RandomSource, schema::Schema};

use super::{
    BenchError, BenchPlan, BenchProgress, MeasureWindow, Scenario,
    channels::ChannelLayout,
    clients::BenchState,
    engine::{BenchEngine, BenchScript, OpenOutcome, PostingLoad},
    event::{EventTemplate, RunId},
    latency::{LatencyHistograms, percentiles},
    limits,
    link::SourceAddresses,
    meters::{UsageDelta, UsageMeters},
    report::{
        BenchReport, GeneratorUse, GrowthBlock, GrowthResult, ServerUse, micros_each, per_second,
    },
    tally::{DeliveryCounts, DeliveryTally},
};

/// The server is at rest when it uses less than `REST_CPU` of CPU time in `REST_TIME`.
const REST_CPU: Duration = Duration::from_millis(1);
const REST_TIME: Duration = Duration::from_millis(50);

/// The longest wait for the server to be at rest.
const REST_MAX: Duration = Duration::from_secs(10);

/// Runs the plan's scenario.
///
/// # Errors
///
/// When the run cannot start or finish. Failures within a finished run are in the report.
pub fn run(
    plan: BenchPlan,
    schema: &Schema,
    progress: &mut dyn FnMut(BenchProgress),
) -> Result<BenchReport, BenchError> {
    limits::raise_descriptor_limit(&plan)?;
    let mut bench = BenchRun {
        scenario: plan.scenario,
        concurrency: plan.concurrency,
        lost_after: plan.lost_after,
        meters: UsageMeters::new(plan.server_pid)?,
        report: BenchReport::empty(&plan),
        engine: build_engine(plan, schema, progress)?,
        opened: OpenOutcome::default(),
        opening: UsageDelta::default(),
        measured: MeasuredCounts::default(),
    };
    bench.run()?;
    Ok(bench.finish())
}

/// Creates the engine, with all messages built in advance.
fn build_engine<'p>(
    plan: BenchPlan,
    schema: &Schema,
    progress: &'p mut dyn FnMut(BenchProgress),
) -> Result<BenchEngine<'p>, BenchError> {
    let random = RandomSource::from_system()?;
    let run = RunId::new(&random);
    let now = Clock::system().unix_seconds();
    let mould = EventTemplate::new(schema, run, now, plan.payload_bytes)?;
    let channels = ChannelLayout::from_plan(&plan);
    let target = plan.target;
    let connections = (0..plan.scenario.fanout().connections)
        .map(|connection| {
            let channel = channels.of_connection(connection);
            Ok((channel, target.handshake_request(connection, channel)?))
        })
        .collect::<Result<_, BenchError>>()?;
    let subscribes = (0..channels.subscribed)
        .map(|channel| target.subscribe_frame(mould.topic_of(channel)))
        .collect();
    let calls = (0..channels.published)
        .map(|channel| target.build_call(&mould, channel, plan.scenario.batch()))
        .collect::<Result<_, _>>()?;
    let shared = BenchState {
        buffer: Vec::new(),
        tally: DeliveryTally::new(channels.published),
        latencies: LatencyHistograms::new()?,
        is_measuring: false,
        run,
        encoding: target.encoding(),
        id_at: 0,
        received_bytes: 0,
        epoch: Instant::now(),
    };
    let script = BenchScript {
        connections,
        subscribes,
    };
    let sources = SourceAddresses::new(&random);
    BenchEngine::new(target, sources, script, calls, shared, progress)
}

/// A run of a scenario.
struct BenchRun<'p> {
    scenario: Scenario,
    concurrency: usize,
    lost_after: Duration,
    engine: BenchEngine<'p>,
    meters: UsageMeters,
    /// The clients opened while measuring, and the resources used for that.
    opened: OpenOutcome,
    opening: UsageDelta,
    measured: MeasuredCounts,
    report: BenchReport,
}

/// The figures counted while measuring, and the resources used.
#[derive(Debug, Clone, Copy, Default)]
struct MeasuredCounts {
    calls: u64,
    events: u64,
    deliveries: u64,
    used: UsageDelta,
}

impl BenchRun<'_> {
    fn run(&mut self) -> Result<(), BenchError> {
        let all = 0..self.scenario.fanout().connections;
        self.engine.open_publishers(self.scenario.publishers())?;
        match self.scenario {
            Scenario::Latency { rate, window, .. } => {
                let interval = Duration::try_from_secs_f64(1.0 / rate);
                let load = PostingLoad::Paced(interval.unwrap_or(Duration::MAX));
                self.open_counted(all)?;
                self.run_load(load, window).map(drop)
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
                self.open_counted(all)?;
                self.run_load(PostingLoad::Full(outstanding), window)
                    .map(drop)
            }
            Scenario::Ingest { window, .. } => {
                self.run_load(PostingLoad::Answered, window).map(drop)
            }
            Scenario::Idle { settle, .. } => self.run_idle(all, settle),
            Scenario::Connect { window, .. } => self.run_connect(&all, window),
            Scenario::Growth {
                few,
                many,
                blocks,
                outstanding,
                window,
            } => self.run_growth([few, many], blocks, PostingLoad::Full(outstanding), window),
        }
    }

    /// Opens clients and adds them to the report's figures.
    fn open_counted(&mut self, connections: Range<usize>) -> Result<(), BenchError> {
        let (opened, used) = self.open_measured(connections)?;
        self.opened.add(opened);
        self.opening.add(used);
        Ok(())
    }

    fn open_measured(
        &mut self,
        connections: Range<usize>,
    ) -> Result<(OpenOutcome, UsageDelta), BenchError> {
        let count = connections.len();
        let before = self.meters.read()?;
        let opened = self.engine.open_clients(connections, self.concurrency)?;
        if opened.connects == 0 && count > 0 {
            let reason = self.engine.first_failure.clone().unwrap_or_default();
            return Err(BenchError::NobodySubscribed(reason));
        }
        Ok((opened, UsageDelta::between(before, self.meters.read()?)))
    }

    /// Warms up, measures, then waits for events and answers under way.
    fn run_load(
        &mut self,
        load: PostingLoad,
        window: MeasureWindow,
    ) -> Result<MeasuredCounts, BenchError> {
        self.engine.drive_load("warming up", load, window.warmup)?;
        let (before, answers) = (self.counts(), self.engine.answers);
        self.engine.shared.is_measuring = true;
        let reading = self.meters.read()?;
        self.engine.drive_load("measuring", load, window.duration)?;
        let used = UsageDelta::between(reading, self.meters.read()?);
        self.engine.shared.is_measuring = false;
        let after = self.counts();
        let measured = MeasuredCounts {
            calls: self.engine.answers - answers,
            events: after.stored - before.stored,
            deliveries: after.deliveries - before.deliveries,
            used,
        };
        self.measured.add(measured);
        self.engine
            .await_outstanding(Instant::now() + self.lost_after)?;
        Ok(measured)
    }

    fn counts(&self) -> DeliveryCounts {
        self.engine.shared.tally.counts()
    }

    fn run_idle(&mut self, all: Range<usize>, settle: Duration) -> Result<(), BenchError> {
        let before_bytes = self.meters.memory_bytes()?;
        self.open_counted(all)?;
        let reading = self.meters.read()?;
        self.engine.idle_for("settling", settle)?;
        self.measured.used = UsageDelta::between(reading, self.meters.read()?);
        let after_bytes = self.meters.memory_bytes()?;
        if let Some((before, after)) = before_bytes.zip(after_bytes) {
            let server = self.report.server.get_or_insert_default();
            server.memory_bytes_before = Some(before);
            server.memory_bytes_after = Some(after);
            let grown = after as f64 - before as f64;
            server.memory_bytes_per_connection = Some(grown / self.opened.connects as f64);
        }
        Ok(())
    }

    /// Opens and closes all clients, again and again; only opening is measured.
    fn run_connect(&mut self, all: &Range<usize>, window: MeasureWindow) -> Result<(), BenchError> {
        let begun = Instant::now();
        while self.opened.connects == 0 || begun.elapsed() < window.warmup + window.duration {
            let is_warm = begun.elapsed() >= window.warmup;
            let (opened, used) = self.open_measured(all.clone())?;
            if is_warm {
                self.opened.add(opened);
                self.opening.add(used);
            }
            self.engine.close_clients(all.clone());
            self.wait_for_rest()?;
        }
        self.measured.used = self.opening;
        Ok(())
    }

    /// Waits until the server is at rest, at most `REST_MAX`.
    fn wait_for_rest(&mut self) -> Result<(), BenchError> {
        let until = Instant::now() + REST_MAX;
        loop {
            let reading = self.meters.read()?;
            self.engine.idle_for("resting", REST_TIME)?;
            let used = UsageDelta::between(reading, self.meters.read()?);
            let is_at_rest = used.server_cpu.is_none_or(|cpu| cpu < REST_CPU);
            if is_at_rest || Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Measures in blocks: few, many, many, few, few, many, …, so that half of the blocks
    /// need no opening and closing, and drift affects both kinds alike.
    fn run_growth(
        &mut self,
        [few, many]: [usize; 2],
        blocks: usize,
        load: PostingLoad,
        window: MeasureWindow,
    ) -> Result<(), BenchError> {
        if !self.meters.has_server() {
            return Err(BenchError::NoServerProcess);
        }
        let (mut connected, mut found) = (0, Vec::new());
        for block in 0..2 * blocks {
            let is_few = matches!(block % 4, 0 | 3);
            let wanted = if is_few { few } else { many };
            self.adjust_connections(connected, wanted)?;
            connected = wanted;
            let MeasuredCounts { events, used, .. } = self.run_load(load, window)?;
            let cost = used.server_cpu.and_then(|cpu| micros_each(cpu, events));
            found.push(GrowthBlock {
                connections: wanted,
                events,
                cpu_us_per_event: cost,
            });
        }
        self.report.growth = Some(GrowthResult::from_blocks(found, few));
        Ok(())
    }

    /// Opens or closes clients until `wanted` are connected.
    fn adjust_connections(&mut self, connected: usize, wanted: usize) -> Result<(), BenchError> {
        match wanted.cmp(&connected) {
            Ordering::Equal => return Ok(()),
            Ordering::Greater => self.open_counted(connected..wanted)?,
            Ordering::Less => self.engine.close_clients(wanted..connected),
        }
        self.wait_for_rest()
    }

    fn finish(self) -> BenchReport {
        let (counts, measured) = (self.counts(), self.measured);
        let Self {
            engine, mut report, ..
        } = self;
        report.connects = self.opened.connects;
        report.connects_per_s = per_second(self.opened.connects, self.opened.took);
        report.connect_failures = self.opened.failures;
        report.seconds = measured.used.time.as_secs_f64();
        report.calls = measured.calls;
        report.events = measured.events;
        report.events_per_s = per_second(measured.events, measured.used.time);
        report.deliveries = measured.deliveries;
        report.deliveries_per_s = per_second(measured.deliveries, measured.used.time);
        report.received_bytes = (measured.deliveries > 0).then_some(engine.shared.received_bytes);
        report.lost = engine.count_lost();
        report.duplicated = counts.duplicated;
        report.reordered = counts.reordered;
        report.foreign = counts.foreign;
        report.refused = counts.refused;
        report.disconnects = engine.disconnects;
        let latencies = &engine.shared.latencies;
        report.latency_us = percentiles(&latencies.each);
        report.last_latency_us = percentiles(&latencies.last);
        report.answer_latency_us = percentiles(&latencies.answer);
        report.generator = generator_use(measured.used);
        report.server = server_use(report.server, &measured, self.opening, self.opened.connects);
        report.first_failure = engine.first_failure;
        report
    }
}

impl MeasuredCounts {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.events += other.events;
        self.deliveries += other.deliveries;
        self.used.add(other.used);
    }
}

fn generator_use(used: UsageDelta) -> GeneratorUse {
    let cpu_s = used.generator_cpu.as_secs_f64();
    GeneratorUse {
        cpu_s,
        cpu_share: cpu_s / used.time.as_secs_f64(),
    }
}

/// Combines the memory figures, if any, with the CPU time.
fn server_use(
    memory: Option<ServerUse>,
    measured: &MeasuredCounts,
    opening: UsageDelta,
    connects: u64,
) -> Option<ServerUse> {
    let cpu = measured.used.server_cpu?;
    let per_connect = opening
        .server_cpu
        .and_then(|cpu| micros_each(cpu, connects));
    Some(ServerUse {
        cpu_s: cpu.as_secs_f64(),
        cpu_us_per_delivery: micros_each(cpu, measured.deliveries),
        cpu_us_per_event: micros_each(cpu, measured.events),
        cpu_us_per_connect: per_connect,
        ..memory.unwrap_or_default()
    })
}
