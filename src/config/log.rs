//! `[log]`: level and format of the relay's log.

use serde::Deserialize;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{
    error::ConfigProblems,
    reload::{live, restart},
    section::config_section,
};

config_section! {
    /// The `[log]` section.
    pub struct LogSection("log") {
        /// The level (`off`, `error`, `warn`, `info`, `debug` or `trace`), or directives of
        /// tracing's `EnvFilter`, such as `info,sidewire::ingest=debug`; `info`.
        live level: String = "info".to_owned();
        /// Format of the log; `auto`.
        restart format: LogFormat = LogFormat::Auto;
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `Pretty` on a terminal, else `Json`.
    Auto,
    /// For human readers.
    Pretty,
    /// One JSON object per line.
    Json,
}

impl LogSection {
    pub(super) fn check(&self, problems: &mut ConfigProblems) {
        const HINT: &str = "such as \"info\" or \"info,sidewire::ingest=debug\"";
        self.check_bounds(problems);
        // The filter's parser slices at byte offsets and panics inside a multi-byte character.
        if !self.level.is_ascii() {
            let reason = format!("{:?} contains non-ASCII characters", self.level);
            return problems.add_problem("log.level", reason, HINT);
        }
        // The filter would take a misspelt level for a module name and silence everything
        // else.
        let misspelt = self.level.split(',').map(str::trim).find(|directive| {
            let is_word = !directive.contains(['=', '[']);
            directive.is_empty() || is_word && directive.parse::<LevelFilter>().is_err()
        });
        if let Some(word) = misspelt {
            problems.add_problem(
                "log.level",
                format!("{word:?} is not a log level (off, error, warn, info, debug or trace)"),
                HINT,
            );
        } else if let Err(error) = EnvFilter::try_new(&self.level) {
            problems.add_problem("log.level", format!("{:?}: {error}", self.level), HINT);
        }
    }
}
