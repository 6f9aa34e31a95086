//! The contract's rules for the relay's HTTP answers, on any listener.

use serde_json::Value;
use sidewire_testing::http::Answer;

/// The allowed answers.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) statuses: Vec<u16>,
    /// True if the answer may lack a problem document, as for invalid HTTP.
    pub(crate) may_be_bare: bool,
    /// True if there may be no answer, as for an incomplete request.
    pub(crate) may_be_silent: bool,
}

impl Expected {
    /// Expects one of these statuses, with a problem document if it is a refusal.
    pub(crate) fn status(statuses: &[u16]) -> Self {
        Self {
            statuses: statuses.to_vec(),
            may_be_bare: false,
            may_be_silent: false,
        }
    }

    /// Expects one of these statuses, from the HTTP parser or from the call's handler.
    pub(crate) fn bare(statuses: &[u16]) -> Self {
        Self {
            may_be_bare: true,
            ..Self::status(statuses)
        }
    }

    /// Also allows the connection to end without an answer.
    pub(crate) fn or_silence(self) -> Self {
        Self {
            may_be_silent: true,
            ..self
        }
    }

    /// Checks that the answer is an allowed one and well formed.
    pub(crate) fn check(&self, answer: &Answer, has_body: bool) -> Result<(), String> {
        let status = answer.status;
        if !self.statuses.contains(&status) {
            let body = String::from_utf8_lossy(&answer.body);
            return Err(format!("{status}, not {:?}: {body}", self.statuses));
        }
        if status < 400 {
            return Ok(());
        }
        if has_body && answer.body.is_empty() && self.may_be_bare {
            return Ok(());
        }
        check_headers(answer)?;
        if has_body {
            check_document(answer)
        } else {
            Ok(())
        }
    }
}

/// Checks the headers that a status requires.
fn check_headers(answer: &Answer) -> Result<(), String> {
    let wanted: &[(&str, Option<&str>)] = match answer.status {
        401 => &[("www-authenticate", Some("Bearer error=\"invalid_token\""))],
        405 => &[("allow", None)],
        426 => &[("upgrade", Some("websocket"))],
        429 | 503 => &[("retry-after", None)],
        _ => &[],
    };
    for (name, value) in wanted {
        let given = answer.header(name);
        if given.is_none() || value.is_some() && given != *value {
            return Err(format!("{} with {name} {given:?}", answer.status));
        }
    }
    Ok(())
}

fn check_document(answer: &Answer) -> Result<(), String> {
    let body = String::from_utf8_lossy(&answer.body);
    if answer.header("content-type") != Some("application/problem+json") {
        return Err(format!("{} without a document: {body}", answer.status));
    }
    let document: Value =
        serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
    let code = document["code"].as_str().unwrap_or_default();
    let says_why = document["detail"].as_str().is_some_and(|it| !it.is_empty());
    if document["status"] == answer.status && codes(answer.status).contains(&code) && says_why {
        Ok(())
    } else {
        Err(format!("{} with {body}", answer.status))
    }
}

/// Returns the contract's error codes for a status.
fn codes(status: u16) -> &'static [&'static str] {
    match status {
        400 | 405 | 408 | 413 | 415 | 426 => &["VALIDATION_ERROR"],
        401 => &["AUTHENTICATION_FAILED"],
        403 => &["AUTHORIZATION_FAILED"],
        404 => &["NOT_FOUND"],
        409 => &["CONFLICT"],
        429 => &["RATE_LIMIT_EXCEEDED"],
        503 => &["RATE_LIMIT_EXCEEDED", "INTERNAL_ERROR"],
        _ => &[],
    }
}

/// A request in any form, valid or not.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: Vec<u8>,
    pub(crate) version: String,
    headers: Vec<(String, Vec<u8>)>,
    pub(crate) line_end: &'static str,
    /// The bytes after the head.
    pub(crate) rest: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, target: impl Into<Vec<u8>>) -> Self {
        Self {
            method: method.to_owned(),
            target: target.into(),
            version: "HTTP/1.1".to_owned(),
            headers: vec![("Host".to_owned(), b"localhost".to_vec())],
            line_end: "\r\n",
            rest: Vec::new(),
        }
    }

    /// Adds a header line.
    pub(crate) fn and(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(given, _)| given != name);
        self
    }

    /// Replaces the value of a header.
    pub(crate) fn set(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).and(name, value)
    }

    pub(crate) fn to(mut self, target: impl Into<Vec<u8>>) -> Self {
        self.target = target.into();
        self
    }

    pub(crate) fn by(mut self, method: &str) -> Self {
        self.method = method.to_owned();
        self
    }

    pub(crate) fn in_version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    pub(crate) fn followed_by(mut self, rest: impl Into<Vec<u8>>) -> Self {
        self.rest = rest.into();
        self
    }

    /// Adds a body and its length.
    pub(crate) fn with_body(self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = body.len().to_string();
        self.set("Content-Length", length).followed_by(body)
    }

    pub(crate) fn header_lines(&mut self) -> &mut Vec<(String, Vec<u8>)> {
        &mut self.headers
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let end = self.line_end.as_bytes();
        let mut bytes = [self.method.as_bytes(), b" ", &self.target].concat();
        if !self.version.is_empty() {
            bytes.push(b' ');
            bytes.extend(self.version.as_bytes());
        }
        bytes.extend(end);
        for (name, value) in &self.headers {
            bytes.extend([name.as_bytes(), b": ", value, end].concat());
        }
        bytes.extend(end);
        bytes.extend(&self.rest);
        bytes
    }
}
