//! Aggregates log lines that peers can cause arbitrarily often. The first ones of a period are
//! logged at their level at once; those beyond are counted, and one line at the end of the period
//! reports their number. At level debug each line is logged.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use hyper::StatusCode;
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
        /// A client was admitted.
        ClientConnected = "client connected",
        /// The connection of a client has ended.
        ClientDisconnected = "client disconnected",
        /// A client's handshake was refused: it is invalid, or has another path.
        HandshakeInvalid = "handshake refused: invalid request",
        /// A client's handshake was refused: its token is missing or not accepted (401).
        HandshakeUnauthenticated = "handshake refused: not authenticated",
        /// A client's handshake was refused: its origin may not connect (403).
        HandshakeForbidden = "handshake refused: not allowed",
        /// A client's handshake was refused: a limit of the client is reached (429).
        HandshakeLimited = "handshake refused: limit reached",
        /// A client's handshake was refused: the relay is full or draining (503).
        HandshakeUnavailable = "handshake refused: relay unavailable",
        /// The new token of a connected client was refused.
        RenewalRefused = "new token refused",
        /// A backend's call was refused: it is invalid.
        CallInvalid = "call refused: invalid request",
        /// A backend's call was refused: what it names does not exist (404).
        CallNotFound = "call refused: not found",
        /// A backend's call was refused: a condition does not hold, or its message id was used for
        /// another event (409).
        CallConflict = "call refused: conflict",
        /// A backend's call was refused: its key is missing or unknown (401).
        CallUnauthenticated = "call refused: not authenticated",
        /// A backend's call was refused: it may not act on this tenant, or comes from a web page
        /// (403).
        CallForbidden = "call refused: not allowed",
        /// A backend's call was refused: a limit is reached (429).
        CallLimited = "call refused: limit reached",
        /// A backend's call was refused: the relay is full, draining, or has failed (5xx).
        CallUnavailable = "call refused: relay unavailable",
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
        /// A question to the backend was not answered, or not in a way that can be used.
        BackendFailed = "the backend did not answer a question",
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
            Self::ClientConnected
            | Self::ClientDisconnected
            | Self::HandshakeInvalid
            | Self::HandshakeUnauthenticated
            | Self::HandshakeForbidden
            | Self::HandshakeLimited
            | Self::HandshakeUnavailable
            | Self::RenewalRefused
            | Self::CallInvalid
            | Self::CallNotFound
            | Self::CallConflict
            | Self::CallUnauthenticated
            | Self::CallForbidden
            | Self::CallLimited
            | Self::CallUnavailable
            | Self::TlsHandshakeFailed
            | Self::ProxyHeaderMissing => Level::INFO,
            Self::NotAccepted | Self::NotRegistered | Self::BackendFailed => Level::WARN,
            Self::ShardSilent
            | Self::EventWithoutJson
            | Self::ClientEventWithoutJson
            | Self::AnswerWithoutJson => Level::ERROR,
        }
    }

    /// Returns the line about a handshake that is refused with this HTTP status.
    #[must_use]
    pub(crate) fn of_refused_handshake(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::HandshakeUnauthenticated,
            StatusCode::FORBIDDEN => Self::HandshakeForbidden,
            StatusCode::TOO_MANY_REQUESTS => Self::HandshakeLimited,
            status if status.is_server_error() => Self::HandshakeUnavailable,
            _ => Self::HandshakeInvalid,
        }
    }

    /// Returns the line about a backend's call that is refused with this HTTP status.
    #[must_use]
    pub(crate) fn of_refused_call(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::CallUnauthenticated,
            StatusCode::FORBIDDEN => Self::CallForbidden,
            StatusCode::NOT_FOUND => Self::CallNotFound,
            StatusCode::CONFLICT => Self::CallConflict,
            StatusCode::TOO_MANY_REQUESTS => Self::CallLimited,
            status if status.is_server_error() => Self::CallUnavailable,
            _ => Self::CallInvalid,
        }
    }

    /// Returns how many of these lines are logged in a period.
    const fn per_period(self) -> u64 {
        match self {
            // 100 a second: half of what journald accepts from a service by default.
            Self::ClientConnected | Self::ClientDisconnected => 1_000,
            _ => 1,
        }
    }

    /// Counts the line. Returns true if it must be logged at its level, and false if enough such
    /// lines of the same period are logged.
    #[must_use]
    pub(crate) fn is_logged(self) -> bool {
        LINES.is_logged(self)
    }
}

/// Logs a [`RepeatedLine`] with the given fields: at its level if it is among the first of its
/// period, otherwise at level debug.
macro_rules! log_repeated {
    ($line:expr, $($fields:tt)+) => {{
        let line = $line;
        if !line.is_logged() {
            tracing::debug!($($fields)+, "{}", line.as_str());
        } else if line.level() == tracing::Level::INFO {
            tracing::info!($($fields)+, "{}", line.as_str());
        } else if line.level() == tracing::Level::WARN {
            tracing::warn!($($fields)+, "{}", line.as_str());
        } else {
            tracing::error!($($fields)+, "{}", line.as_str());
        }
    }};
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

/// Number of occurrences of each line in this period. A line of which some were only counted in the
/// last period begins the next one with a count of 1, for the report: a line that occurs all the
/// time is logged once per period, with its number.
#[derive(Debug)]
struct RepeatedLines([AtomicU64; RepeatedLine::ALL.len()]);

impl RepeatedLines {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; RepeatedLine::ALL.len()])
    }

    fn is_logged(&self, line: RepeatedLine) -> bool {
        let count = self.0.get(line as usize);
        count.is_none_or(|count| count.fetch_add(1, Ordering::Relaxed) < line.per_period())
    }

    /// Calls `report_repeats` with each line that was repeated in this period and the number of repeats,
    /// and begins the next period.
    fn end_period(&self, mut report: impl FnMut(RepeatedLine, u64)) {
        for (line, count) in RepeatedLine::ALL.into_iter().zip(&self.0) {
            let logged = line.per_period();
            let next = |count| Some(u64::from(count > logged));
            let ended = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
            let count = ended.unwrap_or_else(|count| count);
            if count > logged {
                report(line, count - logged);
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
        let firsts = (0..1000).filter(|_| lines.is_logged(RepeatedLine::CallInvalid));
        assert_eq!(firsts.count(), 1);
        assert!(lines.is_logged(RepeatedLine::NotAccepted), "another line");
        assert_eq!(reported(&lines), [(RepeatedLine::CallInvalid, 999)]);
    }

    #[test]
    fn a_line_that_never_stops_is_logged_once_per_period() {
        let lines = RepeatedLines::new();
        assert!(lines.is_logged(RepeatedLine::CallInvalid));
        for _ in 0..3 {
            for _ in 0..50 {
                assert!(!lines.is_logged(RepeatedLine::CallInvalid));
            }
            assert_eq!(reported(&lines), [(RepeatedLine::CallInvalid, 50)]);
        }
    }

    #[test]
    fn a_line_is_logged_at_once_again_after_a_period_without_it() {
        let lines = RepeatedLines::new();
        assert!(lines.is_logged(RepeatedLine::CallInvalid));
        assert!(!lines.is_logged(RepeatedLine::CallInvalid));
        assert_eq!(reported(&lines).len(), 1);
        assert_eq!(reported(&lines), []);
        assert!(lines.is_logged(RepeatedLine::CallInvalid));
        assert_eq!(reported(&lines), [], "a single one is not repeated");
        assert!(lines.is_logged(RepeatedLine::CallInvalid));
    }

    #[test]
    fn the_first_1000_connections_of_a_period_are_logged() {
        let lines = RepeatedLines::new();
        let connected = RepeatedLine::ClientConnected;
        let logged = (0..1_500).filter(|_| lines.is_logged(connected)).count();
        assert_eq!(logged, 1_000);
        assert_eq!(reported(&lines), [(connected, 500)]);
        let logged = (0..900).filter(|_| lines.is_logged(connected)).count();
        assert_eq!(logged, 900);
        assert_eq!(reported(&lines), []);
    }

    #[test]
    fn no_line_is_missed_when_threads_log_during_a_report() {
        const THREADS: u64 = 4;
        const TIMES: u64 = 10_000;
        let lines = RepeatedLines::new();
        let (mut firsts, mut repeated) = (0, 0);
        thread::scope(|scope| {
            let log = || {
                let is_logged = |_: &u64| lines.is_logged(RepeatedLine::ShardSilent);
                (0..TIMES).filter(is_logged).count() as u64
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
