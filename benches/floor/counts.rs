//! Counters of the floor: its system calls, and the frames that they carried.

use serde::Serialize;

/// Counts since the start.
#[derive(Default, Serialize)]
pub(crate) struct Counts {
    /// Frames that were passed to the kernel completely.
    pub(crate) frames: u64,
    /// Writes of frames. Answers to handshakes are not included; there is one for each client.
    pub(crate) client_writes: u64,
    /// Reads from clients, including those of handshakes.
    pub(crate) client_reads: u64,
    pub(crate) ingest_reads: u64,
    pub(crate) ingest_writes: u64,
    /// Calls of epoll_wait.
    pub(crate) waits: u64,
    /// Clients and publishers that were accepted.
    pub(crate) accepts: u64,
}

impl Counts {
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap()
    }
}
