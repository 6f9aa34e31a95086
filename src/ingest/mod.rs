//! The HTTP API for backends: authentication, parsing of calls, and answers. Delivering
//! events is the hub's job.

mod admin;
mod answer;
mod body;
mod call;
mod connections;
mod draft;
mod drafts;
mod dry_run;
mod events;
mod gathered;
mod json;
mod parameters;
mod parts;
mod presence;
mod refused;
mod render;
mod route;

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
    time::{Instant, sleep, timeout},
};

use crate::{
    http::{HttpResponse, ListenerKind, X_REQUEST_ID},
    relay::ShardContext,
    repeated::{RepeatedLine, log_repeated},
    scheduler::Cost,
};
use gathered::GatheringStream;

pub(crate) use answer::AnswerPosition;
pub(crate) use body::{BodyFormat, no_memory, read_body};
pub(crate) use connections::ConnectionSummary;
pub use draft::AdmissibleEnvelope;
pub use dry_run::{
    DescribedClient, DryRunEvent, DryRunRequest, RefusedEvent, RouteReport, dry_run,
};
#[cfg(any(test, fuzzing))]
pub use events::fuzzing;
pub(crate) use parameters::ConnectionsParameters;
pub use parameters::QueryParameter;
pub use route::{ENDPOINTS, IngestEndpoint};

/// Time limit for receiving a request's head, and for a connection to be idle between two
/// requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Time limit for the first authenticated call of a connection. After it, only authenticated
/// callers hold a descriptor.
const FIRST_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a request's head, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Time limit for a refused backend to stop sending. Its input is discarded meanwhile.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for a backend to read the buffered part of an answer, which is up to 64 KiB.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum memory of a backend's connection besides its requests, in bytes: a partly received
/// head in a buffer that doubles, or the buffered part of an answer that is not being read.
pub const BACKEND_CONNECTION_BYTES: usize = 2 * HEAD_BYTES_MAX;

/// Answers the calls of one backend's connection, accepted `via` TCP or a Unix socket.
/// `arrival` is held until the first call is answered.
pub async fn serve<S, A>(shard: Rc<ShardContext>, stream: S, via: ListenerKind, arrival: A)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    A: 'static,
{
    let callee = Rc::clone(&shard);
    let is_authenticated = Rc::new(Cell::new(false));
    let authenticated = Rc::clone(&is_authenticated);
    let arrival = Rc::new(Cell::new(Some(arrival)));
    let service = service_fn(move |request| {
        let (shard, arrival) = (Rc::clone(&callee), Rc::clone(&arrival));
        let authenticated = Rc::clone(&authenticated);
        async move {
            let response = answer_request(&shard, via, &authenticated, request).await;
            drop(arrival.take());
            Ok::<_, Infallible>(response)
        }
    });
    let stream = GatheringStream::new(stream, &shard.backend_work);
    let mut calls = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            // The buffer limit alone would let a longer head pass if it arrives in large pieces.
            .max_header_size(HEAD_BYTES_MAX)
            // A backend that has shut down its sending side still expects its answers.
            .half_close(true)
            // Answers are small: one write is cheaper than a vectored write of two parts.
            .writev(false)
            .serve_connection(TokioIo::new(stream.clone()), service)
            .without_shutdown()
    );
    let mut first_call_timeout = pin!(sleep(FIRST_CALL_TIMEOUT));
    let mut answer_timeout = pin!(sleep(ANSWER_TIMEOUT));
    let mut is_sending = false;
    let served = poll_fn(|context| {
        let served = calls.as_mut().poll(context);
        if served.is_pending()
            && !is_authenticated.get()
            && first_call_timeout.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(None);
        }
        let sent = stream.poll_send(context);
        if sent.is_pending() && !is_sending {
            let deadline = Instant::now() + ANSWER_TIMEOUT;
            answer_timeout.as_mut().reset(deadline);
        }
        is_sending = sent.is_pending();
        match sent {
            // The connection is gone, so no answer can be delivered.
            Poll::Ready(Err(_)) if served.is_pending() => Poll::Ready(None),
            // The backend does not read its answer.
            Poll::Pending if answer_timeout.as_mut().poll(context).is_ready() => Poll::Ready(None),
            _ => served.map(Some),
        }
    })
    .await;
    // An answer may still be buffered, for example a 400 to input that is not HTTP.
    let last_words = poll_fn(|context| stream.poll_send(context));
    let is_answered = matches!(timeout(LINGER_TIMEOUT, last_words).await, Ok(Ok(())));
    if served.is_some() && is_answered {
        drop(
            timeout(
                LINGER_TIMEOUT,
                linger_until_closed(stream, &shard.read_buffer),
            )
            .await,
        );
    }
}

/// Shuts down the sending side and reads until the backend closes its side too. If the socket
/// were closed with unread input, the kernel would reset the connection, and a backend that is
/// still sending might lose its answer.
async fn linger_until_closed<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: GatheringStream<S>,
    buffer: &RefCell<Box<[u8]>>,
) -> io::Result<()> {
    stream.shutdown().await?;
    // `poll_read` uses up tokio's cooperative budget, which `readable` does not: a backend that
    // sends without a pause cannot monopolize the shard.
    while poll_fn(|context| poll_discard(&mut stream, context, buffer)).await? > 0 {}
    Ok(())
}

/// Reads once and discards the input. Returns the number of bytes, 0 at the end.
fn poll_discard<S: AsyncRead + Unpin>(
    stream: &mut GatheringStream<S>,
    context: &mut Context<'_>,
    buffer: &RefCell<Box<[u8]>>,
) -> Poll<io::Result<usize>> {
    let mut buffer = buffer.borrow_mut();
    let mut read = ReadBuf::new(&mut buffer);
    ready!(Pin::new(stream).poll_read(context, &mut read))?;
    Poll::Ready(Ok(read.filled().len()))
}

async fn answer_request(
    shard: &ShardContext,
    via: ListenerKind,
    authenticated: &Cell<bool>,
    request: Request<Incoming>,
) -> HttpResponse {
    let relay = &shard.relay;
    let under_way = relay.calls.token();
    let id = shard.request_ids.of_call(request.headers());
    let mut response = match call::handle_call(shard, via, authenticated, &id, request).await {
        Ok(response) => response,
        Err(problem) => {
            // Refused calls are often not charged to any tenant, so they are charged here.
            shard.backend_work.wait_for_quantum().await;
            shard.backend_work.charge(Cost::CALL);
            let line = RepeatedLine::of_refused_call(problem.status());
            let (status, detail) = (problem.status().as_u16(), problem.detail());
            log_repeated!(line, request_id = %id, status, detail);
            problem.into_response()
        }
    };
    response
        .headers_mut()
        .insert(X_REQUEST_ID, id.into_header());
    relay.metrics.ingest_answered(response.status());
    drop(under_way);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt as _, DuplexStream, duplex},
        task::spawn_local,
        time::sleep_until,
    };

    use super::*;
    use crate::{
        auth::{IngestKey, IngestKeys, Secret},
        connection::testing::{ConnectionFixture, settle, simulate},
        memory::{MemoryLimits, MemoryUse},
    };

    const KEY: &str = "0123456789abcdef";

    /// Configures an ingest key, which backends must then present.
    fn with_key(fixture: &ConnectionFixture) {
        let key = IngestKey::new("tests".to_owned(), &Secret::new(KEY), None).unwrap();
        let keys = IngestKeys::new(vec![key]).unwrap();
        fixture.replace_settings(|live| live.ingest_keys = keys);
    }

    /// Opens a connection and serves it. Returns the backend's end.
    fn connect(fixture: &ConnectionFixture) -> DuplexStream {
        let (ours, theirs) = duplex(64 * 1024);
        let shard = Rc::clone(&fixture.shard);
        spawn_local(serve(shard, ours, ListenerKind::Tcp, ()));
        theirs
    }

    fn head(line: &str, headers: &str) -> String {
        format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
    }

    fn bearer() -> String {
        format!("Authorization: Bearer {KEY}\r\n")
    }

    /// Reads the connection to its end. Returns the input and the time since `start`.
    async fn rest(mut backend: DuplexStream, start: Instant) -> (String, Duration) {
        let mut heard = String::new();
        backend.read_to_string(&mut heard).await.unwrap();
        (heard, start.elapsed())
    }

    #[test]
    fn a_connection_without_an_authenticated_call_ends_after_10_s() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            with_key(&fixture);
            let whole = head("GET /v1/tenants/acme", "");
            let halfway = "POST /v1/tenants/acme/events HTTP/1.1\r\n";
            for (request, answer) in [("", ""), (halfway, ""), (&whole, "HTTP/1.1 401 ")] {
                let start = Instant::now();
                let mut backend = connect(&fixture);
                backend.write_all(request.as_bytes()).await.unwrap();
                let (heard, elapsed) = rest(backend, start).await;
                assert!(heard.starts_with(answer), "{heard}");
                assert_eq!(elapsed, FIRST_CALL_TIMEOUT, "{request:?}");
            }
        });
    }

    #[test]
    fn a_connection_with_an_authenticated_call_may_be_idle_for_60_s() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            with_key(&fixture);
            let start = Instant::now();
            let mut backend = connect(&fixture);
            let request = head("GET /nothing", &bearer());
            backend.write_all(request.as_bytes()).await.unwrap();
            let (heard, elapsed) = rest(backend, start).await;
            assert!(heard.starts_with("HTTP/1.1 404 "), "{heard}");
            assert_eq!(elapsed, HEAD_TIMEOUT);
        });
    }

    #[test]
    fn a_body_may_arrive_slowly_if_the_head_was_authenticated() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            with_key(&fixture);
            let start = Instant::now();
            let mut backend = connect(&fixture);
            let headers = format!(
                "{}Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n",
                bearer()
            );
            let request = head("POST /v1/tenants/acme/events", &headers);
            backend.write_all(request.as_bytes()).await.unwrap();
            sleep_until(start + 2 * FIRST_CALL_TIMEOUT).await;
            backend.write_all(b"{}").await.unwrap();
            let (heard, _) = rest(backend, start).await;
            assert!(heard.starts_with("HTTP/1.1 400 "), "{heard}");
        });
    }

    /// A batch of 1,000 events of minimal size, in a call that adds 99 topics of maximal length.
    /// Its answer has 29 MB.
    fn largest_answer() -> Vec<u8> {
        let topics: Vec<_> = (0..99)
            .map(|n| format!("topic={}:{n:03}{}", "k".repeat(32), "x".repeat(253)))
            .collect();
        let path = format!("POST /v1/tenants/acme/events:batch?{}", topics.join("&"));
        let body = b"\x0a\x05\x22\x03\x0a\x01i".repeat(1000);
        let headers = format!(
            "Content-Type: application/x-protobuf\r\nContent-Length: {}\r\n",
            body.len()
        );
        [head(&path, &headers).into_bytes(), body].concat()
    }

    #[test]
    fn an_answer_is_rendered_as_fast_as_it_is_read() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let memory = Arc::clone(fixture.shard.relay.publisher.memory());
            let mut backend = connect(&fixture);
            let request = [largest_answer(), b"GET /nothing HTTP/1.0\r\n\r\n".to_vec()].concat();
            backend.write_all(&request).await.unwrap();
            let (heard, _) = rest(backend, Instant::now()).await;
            assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"));
            assert!(heard.len() > 29_000_000);
            assert!(heard.contains("HTTP/1.0 404 "));
            assert_eq!(memory.held_bytes(MemoryUse::Requests), 0);
        });
    }

    #[test]
    fn a_backend_that_does_not_read_its_answer_holds_little_and_is_disconnected() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let memory = Arc::clone(fixture.shard.relay.publisher.memory());
            let start = Instant::now();
            let mut backend = connect(&fixture);
            backend.write_all(&largest_answer()).await.unwrap();
            sleep_until(start + ANSWER_TIMEOUT / 2).await;
            let held = memory.held_bytes(MemoryUse::Requests);
            assert!((1..100_000).contains(&held), "{held}");
            sleep_until(start + ANSWER_TIMEOUT + LINGER_TIMEOUT).await;
            settle().await;
            assert_eq!(memory.held_bytes(MemoryUse::Requests), 0);
            let (heard, _) = rest(backend, start).await;
            assert!(heard.len() <= 2 * 64 * 1024, "{}", heard.len());
        });
    }

    #[test]
    fn a_body_for_which_there_is_no_memory_is_refused_before_it_is_read() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let memory = Arc::clone(fixture.shard.relay.publisher.memory());
            memory.set_limits(MemoryLimits {
                max: 12 << 20,
                window: 0,
            });
            let call = |bytes: usize| {
                let headers =
                    format!("Content-Type: application/json\r\nContent-Length: {bytes}\r\n");
                head("POST /v1/tenants/acme/events", &headers)
            };
            let mut first = connect(&fixture);
            first.write_all(call(1 << 20).as_bytes()).await.unwrap();
            settle().await;
            let held = memory.held_bytes(MemoryUse::Requests);
            assert_eq!(held, (2 << 20) + 16 * 1024);
            // Large requests get three quarters of a quarter of 12 MiB.
            let mut second = connect(&fixture);
            second.write_all(call(1 << 20).as_bytes()).await.unwrap();
            let (heard, _) = rest(second, Instant::now()).await;
            assert!(heard.starts_with("HTTP/1.1 503 "), "{heard}");
            assert!(heard.contains("retry-after: 1\r\n"), "{heard}");
            assert!(
                heard.contains("\"code\":\"RATE_LIMIT_EXCEEDED\""),
                "{heard}"
            );
            assert_eq!(memory.held_bytes(MemoryUse::Requests), held);
            drop(first);
            settle().await;
            assert_eq!(memory.held_bytes(MemoryUse::Requests), 0);
        });
    }
}
