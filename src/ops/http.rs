//! The listener for metrics and health. Reads what others have counted.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use super::Metrics;
use crate::{
    http::{Problem, Response},
    hub::Registry,
    protocol::ErrorCode,
    tally::Tally,
};

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What whoever asks should do when the relay is not ready.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whether the relay should get traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// Not everything runs yet.
    Starting,
    /// It takes what comes.
    Ready,
    /// It is shutting down.
    Draining,
}

/// What this listener shows.
#[derive(Debug)]
pub struct Ops {
    /// What is counted beside the path of an event.
    metrics: Arc<Metrics>,
    tallies: Vec<Arc<Tally>>,
    registry: Arc<Registry>,
    readiness: watch::Sender<Readiness>,
}

impl Ops {
    /// Shows a relay that is starting.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, tallies: Vec<Arc<Tally>>, registry: Arc<Registry>) -> Self {
        Self {
            metrics,
            tallies,
            registry,
            readiness: watch::Sender::new(Readiness::Starting),
        }
    }

    /// Everything runs, unless the end has begun already.
    pub fn set_ready(&self) {
        self.readiness.send_if_modified(|now| {
            let is_starting = *now == Readiness::Starting;
            if is_starting {
                *now = Readiness::Ready;
            }
            is_starting
        });
    }

    /// The end has begun.
    pub fn set_draining(&self) {
        self.readiness.send_replace(Readiness::Draining);
    }

    /// Waits until the relay takes what comes.
    pub async fn ready(&self) {
        let mut readiness = self.readiness.subscribe();
        // It fails only without a sender, and here is one.
        drop(readiness.wait_for(|now| *now == Readiness::Ready).await);
    }

    fn not_ready(&self) -> Option<&'static str> {
        match *self.readiness.borrow() {
            Readiness::Starting => Some("the relay is starting"),
            Readiness::Ready => None,
            Readiness::Draining => Some("the relay is shutting down"),
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response {
        let path = request.uri().path();
        if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
            return Problem::no_such_path().into_response();
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Problem::method_not_allowed("GET, HEAD").into_response();
        }
        match (path, self.not_ready()) {
            ("/metrics", _) => text(
                "text/plain; version=0.0.4",
                self.metrics.render(&self.tallies, &self.registry),
            ),
            ("/readyz", Some(reason)) => {
                Problem::unavailable(ErrorCode::InternalError, reason, RETRY_AFTER).into_response()
            }
            _ => text("text/plain; charset=utf-8", "ok\n".to_owned()),
        }
    }
}

/// Answers the requests of one connection.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(ops: Arc<Ops>, stream: S) {
    let service = service_fn(move |request| {
        let response = ops.answer(&request);
        async { Ok::<_, Infallible>(response) }
    });
    // A failure is the caller's, who went away or sent no HTTP.
    drop(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

fn text(content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
