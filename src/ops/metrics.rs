//! The relay's metrics, one registry a relay, so that several can run in one
//! process. What is counted on the path of an event stands in the shards'
//! tallies and is summed up when somebody asks.
//!
//! Labels come from closed sets: no name that a client or backend sends becomes
//! one.

use std::sync::Arc;

use hyper::StatusCode;
use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::{
    auth::TokenError, hub::Registry, limits::Limit, log::Gap, protocol::ErrorCode,
    protocol::close::Ending, tally::Tally,
};

/// Why a connection was closed, for the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The client has sent a Close frame.
    ByClient,
    /// The stream ended without a Close frame.
    Lost,
    /// The client has broken the WebSocket protocol (1002).
    ProtocolError,
    /// A frame or message was too big (1009).
    TooBig,
    /// What should have been text was not UTF-8 (1007).
    BadUtf8,
    /// A text frame came (1003).
    WrongFrameType,
    /// The token has expired (4001).
    TokenExpired,
    /// The outbox was full (4003).
    TooSlow,
    /// What it was to get next left the replay window first (4003).
    Overtaken,
    /// The relay needed the memory of its outbox (4003).
    NoMemory,
    /// A backend has asked for it (4002).
    Disconnected,
    /// Nothing came from the client for too long (4004).
    Idle,
    /// A message of the client's did not come to its end (4004).
    Unfinished,
    /// The client kept being refused (4005).
    Refused,
    /// The key of the token was taken away (4001).
    KeyRemoved,
    /// The relay is shutting down (1001).
    Drain,
    /// A frame could not be written within the write deadline (1006).
    Reset,
}

impl Closed {
    const ALL: [Self; 17] = [
        Self::ByClient,
        Self::Lost,
        Self::ProtocolError,
        Self::TooBig,
        Self::BadUtf8,
        Self::WrongFrameType,
        Self::TokenExpired,
        Self::TooSlow,
        Self::Overtaken,
        Self::NoMemory,
        Self::Disconnected,
        Self::Idle,
        Self::Unfinished,
        Self::Refused,
        Self::KeyRemoved,
        Self::Drain,
        Self::Reset,
    ];

    /// The reason for which the relay has closed it.
    #[must_use]
    pub fn by_relay(ending: Ending) -> Self {
        match ending {
            Ending::Drain { .. } => Self::Drain,
            Ending::WrongFrameType => Self::WrongFrameType,
            Ending::TokenExpired => Self::TokenExpired,
            Ending::TooSlow => Self::TooSlow,
            Ending::Overtaken => Self::Overtaken,
            Ending::NoMemory => Self::NoMemory,
            Ending::Disconnected => Self::Disconnected,
            Ending::Idle => Self::Idle,
            Ending::Unfinished => Self::Unfinished,
            Ending::Refused => Self::Refused,
            Ending::KeyRemoved => Self::KeyRemoved,
        }
    }

    /// Whether the client was too slow (4003), in one way or another.
    #[must_use]
    pub fn is_too_slow(self) -> bool {
        matches!(self, Self::TooSlow | Self::Overtaken | Self::NoMemory)
    }

    /// The reason as a word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ByClient => "client",
            Self::Lost => "lost",
            Self::ProtocolError => "protocol_error",
            Self::TooBig => "too_big",
            Self::BadUtf8 => "bad_utf8",
            Self::WrongFrameType => "wrong_frame_type",
            Self::TokenExpired => "token_expired",
            Self::TooSlow => "too_slow",
            Self::Overtaken => "overtaken",
            Self::NoMemory => "no_memory",
            Self::Disconnected => "disconnected",
            Self::Idle => "idle",
            Self::Unfinished => "unfinished",
            Self::Refused => "refused",
            Self::KeyRemoved => "key_removed",
            Self::Drain => "drain",
            Self::Reset => "reset",
        }
    }
}

/// Why a backend's call was answered with 409, for the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// A message id had been given to another body.
    MessageId,
    /// A precondition did not hold.
    Precondition,
}

impl Conflict {
    const ALL: [Self; 2] = [Self::MessageId, Self::Precondition];

    /// The reason as a word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::MessageId => "message_id",
            Self::Precondition => "precondition",
        }
    }
}

/// What came of fetching a key set, for the label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySetFetch {
    /// Keys.
    Fetched,
    /// There was no connection, no TLS, or no HTTP.
    Unreachable,
    /// It took too long.
    TimedOut,
    /// The answer was another than 200.
    Status,
    /// The answer was too big.
    TooBig,
    /// The answer was no set with a key for signatures.
    Invalid,
}

impl KeySetFetch {
    const ALL: [Self; 6] = [
        Self::Fetched,
        Self::Unreachable,
        Self::TimedOut,
        Self::Status,
        Self::TooBig,
        Self::Invalid,
    ];

    /// The result as a word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Status => "status",
            Self::TooBig => "too_big",
            Self::Invalid => "invalid",
        }
    }
}

/// Whether the config file took effect that was read again, for the label `result`.
const RELOADS: [&str; 2] = [APPLIED, REFUSED];
const APPLIED: &str = "applied";
const REFUSED: &str = "refused";

/// The result of a resume that was complete.
const RECOVERED: &str = "recovered";

/// The error codes with which a client's message can be refused.
const REFUSALS: [ErrorCode; 3] = [
    ErrorCode::AuthorizationFailed,
    ErrorCode::ValidationError,
    ErrorCode::RateLimitExceeded,
];

/// The statuses with which a handshake can be refused.
const HANDSHAKE_REFUSALS: [&str; 9] = [
    "400", "401", "403", "404", "405", "426", "429", "431", "503",
];

/// The statuses that a backend's call can be answered with.
const INGEST_STATUSES: [&str; 13] = [
    "200", "202", "400", "401", "403", "404", "405", "408", "409", "413", "415", "429", "503",
];

/// The reasons for which a backend is not known.
const INGEST_KEY_REASONS: [&str; 3] = ["missing", "malformed", "unknown_key"];

/// A metric with a label of which the values are known beforehand: the series of
/// each stands from the start, so that its first increase can be seen.
struct Family {
    name: &'static str,
    labels: Vec<Label>,
    label: &'static str,
    counters: Vec<(String, Counter)>,
}

impl Family {
    fn count(&self, value: &str, recorder: &PrometheusRecorder) {
        match self.counters.iter().find(|(known, _)| known == value) {
            Some((_, counter)) => counter.increment(1),
            None => self.register(value, recorder).increment(1),
        }
    }

    fn register(&self, value: &str, recorder: &PrometheusRecorder) -> Counter {
        let mut labels = self.labels.clone();
        labels.push(Label::new(self.label, value.to_owned()));
        recorder.register_counter(&Key::from_parts(self.name, labels), &METADATA)
    }
}

/// The metrics of one relay.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    closed: Family,
    refused: Family,
    resumes: Family,
    handshakes_refused: Family,
    handshakes_timed_out: Counter,
    tls_handshakes_failed: Counter,
    proxy_headers_malformed: Counter,
    client_authentication_failures: Family,
    ingest_authentication_failures: Family,
    ingest_requests: Family,
    events_ingested: Counter,
    ingest_duplicates: Counter,
    ingest_conflicts: Family,
    limits_exceeded: Family,
    accept_errors: Counter,
    client_authentication_required: Gauge,
    ingest_authentication_required: Gauge,
    reloads: Family,
    reload_successful: Gauge,
    reload_success_timestamp: Gauge,
    key_set_fetches: Family,
    scraped: Scraped,
}

/// What is read off elsewhere at each scrape.
struct Scraped {
    connections: Gauge,
    connections_opened: Counter,
    subscriptions: Gauge,
    matched: Counter,
    replayed: Counter,
    written: Counter,
    dropped_slow: Counter,
    dropped_closed: Counter,
    queued: Gauge,
    client_writes: Counter,
    client_frames_written: Counter,
    client_reads: Counter,
    event_bytes: Gauge,
    log_bytes: Gauge,
    message_id_bytes: Gauge,
    tenants: Gauge,
    tenants_dormant: Gauge,
    panics: Counter,
}

impl Metrics {
    /// A registry in which all series stand, at 0. `tokens` and `keys`: whether
    /// clients and backends have to show theirs.
    #[must_use]
    pub fn new(tokens: bool, keys: bool) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let register = Register(&recorder);
        register
            .gauge(
                "sidewire_build_info",
                "Always 1; the labels say what runs.",
                &[("version", env!("CARGO_PKG_VERSION"))],
            )
            .set(1.0);
        let metrics = Self {
            client_authentication_required: register.authentication_required("client"),
            ingest_authentication_required: register.authentication_required("ingest"),
            reloads: register.family(
                "sidewire_config_reloads_total",
                "Times the config file was read again, by result: applied, or refused for an error in it.",
                &[],
                "result",
                RELOADS,
            ),
            reload_successful: register.gauge(
                "sidewire_config_reload_successful",
                "1 where the config file was good when it was last read, 0 where it was refused and the one before holds.",
                &[],
            ),
            reload_success_timestamp: register.gauge(
                "sidewire_config_reload_success_timestamp_seconds",
                "When the config that holds was read, in Unix seconds.",
                &[],
            ),
            key_set_fetches: register.family(
                "sidewire_jwks_fetches_total",
                "Attempts to fetch a jwks_url, by result: fetched, or why not.",
                &[],
                "result",
                KeySetFetch::ALL.map(KeySetFetch::label),
            ),
            handle: recorder.handle(),
            closed: register.family(
                "sidewire_connections_closed_total",
                "WebSocket connections that have ended, by reason.",
                &[],
                "reason",
                Closed::ALL.map(Closed::label),
            ),
            refused: register.family(
                "sidewire_messages_refused_total",
                "Messages of clients that were answered with an ErrorResponse, by its code.",
                &[],
                "code",
                REFUSALS.map(ErrorCode::as_str),
            ),
            resumes: register.family(
                "sidewire_resumes_total",
                "Subscribes with a position to resume from, by result: recovered, or why not.",
                &[],
                "result",
                [
                    RECOVERED,
                    Gap::UnknownEpoch.label(),
                    Gap::Future.label(),
                    Gap::Evicted.label(),
                    Gap::Disabled.label(),
                ],
            ),
            handshakes_refused: register.family(
                "sidewire_handshakes_refused_total",
                "Requests of clients that did not become a WebSocket, by HTTP status.",
                &[],
                "status",
                HANDSHAKE_REFUSALS,
            ),
            handshakes_timed_out: register.counter(
                "sidewire_handshakes_timed_out_total",
                "Clients that took too long to get through their handshake.",
                &[],
            ),
            tls_handshakes_failed: register.counter(
                "sidewire_tls_handshakes_failed_total",
                "Clients with which no TLS came about: they left, spoke none, or did not like the certificate.",
                &[],
            ),
            proxy_headers_malformed: register.counter(
                "sidewire_proxy_headers_malformed_total",
                "Connections of trusted proxies that did not begin with a PROXY header, and were closed for it.",
                &[],
            ),
            client_authentication_failures: register
                .authentication_failures("client", TokenError::REASONS),
            ingest_authentication_failures: register
                .authentication_failures("ingest", INGEST_KEY_REASONS),
            ingest_requests: register.family(
                "sidewire_ingest_requests_total",
                "Calls of backends, by the HTTP status of the answer.",
                &[],
                "status",
                INGEST_STATUSES,
            ),
            events_ingested: register.counter(
                "sidewire_events_ingested_total",
                "Events that were accepted from backends and have a position.",
                &[],
            ),
            ingest_duplicates: register.counter(
                "sidewire_ingest_duplicates_total",
                "Events that backends posted again under their message_id, and that were not taken twice.",
                &[],
            ),
            ingest_conflicts: register.family(
                "sidewire_ingest_conflicts_total",
                "Calls of backends that were answered with 409, by reason: message_id, one was given to another event before; precondition, an if_last did not hold.",
                &[],
                "reason",
                Conflict::ALL.map(Conflict::label),
            ),
            limits_exceeded: register.family(
                "sidewire_limits_exceeded_total",
                "Handshakes, messages and calls that were refused because there were too many, by limit.",
                &[],
                "limit",
                Limit::ALL.map(Limit::label),
            ),
            accept_errors: register.counter(
                "sidewire_accept_errors_total",
                "Failed attempts to accept a connection, such as for want of descriptors.",
                &[],
            ),
            scraped: Scraped::register(&register),
            recorder,
        };
        metrics.authentication_required(tokens, keys);
        metrics
    }

    /// Whether clients and backends have to show their tokens and keys.
    pub fn authentication_required(&self, tokens: bool, keys: bool) {
        let gauge = |required| f64::from(u8::from(required));
        self.client_authentication_required.set(gauge(tokens));
        self.ingest_authentication_required.set(gauge(keys));
    }

    /// The relay has started with a config, at this time in Unix seconds.
    pub fn configured(&self, at: i64) {
        self.reload_successful.set(1.0);
        self.reload_success_timestamp.set(seconds(at));
    }

    /// The config file was read again; it took effect at this time in Unix seconds, or
    /// was refused.
    pub fn reloaded(&self, applied: Option<i64>) {
        match applied {
            Some(at) => {
                self.reloads.count(APPLIED, &self.recorder);
                self.configured(at);
            }
            None => {
                self.reloads.count(REFUSED, &self.recorder);
                self.reload_successful.set(0.0);
            }
        }
    }

    /// A key set was fetched, or was to be.
    pub fn key_set_fetched(&self, result: KeySetFetch) {
        self.key_set_fetches.count(result.label(), &self.recorder);
    }

    /// A connection has ended.
    pub fn closed(&self, closed: Closed) {
        self.closed.count(closed.label(), &self.recorder);
    }

    /// A client's message was answered with an ErrorResponse.
    pub fn refused(&self, code: ErrorCode) {
        self.refused.count(code.as_str(), &self.recorder);
    }

    /// A client was told whether it is given what it missed.
    pub fn resumed(&self, result: Result<(), Gap>) {
        let label = result.map_or_else(Gap::label, |()| RECOVERED);
        self.resumes.count(label, &self.recorder);
    }

    /// A client's request did not become a WebSocket.
    pub fn handshake_refused(&self, status: StatusCode) {
        self.handshakes_refused
            .count(status.as_str(), &self.recorder);
    }

    /// A client took too long to get through its handshake.
    pub fn handshake_timed_out(&self) {
        self.handshakes_timed_out.increment(1);
    }

    /// There is no TLS with a client.
    pub fn tls_handshake_failed(&self) {
        self.tls_handshakes_failed.increment(1);
    }

    /// A connection that should begin with a PROXY header does not.
    pub fn proxy_header_malformed(&self) {
        self.proxy_headers_malformed.increment(1);
    }

    /// A client has not shown who it is.
    pub fn client_not_authenticated(&self, reason: &'static str) {
        self.client_authentication_failures
            .count(reason, &self.recorder);
    }

    /// A backend has not shown a key.
    pub fn backend_not_authenticated(&self, reason: &'static str) {
        self.ingest_authentication_failures
            .count(reason, &self.recorder);
    }

    /// A backend's call was answered.
    pub fn ingest_answered(&self, status: StatusCode) {
        self.ingest_requests.count(status.as_str(), &self.recorder);
    }

    /// Events were accepted, of which some had been accepted before.
    pub fn ingested(&self, new: u64, duplicates: u64) {
        self.events_ingested.increment(new);
        self.ingest_duplicates.increment(duplicates);
    }

    /// A backend's call was in conflict with what had come before.
    pub fn conflict(&self, reason: Conflict) {
        self.ingest_conflicts.count(reason.label(), &self.recorder);
    }

    /// Something was refused because there was too much of it.
    pub fn exceeded(&self, limit: Limit) {
        self.limits_exceeded.count(limit.label(), &self.recorder);
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self) {
        self.accept_errors.increment(1);
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self, tallies: &[Arc<Tally>], registry: &Registry) -> String {
        self.scraped.update(tallies, registry);
        self.handle.run_upkeep();
        self.handle.render()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Scraped {
    fn register(register: &Register<'_>) -> Self {
        const DROPPED: &str = "sidewire_events_dropped_total";
        const DROPPED_HELP: &str = "Events that matched a connection and were not written to it, by reason: too_slow, it was closed with 4003; closed, it ended before.";
        Self {
            connections: register.gauge(
                "sidewire_connections",
                "WebSocket connections that are open.",
                &[],
            ),
            connections_opened: register.counter(
                "sidewire_connections_opened_total",
                "WebSocket connections that have been opened.",
                &[],
            ),
            subscriptions: register.gauge(
                "sidewire_subscriptions",
                "Topics subscribed, summed over all connections; implicit topics are not counted.",
                &[],
            ),
            matched: register.counter(
                "sidewire_events_matched_total",
                "Events, counted once for each connection that they matched.",
                &[],
            ),
            written: register.counter(
                "sidewire_events_written_total",
                "Of the events matched and replayed, those handed to the kernel whole.",
                &[],
            ),
            replayed: register.counter(
                "sidewire_events_replayed_total",
                "Events that were queued again for a connection that resumes, once for each such connection.",
                &[],
            ),
            dropped_slow: register.counter(DROPPED, DROPPED_HELP, &[("reason", "too_slow")]),
            dropped_closed: register.counter(DROPPED, DROPPED_HELP, &[("reason", "closed")]),
            queued: register.gauge(
                "sidewire_events_queued",
                "Of the events matched and replayed, those that wait in an outbox, or in the log for a connection that catches up. matched + replayed = written + dropped + queued.",
                &[],
            ),
            client_writes: register.counter(
                "sidewire_client_writes_total",
                "System calls that wrote to WebSocket connections; over TLS writes to its session, each of which is one system call, several or none. Frames written / writes is how many frames leave at once: about 1 when little happens, many under load.",
                &[],
            ),
            client_frames_written: register.counter(
                "sidewire_client_frames_written_total",
                "Frames that were handed to the kernel whole: events, replies, pongs and closes.",
                &[],
            ),
            client_reads: register.counter(
                "sidewire_client_reads_total",
                "System calls that read from WebSocket connections; over TLS reads from its session, each of which is one system call, several or none.",
                &[],
            ),
            event_bytes: register.gauge(
                "sidewire_events_bytes",
                "Memory that events take up, in logs, inboxes and outboxes together, in bytes.",
                &[],
            ),
            log_bytes: register.gauge(
                "sidewire_log_bytes",
                "Memory that the events in the tenants' logs take up, in bytes.",
                &[],
            ),
            message_id_bytes: register.gauge(
                "sidewire_message_ids_bytes",
                "Memory that remembered message ids take up, in bytes, counted as 128 an id.",
                &[],
            ),
            tenants: register.gauge(
                "sidewire_tenants",
                "Tenants with connections, events in their log, or remembered message ids.",
                &[],
            ),
            tenants_dormant: register.gauge(
                "sidewire_tenants_dormant",
                "Tenants without any of these, of which the end of their log is remembered.",
                &[],
            ),
            panics: register.counter(
                "sidewire_panics_total",
                "Faults of the relay that ended a task. Anything but 0 is a bug.",
                &[],
            ),
        }
    }

    fn update(&self, tallies: &[Arc<Tally>], registry: &Registry) {
        let sum =
            |cell: fn(&Tally) -> u64| -> u64 { tallies.iter().map(|tally| cell(tally)).sum() };
        self.connections_opened
            .absolute(sum(|tally| tally.connections_opened.get()));
        self.matched.absolute(sum(|tally| tally.matched.get()));
        self.replayed.absolute(sum(|tally| tally.replayed.get()));
        self.written.absolute(sum(|tally| tally.written.get()));
        self.dropped_slow
            .absolute(sum(|tally| tally.dropped_slow.get()));
        self.dropped_closed
            .absolute(sum(|tally| tally.dropped_closed.get()));
        self.client_writes.absolute(sum(|tally| tally.writes.get()));
        self.client_frames_written
            .absolute(sum(|tally| tally.frames_written.get()));
        self.client_reads.absolute(sum(|tally| tally.reads.get()));
        self.panics.absolute(super::panics::count());
        self.connections
            .set(as_gauge(sum(|tally| tally.connections.get())));
        self.subscriptions
            .set(as_gauge(sum(|tally| tally.subscriptions.get())));
        self.queued.set(as_gauge(sum(|tally| tally.queued.get())));
        self.event_bytes.set(as_gauge(registry.event_bytes().get()));
        self.log_bytes.set(as_gauge(registry.log_bytes()));
        self.message_id_bytes
            .set(as_gauge(registry.message_ids().bytes() as u64));
        self.tenants.set(as_gauge(registry.len() as u64));
        self.tenants_dormant
            .set(as_gauge(registry.dormant_len() as u64));
    }
}

/// Gauges are doubles, which are exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn as_gauge(value: u64) -> f64 {
    value as f64
}

/// The same of a time.
#[expect(clippy::cast_precision_loss, reason = "2^53 seconds are far away")]
fn seconds(at: i64) -> f64 {
    at as f64
}

/// Registers series, each with its help text.
struct Register<'a>(&'a PrometheusRecorder);

impl Register<'_> {
    fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Counter {
        self.0
            .describe_counter(KeyName::from(name), None, SharedString::from(help));
        self.0.register_counter(&key(name, labels), &METADATA)
    }

    fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Gauge {
        self.0
            .describe_gauge(KeyName::from(name), None, SharedString::from(help));
        self.0.register_gauge(&key(name, labels), &METADATA)
    }

    fn family<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &'static str)],
        label: &'static str,
        values: [&'static str; N],
    ) -> Family {
        self.0
            .describe_counter(KeyName::from(name), None, SharedString::from(help));
        let mut family = Family {
            name,
            labels: labels_of(labels),
            label,
            counters: Vec::new(),
        };
        family.counters = values
            .map(|value| (value.to_owned(), family.register(value, self.0)))
            .into();
        family
    }

    fn authentication_required(&self, listener: &'static str) -> Gauge {
        self.gauge(
            "sidewire_authentication_required",
            "1 where callers have to show who they are, 0 where nobody has to.",
            &[("listener", listener)],
        )
    }

    fn authentication_failures<const N: usize>(
        &self,
        listener: &'static str,
        reasons: [&'static str; N],
    ) -> Family {
        self.family(
            "sidewire_authentication_failures_total",
            "Clients and backends that have not shown who they are, by listener and reason.",
            &[("listener", listener)],
            "reason",
            reasons,
        )
    }
}

const METADATA: Metadata<'static> = Metadata::new("sidewire", Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    Key::from_parts(name, labels_of(labels))
}

fn labels_of(labels: &[(&'static str, &'static str)]) -> Vec<Label> {
    labels
        .iter()
        .map(|(name, value)| Label::new(*name, *value))
        .collect()
}
