//! Log lines on standard error: for people on a terminal, JSON for whoever
//! collects them.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt, reload, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

/// The most that is logged of what a library tells, unless it is named: its details
/// hold what clients sent, as the frames that tungstenite traces do.
const LIBRARIES: LevelFilter = LevelFilter::INFO;

/// Logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is no filter.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Something else logs already.
    #[error(transparent)]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// Nothing logs any more.
    #[error(transparent)]
    Gone(#[from] reload::Error),
}

/// What is logged, which can be changed.
pub struct LogLevel(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error>>);

impl LogLevel {
    /// Logs what the level says from now on.
    ///
    /// # Errors
    ///
    /// When the level is no filter.
    pub fn set(&self, log: &Log) -> Result<(), LoggingError> {
        Ok((self.0)(filter(log)?)?)
    }
}

/// Begins to log as configured, for the whole process.
///
/// # Errors
///
/// When the level is no filter, or logging has begun before.
pub fn init(log: &Log) -> Result<LogLevel, LoggingError> {
    let on_terminal = io::stderr().is_terminal();
    let lines = fmt()
        .with_writer(io::stderr)
        // It would panic where standard error is gone, which is no reason to end.
        .log_internal_errors(false)
        .with_ansi(on_terminal);
    let pretty = match log.format {
        LogFormat::Auto => on_terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    if pretty {
        let lines = lines.with_env_filter(filter(log)?).with_filter_reloading();
        let handle = lines.reload_handle();
        lines.finish().try_init()?;
        Ok(LogLevel(Box::new(move |filter| handle.reload(filter))))
    } else {
        let lines = lines.json().flatten_event(true);
        let lines = lines.with_env_filter(filter(log)?).with_filter_reloading();
        let handle = lines.reload_handle();
        lines.finish().try_init()?;
        Ok(LogLevel(Box::new(move |filter| handle.reload(filter))))
    }
}

fn filter(log: &Log) -> Result<EnvFilter, LoggingError> {
    Ok(EnvFilter::try_new(directives(&log.level))?)
}

/// `log.level` with each level that names no part taken as that of the relay's own
/// parts.
fn directives(level: &str) -> String {
    let (bare, named): (Vec<_>, Vec<_>) = level
        .split(',')
        .map(str::trim)
        .partition(|directive| directive.parse::<LevelFilter>().is_ok());
    let bare = bare.last().and_then(|level| level.parse().ok());
    let own = bare.map(|own: LevelFilter| format!("{},sidewire={own}", own.min(LIBRARIES)));
    own.iter()
        .map(String::as_str)
        .chain(named)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_tells_its_details_only_where_it_is_named() {
        for (level, expected) in [
            ("info", "info,sidewire=info"),
            ("off", "off,sidewire=off"),
            ("error", "error,sidewire=error"),
            ("trace", "info,sidewire=trace"),
            ("DEBUG", "info,sidewire=debug"),
            ("hyper=trace", "hyper=trace"),
            (
                "sidewire::hub=warn, debug, hyper=trace",
                "info,sidewire=debug,sidewire::hub=warn,hyper=trace",
            ),
        ] {
            assert_eq!(directives(level), expected);
            assert!(EnvFilter::try_new(expected).is_ok());
        }
    }
}
