//! Explains which annotated field of an event gave which topic, for display to users. Walks
//! over the decoded message; routing walks over the bytes instead, and a test compares
//! both.

use prost::Message as _;
use prost_reflect::{DynamicMessage, MapKey, Value};

use super::{
    Schema,
    error::{WireError, WireFault},
    table::{RoutingTable, TableField, TypeIndex, ValueShape},
    topics::FoundTopics,
};
use crate::Topic;

/// The value of one annotated field of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotatedValue {
    /// The path of the field in the envelope, such as `order.lines[0].product_id` or
    /// `order.parts{"wheel"}.id`.
    pub path: String,
    /// The kind of topic that the annotation names; `None` if the value is a whole topic.
    pub kind: Option<String>,
    /// The value; empty if the field is not set.
    pub value: String,
    /// The topic that the value names; `None` if the value is empty.
    pub topic: Option<Topic>,
}

impl Schema {
    /// Returns the annotated fields of an event, sorted by field number: those that have a
    /// value, and the unset ones of the messages that are present.
    ///
    /// # Errors
    ///
    /// As for [`inspect`](Self::inspect).
    pub fn explain_topics(&self, envelope: &[u8]) -> Result<Vec<AnnotatedValue>, WireError> {
        self.inspect(envelope)?;
        let mut message = DynamicMessage::new(self.envelope.clone());
        message
            .merge(envelope)
            .map_err(|_| WireError::without_offset(WireFault::Undecodable))?;
        let mut explanation = TopicExplainer {
            table: &self.table,
            found: Vec::new(),
        };
        explanation.visit_message(RoutingTable::ENVELOPE, &message, "")?;
        Ok(explanation.found)
    }
}

struct TopicExplainer<'t> {
    table: &'t RoutingTable,
    found: Vec<AnnotatedValue>,
}

impl TopicExplainer<'_> {
    fn visit_message(
        &mut self,
        index: TypeIndex,
        message: &DynamicMessage,
        path: &str,
    ) -> Result<(), WireError> {
        let Some(kind) = self.table.get(index) else {
            return Ok(());
        };
        let fields = message.fields().map(|(it, value)| (it.number(), value));
        let extensions = message.extensions().map(|(it, value)| (it.number(), value));
        let set: Vec<_> = fields.chain(extensions).collect();
        for field in kind.fields().filter(|field| field.is_routing) {
            let value = set.iter().find(|(number, _)| *number == field.number);
            let path = join_path(path, &field.name);
            match value {
                Some((_, value)) => self.visit_field(field, value, &path)?,
                None => self.add_unset(field, path),
            }
        }
        Ok(())
    }

    /// Adds an annotated field that has no value. Skips members of a oneof, because another
    /// member may be set instead.
    fn add_unset(&mut self, field: &TableField, path: String) {
        if let Some(source) = &field.topic
            && !field.is_list()
            && !field.is_in_oneof()
        {
            self.found.push(AnnotatedValue {
                path,
                kind: source.kind().map(str::to_owned),
                value: String::new(),
                topic: None,
            });
        }
    }

    fn visit_field(
        &mut self,
        field: &TableField,
        value: &Value,
        path: &str,
    ) -> Result<(), WireError> {
        match value {
            Value::List(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.visit_value(field, value, format!("{path}[{index}]"))?;
                }
                Ok(())
            }
            Value::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                for (key, value) in entries {
                    self.visit_map_entry(field, value, format!("{path}{{{}}}", key_text(key)))?;
                }
                Ok(())
            }
            value => self.visit_value(field, value, path.to_owned()),
        }
    }

    fn visit_value(
        &mut self,
        field: &TableField,
        value: &Value,
        path: String,
    ) -> Result<(), WireError> {
        match (field.shape, value, &field.topic) {
            (ValueShape::Message(index), Value::Message(message), _) => {
                self.visit_message(index, message, &path)
            }
            (ValueShape::String, Value::String(value), Some(source)) => {
                let mut topics = FoundTopics::default();
                topics
                    .add_value(source, value)
                    .map_err(|fault| WireError::without_offset(fault).in_field(&path, None))?;
                self.found.push(AnnotatedValue {
                    path,
                    kind: source.kind().map(str::to_owned),
                    value: value.clone(),
                    topic: topics.into_vec().pop(),
                });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Visits the value of a map entry, which the table describes as a field of the entry.
    fn visit_map_entry(
        &mut self,
        field: &TableField,
        value: &Value,
        path: String,
    ) -> Result<(), WireError> {
        let ValueShape::MapEntry(index) = field.shape else {
            return Ok(());
        };
        match self.table.map_value(index) {
            Some(field) => self.visit_value(field, value, path),
            None => Ok(()),
        }
    }
}

fn join_path(path: &str, name: &str) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    format!("{path}{dot}{name}")
}

/// Formats a map key for a path. Strings are quoted.
fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => format!("{key:?}"),
    }
}
