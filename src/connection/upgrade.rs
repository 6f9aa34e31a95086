//! The upgrade from HTTP to a WebSocket (RFC 6455, 4.2): what a request needs for it, and the
//! response that accepts it.

use hyper::{
    HeaderMap, Request, StatusCode, Version,
    body::Body,
    header::{
        CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use sidewire_protocol::EnvelopeEncoding;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::http::{HttpProblem, HttpResponse, only_header};

/// Checks that the request is a WebSocket handshake and returns its key (RFC 6455, 4.2.1).
pub(super) fn websocket_key<B>(request: &Request<B>) -> Result<&[u8], HttpProblem> {
    let headers = request.headers();
    let is_upgrade = request.version() == Version::HTTP_11
        && lists_token(headers, &CONNECTION, "upgrade")
        && lists_token(headers, &UPGRADE, "websocket");
    if !is_upgrade {
        return Err(HttpProblem::upgrade_required(
            "this path only accepts WebSocket handshakes",
        ));
    }
    // RFC 6455, 11.3: each of the two appears once.
    let version = only_header(headers, &SEC_WEBSOCKET_VERSION)?;
    if version.map(HeaderValue::as_bytes) != Some(b"13") {
        return Err(HttpProblem::upgrade_required(
            "only version 13 of the WebSocket protocol is supported",
        ));
    }
    only_header(headers, &SEC_WEBSOCKET_KEY)?
        .map(HeaderValue::as_bytes)
        .filter(|key| is_websocket_key(key))
        .ok_or_else(|| HttpProblem::bad_request("Sec-WebSocket-Key is not 16 bytes in base64"))
}

/// Refuses a request with a body, which could not be told apart from the first frames.
pub(super) fn check_no_body(request: &Request<impl Body>) -> Result<(), HttpProblem> {
    match request.body().size_hint().upper() {
        Some(0) => Ok(()),
        _ => Err(HttpProblem::bad_request("the request must not have a body")),
    }
}

/// Returns true if the header lists the token, in upper or lower case.
fn lists_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

/// Returns true if the key is 16 bytes in base64: 22 characters and two of padding.
fn is_websocket_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.split_last_chunk::<2>()
        .is_some_and(|(digits, padding)| {
            digits.len() == 22 && digits.iter().all(is_digit) && padding == b"=="
        })
}

/// Returns the response that completes the upgrade and echoes the subprotocol.
pub(super) fn switching_protocols(key: &[u8], encoding: Option<EnvelopeEncoding>) -> HttpResponse {
    let mut response = HttpResponse::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(encoding) = encoding {
        headers.insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(encoding.subprotocol()),
        );
    }
    response
}
