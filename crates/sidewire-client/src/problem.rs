//! Parses refusals of HTTP requests: a status and, if the relay itself answered, a
//! problem document (RFC 9457).

use std::{fmt, time::Duration};

use hyper::{
    HeaderMap, StatusCode,
    header::{HeaderValue, RETRY_AFTER},
};
use serde::{Deserialize, Deserializer};

use sidewire_protocol::wire;

/// The refusal of an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRefusal {
    /// The HTTP status.
    pub status: u16,
    /// The protocol's error code; `None` if the answer has none, such as one from a proxy.
    pub code: Option<Box<str>>,
    /// The reason, for humans.
    pub detail: Option<Box<str>>,
    /// The error of each bad event.
    pub errors: Vec<EventFault>,
    /// The current state of each topic for which a precondition failed.
    pub current: Box<[CurrentPosition]>,
    /// When to retry, from `Retry-After` in seconds (RFC 9110, section 10.2.3).
    pub retry_after: Option<Duration>,
    /// The id under which the relay has logged the call, from `X-Request-Id`.
    pub request_id: Option<Box<str>>,
}

/// The error of one event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EventFault {
    /// The index of the event in its batch, from 0.
    #[serde(default)]
    pub index: Option<u64>,
    /// The path of the invalid field.
    #[serde(default)]
    pub field: Option<String>,
    /// The reason, for humans.
    #[serde(default)]
    pub message: String,
}

/// The current state of a topic in its tenant's log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CurrentPosition {
    /// The topic.
    pub topic: String,
    /// The epoch of its tenant's log; `None` if there is no log.
    pub epoch: Option<String>,
    /// The position of its last event; `None` if the log has none.
    #[serde(default, deserialize_with = "maybe_position")]
    pub position: Option<wire::Position>,
}

#[derive(Default, Deserialize)]
struct RefusalDocument {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    #[serde(default)]
    errors: Vec<EventFault>,
    #[serde(default)]
    current: Vec<CurrentPosition>,
}

impl HttpRefusal {
    /// Parses a response. A body that is not a problem document is ignored.
    #[must_use]
    pub fn from_response(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let document: RefusalDocument = serde_json::from_slice(body).unwrap_or_default();
        Self {
            status: status.as_u16(),
            code: document.code.map(Into::into),
            detail: document.detail.or(document.title).map(Into::into),
            errors: document.errors,
            current: document.current.into(),
            retry_after: headers.get(RETRY_AFTER).and_then(parse_seconds),
            request_id: headers.get("x-request-id").and_then(parse_text),
        }
    }
}

/// A position in proto3 JSON, where the offset is a string.
#[derive(Deserialize)]
struct JsonPosition {
    epoch: String,
    offset: String,
}

impl JsonPosition {
    fn into_position<E: serde::de::Error>(self) -> Result<wire::Position, E> {
        let offset = self.offset.parse().map_err(E::custom)?;
        let epoch = self.epoch;
        Ok(wire::Position { epoch, offset })
    }
}

/// Deserializes a position from proto3 JSON.
pub(super) fn position<'de, D: Deserializer<'de>>(from: D) -> Result<wire::Position, D::Error> {
    JsonPosition::deserialize(from)?.into_position()
}

fn maybe_position<'de, D: Deserializer<'de>>(from: D) -> Result<Option<wire::Position>, D::Error> {
    let json = Option::<JsonPosition>::deserialize(from)?;
    json.map(JsonPosition::into_position).transpose()
}

fn parse_text(value: &HeaderValue) -> Option<Box<str>> {
    Some(value.to_str().ok()?.into())
}

fn parse_seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

impl fmt::Display for HttpRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        let is_said = |fault: &&EventFault| {
            let detail = self.detail.as_deref();
            detail.is_some_and(|detail| detail.contains(fault.message.as_str()))
        };
        for fault in self.errors.iter().filter(|fault| !is_said(fault)) {
            write!(f, "; {fault}")?;
        }
        for current in &self.current {
            write!(f, "; {current}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " (request id {id})")?;
        }
        Ok(())
    }
}

/// Writes the condition that would have held.
impl fmt::Display for CurrentPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = &self.topic;
        match (&self.position, &self.epoch) {
            (Some(position), _) => write!(f, "{topic}@{}:{}", position.epoch, position.offset),
            (None, Some(epoch)) => write!(f, "{topic}@{epoch}:0"),
            (None, None) => write!(f, "{topic}@0"),
        }
    }
}

impl fmt::Display for EventFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "event {index}: ")?;
        }
        if let Some(field) = &self.field
            && !self.message.starts_with(field.as_str())
        {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &'static str)], body: &str) -> HttpRefusal {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        HttpRefusal::from_response(StatusCode::BAD_REQUEST, &headers, body.as_bytes())
    }

    #[test]
    fn the_fault_of_the_only_refused_event_is_shown_once() {
        let problem = read(
            &[],
            r#"{"code":"VALIDATION_ERROR","detail":"event 1 of the batch is refused: alarm: unknown field `wardCod`",
                "errors":[{"index":1,"field":"alarm","message":"alarm: unknown field `wardCod`"}]}"#,
        );
        assert_eq!(
            problem.to_string(),
            "400 VALIDATION_ERROR: event 1 of the batch is refused: alarm: unknown field `wardCod`"
        );
        let problem = read(
            &[],
            r#"{"detail":"2 of the batch's events are refused",
                "errors":[{"index":0,"field":"alarm","message":"alarm: no"},{"index":1,"field":"position","message":"position is set"}]}"#,
        );
        assert_eq!(
            problem.to_string(),
            "400: 2 of the batch's events are refused; event 0: alarm: no; event 1: position is set"
        );
    }

    #[test]
    fn a_problem_document_is_read_whole() {
        let problem = read(
            &[("retry-after", "7"), ("x-request-id", "job-7")],
            r#"{"type":"about:blank","status":400,"code":"VALIDATION_ERROR","detail":"bad batch",
                "errors":[{"index":3,"field":"position","message":"must not be set"}]}"#,
        );
        assert_eq!(problem.code.as_deref(), Some("VALIDATION_ERROR"));
        assert_eq!(problem.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(
            problem.to_string(),
            "400 VALIDATION_ERROR: bad batch; event 3: position: must not be set (request id job-7)"
        );
    }

    #[test]
    fn the_current_state_is_shown_as_the_condition_that_would_have_held() {
        let problem = read(
            &[],
            r#"{"code":"CONFLICT","current":[
                {"topic":"a:1","epoch":"e","position":{"epoch":"e","offset":"42"}},
                {"topic":"b:2","epoch":"e","position":null},
                {"topic":"c:3","epoch":null,"position":null}]}"#,
        );
        assert_eq!(
            problem.to_string(),
            "400 CONFLICT; a:1@e:42; b:2@e:0; c:3@0"
        );
        let position = problem.current[0].position.as_ref();
        assert_eq!(position.map(|it| it.offset), Some(42));
    }

    #[test]
    fn a_refusal_by_another_server_is_shown_with_its_status() {
        for body in ["", "<html>Bad Gateway</html>", "[]", r#"{"errors":5}"#] {
            let problem = read(&[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")], body);
            assert_eq!(
                (problem.to_string().as_str(), problem.retry_after),
                ("400", None),
                "{body}"
            );
        }
    }
}
