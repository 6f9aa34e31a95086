//! `[log]`: what the relay tells about itself, and how.

use serde::Deserialize;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::error::Problems;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged: a level, `off`, `error`, `warn`, `info`, `debug` or
    /// `trace`, or directives after tracing's `EnvFilter`, such as
    /// `info,sidewire::ingest=debug`; `info`.
    pub level: String,
    /// How it is written; `auto`.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, else JSON.
    Auto,
    /// For people.
    Pretty,
    /// One object a line.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

impl Log {
    pub(super) fn check(&self, problems: &mut Problems) {
        const HINT: &str = "such as \"info\" or \"info,sidewire::ingest=debug\"";
        // The filter's parser cuts at bytes, and panics within a character of several.
        if !self.level.is_ascii() {
            let reason = format!("{:?} has characters beyond ASCII", self.level);
            return problems.refuse("log.level", reason, HINT);
        }
        // A bare word that is no level would be taken for a module's name, and
        // everything else would fall silent.
        let misspelt = self.level.split(',').map(str::trim).find(|directive| {
            let is_word = !directive.contains(['=', '[']);
            directive.is_empty() || is_word && directive.parse::<LevelFilter>().is_err()
        });
        if let Some(word) = misspelt {
            problems.refuse(
                "log.level",
                format!("{word:?} is no level: off, error, warn, info, debug or trace"),
                HINT,
            );
        } else if let Err(error) = EnvFilter::try_new(&self.level) {
            problems.refuse("log.level", format!("{:?}: {error}", self.level), HINT);
        }
    }
}
