//! The filter of `sidewire tail`.

use serde_json::Value;
use sidewire_protocol::schema::{EventCondition, Schema};

use crate::cli::{CommandFailure, schema_args::find_event};

/// Selects the events to print. The default filter passes every event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// The JSON names of the accepted payloads; empty if any is accepted.
    payloads: Vec<String>,
    /// The conditions, all of which must hold.
    conditions: Vec<EventCondition>,
}

impl EventFilter {
    /// Builds the filter from the flags `--payload` and `--where`.
    pub(super) fn from_flags(
        schema: &Schema,
        payloads: &[String],
        conditions: &[String],
    ) -> Result<Self, CommandFailure> {
        let payloads = payloads.iter().map(|name| {
            let event = find_event(schema, name)?;
            Ok(schema.json_name(event))
        });
        let conditions = conditions.iter().map(|text| {
            EventCondition::parse(schema, text)
                .map_err(|error| CommandFailure::new(format!("--where {text}: {error}")))
        });
        Ok(Self {
            payloads: payloads.collect::<Result<_, CommandFailure>>()?,
            conditions: conditions.collect::<Result<_, _>>()?,
        })
    }

    /// Returns true if the filter passes every event.
    pub(super) fn is_empty(&self) -> bool {
        self.payloads.is_empty() && self.conditions.is_empty()
    }

    /// Returns true if the event, given as canonical JSON, passes the filter.
    pub(super) fn lets_through(&self, event: &Value) -> bool {
        let has_payload = |name: &String| event.get(name).is_some();
        (self.payloads.is_empty() || self.payloads.iter().any(has_payload))
            && self.conditions.iter().all(|it| it.is_met_by(event))
    }
}
