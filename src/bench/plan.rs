//! What a run is to do. Decides nothing and does nothing.

use std::time::Duration;

use super::target::Target;

/// What is to be measured, and how.
#[derive(Debug)]
pub struct Plan {
    /// Where.
    pub target: Target,
    /// What.
    pub scenario: Scenario,
    /// The bytes of an event as it is posted.
    pub payload_bytes: usize,
    /// How many clients are opened at the same time.
    pub concurrency: usize,
    /// The target's process.
    pub server_pid: Option<u32>,
    /// How long after the end an event may still be on its way.
    pub lost_after: Duration,
}

/// How long an event is waited for, unless a test cannot wait.
pub const LOST_AFTER: Duration = Duration::from_secs(10);

/// The scenarios.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scenario {
    /// Events at a rate.
    Latency {
        /// The connections.
        fanout: Fanout,
        /// Events a second.
        rate: f64,
        /// How long.
        window: Window,
    },
    /// As many events as the target can deliver.
    Throughput {
        /// The connections.
        fanout: Fanout,
        /// How many events may be under way.
        outstanding: usize,
        /// How long.
        window: Window,
    },
    /// The same, with a topic for each connection.
    Selective {
        /// How many of both.
        connections: usize,
        /// How many events may be under way.
        outstanding: usize,
        /// How long.
        window: Window,
    },
    /// Connections without events.
    Idle {
        /// How many.
        connections: usize,
        /// How long they are left alone before the memory is looked at.
        settle: Duration,
    },
    /// Connecting and subscribing.
    Connect {
        /// How many before they are closed again.
        connections: usize,
        /// How long.
        window: Window,
    },
    /// Events for nobody.
    Ingest {
        /// How many connections post.
        publishers: usize,
        /// How many events a call has.
        batch: usize,
        /// How long.
        window: Window,
    },
    /// Events for a hundred, while others are connected.
    Growth {
        /// How many are connected in one half of the blocks.
        few: usize,
        /// How many in the other.
        many: usize,
        /// How many blocks each half has.
        blocks: usize,
        /// How many events may be under way.
        outstanding: usize,
        /// How long a block takes.
        window: Window,
    },
}

/// Connections and what they are subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fanout {
    /// How many.
    pub connections: usize,
    /// On how many topics.
    pub topics: usize,
}

/// When something is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// What runs before.
    pub warmup: Duration,
    /// How long.
    pub duration: Duration,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
    pub phase: &'static str,
    /// How much of it is done.
    pub done: u64,
    /// Of how much.
    pub total: u64,
}

impl Scenario {
    /// Its name on the command line and in the report.
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

    /// The connections of clients, and the topics that they are on.
    #[must_use]
    pub fn fanout(&self) -> Fanout {
        let own = |connections| Fanout {
            connections,
            topics: connections,
        };
        match *self {
            Self::Latency { fanout, .. } | Self::Throughput { fanout, .. } => fanout,
            Self::Selective { connections, .. }
            | Self::Idle { connections, .. }
            | Self::Connect { connections, .. } => own(connections),
            Self::Ingest { .. } => Fanout {
                connections: 0,
                topics: 1,
            },
            Self::Growth { few, many, .. } => own(few.max(many)),
        }
    }

    /// How many connections post.
    #[must_use]
    pub fn publishers(&self) -> usize {
        match *self {
            Self::Idle { .. } | Self::Connect { .. } => 0,
            Self::Ingest { publishers, .. } => publishers,
            _ => 1,
        }
    }

    /// How many events a call has.
    #[must_use]
    pub fn batch(&self) -> usize {
        match *self {
            Self::Ingest { batch, .. } => batch,
            _ => 1,
        }
    }
}
