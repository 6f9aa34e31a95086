//! Answers whose body is made at once.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;

/// An answer whose body is made at once.
pub type Response = hyper::Response<Full<Bytes>>;

/// A body of this media type as an answer.
#[must_use]
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A document as an answer: of strings, numbers and booleans, since what JSON cannot hold
/// leaves the body empty.
#[must_use]
pub fn json(status: StatusCode, document: &impl Serialize) -> Response {
    json_text(status, serde_json::to_vec(document).unwrap_or_default())
}

/// A document that is written already, as an answer.
#[must_use]
pub fn json_text(status: StatusCode, document: Vec<u8>) -> Response {
    answer(status, "application/json", document)
}
