//! The request of a client without a WebSocket: which topics, and from where on.

use std::time::Duration;

use hyper::{
    HeaderMap, Request, StatusCode,
    header::{HeaderName, HeaderValue, ORIGIN},
};
use sidewire_protocol::{ErrorCode, Position, Topic, position::EpochError};

use crate::{
    auth::Grant,
    connection::conversation::TopicsRequest,
    http::{HttpProblem, only_header, query_pairs},
    transport::TransportKind,
};

/// The path of server-sent events.
pub(in crate::connection) const EVENT_STREAM_PATH: &str = "/sse";

/// The path of polls.
pub(in crate::connection) const POLL_PATH: &str = "/poll";

/// The position of the last event that an `EventSource` has (HTML, 9.2.4).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Says where a request of a browser comes from (Fetch Metadata, 2.3).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Parameters of the query besides the topics, each at most once. Those of the authentication are
/// read elsewhere. The last ones are those of polls.
const SINGLE_PARAMETERS: [&str; 5] = ["since", "access_token", "user_id", "wait", "max"];

/// The number of these that an event stream has.
const STREAM_PARAMETERS: usize = 3;

/// Time for which a poll waits for an event unless it says otherwise, and the longest that it may.
const WAIT_DEFAULT: Duration = Duration::from_secs(25);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Number of events in the answer to a poll unless it says otherwise, and the most that it may have.
const EVENTS_DEFAULT: usize = 100;
const EVENTS_MAX: usize = 1_000;

/// What a client without a WebSocket asks for.
#[derive(Debug, PartialEq)]
pub(in crate::connection) struct EventsRequest {
    topics: Vec<String>,
    /// The position to resume from. An error means that no relay can have issued it.
    resume_from: Option<Result<Position, EpochError>>,
    /// The bounds of the answer, if it is a poll.
    pub(in crate::connection) bounds: PollBounds,
}

/// What ends the answer to a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connection) struct PollBounds {
    /// How long it waits for an event.
    pub(in crate::connection) wait: Duration,
    /// Maximum number of events.
    pub(in crate::connection) events_max: usize,
}

impl EventsRequest {
    /// Parses the query and the headers of a request by this transport.
    ///
    /// # Errors
    ///
    /// 400 for an unknown parameter, one that is given more than once, and an invalid value; 403
    /// for a request that a page of another site makes without saying which.
    pub(in crate::connection) fn parse<B>(
        transport: TransportKind,
        request: &Request<B>,
    ) -> Result<Self, HttpProblem> {
        check_not_cross_site(request.headers())?;
        let is_poll = transport == TransportKind::Poll;
        let mut topics = Vec::new();
        let mut singles = [const { None }; SINGLE_PARAMETERS.len()];
        let known_count = match is_poll {
            true => SINGLE_PARAMETERS.len(),
            false => STREAM_PARAMETERS,
        };
        for pair in query_pairs(request.uri().query()) {
            let (name, value) =
                pair.map_err(|error| HttpProblem::bad_request(format!("the query {error}")))?;
            if name == "topic" {
                topics.push(value);
                continue;
            }
            let mut known = SINGLE_PARAMETERS.iter().zip(&mut singles).take(known_count);
            let Some((_, single)) = known.find(|(known, _)| **known == name) else {
                return Err(HttpProblem::bad_request(match is_poll {
                    true => "the query has an unknown parameter; use topic, since, wait and max",
                    false => "the query has an unknown parameter; use topic and since",
                }));
            };
            if single.replace(value).is_some() {
                let detail = format!("{name} is given more than once");
                return Err(HttpProblem::bad_request(detail).with_field(Some(&name)));
            }
        }
        let [since, _, _, wait, max] = singles;
        let since = since.map(|text| text.parse()).transpose();
        let since = since.map_err(|_| {
            invalid(
                "since",
                "since is not a position, which is written <epoch>:<offset>",
            )
        })?;
        let last_event_id = match is_poll {
            true => None,
            false => only_header(request.headers(), &LAST_EVENT_ID)?,
        };
        let last_event_id = last_event_id
            .filter(|value| !value.is_empty())
            .map(|value| value.to_str().unwrap_or_default().parse());
        Ok(Self {
            topics,
            resume_from: last_event_id.or(since.map(Ok)),
            bounds: PollBounds {
                wait: wait.map_or(Ok(WAIT_DEFAULT), |text| parse_wait(&text))?,
                events_max: max.map_or(Ok(EVENTS_DEFAULT), |text| parse_max(&text))?,
            },
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
        let count = self.topics.len();
        if count > topics_max {
            let detail = format!("the query names {count} topics; the maximum is {topics_max}");
            return Err(invalid("topic", detail));
        }
        let topics = (1..).zip(&self.topics).map(|(number, text): (usize, _)| {
            Topic::parse(text)
                .map_err(|error| invalid("topic", format!("topic {number} of the query {error}")))
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

fn invalid(field: &str, detail: impl Into<String>) -> HttpProblem {
    HttpProblem::bad_request(detail).with_field(Some(field))
}

/// Parses how long a poll waits.
fn parse_wait(text: &str) -> Result<Duration, HttpProblem> {
    let wait = match text {
        "0" => Some(Duration::ZERO),
        _ => humantime::parse_duration(text).ok(),
    };
    let wait = wait.filter(|wait| *wait <= WAIT_MAX);
    wait.ok_or_else(|| {
        let most = WAIT_MAX.as_secs();
        let detail = format!("wait is not a duration of at most {most} s, such as 25s, or 0");
        invalid("wait", detail)
    })
}

/// Parses how many events the answer to a poll may have.
fn parse_max(text: &str) -> Result<usize, HttpProblem> {
    let max = text.parse().ok();
    max.filter(|max| (1..=EVENTS_MAX).contains(max))
        .ok_or_else(|| {
            let detail = format!("max is not a whole number from 1 to {EVENTS_MAX}");
            invalid("max", detail)
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
