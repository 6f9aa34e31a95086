//! `sidewire bench`: a load generator, for who sizes a machine and for who works
//! on the relay. One thread is all clients and all backends at once; it looks at
//! no more of a frame than its length and its event's number, so that the target
//! is the one with the work.
//!
//! ```text
//! Plan ─▶ scenarios ─▶ engine ─▶ clients ─▶ link        the target's sockets
//!            │           │  └───▶ publisher ─▶ link
//!            ▼           ▼
//!         report ◀── tally, latency, server_process
//! ```
//!
//! Knows of the target what stands in the protocol and, given its process, what
//! the kernel tells; nothing of how a relay is built.

mod clients;
mod engine;
mod event;
mod frames;
mod latency;
mod limits;
mod link;
mod publisher;
mod report;
mod scenarios;
mod server_process;
mod tally;
mod target;
mod timer;

use std::{io, time::Duration};

use crate::{auth::MintError, protocol::NameError};

pub use self::{
    event::MouldError,
    latency::Percentiles,
    limits::warnings,
    report::{Block, GeneratorUse, Growth, Report, ServerUse},
    scenarios::run,
    target::{Framing, Place, Relay, Speech, Target},
};

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
}

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

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A URL cannot be used.
    #[error("{url}: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is the matter.
        reason: String,
    },
    /// The events cannot be made.
    #[error(transparent)]
    Mould(#[from] MouldError),
    /// A name would not be one.
    #[error("the tenant's name, with a number at its end, {0}")]
    Name(#[from] NameError),
    /// A token cannot be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The floor has no batches.
    #[error("the floor takes no batches")]
    FloorBatch,
    /// This process may not open enough descriptors.
    #[error(
        "{needed} descriptors are needed and this process may have {most}: raise the limit, as with `ulimit -Hn {needed}` (as root) or LimitNOFILE="
    )]
    Descriptors {
        /// How many are needed.
        needed: u64,
        /// How many there can be.
        most: u64,
    },
    /// There are not enough ports.
    #[error(
        "{connections} connections to one address need as many local ports, and there are {ports}; a target on 127.0.0.1 is reached from several addresses"
    )]
    Ports {
        /// How many connections there would be.
        connections: usize,
        /// How many ports.
        ports: usize,
    },
    /// The server's process cannot be looked at.
    #[error("process {pid}: {source}")]
    ServerProcess {
        /// Its number.
        pid: u32,
        /// What the system says.
        source: io::Error,
    },
    /// A scenario is about the server's process.
    #[error("this scenario measures the server's process: give its number with --server-pid")]
    NoServerProcess,
    /// No client could be subscribed.
    #[error("no client could be subscribed: {0}")]
    NobodySubscribed(String),
    /// The listener for events cannot be reached.
    #[error("cannot connect to where events are posted: {0}")]
    Ingest(io::Error),
    /// The connection on which events are posted is gone.
    #[error("the connection on which events are posted was lost: {0}")]
    PublisherLost(io::Error),
    /// What came is no answer to a call.
    #[error("what answers the calls is neither a relay nor the floor")]
    NotAnAnswer,
    /// A call was refused, and the next would be too.
    #[error("posting was refused with {status}: {body}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the target says.
        body: String,
    },
    /// The system has no randomness to give.
    #[error("the system has no randomness to give: {0}")]
    Random(#[from] getrandom::Error),
    /// The histograms cannot be made.
    #[error("no histograms: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// The system refuses something.
    #[error(transparent)]
    Io(#[from] io::Error),
}
