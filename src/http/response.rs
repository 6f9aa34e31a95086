//! HTTP responses.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    StatusCode,
    body::{Body, Frame, SizeHint},
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;

/// An HTTP response.
pub type HttpResponse = hyper::Response<ResponseBody>;

/// The body of a response.
#[derive(Debug)]
pub enum ResponseBody {
    /// A body that is complete before the response begins.
    Whole(Full<Bytes>),
    /// A body that is produced part by part, as fast as the peer reads.
    Streamed(UnsyncBoxBody<Bytes, Infallible>),
}

impl Default for ResponseBody {
    /// Returns an empty body.
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context),
            Self::Streamed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Streamed(body) => body.size_hint(),
        }
    }
}

/// Returns a response with a complete body of this media type.
#[must_use]
pub fn whole_response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> HttpResponse {
    let body = ResponseBody::Whole(Full::new(body.into()));
    with_body(status, content_type, body)
}

/// Returns a response with a JSON document of strings, numbers and booleans. A document that JSON
/// cannot represent leaves the body empty.
#[must_use]
pub fn json_response(status: StatusCode, document: &impl Serialize) -> HttpResponse {
    json_text_response(status, serde_json::to_vec(document).unwrap_or_default())
}

/// Returns a response with a JSON document that is serialized already.
#[must_use]
pub fn json_text_response(status: StatusCode, document: impl Into<Bytes>) -> HttpResponse {
    whole_response(status, "application/json", document)
}

/// Returns a response with a JSON document that the body produces part by part.
#[must_use]
pub fn json_stream_response<B>(status: StatusCode, body: B) -> HttpResponse
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let body = ResponseBody::Streamed(body.boxed_unsync());
    with_body(status, "application/json", body)
}

fn with_body(status: StatusCode, content_type: &'static str, body: ResponseBody) -> HttpResponse {
    let mut response = HttpResponse::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
