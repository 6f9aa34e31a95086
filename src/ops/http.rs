//! Serves the listener for metrics, health and the inspector. Reads counters that other modules
//! keep.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{
    Method, Request, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde_json::Value;
use sidewire_protocol::ErrorCode;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Health, health::failed_checks};
use crate::{
    http::{
        HttpProblem, HttpResponse, ListenerKind, check_host, check_no_origin, json_response,
        whole_response,
    },
    hub::TenantRegistry,
    inspector::Inspector,
    relay::Relay,
    tally::ShardTally,
    telemetry::ScrapeSources,
};

/// Time limit for receiving a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// `Retry-After` of a readiness check that fails.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The paths served by this listener.
pub const PATHS: [&str; 3] = [METRICS, HEALTHZ, READYZ];
const METRICS: &str = "/metrics";
const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";

/// The service of this listener.
#[derive(Debug)]
pub struct OpsService {
    relay: Arc<Relay>,
    tallies: Vec<Arc<ShardTally>>,
    registry: Arc<TenantRegistry>,
    health: Arc<Health>,
    inspector: Option<Inspector>,
}

/// Answer of a readiness check that passes.
#[derive(Serialize)]
struct ReadyAnswer {
    ready: bool,
    checks: Value,
}

impl OpsService {
    /// Creates the service from the counters and the health that it shows, and from the inspector
    /// if it is on.
    #[must_use]
    pub fn new(
        relay: Arc<Relay>,
        tallies: Vec<Arc<ShardTally>>,
        registry: Arc<TenantRegistry>,
        health: Arc<Health>,
        inspector: Option<Inspector>,
    ) -> Self {
        Self {
            relay,
            tallies,
            registry,
            health,
            inspector,
        }
    }

    async fn answer_request(&self, via: ListenerKind, request: Request<Incoming>) -> HttpResponse {
        if let Some(inspector) = &self.inspector
            && Inspector::has_path(request.uri().path())
        {
            return inspector.answer(request).await;
        }
        if let Err(problem) = self.check_sender(via, &request) {
            return problem.into_response();
        }
        let path = request.uri().path();
        if !PATHS.contains(&path) {
            return HttpProblem::no_such_path().into_response();
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return HttpProblem::method_not_allowed("GET, HEAD").into_response();
        }
        match path {
            METRICS => whole_response(StatusCode::OK, "text/plain; version=0.0.4", self.scrape()),
            READYZ => self.readiness().await,
            _ => whole_response(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
        }
    }

    fn scrape(&self) -> String {
        let live = self.relay.live();
        let key_sets = live.authenticator.key_sets().iter();
        let fetched_longest_ago = key_sets.map(|set| set.fetched_at()).min().flatten();
        let key_sets_fetched_at = fetched_longest_ago.map_or(0, |at| {
            let now = self.relay.clock.since_unix_epoch();
            now.saturating_sub(at.elapsed()).as_secs()
        });
        self.relay.metrics.render(&ScrapeSources {
            tallies: &self.tallies,
            registry: &self.registry,
            inbox_items: self.relay.publisher.inbox_items(),
            tenant_labels: live.config.ops.tenant_labels,
            key_sets_fetched_at,
        })
    }

    /// Refuses requests that may come from a web page, since this listener has no
    /// authentication.
    fn check_sender(
        &self,
        via: ListenerKind,
        request: &Request<Incoming>,
    ) -> Result<(), HttpProblem> {
        if via == ListenerKind::UnixSocket {
            return Ok(());
        }
        let live = self.relay.live();
        let remedy = "to use another name, list it in ops.hosts";
        check_host(request, &live.config.ops.hosts, remedy)?;
        check_no_origin(request, "omit it, or use a Unix socket")
    }

    async fn readiness(&self) -> HttpResponse {
        let checks = self.health.run_checks().await;
        let detail = failed_checks(&checks).collect::<Vec<_>>().join("; ");
        let found = checks
            .iter()
            .map(|(name, found)| ((*name).to_owned(), found.as_str().into()));
        let checks = Value::Object(found.collect());
        if !detail.is_empty() {
            return HttpProblem::unavailable(ErrorCode::InternalError, detail, RETRY_AFTER)
                .with_member("checks", checks)
                .into_response();
        }
        let ready = ReadyAnswer {
            ready: true,
            checks,
        };
        json_response(StatusCode::OK, &ready)
    }
}

/// Answers the requests of one connection.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    ops: Arc<OpsService>,
    stream: S,
    via: ListenerKind,
) {
    let service = service_fn(move |request| {
        let ops = Arc::clone(&ops);
        async move { Ok::<_, Infallible>(ops.answer_request(via, request).await) }
    });
    // An error is the caller's: it disconnected, or sent no HTTP.
    drop(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}
