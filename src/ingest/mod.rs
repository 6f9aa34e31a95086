//! The HTTP calls of backends. Knows who may call and what an answer looks like;
//! what becomes of an event is the hub's business.

mod answer;
mod body;
mod call;
mod draft;
mod events;
mod route;

use std::{convert::Infallible, rc::Rc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use crate::{
    http::Response,
    relay::{Relay, Shard},
};

/// How long a request's head may take, and how long a connection may be idle
/// between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// What a request's head may have at the most.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Answers the calls of one backend's connection.
pub async fn serve(shard: Rc<Shard>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let shard = Rc::clone(&shard);
        async move { Ok::<_, Infallible>(answer(&shard.relay, request).await) }
    });
    // A failure is the backend's: it went away or sent no HTTP, and hyper has
    // told it so.
    drop(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

async fn answer(relay: &Relay, request: Request<Incoming>) -> Response {
    let under_way = relay.calls.token();
    let response = call::answer(relay, request)
        .await
        .unwrap_or_else(|problem| problem.into_response());
    relay.metrics.ingest_answered(response.status());
    drop(under_way);
    response
}
