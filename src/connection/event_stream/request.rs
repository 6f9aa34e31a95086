//! The request for server-sent events: which topics, and from where on; and the rules of CORS (Fetch,
//! 3.3), by which a page of another origin may send it.

use std::time::SystemTime;

use hyper::{
    HeaderMap, Method, Request, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONNECTION,
        HeaderName, HeaderValue, ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};
use sidewire_protocol::{
    ErrorCode, Position, Topic,
    position::{Epoch, EpochError},
};

use crate::{
    auth::{Authenticator, Grant},
    connection::{conversation::TopicsRequest, origin},
    http::{HttpProblem, HttpResponse, only_header, query_pairs},
    relay::Relay,
};

/// The path of server-sent events.
pub(in crate::connection) const EVENT_STREAM_PATH: &str = "/sse";

/// The position of the last event that an `EventSource` has (HTML, 9.2.4).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Says where a request of a browser comes from (Fetch Metadata, 2.3).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Parameters of the query besides the topics, each at most once. Those of the authentication are
/// read elsewhere.
const SINGLE_PARAMETERS: [&str; 3] = ["since", "access_token", "user_id"];

/// The first lines of the response.
const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a client that takes server-sent events asks for.
#[derive(Debug, PartialEq)]
pub(in crate::connection) struct EventStreamRequest {
    topics: Vec<String>,
    /// The position to resume from. An error means that no relay can have issued it.
    resume_from: Option<Result<Position, EpochError>>,
}

impl EventStreamRequest {
    /// Parses the query and the headers.
    ///
    /// # Errors
    ///
    /// 400 for an unknown parameter, one that is given more than once, and a malformed `since`; 403
    /// for a request that a page of another site makes without saying which.
    pub(in crate::connection) fn parse<B>(request: &Request<B>) -> Result<Self, HttpProblem> {
        check_not_cross_site(request.headers())?;
        let mut topics = Vec::new();
        let mut singles = [const { None }; SINGLE_PARAMETERS.len()];
        for pair in query_pairs(request.uri().query()) {
            let (name, value) =
                pair.map_err(|error| HttpProblem::bad_request(format!("the query {error}")))?;
            if name == "topic" {
                topics.push(value);
                continue;
            }
            let known = SINGLE_PARAMETERS.iter().zip(&mut singles);
            let Some((_, single)) = known.into_iter().find(|(known, _)| **known == name) else {
                let detail = "the query has an unknown parameter; use topic and since";
                return Err(HttpProblem::bad_request(detail));
            };
            if single.replace(value).is_some() {
                let detail = format!("{name} is given more than once");
                return Err(HttpProblem::bad_request(detail).with_field(Some(&name)));
            }
        }
        let [since, ..] = singles;
        let since = since.map(|text| parse_position(&text)).transpose();
        let since = since.map_err(|_| {
            let detail = "since is not a position, which is written <epoch>:<offset>";
            HttpProblem::bad_request(detail).with_field(Some("since"))
        })?;
        let last_event_id = only_header(request.headers(), &LAST_EVENT_ID)?;
        let last_event_id = last_event_id
            .filter(|value| !value.is_empty())
            .map(|value| parse_position(value.to_str().unwrap_or_default()));
        Ok(Self {
            topics,
            resume_from: last_event_id.or(since.map(Ok)),
        })
    }

    /// Returns the Subscribe that the request stands for.
    ///
    /// # Errors
    ///
    /// 400 for an invalid topic or more than `topics_max`, 403 for one that is not granted.
    pub(in crate::connection) fn into_subscribe(
        self,
        grant: &Grant,
        topics_max: usize,
    ) -> Result<TopicsRequest, HttpProblem> {
        let invalid = |detail| HttpProblem::bad_request(detail).with_field(Some("topic"));
        let count = self.topics.len();
        if count > topics_max {
            return Err(invalid(format!(
                "the query names {count} topics; the maximum is {topics_max}"
            )));
        }
        let topics = (1..).zip(&self.topics).map(|(number, text): (usize, _)| {
            Topic::parse(text)
                .map_err(|error| invalid(format!("topic {number} of the query {error}")))
        });
        let topics = topics.collect::<Result<Vec<_>, _>>()?;
        // By number, since the detail is logged, and the query must not be.
        for (number, topic) in (1..).zip(&topics) {
            if let Some(reason) = grant.refusal_reason(topic) {
                return Err(HttpProblem::new(
                    StatusCode::FORBIDDEN,
                    ErrorCode::AuthorizationFailed,
                    format!("topic {number} of the query {reason}"),
                )
                .with_field(Some("topic")));
            }
        }
        Ok(TopicsRequest::from_list(
            topics,
            self.topics,
            self.resume_from,
        ))
    }
}

/// Parses `<epoch>:<offset>`.
fn parse_position(text: &str) -> Result<Position, EpochError> {
    let (epoch, offset) = text.split_once(':').ok_or(EpochError)?;
    let is_number = offset.bytes().all(|byte| byte.is_ascii_digit());
    let offset = offset.parse().ok().filter(|_| is_number);
    Ok(Position {
        epoch: epoch.parse::<Epoch>()?,
        offset: offset.ok_or(EpochError)?,
    })
}

/// Refuses what a page of another site embeds, such as an image, which has no `Origin`.
fn check_not_cross_site(headers: &HeaderMap) -> Result<(), HttpProblem> {
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    if site == Some(b"cross-site") && !headers.contains_key(ORIGIN) {
        return Err(HttpProblem::new(
            StatusCode::FORBIDDEN,
            ErrorCode::AuthorizationFailed,
            "a page of another site must send its Origin: use fetch or EventSource",
        ));
    }
    Ok(())
}

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

    /// Returns the head of an event stream.
    pub(super) fn of_stream(&self) -> Vec<u8> {
        [STREAM_HEAD.as_bytes(), &self.common, b"\r\n"].concat()
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
