//! `[replay]`: how much of its past a tenant's log keeps. What comes first of
//! the three bounds evicts.

use std::time::Duration;

use serde::Deserialize;

use super::{
    error::Problems,
    values::{self, GIB, MIB},
};

/// The most bytes of a window: 1 TiB.
const WINDOW_BYTES_MAX: usize = 1024 * GIB;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replay {
    /// Whether clients can resume; true. If not, events still have positions, and
    /// every resume is refused.
    pub enabled: bool,
    /// The most events that a tenant's log keeps; 10,000.
    #[serde(deserialize_with = "values::count")]
    pub events: usize,
    /// The most bytes of events that a tenant's log keeps; 16 MiB.
    #[serde(deserialize_with = "values::size")]
    pub bytes: usize,
    /// How long a tenant's log keeps an event; 5 min.
    #[serde(deserialize_with = "values::duration")]
    pub age: Duration,
    /// The most bytes of events that all logs keep together; 256 MiB. What is too
    /// much is taken from the largest logs.
    #[serde(deserialize_with = "values::size")]
    pub process_bytes: usize,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            enabled: true,
            events: 10_000,
            bytes: 16 * MIB,
            age: Duration::from_mins(5),
            process_bytes: 256 * MIB,
        }
    }
}

impl Replay {
    pub(super) fn check(&self, problems: &mut Problems) {
        problems.check_count("replay.events", self.events);
        problems.check_size("replay.bytes", self.bytes, 1..=WINDOW_BYTES_MAX);
        problems.check_size(
            "replay.process_bytes",
            self.process_bytes,
            1..=WINDOW_BYTES_MAX,
        );
        problems.check_duration("replay.age", self.age);
    }
}
