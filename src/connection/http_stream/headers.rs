//! The headers of the responses to clients without a WebSocket, and the rules of CORS (Fetch, 3.3),
//! by which a page of another origin may send their requests.

use std::time::SystemTime;

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONNECTION,
        HeaderName, HeaderValue, ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};

use crate::{auth::Authenticator, connection::origin, http::HttpResponse, relay::Relay};

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Returns the request's origin if it may connect.
fn allowed_origin(relay: &Relay, headers: &HeaderMap) -> Option<HeaderValue> {
    let live = relay.live();
    let token_required = matches!(live.authenticator, Authenticator::Tokens(_));
    let is_allowed = origin::is_allowed(headers, &live.config.client.origins, token_required);
    headers.get(ORIGIN).filter(|_| is_allowed).cloned()
}

/// Returns the headers of every response, a refusal included. Those of CORS let the page read it if its
/// origin may connect.
pub(in crate::connection) fn common_headers(
    relay: &Relay,
    request: &HeaderMap,
) -> Vec<(HeaderName, HeaderValue)> {
    let fixed = [
        (CACHE_CONTROL, "no-store, no-transform"),
        (X_ACCEL_BUFFERING, "no"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (VARY, "Origin"),
        (ACCESS_CONTROL_EXPOSE_HEADERS, "retry-after"),
    ];
    let fixed = fixed.map(|(name, value)| (name, HeaderValue::from_static(value)));
    let origin = allowed_origin(relay, request);
    let origin = origin.map(|origin| (ACCESS_CONTROL_ALLOW_ORIGIN, origin));
    fixed.into_iter().chain(origin).collect()
}

/// Returns the answer to a preflight request, by which a browser asks whether a page may send its
/// request. It needs no token. The connection ends with it: each request is charged once.
pub(in crate::connection) fn preflight_response() -> HttpResponse {
    let mut response = HttpResponse::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().extend([
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static(Method::GET.as_str()),
        ),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("authorization, last-event-id"),
        ),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
        (CONNECTION, HeaderValue::from_static("close")),
    ]);
    response
}

/// The head of a response, as it is sent.
#[derive(Debug)]
pub(in crate::connection) struct ResponseHead {
    /// The header lines of every response, a refusal included.
    common: Vec<u8>,
}

impl ResponseHead {
    /// Makes the head of the response to a request with these headers.
    pub(in crate::connection) fn new(relay: &Relay, request: &HeaderMap) -> Self {
        let now = SystemTime::UNIX_EPOCH + relay.clock.since_unix_epoch();
        let mut common = format!("date: {}\r\n", httpdate::fmt_http_date(now)).into_bytes();
        for (name, value) in common_headers(relay, request) {
            common.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        Self { common }
    }

    /// Returns the head of a response that begins with these lines.
    pub(super) fn with_first_lines(&self, lines: &str) -> Vec<u8> {
        [lines.as_bytes(), &self.common, b"\r\n"].concat()
    }

    /// Adds the lines of every response to one that has no lines but its own.
    pub(super) fn of_refusal(&self, response: &[u8]) -> Vec<u8> {
        let status_line = response.iter().position(|byte| *byte == b'\n');
        let (status, rest) = response.split_at(status_line.map_or(0, |end| end + 1));
        [status, &self.common, rest].concat()
    }

    #[cfg(test)]
    pub(super) fn with_lines(common: &str) -> Self {
        let common = common.as_bytes().to_vec();
        Self { common }
    }
}
