//! Refusals that a browser can see. A browser's script learns nothing of a refused handshake, so
//! one that may come from a browser is refused after the upgrade, with a Close frame.

use std::{
    future::{pending, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Poll, ready},
    time::Duration,
};

use hyper::{Request, body::Body, header::ORIGIN};
use sidewire_protocol::{close::HandshakeRefusal, frame};
use tokio::{
    io::{AsyncWriteExt as _, ReadBuf},
    time::{Instant, timeout_at},
};

use super::{
    frame_walk::FrameWalk,
    offer::SubprotocolOffer,
    stream::Transport,
    upgrade::{check_no_body, switching_protocols, websocket_key},
};
use crate::{
    http::{HttpProblem, HttpResponse, bearer_token},
    limits::RefusalPermit,
    memory::MemoryUse,
    relay::{Relay, ShardContext},
};

/// Time limit for the client's Close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Number of bytes after which no more are read from a client that does not close. Without this
/// bound one that sends without a pause would keep its shard busy.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;

/// Number of bytes that the connection of a refused handshake takes: the future of the handshake,
/// and what hyper has left.
const REFUSAL_BYTES: usize = 16 * 1024;

/// A handshake that is refused after its upgrade.
#[derive(Debug)]
pub(super) struct VisibleRefusal {
    close: HandshakeRefusal,
    permit: RefusalPermit,
}

impl VisibleRefusal {
    /// Returns the refusal of this request and the response that comes before it. Returns `None`
    /// if the request is to be refused over HTTP.
    pub(super) fn begin(
        relay: &Relay,
        request: &Request<impl Body>,
        problem: &HttpProblem,
    ) -> Option<(Self, HttpResponse)> {
        let (close, response) = upgrade_and_close(request, problem)?;
        let max = relay.live().config.limits.refusals_open;
        let permit = relay.limits.open_refusals.try_acquire(max)?;
        Some((Self { close, permit }, response))
    }

    /// Sends the Close frame and discards what the client sends until its own. Drops `arrival`
    /// once the Close frame is sent, so that the rest holds up no other handshake.
    pub(super) async fn close<S: Transport, A>(
        self,
        shard: Rc<ShardContext>,
        mut stream: S,
        read_ahead: &[u8],
        arrival: A,
    ) {
        let Self { close, permit } = self;
        let until = Instant::now() + CLOSE_TIMEOUT;
        let sending = send_close(&mut stream, &close);
        let sent = matches!(timeout_at(until, sending).await, Ok(Ok(())));
        drop(arrival);
        let memory = shard.relay.publisher.memory();
        if sent && let Ok(memory) = memory.reserve(MemoryUse::Handshakes, REFUSAL_BYTES) {
            let discarding = discard_until_close(&shard, &mut stream, read_ahead);
            // A failure is the client's, which has gone.
            drop(timeout_at(until, discarding).await);
            drop(memory);
        }
        drop(permit);
    }
}

/// Decides how a request is refused that has this problem. Returns the Close frame's contents and
/// the response before it if the request may come from a browser and can be upgraded; `None` if it
/// is to be refused over HTTP.
fn upgrade_and_close(
    request: &Request<impl Body>,
    problem: &HttpProblem,
) -> Option<(HandshakeRefusal, HttpResponse)> {
    let status = problem.status().as_u16();
    let close = HandshakeRefusal::new(status, problem.code(), problem.retry_after_ms())?;
    let headers = request.headers();
    // A client that can set this header can also read the status.
    if !matches!(bearer_token(headers), Ok(None)) {
        return None;
    }
    let offer = SubprotocolOffer::parse(headers).ok()?;
    if !headers.contains_key(ORIGIN) && offer.token.is_none() {
        return None;
    }
    let key = websocket_key(request).ok()?;
    check_no_body(request).ok()?;
    Some((close, switching_protocols(key, offer.encoding)))
}

async fn send_close(stream: &mut impl Transport, close: &HandshakeRefusal) -> io::Result<()> {
    let frame = frame::close_frame(close.code, &close.reason);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Reads until the client has sent a Close frame or its last byte, and then ends the stream.
async fn discard_until_close(
    shard: &ShardContext,
    stream: &mut impl Transport,
    read_ahead: &[u8],
) -> io::Result<()> {
    let mut walk = FrameWalk::default();
    let mut discarded = read_ahead.len();
    let mut is_over = walk.skip_until_close(read_ahead);
    while !is_over {
        if discarded >= DISCARDED_BYTES_MAX {
            // The caller's time limit ends this.
            return pending().await;
        }
        is_over = poll_fn(|context| {
            let mut buffer = shard.read_buffer.borrow_mut();
            let mut read = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
            let read = read.filled();
            discarded += read.len();
            let is_over = read.is_empty() || walk.skip_until_close(read);
            Poll::Ready(io::Result::Ok(is_over))
        })
        .await?;
    }
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{Empty, Full};
    use hyper::{Method, StatusCode};
    use sidewire_protocol::ErrorCode;
    use sidewire_testing::http::{ACCEPT, KEY};

    use super::*;

    const TOKEN: &str = "sidewire.v1.json, bearer.a.b.c";

    /// Returns a valid handshake with these headers as well.
    fn handshake<B>(headers: &[(&str, &str)], body: B) -> Request<B> {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri("/ws")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", KEY);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body).unwrap()
    }

    fn problem() -> HttpProblem {
        HttpProblem::unauthenticated("the token has expired")
    }

    /// Returns the echoed subprotocol if the handshake is refused after its upgrade.
    fn refused(headers: &[(&str, &str)]) -> Option<Option<String>> {
        let request = handshake(headers, Empty::<Bytes>::new());
        let (close, response) = upgrade_and_close(&request, &problem())?;
        assert_eq!(
            (close.code, &*close.reason),
            (4401, "AUTHENTICATION_FAILED")
        );
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers();
        assert_eq!(headers["sec-websocket-accept"], ACCEPT);
        let echoed = headers.get("sec-websocket-protocol");
        Some(echoed.map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_browsers_handshake_is_refused_after_the_upgrade_with_its_subprotocol() {
        let (protobuf, json) = ("sidewire.v1.protobuf", "sidewire.v1.json");
        let origin = ("Origin", "https://app.example");
        let offer = |offer| ("Sec-WebSocket-Protocol", offer);
        for (headers, echoed) in [
            (&[origin][..], None),
            (&[("Origin", "")], None),
            (&[origin, origin], None),
            (&[offer(TOKEN)], Some(json)),
            (&[offer("bearer., sidewire.v1.protobuf")], Some(protobuf)),
            (&[origin, offer(protobuf)], Some(protobuf)),
            (&[origin, offer(TOKEN)], Some(json)),
            // A proxy in front of the relay wants to know who calls.
            (&[origin, ("Authorization", "Basic YW5uOng=")], None),
            (&[offer(TOKEN), ("Authorization", "Digest x")], Some(json)),
        ] {
            let echoed = echoed.map(str::to_owned);
            assert_eq!(refused(headers), Some(echoed), "{headers:?}");
        }
    }

    #[test]
    fn other_clients_and_handshakes_that_cannot_be_upgraded_are_refused_over_http() {
        let origin = ("Origin", "https://app.example");
        let offer = |offer| ("Sec-WebSocket-Protocol", offer);
        for headers in [
            &[][..],
            &[offer("sidewire.v1.json")],
            &[("Authorization", "Basic YW5uOng=")],
            &[origin, ("Authorization", "Bearer a.b.c")],
            &[origin, ("Authorization", "bearer")],
            &[offer(TOKEN), ("Authorization", "Bearer a.b.c")],
            &[
                origin,
                ("Authorization", "Bearer a"),
                ("Authorization", "Bearer a"),
            ],
            // A browser ends a connection that does not speak a subprotocol of its offer.
            &[origin, offer("bearer.a.b.c")],
            &[origin, offer("graphql-ws")],
            &[origin, offer("sidewire.v1.json, bearer.a, bearer.b")],
            &[origin, ("Sec-WebSocket-Key", KEY)],
            &[origin, ("Sec-WebSocket-Version", "13")],
        ] {
            assert_eq!(refused(headers), None, "{headers:?}");
        }
        let mut old = handshake(&[origin], Empty::<Bytes>::new());
        old.headers_mut().insert("upgrade", "h2c".parse().unwrap());
        assert!(upgrade_and_close(&old, &problem()).is_none());
        let with_body = handshake(&[origin], Full::new(Bytes::from_static(b"body")));
        assert!(upgrade_and_close(&with_body, &problem()).is_none());
    }

    #[test]
    fn only_four_statuses_are_refused_after_the_upgrade() {
        let request = handshake(&[("Origin", "https://a.example")], Empty::<Bytes>::new());
        let seen = |problem: HttpProblem| {
            upgrade_and_close(&request, &problem).map(|(close, _)| (close.code, close.reason))
        };
        let delay = Duration::from_millis(1500);
        for (problem, code, reason) in [
            (
                HttpProblem::new(StatusCode::FORBIDDEN, ErrorCode::AuthorizationFailed, "no"),
                4403,
                "AUTHORIZATION_FAILED",
            ),
            (
                HttpProblem::too_many_requests("there are too many", delay),
                4429,
                "RATE_LIMIT_EXCEEDED retry_after_ms=1500",
            ),
            (
                HttpProblem::shutting_down(delay),
                4503,
                "INTERNAL_ERROR retry_after_ms=1500",
            ),
        ] {
            assert_eq!(seen(problem), Some((code, reason.to_owned())));
        }
        for problem in [
            HttpProblem::bad_request("no"),
            HttpProblem::no_such_path(),
            HttpProblem::method_not_allowed("GET"),
            HttpProblem::upgrade_required("no"),
        ] {
            assert_eq!(seen(problem), None);
        }
    }
}
