//! Reads the body of a call: checks its media type, limits its size and accounts for its memory.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request, StatusCode,
    body::{Body, Incoming},
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING},
};
use sidewire_protocol::ErrorCode;
use tokio::{task::yield_now, time::timeout};

use crate::{
    http::{HttpProblem, only_header},
    limits::Limit,
    memory::{BODY_COPIES, BODY_GROWTH_BYTES, MemoryReservation, MemoryUse, REQUEST_BYTES},
    relay::Relay,
};

/// Time limit for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// `Retry-After` of a request refused for lack of memory.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFormat {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`, proto3 JSON
    Json,
}

impl BodyFormat {
    /// Determines the format from the headers.
    ///
    /// # Errors
    ///
    /// A problem if the media type or an encoding is not supported.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, HttpProblem> {
        if headers.contains_key(CONTENT_ENCODING) {
            return Err(unsupported_media_type("Content-Encoding is not supported"));
        }
        // hyper decodes `chunked` and passes other codings on undecoded.
        let codings = only_header(headers, &TRANSFER_ENCODING)?.map(HeaderValue::as_bytes);
        if codings.is_some_and(|codings| !codings.eq_ignore_ascii_case(b"chunked")) {
            return Err(unsupported_media_type(
                "the only supported Transfer-Encoding is chunked",
            ));
        }
        let text = only_header(headers, &CONTENT_TYPE)?
            .map(HeaderValue::to_str)
            .and_then(Result::ok)
            .unwrap_or_default();
        let (media_type, parameters) = text.split_once(';').unwrap_or((text, ""));
        let media_type = media_type.trim();
        if media_type.eq_ignore_ascii_case("application/x-protobuf") {
            Ok(Self::Protobuf)
        } else if media_type.eq_ignore_ascii_case("application/json") {
            check_charset(parameters).map(|()| Self::Json)
        } else {
            Err(unsupported_media_type(
                "the Content-Type must be application/x-protobuf or application/json",
            ))
        }
    }
}

/// Refuses another charset than UTF-8, which JSON requires (RFC 8259, 8.1).
fn check_charset(parameters: &str) -> Result<(), HttpProblem> {
    let is_other = parameters.split(';').any(|parameter| {
        parameter
            .trim()
            .split_once('=')
            .is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("charset")
                    && !value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            })
    });
    if is_other {
        return Err(unsupported_media_type("JSON must be in UTF-8"));
    }
    Ok(())
}

fn unsupported_media_type(detail: &str) -> HttpProblem {
    HttpProblem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::ValidationError,
        detail,
    )
}

/// Memory that is reserved for a call that lists something, in bytes, beside that of the items.
const LIST_BYTES: usize = 16 * 1024;

/// Number of pieces of a body after which the task yields. A body can arrive in pieces of one
/// byte, each of which takes 0.4 µs.
const PIECES_PER_TURN: usize = 1024;

/// Reads the body, of at most `bytes_max` bytes, and reserves the memory that the request holds
/// until it is answered.
pub(crate) async fn read_body(
    request: Request<Incoming>,
    bytes_max: usize,
    relay: &Relay,
) -> Result<(Bytes, MemoryReservation), HttpProblem> {
    let body = request.into_body();
    // If the length is announced, too long a body is refused before anything is read.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(too_large(bytes_max));
    }
    let memory = relay
        .publisher
        .memory()
        .reserve(MemoryUse::Requests, REQUEST_BYTES + BODY_COPIES * announced)
        .map_err(|_| no_memory(relay))?;
    let collector = BodyCollector {
        relay,
        body,
        bytes_max,
        memory,
    };
    match timeout(BODY_TIMEOUT, collector.collect_pieces()).await {
        Ok(read) => read,
        Err(_) => Err(HttpProblem::new(
            StatusCode::REQUEST_TIMEOUT,
            ErrorCode::ValidationError,
            "the body took too long to arrive",
        )
        .with_connection_close()),
    }
}

/// Joins the pieces of a body.
struct BodyCollector<'a> {
    relay: &'a Relay,
    body: Incoming,
    bytes_max: usize,
    memory: MemoryReservation,
}

impl BodyCollector<'_> {
    async fn collect_pieces(mut self) -> Result<(Bytes, MemoryReservation), HttpProblem> {
        let Some(first) = self.next_piece().await? else {
            return Ok((Bytes::new(), self.memory));
        };
        self.reserve_for(first.len())?;
        let Some(second) = self.next_piece().await? else {
            // Most bodies arrive in one piece, which need not be copied.
            return Ok((first, self.memory));
        };
        let announced = usize::try_from(self.body.size_hint().lower()).unwrap_or_default();
        let mut whole = BytesMut::with_capacity(first.len() + second.len() + announced);
        whole.extend_from_slice(&first);
        drop(first);
        let mut piece = Some(second);
        let mut pieces = 2_usize;
        while let Some(bytes) = piece {
            self.reserve_for(whole.len() + bytes.len())?;
            whole.extend_from_slice(&bytes);
            pieces += 1;
            if pieces.is_multiple_of(PIECES_PER_TURN) {
                yield_now().await;
            }
            piece = self.next_piece().await?;
        }
        Ok((whole.freeze(), self.memory))
    }

    /// Returns the next piece that is not empty; `None` at the end of the body.
    async fn next_piece(&mut self) -> Result<Option<Bytes>, HttpProblem> {
        while let Some(frame) = self.body.frame().await {
            // The connection is usually gone, so the answer rarely arrives.
            let frame = frame.map_err(|_| {
                HttpProblem::bad_request("the body is incomplete").with_connection_close()
            })?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Grows the reservation to what a body of `bytes` bytes needs.
    fn reserve_for(&mut self, bytes: usize) -> Result<(), HttpProblem> {
        if bytes > self.bytes_max {
            return Err(too_large(self.bytes_max));
        }
        let missing = (REQUEST_BYTES + BODY_COPIES * bytes).saturating_sub(self.memory.bytes());
        if missing == 0 {
            return Ok(());
        }
        self.memory
            .grow(missing.max(BODY_GROWTH_BYTES))
            .map_err(|_| no_memory(self.relay))
    }
}

/// Grows the reservation after a body has grown from `before` to `now` bytes, counting all its
/// copies.
pub(super) fn grow_reservation(
    relay: &Relay,
    memory: &mut MemoryReservation,
    before: usize,
    now: usize,
) -> Result<(), HttpProblem> {
    memory
        .grow_admitted(BODY_COPIES * now.saturating_sub(before))
        .map_err(|_| no_memory(relay))
}

/// Reserves the memory of a call that lists up to `items` items of this many bytes each.
///
/// # Errors
///
/// When there is no memory for it.
pub(super) fn reserve_list(
    relay: &Relay,
    items: usize,
    item_bytes: usize,
) -> Result<MemoryReservation, HttpProblem> {
    let memory = relay.publisher.memory();
    memory
        .reserve(MemoryUse::Requests, LIST_BYTES + items * item_bytes)
        .map_err(|_| no_memory(relay))
}

/// Counts and returns the problem for a request refused for lack of memory.
pub(crate) fn no_memory(relay: &Relay) -> HttpProblem {
    relay.metrics.limit_exceeded(Limit::Memory);
    HttpProblem::unavailable(
        ErrorCode::RateLimitExceeded,
        "the relay has no memory for another request (limits.memory_max)",
        RETRY_AFTER,
    )
    .with_connection_close()
}

pub(super) fn too_large(bytes_max: usize) -> HttpProblem {
    HttpProblem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::ValidationError,
        format!("the body exceeds {bytes_max} bytes"),
    )
    .with_connection_close()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(content_type: &str) -> Result<BodyFormat, StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        BodyFormat::from_headers(&headers).map_err(|problem| problem.status())
    }

    #[test]
    fn a_body_is_protobuf_or_json_in_utf_8() {
        for (content_type, expected) in [
            ("application/x-protobuf", BodyFormat::Protobuf),
            (
                "Application/X-Protobuf; messageType=x",
                BodyFormat::Protobuf,
            ),
            ("application/json", BodyFormat::Json),
            ("application/json; charset=UTF-8", BodyFormat::Json),
            ("application/json;charset=\"utf-8\"", BodyFormat::Json),
        ] {
            assert_eq!(format(content_type), Ok(expected), "{content_type}");
        }
    }

    #[test]
    fn anything_else_is_an_unsupported_media_type() {
        for content_type in [
            "",
            "text/plain",
            "application/protobuf",
            "application/json; charset=latin1",
            "application/jsonp",
        ] {
            let refused = Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            assert_eq!(format(content_type), refused, "{content_type}");
        }
        assert!(BodyFormat::from_headers(&HeaderMap::new()).is_err());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(BodyFormat::from_headers(&headers).is_err());
    }

    #[test]
    fn two_media_types_are_refused_even_if_they_are_the_same() {
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            headers.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let refused = BodyFormat::from_headers(&headers).unwrap_err();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    }
}
