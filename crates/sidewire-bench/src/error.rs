//! The errors that keep a run from starting or from finishing.

use std::{error::Error, io};

use sidewire_protocol::NameError;

use super::event::EventTemplateError;

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A URL cannot be used.
    #[error("{url}: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// The reason.
        reason: String,
    },
    /// The events cannot be built.
    #[error(transparent)]
    Mould(#[from] EventTemplateError),
    /// A tenant's name is invalid once its number is appended.
    #[error("the tenant's name, with its number appended, {0}")]
    Name(#[from] NameError),
    /// A token cannot be made.
    #[error(transparent)]
    Token(Box<dyn Error + Send + Sync>),
    /// The floor does not accept batches.
    #[error("the floor does not accept batches")]
    FloorBatch,
    /// The run needs more descriptors than this process may open.
    #[error(
        "the run needs {needed} descriptors, but this process may open only {most}: raise the limit, for example with `ulimit -Hn {needed}` (as root) or LimitNOFILE="
    )]
    Descriptors {
        /// Number of descriptors needed.
        needed: u64,
        /// The process's hard limit.
        most: u64,
    },
    /// There are not enough local ports.
    #[error(
        "{connections} connections to one address need as many local ports, but there are only {ports}; use a target on 127.0.0.1, which is reached from several addresses"
    )]
    Ports {
        /// Number of connections of the run.
        connections: usize,
        /// Number of local ports.
        ports: usize,
    },
    /// The figures of the server's process cannot be read.
    #[error("cannot read the figures of process {pid}: {source}")]
    ServerProcess {
        /// The process id.
        pid: u32,
        /// The error of the system.
        source: io::Error,
    },
    /// The scenario measures the server's process, but none is given.
    #[error("this scenario measures the server's process: pass its id with --server-pid")]
    NoServerProcess,
    /// No client could be subscribed.
    #[error("no client could be subscribed: {0}")]
    NobodySubscribed(String),
    /// The target does not accept the tokens.
    #[error("the target does not accept the tokens of the clients: {0}")]
    Unauthorized(String),
    /// The ingest listener cannot be reached.
    #[error("cannot connect to the ingest listener: {0}")]
    Ingest(io::Error),
    /// A connection to the ingest listener was lost.
    #[error("the connection to the ingest listener was lost: {0}")]
    PublisherLost(io::Error),
    /// The bytes received are not an answer to a call.
    #[error("the target of the calls is neither a relay nor the floor")]
    NotAnAnswer,
    /// A call was refused, and further calls would be refused too.
    #[error("posting was refused with {status}: {body}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The body of the target's answer.
        body: String,
    },
    /// The system's random number generator failed.
    #[error("cannot get random bytes from the system: {0}")]
    Random(#[from] getrandom::Error),
    /// The histograms cannot be created.
    #[error("cannot create the histograms: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// Another I/O error.
    #[error(transparent)]
    Io(#[from] io::Error),
}
