//! Serves the listener for metrics and health. Reads counters that other modules keep.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{
    Method, Request, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Health, health::faults};
use crate::{
    http::{Problem, Response, Via, answer, check_host, check_no_origin, json},
    hub::Registry,
    protocol::ErrorCode,
    relay::Relay,
    tally::Tally,
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
pub struct Ops {
    relay: Arc<Relay>,
    tallies: Vec<Arc<Tally>>,
    registry: Arc<Registry>,
    health: Arc<Health>,
}

/// Answer of a readiness check that passes.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    checks: Value,
}

impl Ops {
    /// Creates the service from the counters and the health that it shows.
    #[must_use]
    pub fn new(
        relay: Arc<Relay>,
        tallies: Vec<Arc<Tally>>,
        registry: Arc<Registry>,
        health: Arc<Health>,
    ) -> Self {
        Self {
            relay,
            tallies,
            registry,
            health,
        }
    }

    async fn answer(&self, via: Via, request: Request<Incoming>) -> Response {
        if let Err(problem) = self.check_sender(via, &request) {
            return problem.into_response();
        }
        let path = request.uri().path();
        if !PATHS.contains(&path) {
            return Problem::no_such_path().into_response();
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Problem::method_not_allowed("GET, HEAD").into_response();
        }
        match path {
            METRICS => answer(
                StatusCode::OK,
                "text/plain; version=0.0.4",
                self.relay.metrics.render(&self.tallies, &self.registry),
            ),
            READYZ => self.readiness().await,
            _ => answer(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
        }
    }

    /// Refuses requests that may come from a web page, since this listener has no
    /// authentication.
    fn check_sender(&self, via: Via, request: &Request<Incoming>) -> Result<(), Problem> {
        if via == Via::UnixSocket {
            return Ok(());
        }
        let live = self.relay.live();
        let remedy = "to use another name, list it in ops.hosts";
        check_host(request, &live.config.ops.hosts, remedy)?;
        check_no_origin(request, "omit it, or use a Unix socket")
    }

    async fn readiness(&self) -> Response {
        let checks = self.health.checks().await;
        let detail = faults(&checks).collect::<Vec<_>>().join("; ");
        let found = checks
            .iter()
            .map(|(name, found)| ((*name).to_owned(), found.as_str().into()));
        let checks = Value::Object(found.collect());
        if !detail.is_empty() {
            return Problem::unavailable(ErrorCode::InternalError, detail, RETRY_AFTER)
                .with_member("checks", checks)
                .into_response();
        }
        let ready = Ready {
            ready: true,
            checks,
        };
        json(StatusCode::OK, &ready)
    }
}

/// Answers the requests of one connection.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(ops: Arc<Ops>, stream: S, via: Via) {
    let service = service_fn(move |request| {
        let ops = Arc::clone(&ops);
        async move { Ok::<_, Infallible>(ops.answer(via, request).await) }
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
