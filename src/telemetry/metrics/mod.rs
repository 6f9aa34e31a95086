//! The relay's metrics. Each relay has its own registry, so that several can run in one process.
//! This module has the metrics that are updated as things happen; `scraped` has those that are
//! computed at each scrape.
//!
//! Label values come from closed sets, never from names that a client or backend sends, but for the
//! names of a bounded number of tenants.

mod backend;
mod closed;
mod histograms;
mod labels;
mod process;
mod reconnects;
mod register;
mod revision;
mod scraped;
mod tenants;

use std::sync::Arc;

use hyper::StatusCode;
use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sidewire_protocol::{ErrorCode, schema::SchemaRevision};

use crate::{
    auth::TokenError,
    hub::TenantRegistry,
    limits::{Limit, UserKey},
    log::ReplayGap,
    tally::ShardTally,
    tls::ChainValidity,
    transport::TransportKind,
};
use closed::ClosedConnections;
use histograms::append_shard_histograms;
use labels::{ConfigReloadResult, EventOrigin, ResumeResult};
use process::append_process;
use reconnects::ReconnectMetrics;
use register::{CounterFamily, ReadableCounter, SeriesRegistry, StatusFamily};
use revision::ServingRevision;
use scraped::ScrapedMetrics;
use tenants::append_tenants;

pub use backend::{AuthorizationMetrics, BackendMetrics};
pub use labels::{
    AnswerSource, AuthorizationResult, BackendResult, CloseLabel, ConflictReason, IngestKeyRefusal,
    KeySetFetchResult, SchemaReloadResult, WindowFileResult,
};
pub use process::{cpu_seconds, resident_bytes};

/// HTTP statuses with which a handshake can be refused.
const HANDSHAKE_REFUSALS: &[StatusCode] = &[
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::UPGRADE_REQUIRED,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// HTTP statuses with which a backend's call can be answered.
const INGEST_STATUSES: &[StatusCode] = &[
    StatusCode::OK,
    StatusCode::ACCEPTED,
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::CONFLICT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// What a scrape shows that is kept elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct ScrapeSources<'a> {
    /// The counters of each shard.
    pub tallies: &'a [Arc<ShardTally>],
    /// The tenants.
    pub registry: &'a TenantRegistry,
    /// Number of items that wait for the shards.
    pub inbox_items: usize,
    /// Number of tenants whose connections are a series of their own.
    pub tenant_labels: usize,
    /// Time at which that key set was fetched that was fetched longest ago, in Unix seconds; 0 if
    /// there is none.
    pub key_sets_fetched_at: u64,
}

/// The metrics of one relay.
pub struct Metrics {
    handle: PrometheusHandle,
    closed: ClosedConnections,
    reconnects: ReconnectMetrics,
    refused: CounterFamily<ErrorCode>,
    resumes: CounterFamily<ResumeResult>,
    handshakes_refused: StatusFamily,
    handshakes_timed_out: Counter,
    tls_handshakes_failed: Counter,
    proxy_headers_malformed: Counter,
    client_authentication_failures: CounterFamily<TokenError>,
    ingest_authentication_failures: CounterFamily<IngestKeyRefusal>,
    ingest_requests: StatusFamily,
    events_ingested: ReadableCounter,
    client_events: ReadableCounter,
    received_bytes: CounterFamily<EventOrigin>,
    ingest_duplicates: Counter,
    ingest_conflicts: CounterFamily<ConflictReason>,
    limits_exceeded: CounterFamily<Limit>,
    accept_errors: Counter,
    client_authentication_required: Gauge,
    ingest_authentication_required: Gauge,
    reloads: CounterFamily<ConfigReloadResult>,
    reload_successful: Gauge,
    reload_success_timestamp: Gauge,
    draining: Gauge,
    certificate_expiry: Gauge,
    schema_revision: ServingRevision,
    schema_reloads: CounterFamily<SchemaReloadResult>,
    key_set_fetches: CounterFamily<KeySetFetchResult>,
    window_files: CounterFamily<WindowFileResult>,
    /// The questions to the backend about subscriptions.
    pub backend: Arc<BackendMetrics>,
    /// The authorization of subscriptions by the backend.
    pub authorization: Arc<AuthorizationMetrics>,
    scraped: ScrapedMetrics,
}

impl Metrics {
    /// Creates a registry with all series at 0. `tokens` is true if clients must authenticate,
    /// `keys` if backends must.
    #[must_use]
    pub fn new(tokens: bool, keys: bool) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let register = SeriesRegistry(&recorder);
        register
            .gauge(
                "sidewire_build_info",
                "Always 1; the label names the running version.",
                &[("version", env!("CARGO_PKG_VERSION"))],
            )
            .set(1.0);
        let metrics = Self {
            client_authentication_required: register.authentication_required("client"),
            ingest_authentication_required: register.authentication_required("ingest"),
            reloads: register.family(
                "sidewire_config_reloads_total",
                "Times the config file was read again, by result: applied, or refused for an error in it.",
                "result",
            ),
            reload_successful: register.gauge(
                "sidewire_config_reload_successful",
                "1 if the config file was valid when it was last read, 0 if it was refused and the previous config stays in force.",
                &[],
            ),
            reload_success_timestamp: register.gauge(
                "sidewire_config_reload_success_timestamp_seconds",
                "Time at which the config in force was read, in Unix seconds.",
                &[],
            ),
            draining: register.gauge(
                "sidewire_draining",
                "1 if the relay is shutting down, else 0. sidewire_connections are then those that are still to be closed.",
                &[],
            ),
            certificate_expiry: register.gauge(
                "sidewire_tls_certificate_expiry_timestamp_seconds",
                "Time at which the certificate of the client listener, or another of its chain, expires, in Unix seconds; 0 without TLS.",
                &[],
            ),
            schema_revision: ServingRevision::default(),
            schema_reloads: register.family(
                "sidewire_schema_reloads_total",
                "Times the schema was read again, by result: applied, unchanged, or refused because it has an error or would break connected clients or events in the log.",
                "result",
            ),
            key_set_fetches: register.family(
                "sidewire_jwks_fetches_total",
                "Attempts to fetch a jwks_url, by result: fetched, or the reason why not.",
                "result",
            ),
            window_files: register.family(
                "sidewire_window_files_total",
                "Starts with `replay.keep_file`, by what was found there: the window of the last run, no file, or one that could not be used.",
                "result",
            ),
            handle: recorder.handle(),
            closed: ClosedConnections::register(&register),
            reconnects: ReconnectMetrics::register(&register),
            refused: register.family_without(
                "sidewire_messages_refused_total",
                "Messages of clients that were answered with an ErrorResponse, by its code.",
                "code",
                // Only answers over HTTP have these codes.
                &[ErrorCode::NotFound, ErrorCode::Conflict],
            ),
            resumes: register.family(
                "sidewire_resumes_total",
                "Subscribes with a position to resume from, by result: recovered, or the reason why not.",
                "result",
            ),
            handshakes_refused: register.statuses(
                "sidewire_handshakes_refused_total",
                "Handshakes of clients that were refused, by HTTP status, those refused after the upgrade, and event streams and polls whose topics a backend refuses, included.",
                HANDSHAKE_REFUSALS,
            ),
            handshakes_timed_out: register.counter(
                "sidewire_handshakes_timed_out_total",
                "Clients that took too long to complete their handshake.",
                &[],
            ),
            tls_handshakes_failed: register.counter(
                "sidewire_tls_handshakes_failed_total",
                "Client TLS handshakes that failed: the client left, did not speak TLS, or rejected the certificate.",
                &[],
            ),
            proxy_headers_malformed: register.counter(
                "sidewire_proxy_headers_malformed_total",
                "Connections of trusted proxies that did not begin with a PROXY header, and were closed for it.",
                &[],
            ),
            client_authentication_failures: register.authentication_failures("client"),
            ingest_authentication_failures: register.authentication_failures("ingest"),
            ingest_requests: register.statuses(
                "sidewire_ingest_requests_total",
                "Calls of backends, by the HTTP status of the answer; connections that are turned away before a call count in `sidewire_limits_exceeded_total`.",
                INGEST_STATUSES,
            ),
            events_ingested: ReadableCounter::new(register.counter(
                "sidewire_events_ingested_total",
                "Events that were accepted from backends and have a position.",
                &[],
            )),
            client_events: ReadableCounter::new(register.counter(
                "sidewire_client_events_total",
                "Events that were accepted from clients, to be relayed to other clients.",
                &[],
            )),
            received_bytes: register.family(
                "sidewire_events_received_bytes_total",
                "Bytes of the events that were accepted, as frames of Protocol Buffers, by source: backend, or client.",
                "source",
            ),
            ingest_duplicates: register.counter(
                "sidewire_ingest_duplicates_total",
                "Events that backends posted again under their message_id, and that were not accepted twice.",
                &[],
            ),
            ingest_conflicts: register.family(
                "sidewire_ingest_conflicts_total",
                "Calls of backends that were answered with 409, by reason: message_id, it was already used for another event; precondition, an if_last did not hold.",
                "reason",
            ),
            limits_exceeded: register.family(
                "sidewire_limits_exceeded_total",
                "Handshakes, messages and calls that were refused because there were too many, by limit.",
                "limit",
            ),
            accept_errors: register.counter(
                "sidewire_accept_errors_total",
                "Failed attempts to accept a connection, for example for lack of file descriptors.",
                &[],
            ),
            backend: Arc::new(BackendMetrics::register(&register)),
            authorization: Arc::new(AuthorizationMetrics::register(&register)),
            scraped: ScrapedMetrics::register(&register),
        };
        metrics.set_authentication_required(tokens, keys);
        metrics
    }

    /// Sets the gauges of required authentication: `tokens` of clients, `keys` of backends.
    pub fn set_authentication_required(&self, tokens: bool, keys: bool) {
        let gauge = |required| f64::from(u8::from(required));
        self.client_authentication_required.set(gauge(tokens));
        self.ingest_authentication_required.set(gauge(keys));
    }

    /// Records a config that took effect at `at`, in Unix seconds.
    pub fn config_loaded(&self, at: i64) {
        self.reload_successful.set(1.0);
        self.reload_success_timestamp.set(as_gauge_seconds(at));
    }

    /// Records a reload of the config, which took effect at the given time in Unix seconds; `None`
    /// if it was refused.
    pub fn config_reloaded(&self, applied: Option<i64>) {
        match applied {
            Some(at) => {
                self.reloads.increment(&ConfigReloadResult::Applied);
                self.config_loaded(at);
            }
            None => {
                self.reloads.increment(&ConfigReloadResult::Refused);
                self.reload_successful.set(0.0);
            }
        }
    }

    /// Records that the relay is shutting down.
    pub fn drain_begun(&self) {
        self.draining.set(1.0);
    }

    /// Sets the validity of the certificate of the client listener.
    pub fn set_certificate(&self, validity: Option<ChainValidity>) {
        let expiry = validity.map_or(0, |validity| validity.not_after);
        self.certificate_expiry.set(as_gauge_seconds(expiry));
    }

    /// Sets the revision of the schema in force.
    pub fn set_schema_revision(&self, revision: SchemaRevision) {
        self.schema_revision.set(revision);
    }

    /// Counts a reload of the schema.
    pub fn schema_reloaded(&self, result: SchemaReloadResult) {
        self.schema_reloads.increment(&result);
    }

    /// Counts an attempt to fetch a key set.
    pub fn key_set_fetched(&self, result: KeySetFetchResult) {
        self.key_set_fetches.increment(&result);
    }

    /// Counts what a start found at `replay.keep_file`.
    pub fn window_file_found(&self, result: WindowFileResult) {
        self.window_files.increment(&result);
    }

    /// Counts a connection that was opened, if it is a reconnect. Returns true if it is.
    #[must_use]
    pub fn connection_opened(&self, transport: TransportKind, user: &UserKey) -> bool {
        transport.is_lasting() && self.reconnects.count_if_reconnect(user)
    }

    /// Counts a connection of the user that ended.
    pub fn connection_closed(&self, closed: CloseLabel, transport: TransportKind, user: &UserKey) {
        self.closed.increment(transport, closed);
        if transport.is_lasting() {
            self.reconnects.record_departure(user);
        }
    }

    /// Counts a client's message that was answered with an ErrorResponse.
    pub fn message_refused(&self, code: ErrorCode) {
        self.refused.increment(&code);
    }

    /// Counts a resume, which was complete or found a gap. `has_reconnected` is true for the first
    /// of a reconnect.
    pub fn resume_answered(&self, result: Result<(), ReplayGap>, has_reconnected: bool) {
        let result = result.map_or_else(ResumeResult::Gap, |()| ResumeResult::Recovered);
        if has_reconnected {
            self.reconnects.count_resumed(&result);
        }
        self.resumes.increment(&result);
    }

    /// Counts a client's request that did not become a WebSocket.
    pub fn handshake_refused(&self, status: StatusCode) {
        self.handshakes_refused.increment(status);
    }

    /// Counts a client that took too long to complete its handshake.
    pub fn handshake_timed_out(&self) {
        self.handshakes_timed_out.increment(1);
    }

    /// Counts a failed TLS handshake with a client.
    pub fn tls_handshake_failed(&self) {
        self.tls_handshakes_failed.increment(1);
    }

    /// Counts a connection that should have begun with a PROXY header.
    pub fn proxy_header_malformed(&self) {
        self.proxy_headers_malformed.increment(1);
    }

    /// Counts a client that failed to authenticate.
    pub fn client_not_authenticated(&self, reason: &TokenError) {
        self.client_authentication_failures.increment(reason);
    }

    /// Counts a backend that failed to authenticate.
    pub fn backend_not_authenticated(&self, reason: IngestKeyRefusal) {
        self.ingest_authentication_failures.increment(&reason);
    }

    /// Counts an answered call of a backend.
    pub fn ingest_answered(&self, status: StatusCode) {
        self.ingest_requests.increment(status);
    }

    /// Counts events that were accepted, with their bytes, and duplicates of events accepted before.
    pub fn events_ingested(&self, new: u64, bytes: u64, duplicates: u64) {
        self.events_ingested.increment(new);
        self.received_bytes.add(&EventOrigin::Backend, bytes);
        self.ingest_duplicates.increment(duplicates);
    }

    /// Counts an event of this many bytes that was accepted from a client.
    pub fn client_event_accepted(&self, bytes: usize) {
        self.client_events.increment(1);
        self.received_bytes.add(&EventOrigin::Client, bytes as u64);
    }

    /// Returns the numbers of events accepted so far: from backends, and from clients.
    #[must_use]
    pub fn accepted_events(&self) -> [u64; 2] {
        [self.events_ingested.get(), self.client_events.get()]
    }

    /// Counts a backend's call that was answered with 409.
    pub fn ingest_conflict(&self, reason: ConflictReason) {
        self.ingest_conflicts.increment(&reason);
    }

    /// Counts a handshake, message or call that was refused because of a limit.
    pub fn limit_exceeded(&self, limit: Limit) {
        self.limits_exceeded.increment(&limit);
    }

    /// Counts a failed attempt to accept a connection.
    pub fn accept_failed(&self) {
        self.accept_errors.increment(1);
    }

    /// Returns the value of a series, given by name and labels.
    #[cfg(test)]
    pub(crate) fn value(&self, series: &str) -> u64 {
        self.publish_counters();
        let scrape = self.handle.render();
        let mut lines = scrape.lines().filter_map(|line| line.split_once(' '));
        let value = lines.find_map(|(name, value)| (name == series).then_some(value));
        value.expect("there is such a series").parse().unwrap()
    }

    fn publish_counters(&self) {
        self.events_ingested.publish();
        self.client_events.publish();
    }

    /// Renders the metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self, sources: &ScrapeSources<'_>) -> String {
        self.scraped.update(sources);
        self.publish_counters();
        self.handle.run_upkeep();
        let mut scrape = self.handle.render();
        self.schema_revision.append_to(&mut scrape);
        append_shard_histograms(&mut scrape, sources.tallies);
        self.backend.append_to(&mut scrape);
        let labels = sources.tenant_labels;
        if labels > 0 {
            let connections = sources.registry.connections_by_tenant();
            append_tenants(&mut scrape, connections, labels);
        }
        append_process(&mut scrape);
        scrape
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Converts Unix seconds to a gauge's double, which is exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "2^53 seconds are far away")]
fn as_gauge_seconds(at: i64) -> f64 {
    at as f64
}
