//! Log lines on standard error: for people on a terminal, JSON for whoever
//! collects them. They go through a queue, so that nobody who logs waits for whoever
//! reads standard error.

use std::{
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, filter::LevelFilter, fmt, fmt::MakeWriter, reload, util::SubscriberInitExt,
};

use super::log_queue::{LogQueue, LogWriter};
use crate::{
    config::{Log, LogFormat},
    repeated,
};

/// The log of the process. There is one standard error, so there is one queue.
static QUEUE: LogQueue = LogQueue::new();

/// Whether a thread writes what is in the queue.
static HAS_WRITER: AtomicBool = AtomicBool::new(false);

/// How long the end of the process waits for its last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// There is no thread to write the log.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[from] io::Error),
}

/// Puts each line that is written to it into the queue of the process.
#[derive(Debug, Clone, Copy)]
struct Queued;

impl Write for Queued {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Queued {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// The number of log lines that were lost because standard error did not take them.
pub(super) fn lines_lost() -> u64 {
    QUEUE.lost()
}

/// Writes the log to its end when it is dropped, with the number of repeated lines that
/// was not logged yet. Takes no longer than 1 s. Belongs to the end of the process.
#[derive(Debug)]
pub struct FlushLog;

impl Drop for FlushLog {
    fn drop(&mut self) {
        if HAS_WRITER.load(Ordering::Acquire) {
            repeated::end_period();
            QUEUE.flush(FLUSH_TIMEOUT);
        }
    }
}

/// Writes a line to standard error that is for whoever started the process, behind
/// everything that was logged.
pub fn say(line: &str) {
    let line = format!("{line}\n");
    if HAS_WRITER.load(Ordering::Acquire) {
        QUEUE.push(line.as_bytes());
    } else {
        // With standard error gone there is nobody left to tell.
        drop(io::stderr().write_all(line.as_bytes()));
    }
}

/// Starts the thread that writes the log. Called once a process.
fn start_writer() -> io::Result<()> {
    let report = |lost| {
        tracing::warn!(
            lost,
            "log lines were lost: standard error did not take them"
        );
    };
    let write = move || LogWriter::new(&QUEUE, io::stderr(), report).run();
    thread::Builder::new().name("log".to_owned()).spawn(write)?;
    HAS_WRITER.store(true, Ordering::Release);
    Ok(())
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
/// When the level is no filter, logging has begun before, or no thread can be started.
pub fn init(log: &Log) -> Result<LogLevel, LoggingError> {
    let on_terminal = io::stderr().is_terminal();
    let lines = fmt()
        .with_writer(Queued)
        // It would write to standard error, and wait for it, where a line cannot be made.
        .log_internal_errors(false)
        .with_ansi(on_terminal);
    let is_pretty = match log.format {
        LogFormat::Auto => on_terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let level = if is_pretty {
        let lines = lines.with_env_filter(filter(log)?).with_filter_reloading();
        let handle = lines.reload_handle();
        lines.finish().try_init()?;
        LogLevel(Box::new(move |filter| handle.reload(filter)))
    } else {
        let lines = lines.json().flatten_event(true);
        let lines = lines.with_env_filter(filter(log)?).with_filter_reloading();
        let handle = lines.reload_handle();
        lines.finish().try_init()?;
        LogLevel(Box::new(move |filter| handle.reload(filter)))
    };
    start_writer()?;
    Ok(level)
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
