//! The body of a call: its type, its size, and its bytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request, StatusCode,
    body::{Body, Incoming},
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING},
};
use tokio::{task::yield_now, time::timeout};

use crate::{
    http::{Problem, only_header},
    limits::Limit,
    memory::{BODY_COPIES, BODY_GROWTH_BYTES, MemoryUse, REQUEST_BYTES, Reservation},
    protocol::ErrorCode,
    relay::Relay,
};

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// When a request that found no memory should be sent again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How a body says what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`, proto3 JSON
    Json,
}

impl Format {
    /// What the headers say.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        if headers.contains_key(CONTENT_ENCODING) {
            return Err(unsupported("the relay takes no Content-Encoding"));
        }
        // hyper decodes `chunked` and leaves what lies beneath it as it is.
        let codings = only_header(headers, &TRANSFER_ENCODING)?.map(HeaderValue::as_bytes);
        if codings.is_some_and(|codings| !codings.eq_ignore_ascii_case(b"chunked")) {
            return Err(unsupported(
                "the relay takes no Transfer-Encoding but chunked",
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
            Err(unsupported(
                "the Content-Type must be application/x-protobuf or application/json",
            ))
        }
    }
}

/// JSON is UTF-8 (RFC 8259, 8.1), whatever a caller says.
fn check_charset(parameters: &str) -> Result<(), Problem> {
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
        return Err(unsupported("JSON must be in UTF-8"));
    }
    Ok(())
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::ValidationError,
        detail,
    )
}

/// After so many pieces of a body others have their turn. A body can come in pieces of one
/// byte, each of which takes 0.4 µs.
const PIECES_PER_TURN: usize = 1024;

/// Reads the body, at most `bytes_max` of it, and reserves the memory that the request
/// holds until it is answered.
pub(super) async fn read(
    request: Request<Incoming>,
    bytes_max: usize,
    relay: &Relay,
) -> Result<(Bytes, Reservation), Problem> {
    let body = request.into_body();
    // Refused before anything is read, where the length is announced.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(too_large(bytes_max));
    }
    let memory = relay
        .publisher
        .memory()
        .reserve(MemoryUse::Requests, REQUEST_BYTES + BODY_COPIES * announced)
        .map_err(|_| no_memory(relay))?;
    let collector = Collector {
        relay,
        body,
        bytes_max,
        memory,
    };
    match timeout(BODY_TIMEOUT, collector.collect()).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            ErrorCode::ValidationError,
            "the body took too long",
        )
        .closing()),
    }
}

/// Puts the pieces of a body together.
struct Collector<'a> {
    relay: &'a Relay,
    body: Incoming,
    bytes_max: usize,
    memory: Reservation,
}

impl Collector<'_> {
    async fn collect(mut self) -> Result<(Bytes, Reservation), Problem> {
        let Some(first) = self.next().await? else {
            return Ok((Bytes::new(), self.memory));
        };
        self.make_room(first.len())?;
        let Some(second) = self.next().await? else {
            // Most bodies come in one piece, which need not be copied.
            return Ok((first, self.memory));
        };
        let announced = usize::try_from(self.body.size_hint().lower()).unwrap_or_default();
        let mut whole = BytesMut::with_capacity(first.len() + second.len() + announced);
        whole.extend_from_slice(&first);
        drop(first);
        let mut piece = Some(second);
        let mut pieces = 2_usize;
        while let Some(bytes) = piece {
            self.make_room(whole.len() + bytes.len())?;
            whole.extend_from_slice(&bytes);
            pieces += 1;
            if pieces.is_multiple_of(PIECES_PER_TURN) {
                yield_now().await;
            }
            piece = self.next().await?;
        }
        Ok((whole.freeze(), self.memory))
    }

    /// The next piece that is not empty.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        while let Some(frame) = self.body.frame().await {
            // There is hardly anybody left to tell.
            let frame =
                frame.map_err(|_| Problem::invalid("the body did not arrive whole").closing())?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Reserves memory for a body of so many bytes.
    fn make_room(&mut self, bytes: usize) -> Result<(), Problem> {
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

/// Reserves what a body takes more, in all its copies, when it has become longer.
pub(super) fn grow(
    relay: &Relay,
    memory: &mut Reservation,
    before: usize,
    now: usize,
) -> Result<(), Problem> {
    memory
        .grow_admitted(BODY_COPIES * now.saturating_sub(before))
        .map_err(|_| no_memory(relay))
}

/// There is no room for what a request holds, or for what it takes to read it.
pub(super) fn no_memory(relay: &Relay) -> Problem {
    relay.metrics.exceeded(Limit::Memory);
    Problem::unavailable(
        ErrorCode::RateLimitExceeded,
        "the relay has no memory for another request (limits.memory_max)",
        RETRY_AFTER,
    )
    .closing()
}

pub(super) fn too_large(bytes_max: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::ValidationError,
        format!("the body may have {bytes_max} bytes"),
    )
    .closing()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(content_type: &str) -> Result<Format, StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        Format::of(&headers).map_err(|problem| problem.status())
    }

    #[test]
    fn a_body_is_protobuf_or_json_in_utf_8() {
        for (content_type, expected) in [
            ("application/x-protobuf", Format::Protobuf),
            ("Application/X-Protobuf; messageType=x", Format::Protobuf),
            ("application/json", Format::Json),
            ("application/json; charset=UTF-8", Format::Json),
            ("application/json;charset=\"utf-8\"", Format::Json),
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
        assert!(Format::of(&HeaderMap::new()).is_err());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(Format::of(&headers).is_err());
    }

    #[test]
    fn two_media_types_are_refused_also_where_they_are_the_same() {
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            headers.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let refused = Format::of(&headers).unwrap_err();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    }
}
