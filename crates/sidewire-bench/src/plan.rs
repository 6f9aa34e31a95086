//! The plan of a run. Plain data.

use std::time::Duration;

use super::target::BenchTarget;

/// The plan of a run: the target, the scenario and its settings.
#[derive(Debug)]
pub struct BenchPlan {
    /// The target to measure.
    pub target: BenchTarget,
    /// The scenario to run.
    pub scenario: Scenario,
    /// The size of a posted event in bytes.
    pub payload_bytes: usize,
    /// Number of clients opened concurrently.
    pub concurrency: usize,
    /// The process id of the target.
    pub server_pid: Option<u32>,
    /// The time after the end during which an event may still arrive.
    pub lost_after: Duration,
}

/// The default of [`BenchPlan::lost_after`]; tests use a shorter time.
pub const LOST_AFTER: Duration = Duration::from_secs(10);

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scenario {
    /// Posts events at a fixed rate.
    Latency {
        /// The connections.
        fanout: ScenarioFanout,
        /// Events per second.
        rate: f64,
        /// When to measure.
        window: MeasureWindow,
    },
    /// Posts as many events as the target can deliver.
    Throughput {
        /// The connections.
        fanout: ScenarioFanout,
        /// The most events under way.
        outstanding: usize,
        /// When to measure.
        window: MeasureWindow,
    },
    /// Like `Throughput`, with a topic for each connection.
    Selective {
        /// Number of connections, and of topics.
        connections: usize,
        /// The most events under way.
        outstanding: usize,
        /// When to measure.
        window: MeasureWindow,
    },
    /// Holds connections without events.
    Idle {
        /// Number of connections.
        connections: usize,
        /// The wait before the memory is read.
        settle: Duration,
    },
    /// Connects and subscribes clients, again and again.
    Connect {
        /// Number of connections opened before they are closed again.
        connections: usize,
        /// When to measure.
        window: MeasureWindow,
    },
    /// Posts events without subscribers.
    Ingest {
        /// Number of connections that post.
        publishers: usize,
        /// Number of events per call.
        batch: usize,
        /// When to measure.
        window: MeasureWindow,
    },
    /// Posts events for a hundred clients while others are connected.
    Growth {
        /// Number of clients connected in one half of the blocks.
        few: usize,
        /// Number of clients connected in the other half.
        many: usize,
        /// Number of blocks in each half.
        blocks: usize,
        /// The most events under way.
        outstanding: usize,
        /// When to measure in each block.
        window: MeasureWindow,
    },
}

/// The number of connections and of topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScenarioFanout {
    /// Number of connections.
    pub connections: usize,
    /// Number of topics.
    pub topics: usize,
}

/// The durations of warming up and measuring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasureWindow {
    /// The time before measuring.
    pub warmup: Duration,
    /// The time during which figures are recorded.
    pub duration: Duration,
}

/// The progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenchProgress {
    /// The current phase.
    pub phase: &'static str,
    /// The amount done.
    pub done: u64,
    /// The total amount.
    pub total: u64,
}

impl Scenario {
    /// Returns the name on the command line and in the report.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Throughput { .. } => "throughput",
            Self::Selective { .. } => "selective",
            Self::Idle { .. } => "idle",
            Self::Connect { .. } => "connect",
            Self::Ingest { .. } => "ingest",
            Self::Growth { .. } => "growth",
        }
    }

    /// Returns the number of client connections and of their topics.
    #[must_use]
    pub fn fanout(&self) -> ScenarioFanout {
        let own = |connections| ScenarioFanout {
            connections,
            topics: connections,
        };
        match *self {
            Self::Latency { fanout, .. } | Self::Throughput { fanout, .. } => fanout,
            Self::Selective { connections, .. }
            | Self::Idle { connections, .. }
            | Self::Connect { connections, .. } => own(connections),
            Self::Ingest { .. } => ScenarioFanout {
                connections: 0,
                topics: 1,
            },
            Self::Growth { few, many, .. } => own(few.max(many)),
        }
    }

    /// Returns the number of connections that post.
    #[must_use]
    pub fn publishers(&self) -> usize {
        match *self {
            Self::Idle { .. } | Self::Connect { .. } => 0,
            Self::Ingest { publishers, .. } => publishers,
            _ => 1,
        }
    }

    /// Returns the number of events per call.
    #[must_use]
    pub fn batch(&self) -> usize {
        match *self {
            Self::Ingest { batch, .. } => batch,
            _ => 1,
        }
    }
}
