//! The HTTP calls of backends. Knows who may call and what an answer looks like;
//! what becomes of an event is the hub's business.

mod admin;
mod answer;
mod body;
mod call;
mod draft;
mod dry_run;
mod events;
mod gathered;
mod json;
mod parameters;
mod refused;
mod render;
mod route;
mod turns;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

use crate::{
    http::{Response, Via},
    relay::Shard,
};
use gathered::Gathered;

pub use draft::Admissible;
pub use dry_run::{Posted, Taken, dry_run};
#[cfg(any(test, fuzzing))]
pub use events::fuzzing;
pub use turns::Turns;

/// How long a request's head may take, and how long a connection may be idle
/// between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// What a request's head may have at the most.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How long a backend that is refused may go on sending what nobody reads.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers the calls of one backend's connection, which has come `via`. `arrival` is held until the first is
/// answered.
pub async fn serve<S, A>(shard: Rc<Shard>, stream: S, via: Via, arrival: A)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    A: 'static,
{
    let callee = Rc::clone(&shard);
    let arrival = Rc::new(Cell::new(Some(arrival)));
    let service = service_fn(move |request| {
        let (shard, arrival) = (Rc::clone(&callee), Rc::clone(&arrival));
        async move {
            let response = answer(&shard, via, request).await;
            drop(arrival.take());
            Ok::<_, Infallible>(response)
        }
    });
    let stream = Gathered::new(stream);
    let mut calls = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            // The buffer alone would let a longer one pass that comes in large pieces.
            .max_header_size(HEAD_BYTES_MAX)
            // One that has said all it has to say still wants its answers.
            .half_close(true)
            // An answer is small: one piece is cheaper than a list of two.
            .writev(false)
            .serve_connection(TokioIo::new(stream.clone()), service)
            .without_shutdown()
    );
    let served = poll_fn(|context| {
        let served = calls.as_mut().poll(context);
        match stream.poll_send(context) {
            // Nobody is there who could be answered.
            Poll::Ready(Err(_)) if served.is_pending() => Poll::Ready(None),
            _ => served.map(Some),
        }
    })
    .await;
    // An answer may be left, also where the backend has sent no HTTP and is told so.
    let last_words = poll_fn(|context| stream.poll_send(context));
    let is_answered = matches!(timeout(LINGER_TIMEOUT, last_words).await, Ok(Ok(())));
    if served.is_some() && is_answered {
        drop(timeout(LINGER_TIMEOUT, linger(stream, &shard.read_buffer)).await);
    }
}

/// Says that nothing more will be answered, and reads until the backend ends too.
/// Were the socket closed with something unread, the kernel would reset the
/// connection, and a backend that is still sending might lose its answer.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: Gathered<S>,
    buffer: &RefCell<Box<[u8]>>,
) -> io::Result<()> {
    stream.shutdown().await?;
    // Polled, not awaited by `readable`: only so does tokio see to it that a
    // backend that never pauses does not keep the shard to itself.
    while poll_fn(|context| poll_discard(&mut stream, context, buffer)).await? > 0 {}
    Ok(())
}

/// Reads and forgets, once: how many bytes.
fn poll_discard<S: AsyncRead + Unpin>(
    stream: &mut Gathered<S>,
    context: &mut Context<'_>,
    buffer: &RefCell<Box<[u8]>>,
) -> Poll<io::Result<usize>> {
    let mut buffer = buffer.borrow_mut();
    let mut read = ReadBuf::new(&mut buffer);
    ready!(Pin::new(stream).poll_read(context, &mut read))?;
    Poll::Ready(Ok(read.filled().len()))
}

async fn answer(shard: &Shard, via: Via, request: Request<Incoming>) -> Response {
    let relay = &shard.relay;
    let under_way = relay.calls.token();
    let response = call::answer(shard, via, request)
        .await
        .unwrap_or_else(|problem| {
            let (status, detail) = (problem.status().as_u16(), problem.detail());
            tracing::debug!(status, detail, "a call is refused");
            problem.into_response()
        });
    relay.metrics.ingest_answered(response.status());
    drop(under_way);
    response
}
