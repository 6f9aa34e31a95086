//! Problem documents (RFC 9457), which every refusal carries.

use std::time::Duration;

use hyper::{
    StatusCode,
    header::{
        ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
        SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
    },
};
use serde::{Serialize, Serializer};
use serde_json::Value;
use sidewire_protocol::{
    ErrorCode,
    reply::MessageRefusal,
    shorten::{ANSWER_BYTES_MAX, truncate_text},
};

use super::{HttpResponse, whole_response};

/// The media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A refusal that will be sent as an HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProblem {
    status: StatusCode,
    code: ErrorCode,
    detail: String,
    field: Option<String>,
    errors: Vec<ItemProblem>,
    member: Option<Box<(&'static str, Value)>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// In milliseconds, which keeps every `Result` with a problem small.
    retry_after_ms: Option<u32>,
}

/// The error of an event of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ItemProblem {
    /// The event's index in the batch, from 0.
    pub index: usize,
    /// The path of the field at fault, if there is one.
    pub field: Option<String>,
    /// The description for people.
    pub message: String,
}

/// The JSON document. `type` is about:blank, so `title` is the status's own phrase.
#[derive(Serialize)]
struct ProblemDocument<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [ItemProblem],
    #[serde(flatten)]
    member: Option<ExtensionMember<'a>>,
}

/// A member of a document beyond the common ones (RFC 9457, 3.2).
struct ExtensionMember<'a>(&'a (&'static str, Value));

impl Serialize for ExtensionMember<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.0.0, &self.0.1)])
    }
}

impl HttpProblem {
    /// Creates a refusal with a description for people.
    #[must_use]
    pub fn new(status: StatusCode, code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: truncate_text(detail, ANSWER_BYTES_MAX),
            field: None,
            errors: Vec::new(),
            member: None,
            headers: Vec::new(),
            retry_after_ms: None,
        }
    }

    /// 400: the request is malformed.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::ValidationError, detail)
    }

    /// 401: the caller is not authenticated (RFC 6750, 3).
    #[must_use]
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            ErrorCode::AuthenticationFailed,
            detail,
        )
        .with_header(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer error=\"invalid_token\""),
        )
    }

    /// 404: there is nothing at this path.
    #[must_use]
    pub fn no_such_path() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            ErrorCode::NotFound,
            "there is nothing at this path",
        )
    }

    /// 405: the path does not accept this method.
    #[must_use]
    pub fn method_not_allowed(allowed: &'static str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::ValidationError,
            format!("this path only accepts {allowed}"),
        )
        .with_header(ALLOW, HeaderValue::from_static(allowed))
    }

    /// 426: the path only accepts WebSocket handshakes of version 13 (RFC 6455, 4.2.2).
    #[must_use]
    pub fn upgrade_required(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UPGRADE_REQUIRED,
            ErrorCode::ValidationError,
            detail,
        )
        .with_header(UPGRADE, HeaderValue::from_static("websocket"))
        .with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
    }

    /// 503: temporarily unavailable.
    #[must_use]
    pub fn unavailable(code: ErrorCode, detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).with_retry_after(retry_after)
    }

    /// 503: the relay is shutting down.
    #[must_use]
    pub fn shutting_down(retry_after: Duration) -> Self {
        let detail = "the relay is shutting down";
        Self::unavailable(ErrorCode::InternalError, detail, retry_after)
    }

    /// 429: too many requests of this caller (RFC 6585, 4).
    #[must_use]
    pub fn too_many_requests(detail: impl Into<String>, retry_after: Duration) -> Self {
        let (status, code) = (StatusCode::TOO_MANY_REQUESTS, ErrorCode::RateLimitExceeded);
        Self::new(status, code, detail).with_retry_after(retry_after)
    }

    fn with_retry_after(mut self, delay: Duration) -> Self {
        let millis = delay.as_millis();
        self.retry_after_ms = Some(u32::try_from(millis).unwrap_or(u32::MAX));
        // Whole seconds, and never 0, which would mean at once.
        let seconds = millis.div_ceil(1000).max(1);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Sets the path of the field at fault.
    #[must_use]
    pub fn with_field(mut self, field: Option<&str>) -> Self {
        self.field = field.map(|field| truncate_text(field, ANSWER_BYTES_MAX));
        self
    }

    /// Sets the errors of a batch's events.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<ItemProblem>) -> Self {
        self.errors = errors;
        self
    }

    /// Sets an additional member of the document.
    #[must_use]
    pub fn with_member(mut self, name: &'static str, value: Value) -> Self {
        self.member = Some(Box::new((name, value)));
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Closes the connection after the response.
    #[must_use]
    pub fn with_connection_close(self) -> Self {
        self.with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The description for people.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The error code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The delay after which to retry, in milliseconds, if the refusal has one. The header has it
    /// in whole seconds.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u32> {
        self.retry_after_ms
    }

    /// The path of the field at fault, if there is one.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// Turns this into the error of an event of a batch.
    #[must_use]
    pub fn into_item_problem(self, index: usize) -> ItemProblem {
        ItemProblem {
            index,
            field: self.field,
            message: self.detail,
        }
    }

    /// Creates a refusal with the code and the description of a refused message.
    #[must_use]
    pub fn from_refusal(refusal: &MessageRefusal) -> Self {
        let status = match refusal.code {
            ErrorCode::AuthenticationFailed => StatusCode::UNAUTHORIZED,
            ErrorCode::AuthorizationFailed => StatusCode::FORBIDDEN,
            ErrorCode::RateLimitExceeded => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::InternalError => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        let problem = Self::new(status, refusal.code, refusal.message.as_str());
        match refusal.retry_after {
            Some(delay) => problem.with_retry_after(delay),
            None => problem,
        }
    }

    /// Returns the HTTP response.
    #[must_use]
    pub fn into_response(self) -> HttpResponse {
        let mut response = whole_response(self.status, PROBLEM_JSON, self.to_json());
        response.headers_mut().extend(self.headers);
        response
    }

    /// Returns the whole response as the bytes of HTTP/1.1 (RFC 9112, 2.1), for connections that
    /// hyper does not serve.
    #[must_use]
    pub fn into_http1(self) -> Vec<u8> {
        let body = self.to_json();
        let mut bytes = format!("HTTP/1.1 {}\r\n", self.status).into_bytes();
        let content = [
            (CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON)),
            (CONTENT_LENGTH, HeaderValue::from(body.len())),
        ];
        for (name, value) in self.headers.iter().chain(&content) {
            let line = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
            bytes.extend(line.concat());
        }
        bytes.extend(b"\r\n");
        bytes.extend(body);
        bytes
    }

    fn to_json(&self) -> Vec<u8> {
        let document = ProblemDocument {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            code: self.code.as_str(),
            detail: &self.detail,
            field: self.field.as_deref(),
            errors: &self.errors,
            member: self.member.as_deref().map(ExtensionMember),
        };
        // The document contains nothing that JSON cannot represent, so this does not fail.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}
