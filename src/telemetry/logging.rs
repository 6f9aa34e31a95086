//! Logging to standard error: readable lines on a terminal, JSON elsewhere. Lines go through a
//! queue, so that no thread waits for the reader of standard error.

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
    config::{LogFormat, LogSection},
    repeated,
};

/// The log queue of the process. There is one standard error, so there is one queue.
static QUEUE: LogQueue = LogQueue::new();

/// True once a thread writes the queued lines.
static HAS_WRITER: AtomicBool = AtomicBool::new(false);

/// Time limit for writing the last lines when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Most verbose level for libraries, unless `log.level` names them: their details contain data
/// of clients, such as the frames that tungstenite traces.
const LIBRARIES: LevelFilter = LevelFilter::INFO;

/// An error of setting up or changing logging.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is not a valid filter.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Logging is already set up in this process.
    #[error(transparent)]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// The subscriber no longer exists.
    #[error(transparent)]
    Gone(#[from] reload::Error),
    /// The thread that writes the log could not be started.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[from] io::Error),
}

/// A writer that puts each line into the log queue of the process.
#[derive(Debug, Clone, Copy)]
struct QueueingWriter;

impl Write for QueueingWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for QueueingWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// Returns the number of log lines that were lost because standard error did not accept them.
pub(super) fn lines_lost() -> u64 {
    QUEUE.lost_count()
}

/// A guard that writes the rest of the log when it is dropped at the end of the process,
/// including the numbers of repeated lines that were not logged yet. Takes at most 1 s.
#[derive(Debug)]
pub struct LogFlushGuard;

impl Drop for LogFlushGuard {
    fn drop(&mut self) {
        if HAS_WRITER.load(Ordering::Acquire) {
            repeated::end_period();
            QUEUE.flush(FLUSH_TIMEOUT);
        }
    }
}

/// Writes the last line of the process to standard error, for the user: after everything that was
/// logged, and nothing comes behind it.
pub fn print_last_line(line: &str) {
    let line = format!("{line}\n");
    if HAS_WRITER.load(Ordering::Acquire) {
        repeated::end_period();
        QUEUE.push_last(line.as_bytes());
    } else {
        // If standard error is closed, the failure cannot be reported anywhere.
        drop(io::stderr().write_all(line.as_bytes()));
    }
}

/// Starts the thread that writes the log. Must be called only once in a process.
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

/// A handle for changing what is logged.
pub struct LogLevel(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error>>);

impl LogLevel {
    /// Applies the level of the config.
    ///
    /// # Errors
    ///
    /// If the level is not a valid filter.
    pub fn set(&self, log: &LogSection) -> Result<(), LoggingError> {
        Ok((self.0)(level_filter(log)?)?)
    }
}

/// Sets up logging as configured, for the whole process.
///
/// # Errors
///
/// If the level is not a valid filter, logging is already set up, or no thread can be started.
pub fn init(log: &LogSection) -> Result<LogLevel, LoggingError> {
    let on_terminal = io::stderr().is_terminal();
    let lines = fmt()
        .with_writer(QueueingWriter)
        // Otherwise it writes to standard error directly, and may block, if a line cannot be
        // formatted.
        .log_internal_errors(false)
        .with_ansi(on_terminal);
    let is_pretty = match log.format {
        LogFormat::Auto => on_terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let level = if is_pretty {
        let lines = lines
            .with_env_filter(level_filter(log)?)
            .with_filter_reloading();
        let handle = lines.reload_handle();
        lines.finish().try_init()?;
        LogLevel(Box::new(move |filter| handle.reload(filter)))
    } else {
        let lines = lines.json().flatten_event(true);
        let lines = lines
            .with_env_filter(level_filter(log)?)
            .with_filter_reloading();
        let handle = lines.reload_handle();
        lines.finish().try_init()?;
        LogLevel(Box::new(move |filter| handle.reload(filter)))
    };
    start_writer()?;
    Ok(level)
}

fn level_filter(log: &LogSection) -> Result<EnvFilter, LoggingError> {
    Ok(EnvFilter::try_new(filter_directives(&log.level))?)
}

/// Converts `log.level` to filter directives. A level without a target applies to the relay's own
/// modules; libraries get at most [`LIBRARIES`].
fn filter_directives(level: &str) -> String {
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
    fn details_of_a_library_are_logged_only_if_it_is_named() {
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
            assert_eq!(filter_directives(level), expected);
            assert!(EnvFilter::try_new(expected).is_ok());
        }
    }
}
