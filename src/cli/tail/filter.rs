//! Which events `sidewire tail` prints.

use serde_json::Value;

use crate::{
    cli::{Failure, schema_args::find_event},
    schema::{Condition, Schema},
};

/// What an event must be to be printed; by default any is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The names in JSON of the payloads of which it must have one; empty: any.
    payloads: Vec<String>,
    /// What must hold, all of it.
    conditions: Vec<Condition>,
}

impl Filter {
    /// The filter that the flags `--payload` and `--where` make.
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

    /// Whether it lets everything through.
    pub(super) fn is_empty(&self) -> bool {
        self.payloads.is_empty() && self.conditions.is_empty()
    }

    /// Whether the event, given as canonical JSON, is to be printed.
    pub(super) fn lets_through(&self, event: &Value) -> bool {
        let has_payload = |name: &String| event.get(name).is_some();
        (self.payloads.is_empty() || self.payloads.iter().any(has_payload))
            && self.conditions.iter().all(|it| it.holds(event))
    }
}
