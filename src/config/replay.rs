//! `[replay]`: how many events a tenant's log keeps for replay. An event is evicted by
//! whichever of the three bounds is reached first.

use std::{path::PathBuf, time::Duration};

use super::{
    error::ConfigProblems,
    paths::PathResolver,
    reload::restart,
    section::config_section,
    values::{self, GIB, MIB},
};

/// Maximum size of a window: 1 TiB.
const WINDOW_BYTES_MAX: usize = 1024 * GIB;

config_section! {
    /// The `[replay]` section.
    pub struct ReplaySection("replay") {
        /// True if clients can resume; default: `true`. If false, events still have positions, but
        /// every resume is refused.
        restart enabled: bool = true;
        /// Maximum number of events in a tenant's log; 10,000.
        #[serde(deserialize_with = "values::count")]
        restart events: usize = 10_000, check_count();
        /// Maximum bytes of events in a tenant's log; 16 MiB.
        #[serde(deserialize_with = "values::size")]
        restart bytes: usize = 16 * MIB, check_size(1..=WINDOW_BYTES_MAX);
        /// Maximum age of an event in a tenant's log; 5 min.
        #[serde(deserialize_with = "values::duration")]
        restart age: Duration = Duration::from_mins(5), check_duration();
        /// Maximum bytes of events in all logs together; 256 MiB. Beyond it, events of the largest
        /// logs are evicted.
        #[serde(deserialize_with = "values::size")]
        restart process_bytes: usize = 256 * MIB, check_size(1..=WINDOW_BYTES_MAX);
        /// The file that keeps the logs while the relay restarts; none by default. It holds
        /// events, and only its owner may read it.
        restart keep_file: Option<PathBuf> = None;
    }
}

impl ReplaySection {
    pub(super) fn check(&self, problems: &mut ConfigProblems) {
        self.check_bounds(problems);
    }

    pub(super) fn resolve_paths(&mut self, paths: &PathResolver, problems: &mut ConfigProblems) {
        if let Some(file) = &mut self.keep_file {
            paths.resolve("replay.keep_file".to_owned(), file, problems);
        }
    }
}
