//! The report on an event that was checked: its topics and why it has them, as text and as JSON.
//! The JSON is for programs and stable: members may be added, but none is renamed or removed.

use std::fmt;

use serde::Serialize;
use sidewire_protocol::schema::{AnnotatedValue, Schema};

use super::{
    DryRunEvent,
    client::{ClientReception, DescribedClient},
};
use crate::http::HttpProblem;

/// An event that the relay would accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteReport {
    taken: bool,
    payload: ReportedPayload,
    fields: Vec<ReportedField>,
    extra_topics: Vec<ExtraTopic>,
    topics: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<ClientReception>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ReportedPayload {
    number: u32,
    name: String,
    message: String,
}

/// An annotated field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ReportedField {
    path: String,
    kind: Option<String>,
    value: String,
    topic: Option<String>,
}

/// A topic that no annotated field gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ExtraTopic {
    from: String,
    topic: String,
}

/// An event that the relay would refuse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedEvent {
    taken: bool,
    code: &'static str,
    message: String,
    field: Option<String>,
}

impl RouteReport {
    /// Builds the report: the event, the origin of each topic, and the verdict on the client.
    /// `call_name` is how the caller names the topics that are not in the event.
    ///
    /// # Errors
    ///
    /// Fails if the event cannot be read by the schema, so that the relay would refuse it.
    pub fn for_event(
        schema: &Schema,
        taken: &DryRunEvent,
        (call_name, topics_in_call): (&str, &[String]),
        client: Option<&DescribedClient>,
    ) -> Result<Self, RefusedEvent> {
        let refused =
            |error: &dyn ToString| RefusedEvent::from(HttpProblem::bad_request(error.to_string()));
        let inspected = schema.inspect(&taken.envelope).map_err(|it| refused(&it))?;
        let fields = schema
            .explain_topics(&taken.envelope)
            .map_err(|it| refused(&it))?;
        let payload = inspected.payload.map(|payload| {
            let mut known = schema.payloads().iter();
            let known = known.find(|it| it.number == payload.number);
            ReportedPayload {
                number: payload.number,
                name: payload.name.to_owned(),
                message: known.map_or_else(String::new, |it| it.message.clone()),
            }
        });
        let in_field_18 = taken.field_18.iter().enumerate();
        let in_field_18 = in_field_18.map(|(index, topic)| (format!("topics[{index}]"), topic));
        let in_call = topics_in_call.iter();
        let in_call = in_call.map(|topic| (call_name.to_owned(), topic));
        let extra = in_field_18.chain(in_call).map(|(from, topic)| ExtraTopic {
            from,
            topic: topic.clone(),
        });
        Ok(Self {
            taken: true,
            payload: payload.ok_or_else(|| refused(&"payload is not set"))?,
            fields: fields.into_iter().map(ReportedField::from).collect(),
            extra_topics: extra.collect(),
            topics: taken.topics.iter().map(ToString::to_string).collect(),
            client: client.map(|client| client.evaluate_reception(&taken.topics)),
        })
    }

    /// Returns true if a client was described and does not receive the event.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        self.client.as_ref().is_some_and(|it| !it.receives())
    }
}

impl From<AnnotatedValue> for ReportedField {
    fn from(field: AnnotatedValue) -> Self {
        Self {
            path: field.path,
            kind: field.kind,
            value: field.value,
            topic: field.topic.map(|topic| topic.to_string()),
        }
    }
}

impl From<HttpProblem> for RefusedEvent {
    fn from(problem: HttpProblem) -> Self {
        Self {
            taken: false,
            code: problem.code().as_str(),
            message: problem.detail().to_owned(),
            field: problem.field().map(str::to_owned),
        }
    }
}

impl RefusedEvent {
    /// Returns the reason, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for RefusedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)
    }
}

impl fmt::Display for RouteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReportedPayload {
            number,
            name,
            message,
        } = &self.payload;
        writeln!(f, "payload: {number} {name}, {message}")?;
        let paths = self.fields.iter().map(|field| field.path.chars().count());
        let width = paths.max().unwrap_or_default();
        for ReportedField {
            path, value, topic, ..
        } in &self.fields
        {
            match topic {
                Some(topic) => writeln!(f, "  {path:width$}  {value:?} → {topic}")?,
                None => writeln!(f, "  {path:width$}  is empty")?,
            }
        }
        for ExtraTopic { from, topic } in &self.extra_topics {
            writeln!(f, "  {from:width$}  → {topic}")?;
        }
        writeln!(f, "topics:")?;
        for topic in &self.topics {
            writeln!(f, "  {topic}")?;
        }
        match &self.client {
            Some(client) => write!(f, "{client}"),
            None => Ok(()),
        }
    }
}
