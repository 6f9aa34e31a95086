//! Reads how the relay refuses an HTTP request: a status and, where the answer
//! came from the relay itself, a problem document (RFC 9457).

use std::{fmt, time::Duration};

use hyper::{
    HeaderMap, StatusCode,
    header::{HeaderValue, RETRY_AFTER},
};
use serde::Deserialize;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The protocol's error code.
    pub code: Option<String>,
    /// For people: what was wrong.
    pub detail: Option<String>,
    /// What was wrong with each event.
    pub errors: Vec<Fault>,
    /// When it may pass, from `Retry-After` in seconds (RFC 9110, 10.2.3).
    pub retry_after: Option<Duration>,
}

/// What is wrong with one event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// Which event of a batch, from 0.
    #[serde(default)]
    pub index: Option<u64>,
    /// The path of the field at fault.
    #[serde(default)]
    pub field: Option<String>,
    /// For people.
    #[serde(default)]
    pub message: String,
}

#[derive(Default, Deserialize)]
struct Document {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    #[serde(default)]
    errors: Vec<Fault>,
}

impl Problem {
    /// What the answer says; a body that is no problem document says nothing.
    #[must_use]
    pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let document: Document = serde_json::from_slice(body).unwrap_or_default();
        Self {
            status: status.as_u16(),
            code: document.code,
            detail: document.detail.or(document.title),
            errors: document.errors,
            retry_after: headers.get(RETRY_AFTER).and_then(seconds),
        }
    }
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        self.errors
            .iter()
            .try_for_each(|fault| write!(f, "; {fault}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "event {index}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &'static str)], body: &str) -> Problem {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        Problem::read(StatusCode::BAD_REQUEST, &headers, body.as_bytes())
    }

    #[test]
    fn a_problem_document_is_read_whole() {
        let problem = read(
            &[("retry-after", "7")],
            r#"{"type":"about:blank","status":400,"code":"VALIDATION_ERROR","detail":"bad batch",
                "errors":[{"index":3,"field":"position","message":"must not be set"}]}"#,
        );
        assert_eq!(problem.code.as_deref(), Some("VALIDATION_ERROR"));
        assert_eq!(problem.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(
            problem.to_string(),
            "400 VALIDATION_ERROR: bad batch; event 3: position: must not be set"
        );
    }

    #[test]
    fn a_refusal_by_something_else_has_its_status() {
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
