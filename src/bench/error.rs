//! Why a run cannot be begun, or cannot be brought to its end.

use std::io;

use super::event::MouldError;
use crate::{auth::MintError, protocol::NameError};

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
    /// The target does not accept the tokens.
    #[error("the target does not accept the tokens of the clients: {0}")]
    Unauthorized(String),
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
