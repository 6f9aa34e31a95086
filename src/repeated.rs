//! Aggregates log lines that peers can cause arbitrarily often. The first one is logged at its
//! level at once; repeats within a period are counted, and one line at the end of the period
//! reports their number. At level debug each line is logged.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use sidewire_protocol::named_values;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::Level;

/// Period after which the number of repeated lines is logged.
const PERIOD: Duration = Duration::from_secs(10);

/// The counts of the process. There is one log, so there is one count for each line.
static LINES: RepeatedLines = RepeatedLines::new();

named_values! {
    /// A line that is aggregated.
    pub(crate) enum RepeatedLine {
        /// A client's handshake was refused.
        HandshakeRefused = "handshake refused",
        /// A backend's call was refused.
        CallRefused = "call refused",
        /// A TLS handshake failed.
        TlsHandshakeFailed = "TLS handshake failed",
        /// A trusted proxy began a connection without the PROXY header.
        ProxyHeaderMissing = "a trusted proxy sent no PROXY header",
        /// A connection could not be accepted for lack of descriptors or memory.
        NotAccepted = "cannot accept connections",
        /// A connection could not be registered with its shard's event loop.
        NotRegistered = "cannot register a connection with its shard",
        /// A shard did not answer a backend's call in time.
        ShardSilent = "a shard did not answer a backend's call in time",
        /// A stored event could not be rendered as JSON.
        EventWithoutJson = "a stored event has no JSON; connections that speak JSON are closed instead of skipping it",
        /// An event of a client could not be rendered as JSON.
        ClientEventWithoutJson = "an event of a client has no JSON; connections that speak JSON do not receive it",
        /// An answer to a client could not be rendered as JSON.
        AnswerWithoutJson = "an answer has no JSON; its connection is closed",
    }
}

impl RepeatedLine {
    /// Returns the level of the line: info if a peer is at fault, warn or error if the relay or
    /// its machine is.
    #[must_use]
    pub(crate) const fn level(self) -> Level {
        match self {
            Self::HandshakeRefused
            | Self::CallRefused
            | Self::TlsHandshakeFailed
            | Self::ProxyHeaderMissing => Level::INFO,
            Self::NotAccepted | Self::NotRegistered => Level::WARN,
            Self::ShardSilent
            | Self::EventWithoutJson
            | Self::ClientEventWithoutJson
            | Self::AnswerWithoutJson => Level::ERROR,
        }
    }

    /// Counts the line. Returns true if it must be logged at its level, and false if it repeats a
    /// line of the same period.
    #[must_use]
    pub(crate) fn is_first(self) -> bool {
        LINES.is_first(self)
    }
}

/// Logs a [`RepeatedLine`] with the given fields: at its level if it is the first of its period,
/// otherwise at level debug.
macro_rules! log_repeated {
    ($line:expr, $($fields:tt)+) => {
        if $line.is_first() {
            tracing::event!($line.level(), $($fields)+, "{}", $line.as_str());
        } else {
            tracing::debug!($($fields)+, "{}", $line.as_str());
        }
    };
}
pub(crate) use log_repeated;

/// Logs the numbers of repeated lines at the end of each period. Never returns.
pub(crate) async fn report_repeats() {
    let mut periods = interval_at(Instant::now() + PERIOD, PERIOD);
    periods.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        periods.tick().await;
        end_period();
    }
}

/// Logs the numbers of repeated lines since the last report.
pub(crate) fn end_period() {
    LINES.end_period(|line, repeated| {
        let repeats = line.as_str();
        match line.level() {
            Level::ERROR => tracing::error!(repeats, repeated, "a log line was repeated"),
            Level::WARN => tracing::warn!(repeats, repeated, "a log line was repeated"),
            _ => tracing::info!(repeats, repeated, "a log line was repeated"),
        }
    });
}

/// Number of occurrences of each line in this period. A line that was repeated in the last period
/// begins the next one with a count of 1, so that a line that occurs all the time is logged once
/// per period, with its number.
#[derive(Debug)]
struct RepeatedLines([AtomicU64; RepeatedLine::ALL.len()]);

impl RepeatedLines {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; RepeatedLine::ALL.len()])
    }

    fn is_first(&self, line: RepeatedLine) -> bool {
        let count = self.0.get(line as usize);
        count.is_none_or(|count| count.fetch_add(1, Ordering::Relaxed) == 0)
    }

    /// Calls `report_repeats` with each line that was repeated in this period and the number of repeats,
    /// and begins the next period.
    fn end_period(&self, mut report: impl FnMut(RepeatedLine, u64)) {
        for (line, count) in RepeatedLine::ALL.into_iter().zip(&self.0) {
            let next = |count| Some(u64::from(count > 1));
            let ended = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
            let count = ended.unwrap_or_else(|count| count);
            if count > 1 {
                report(line, count - 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn reported(lines: &RepeatedLines) -> Vec<(RepeatedLine, u64)> {
        let mut reported = Vec::new();
        lines.end_period(|line, repeated| reported.push((line, repeated)));
        reported
    }

    #[test]
    fn the_first_line_of_a_period_is_logged_and_its_repetitions_are_counted() {
        let lines = RepeatedLines::new();
        let firsts = (0..1000).filter(|_| lines.is_first(RepeatedLine::CallRefused));
        assert_eq!(firsts.count(), 1);
        assert!(lines.is_first(RepeatedLine::NotAccepted), "another line");
        assert_eq!(reported(&lines), [(RepeatedLine::CallRefused, 999)]);
    }

    #[test]
    fn a_line_that_never_stops_is_logged_once_per_period() {
        let lines = RepeatedLines::new();
        assert!(lines.is_first(RepeatedLine::CallRefused));
        for _ in 0..3 {
            for _ in 0..50 {
                assert!(!lines.is_first(RepeatedLine::CallRefused));
            }
            assert_eq!(reported(&lines), [(RepeatedLine::CallRefused, 50)]);
        }
    }

    #[test]
    fn a_line_is_logged_at_once_again_after_a_period_without_it() {
        let lines = RepeatedLines::new();
        assert!(lines.is_first(RepeatedLine::CallRefused));
        assert!(!lines.is_first(RepeatedLine::CallRefused));
        assert_eq!(reported(&lines).len(), 1);
        assert_eq!(reported(&lines), []);
        assert!(lines.is_first(RepeatedLine::CallRefused));
        assert_eq!(reported(&lines), [], "a single one is not repeated");
        assert!(lines.is_first(RepeatedLine::CallRefused));
    }

    #[test]
    fn no_line_is_missed_when_threads_log_during_a_report() {
        const THREADS: u64 = 4;
        const TIMES: u64 = 10_000;
        let lines = RepeatedLines::new();
        let (mut firsts, mut repeated) = (0, 0);
        thread::scope(|scope| {
            let log = || {
                let is_first = |_: &u64| lines.is_first(RepeatedLine::ShardSilent);
                (0..TIMES).filter(is_first).count() as u64
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(log)).collect();
            lines.end_period(|_, more| repeated += more);
            firsts = threads.into_iter().map(|it| it.join().unwrap()).sum();
        });
        lines.end_period(|_, more| repeated += more);
        assert_eq!(firsts + repeated, THREADS * TIMES);
    }

    #[test]
    fn each_line_has_its_own_index() {
        for (place, line) in RepeatedLine::ALL.into_iter().enumerate() {
            assert_eq!(line as usize, place);
        }
    }
}
