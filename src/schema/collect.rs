//! Collects the topics of a decoded message, for the rare envelopes in which fields replace
//! each other or merge. The result of decoding with prost-reflect is authoritative.

use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use super::{
    error::{Fault, WireError},
    table::{Field, Shape, Table, TypeIndex},
    topics::Topics,
};

/// Returns the topics of the envelope, ordered by field number and within maps by key.
pub(super) fn collect(
    table: &Table,
    descriptor: &MessageDescriptor,
    envelope: &[u8],
    topics_max: usize,
) -> Result<Topics, WireError> {
    let mut message = DynamicMessage::new(descriptor.clone());
    message
        .merge(envelope)
        .map_err(|_| WireError::unplaced(Fault::Undecodable))?;
    let mut collect = Collect {
        table,
        topics_max,
        topics: Topics::default(),
    };
    collect.message(Table::ENVELOPE, &message)?;
    Ok(collect.topics)
}

struct Collect<'t> {
    table: &'t Table,
    topics_max: usize,
    topics: Topics,
}

impl Collect<'_> {
    fn message(&mut self, index: TypeIndex, message: &DynamicMessage) -> Result<(), WireError> {
        let Some(kind) = self.table.get(index) else {
            return Ok(());
        };
        let fields = message
            .fields()
            .map(|(field, value)| (field.number(), value));
        let extensions = message
            .extensions()
            .map(|(field, value)| (field.number(), value));
        for (number, value) in fields.chain(extensions) {
            if let Some(field) = kind.field(number).filter(|field| field.is_routing) {
                self.field(field, value)?;
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, value: &Value) -> Result<(), WireError> {
        match value {
            Value::List(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.value(field, value)
                        .map_err(|error| error.within(&field.name, Some(index)))?;
                }
                Ok(())
            }
            Value::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                for (_, value) in entries {
                    self.entry(field, value)
                        .map_err(|error| error.within(&field.name, None))?;
                }
                Ok(())
            }
            value => self
                .value(field, value)
                .map_err(|error| error.within(&field.name, None)),
        }
    }

    fn value(&mut self, field: &Field, value: &Value) -> Result<(), WireError> {
        match (field.shape, value) {
            (Shape::Message(index), Value::Message(message)) => self.message(index, message),
            (Shape::String, Value::String(id)) => {
                let Some(source) = &field.topic else {
                    return Ok(());
                };
                self.topics
                    .add_value(source, id)
                    .map_err(WireError::unplaced)?;
                if self.topics.len() > self.topics_max {
                    return Err(WireError::unplaced(Fault::TooManyTopics));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Visits the value of a map entry, which the table describes as a field of the entry.
    fn entry(&mut self, field: &Field, value: &Value) -> Result<(), WireError> {
        let Shape::MapEntry(index) = field.shape else {
            return Ok(());
        };
        match self.table.map_value(index) {
            Some(field) => self.field(field, value),
            None => Ok(()),
        }
    }
}
