//! The relay's metrics, one registry a relay, so that several can run in one
//! process. Here stands what others tell as it happens; `scraped` has what is summed up
//! when somebody asks.
//!
//! Labels come from closed sets: no name that a client or backend sends becomes
//! one.

mod labels;
mod register;
mod revision;
mod scraped;
mod turns;

use std::sync::Arc;

use hyper::StatusCode;
use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::{
    auth::TokenError, hub::Registry, limits::Limit, log::Gap, protocol::ErrorCode,
    schema::Revision, tally::Tally,
};
use register::{Family, Register};
use revision::ServingRevision;
use scraped::Scraped;
use turns::append_turns;

pub use labels::{Closed, Conflict, KeySetFetch, SchemaReload};

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
    schema_revision: ServingRevision,
    schema_reloads: Family,
    key_set_fetches: Family,
    scraped: Scraped,
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
            schema_revision: ServingRevision::default(),
            schema_reloads: register.family(
                "sidewire_schema_reloads_total",
                "Times the schema was read again, by result: applied, unchanged, or refused because it has an error or would break connected clients or events in the log.",
                &[],
                "result",
                SchemaReload::ALL.map(SchemaReload::label),
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
                "Calls of backends, by the HTTP status of the answer; connections that are turned away before a call count in `sidewire_limits_exceeded_total`.",
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

    /// The schema that serves from now on.
    pub fn schema_serves(&self, revision: Revision) {
        self.schema_revision.set(revision);
    }

    /// The schema was read again.
    pub fn schema_reloaded(&self, result: SchemaReload) {
        self.schema_reloads.count(result.label(), &self.recorder);
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
        let mut scrape = self.handle.render();
        self.schema_revision.append_to(&mut scrape);
        append_turns(&mut scrape, tallies);
        scrape
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Gauges are doubles, which are exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "2^53 seconds are far away")]
fn seconds(at: i64) -> f64 {
    at as f64
}
