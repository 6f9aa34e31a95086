//! `[replay]`: how many events a tenant's log keeps for replay. An event is evicted by
//! whichever of the three bounds is reached first.

use std::time::Duration;

use serde::Deserialize;

use super::{
    error::ConfigProblems,
    values::{self, GIB, MIB},
};

/// Maximum size of a window: 1 TiB.
const WINDOW_BYTES_MAX: usize = 1024 * GIB;

/// The `[replay]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplaySection {
    /// True if clients can resume; default: `true`. If false, events still have positions, but
    /// every resume is refused.
    pub enabled: bool,
    /// Maximum number of events in a tenant's log; 10,000.
    #[serde(deserialize_with = "values::count")]
    pub events: usize,
    /// Maximum bytes of events in a tenant's log; 16 MiB.
    #[serde(deserialize_with = "values::size")]
    pub bytes: usize,
    /// Maximum age of an event in a tenant's log; 5 min.
    #[serde(deserialize_with = "values::duration")]
    pub age: Duration,
    /// Maximum bytes of events in all logs together; 256 MiB. Beyond it, events of the largest
    /// logs are evicted.
    #[serde(deserialize_with = "values::size")]
    pub process_bytes: usize,
}

impl Default for ReplaySection {
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

impl ReplaySection {
    pub(super) fn check(&self, problems: &mut ConfigProblems) {
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
