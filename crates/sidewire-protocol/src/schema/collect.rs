//! Collects the topics of a decoded message, for the rare envelopes in which fields replace
//! each other or merge. The result of decoding with prost-reflect is authoritative.

use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use super::{
    error::{WireError, WireFault},
    table::{RoutingTable, TableField, TypeIndex, ValueShape},
    topics::FoundTopics,
};

/// Returns the topics that the bytes of a message name, ordered by field number and within
/// maps by key. `index` is the message in the table.
pub(super) fn collect_topics(
    table: &RoutingTable,
    index: TypeIndex,
    descriptor: &MessageDescriptor,
    bytes: &[u8],
    topics_max: usize,
) -> Result<FoundTopics, WireError> {
    let mut message = DynamicMessage::new(descriptor.clone());
    message
        .merge(bytes)
        .map_err(|_| WireError::without_offset(WireFault::Undecodable))?;
    let mut collect = TopicCollector {
        table,
        topics_max,
        topics: FoundTopics::default(),
    };
    collect.visit_message(index, &message)?;
    Ok(collect.topics)
}

struct TopicCollector<'t> {
    table: &'t RoutingTable,
    topics_max: usize,
    topics: FoundTopics,
}

impl TopicCollector<'_> {
    fn visit_message(
        &mut self,
        index: TypeIndex,
        message: &DynamicMessage,
    ) -> Result<(), WireError> {
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
                self.visit_field(field, value)?;
            }
        }
        Ok(())
    }

    fn visit_field(&mut self, field: &TableField, value: &Value) -> Result<(), WireError> {
        match value {
            Value::List(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.visit_value(field, value)
                        .map_err(|error| error.in_field(&field.name, Some(index)))?;
                }
                Ok(())
            }
            Value::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                for (_, value) in entries {
                    self.visit_map_entry(field, value)
                        .map_err(|error| error.in_field(&field.name, None))?;
                }
                Ok(())
            }
            value => self
                .visit_value(field, value)
                .map_err(|error| error.in_field(&field.name, None)),
        }
    }

    fn visit_value(&mut self, field: &TableField, value: &Value) -> Result<(), WireError> {
        match (field.shape, value) {
            (ValueShape::Message(index), Value::Message(message)) => {
                self.visit_message(index, message)
            }
            (ValueShape::String, Value::String(id)) => {
                let Some(source) = &field.topic else {
                    return Ok(());
                };
                self.topics
                    .add_value(source, id)
                    .map_err(WireError::without_offset)?;
                if self.topics.len() > self.topics_max {
                    return Err(WireError::without_offset(WireFault::TooManyTopics));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Visits the value of a map entry, which the table describes as a field of the entry.
    fn visit_map_entry(&mut self, field: &TableField, value: &Value) -> Result<(), WireError> {
        let ValueShape::MapEntry(index) = field.shape else {
            return Ok(());
        };
        match self.table.map_value(index) {
            Some(field) => self.visit_field(field, value),
            None => Ok(()),
        }
    }
}
