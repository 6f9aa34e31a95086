//! The body of a call: its type, its size, and its bytes.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Request, StatusCode,
    body::{Body, Incoming},
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
};
use tokio::time::timeout;

use crate::{
    http::{Problem, only_header},
    protocol::ErrorCode,
};

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

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

/// Reads the body, at most `bytes_max` of it.
pub(super) async fn read(request: Request<Incoming>, bytes_max: usize) -> Result<Bytes, Problem> {
    let body = request.into_body();
    // Said before anything of it is read, where its length is announced.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let read = timeout(BODY_TIMEOUT, Limited::new(body, bytes_max).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        // There is hardly anybody left to tell.
        Ok(Err(_)) => Err(Problem::invalid("the body did not arrive whole").closing()),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            ErrorCode::ValidationError,
            "the body took too long",
        )
        .closing()),
    }
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
