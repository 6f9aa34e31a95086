//! The filter of `sidewire tail`.

use serde_json::Value;

use crate::{
    cli::{Failure, schema_args::find_event},
    schema::{Condition, Schema},
};

/// Selects the events to print. The default filter passes every event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The JSON names of the accepted payloads; empty if any is accepted.
    payloads: Vec<String>,
    /// The conditions, all of which must hold.
    conditions: Vec<Condition>,
}

impl Filter {
    /// Builds the filter from the flags `--payload` and `--where`.
    pub(super) fn of(
        schema: &Schema,
        payloads: &[String],
        conditions: &[String],
    ) -> Result<Self, Failure> {
        let payloads = payloads.iter().map(|name| {
            let event = find_event(schema, name)?;
            Ok(schema.json_name(event))
        });
        let conditions = conditions.iter().map(|text| {
            Condition::parse(schema, text)
                .map_err(|error| Failure::new(format!("--where {text}: {error}")))
        });
        Ok(Self {
            payloads: payloads.collect::<Result<_, Failure>>()?,
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
            && self.conditions.iter().all(|it| it.holds(event))
    }
}
