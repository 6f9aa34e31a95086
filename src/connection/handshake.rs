//! Turns an accepted socket into a WebSocket, an event stream or the answer to a poll: reads one HTTP
//! request, and answers it as the admission decides. Knows nothing of the conversation.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{pending, poll_fn},
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{Either, poll_immediate};
use hyper::{
    Method, Request, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt as _,
    task::yield_now,
    time::{Instant, timeout, timeout_at},
};

use super::{
    admission::{
        AdmittedRequest, admit_events_request, admit_websocket, charge_newcomer,
        check_host_and_origin, client_address, record_refusal,
    },
    admitted::AdmittedClient,
    http_stream::{EVENT_STREAM_PATH, POLL_PATH, common_headers, preflight_response},
    polls::serve_polls,
    read_ahead::ReadAheadStream,
    stream::Transport,
    task::run_connection,
    visible_refusal::VisibleRefusal,
};
use crate::{
    http::{HttpProblem, HttpResponse},
    relay::{Relay, ShardContext},
    scheduler::Cost,
    transport::TransportKind,
};

/// Maximum number of bytes that a handshake takes until a head of the default size has arrived:
/// over TLS a ClientHello of 48 KiB, then the session and the request's head with what is parsed
/// from it.
const HANDSHAKE_BYTES_MIN: usize = 48 * 1024;

/// Number of bytes that a handshake takes besides its head.
const BESIDE_HEAD_BYTES: usize = 16 * 1024;

/// Returns the maximum number of bytes that a handshake takes with a head of at most `head_max`
/// bytes, for which the buffer may take twice as many.
#[must_use]
pub fn handshake_bytes(head_max: usize) -> usize {
    HANDSHAKE_BYTES_MIN.max(BESIDE_HEAD_BYTES + 2 * head_max)
}

/// Number of times that a late handshake is polled again before it is abandoned.
const LAST_LOOKS: u32 = 2;

/// Maximum extra time of a late handshake. If the process itself was late, so that many
/// handshakes wait to be scheduled at once, they get as much extra time as it was late.
const LATE_MAX: Duration = Duration::from_secs(1);

/// A peer that is connecting.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectingPeer {
    pub(super) peer: IpAddr,
    /// True if its handshake is charged to the rate of all handshakes.
    pub(super) is_counted: bool,
    /// True if its handshake is charged to the rate of its address.
    pub(super) is_address_counted: bool,
}

/// Performs the handshake with a client and returns the future that serves it. That is a future
/// of its own, since the handshake's state is large and the conversation lasts. Returns `None` if
/// the client has been refused or took longer than the configured time. `peer` is the address that
/// connects; `held` is dropped when the client has gone.
pub async fn serve_stream<S: Transport + 'static, H: 'static>(
    shard: Rc<ShardContext>,
    stream: S,
    peer: IpAddr,
    held: H,
) -> Option<impl Future<Output = ()> + use<S, H>> {
    let newcomer = ConnectingPeer {
        peer,
        is_counted: false,
        is_address_counted: false,
    };
    let until = handshake_deadline(&shard);
    serve_stream_until(until, shard, stream, newcomer, held, ()).await
}

/// Returns the time by which a client that connects now must complete its handshake.
pub(super) fn handshake_deadline(shard: &ShardContext) -> Instant {
    Instant::now() + shard.relay.live().config.client.handshake_timeout
}

/// Performs the handshake with a client by the deadline `until`, which is already running. Drops
/// `arrival` when the handshake is answered.
pub(super) async fn serve_stream_until<S: Transport + 'static, H: 'static, A>(
    until: Instant,
    shard: Rc<ShardContext>,
    stream: S,
    newcomer: ConnectingPeer,
    held: H,
    arrival: A,
) -> Option<impl Future<Output = ()> + use<S, H, A>> {
    let mut handshake = pin!(run_handshake(Rc::clone(&shard), stream, newcomer));
    let Some(accepted) = run_until_deadline(until, handshake.as_mut()).await else {
        // Before the stream is dropped, so that a peer that sees it closed finds it counted.
        shard.relay.metrics.handshake_timed_out();
        return None;
    };
    let (verdict, stream, read_ahead) = accepted?;
    serve_verdict(shard, verdict, stream, read_ahead, newcomer, held, arrival).await
}

/// Returns the future that serves a client on which there is a verdict; `None` if it is refused. Drops
/// `arrival` when the client is answered.
pub(super) async fn serve_verdict<S: Transport + 'static, H: 'static, A>(
    shard: Rc<ShardContext>,
    verdict: Verdict,
    stream: S,
    read_ahead: Bytes,
    newcomer: ConnectingPeer,
    held: H,
    arrival: A,
) -> Option<impl Future<Output = ()> + use<S, H, A>> {
    let has_input = !read_ahead.is_empty();
    match verdict {
        Verdict::Admitted(admitted) => {
            let served = run_connection(shard, admitted, stream, read_ahead, held);
            Some(Either::Left(served))
        }
        Verdict::Requested(admitted) if admitted.is_poll() => {
            let stream = ReadAheadStream::new(Box::new(stream));
            let served = serve_polls(shard, admitted, stream, has_input, newcomer, held);
            Some(Either::Right(Either::Left(served)))
        }
        Verdict::Requested(admitted) => {
            let served = admitted.stream_events(shard, stream, has_input, held);
            Some(Either::Right(Either::Right(served)))
        }
        Verdict::Refused(refusal) => {
            refusal.close(shard, stream, &read_ahead, arrival).await;
            None
        }
    }
}

/// What becomes of a client when its stream leaves HTTP.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most clients are admitted, and the verdict does not last"
)]
pub(super) enum Verdict {
    Admitted(AdmittedClient),
    /// The client takes its events without a WebSocket.
    Requested(Box<AdmittedRequest>),
    Refused(VisibleRefusal),
}

/// Holds the verdict on a client.
#[derive(Default)]
struct VerdictSlot {
    verdict: Cell<Option<Verdict>>,
    /// True if the stream leaves HTTP before a response.
    leaves_now: Cell<bool>,
}

/// Runs a part of a handshake; returns `None` if it is not done by the deadline. At the deadline
/// the socket is checked again: if the process did not run for a while, the rest may be in the
/// kernel, and the event loop has not reported it yet. TLS queues to be scheduled at the first of
/// these checks and continues at the second.
pub(super) async fn run_until_deadline<T>(
    until: Instant,
    mut part: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    if let Ok(outcome) = timeout_at(until, part.as_mut()).await {
        return Some(outcome);
    }
    let late = Instant::now() - until;
    for _ in 0..LAST_LOOKS {
        yield_now().await;
        if let Some(outcome) = poll_immediate(part.as_mut()).await {
            return Some(outcome);
        }
    }
    timeout(late.min(LATE_MAX), part).await.ok()
}

pub(super) async fn run_handshake<S: Transport + 'static>(
    shard: Rc<ShardContext>,
    stream: S,
    newcomer: ConnectingPeer,
) -> Option<(Verdict, S, Bytes)> {
    let slot = Rc::new(VerdictSlot::default());
    let head_max = shard.relay.live().config.client.head_max;
    let metrics = Arc::clone(&shard.relay.metrics);
    let service = {
        let (shard, slot) = (Rc::clone(&shard), Rc::clone(&slot));
        service_fn(move |request| {
            let (shard, slot) = (Rc::clone(&shard), Rc::clone(&slot));
            // Unpin, so that the stream can be taken back.
            Box::pin(answer_request(shard, newcomer, slot, request))
        })
    };
    let mut serving = http1::Builder::new()
        // The caller times the handshake as a whole.
        .header_read_timeout(None)
        .max_buf_size(head_max)
        // The buffer size alone would let through a longer head that arrives in large pieces.
        .max_header_size(head_max)
        .serve_connection(TokioIo::new(stream), service);
    let answered = poll_fn(|context| match serving.poll_without_shutdown(context) {
        Poll::Pending if slot.leaves_now.get() => Poll::Ready(Ok(())),
        polled => polled,
    });
    // Scheduled, because a head can have 16 KiB, and a token can cost four signature checks with
    // P-384.
    let served = shard.handshakes.run(pin!(answered), Cost::CALL).await;
    // A failure is the client's: it went away, or sent something that hyper refused.
    if let Err(error) = served {
        if let Some(status) = refused_by_hyper(&error) {
            metrics.handshake_refused(status);
            // hyper has answered, and would do this if it kept the stream.
            drop(serving.into_parts().io.into_inner().shutdown().await);
        }
        return None;
    }
    let parts = serving.into_parts();
    let mut stream = parts.io.into_inner();
    let Some(verdict) = slot.verdict.take() else {
        // The client was refused, or has left before it sent a request. It may be gone, so an error
        // does not matter.
        drop(stream.shutdown().await);
        return None;
    };
    Some((verdict, stream, parts.read_buf))
}

/// Returns the status with which hyper itself answered a malformed HTTP/1 request.
fn refused_by_hyper(error: &hyper::Error) -> Option<StatusCode> {
    if error.is_parse_too_large() {
        Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    } else if error.is_parse() && !error.is_parse_version_h2() {
        Some(StatusCode::BAD_REQUEST)
    } else {
        None
    }
}

async fn answer_request(
    shard: Rc<ShardContext>,
    newcomer: ConnectingPeer,
    slot: Rc<VerdictSlot>,
    request: Request<Incoming>,
) -> Result<HttpResponse, Infallible> {
    let relay = &shard.relay;
    let address = client_address(relay, newcomer.peer, request.headers());
    if let Some(transport) = response_transport(relay, &request) {
        let answered = answer_events_request(&shard, newcomer, address, transport, &slot, &request);
        return Ok(answered.await);
    }
    let (verdict, response) = match admit_websocket(&shard, newcomer, address, &request).await {
        Ok((admitted, response)) => (Verdict::Admitted(admitted), response),
        Err(problem) => {
            record_refusal(relay, address, &problem, problem.detail());
            match VisibleRefusal::begin(relay, &request, &problem) {
                Some((refusal, response)) => (Verdict::Refused(refusal), response),
                None => return Ok(problem.with_connection_close().into_response()),
            }
        }
    };
    slot.verdict.set(Some(verdict));
    Ok(response)
}

/// Answers a request of a client without a WebSocket. If the client is admitted, the stream leaves HTTP before a
/// response, and this does not return.
async fn answer_events_request(
    shard: &Rc<ShardContext>,
    newcomer: ConnectingPeer,
    address: IpAddr,
    transport: TransportKind,
    slot: &VerdictSlot,
    request: &Request<Incoming>,
) -> HttpResponse {
    let relay = &shard.relay;
    let answer = if request.method() == Method::OPTIONS {
        answer_preflight(relay, newcomer, address, request)
    } else {
        match admit_events_request(shard, newcomer, address, transport, request).await {
            Ok(admitted) => {
                let verdict = Verdict::Requested(Box::new(admitted));
                slot.verdict.set(Some(verdict));
                slot.leaves_now.set(true);
                return pending().await;
            }
            Err(problem) => Err(problem),
        }
    };
    let mut response = answer.unwrap_or_else(|problem| {
        record_refusal(relay, address, &problem, problem.detail());
        problem.with_connection_close().into_response()
    });
    let headers = common_headers(relay, request.headers());
    response.headers_mut().extend(headers);
    response
}

/// Returns the transport of a request without a WebSocket; `None` for every other path, and for those
/// that the config has turned off.
fn response_transport<B>(relay: &Relay, request: &Request<B>) -> Option<TransportKind> {
    let live = relay.live();
    match request.uri().path() {
        EVENT_STREAM_PATH if live.config.client.sse => Some(TransportKind::Sse),
        POLL_PATH if live.config.client.poll => Some(TransportKind::Poll),
        _ => None,
    }
}

/// Answers a browser that asks whether a page may send a request for events.
fn answer_preflight(
    relay: &Relay,
    newcomer: ConnectingPeer,
    address: IpAddr,
    request: &Request<Incoming>,
) -> Result<HttpResponse, HttpProblem> {
    charge_newcomer(relay, newcomer, address)?;
    check_host_and_origin(relay, request)?;
    Ok(preflight_response())
}
