//! Explains which annotated field of an event gave which topic, for display to users. Walks
//! over the decoded message; routing walks over the bytes instead, and a test compares
//! both.

use prost::Message as _;
use prost_reflect::{DynamicMessage, MapKey, Value};

use super::{
    Schema,
    error::{Fault, WireError},
    table::{Field, Shape, Table, TypeIndex},
    topics::Topics,
};
use crate::protocol::Topic;

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
    pub fn explain(&self, envelope: &[u8]) -> Result<Vec<AnnotatedValue>, WireError> {
        self.inspect(envelope)?;
        let mut message = DynamicMessage::new(self.envelope.clone());
        message
            .merge(envelope)
            .map_err(|_| WireError::unplaced(Fault::Undecodable))?;
        let mut explanation = Explanation {
            table: &self.table,
            found: Vec::new(),
        };
        explanation.message(Table::ENVELOPE, &message, "")?;
        Ok(explanation.found)
    }
}

struct Explanation<'t> {
    table: &'t Table,
    found: Vec<AnnotatedValue>,
}

impl Explanation<'_> {
    fn message(
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
            let path = joined(path, &field.name);
            match value {
                Some((_, value)) => self.field(field, value, &path)?,
                None => self.unset(field, path),
            }
        }
        Ok(())
    }

    /// Adds an annotated field that has no value. Skips members of a oneof, because another
    /// member may be set instead.
    fn unset(&mut self, field: &Field, path: String) {
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

    fn field(&mut self, field: &Field, value: &Value, path: &str) -> Result<(), WireError> {
        match value {
            Value::List(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.value(field, value, format!("{path}[{index}]"))?;
                }
                Ok(())
            }
            Value::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                for (key, value) in entries {
                    self.entry(field, value, format!("{path}{{{}}}", key_text(key)))?;
                }
                Ok(())
            }
            value => self.value(field, value, path.to_owned()),
        }
    }

    fn value(&mut self, field: &Field, value: &Value, path: String) -> Result<(), WireError> {
        match (field.shape, value, &field.topic) {
            (Shape::Message(index), Value::Message(message), _) => {
                self.message(index, message, &path)
            }
            (Shape::String, Value::String(value), Some(source)) => {
                let mut topics = Topics::default();
                topics
                    .add_value(source, value)
                    .map_err(|fault| WireError::unplaced(fault).within(&path, None))?;
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
    fn entry(&mut self, field: &Field, value: &Value, path: String) -> Result<(), WireError> {
        let Shape::MapEntry(index) = field.shape else {
            return Ok(());
        };
        match self.table.map_value(index) {
            Some(field) => self.value(field, value, path),
            None => Ok(()),
        }
    }
}

fn joined(path: &str, name: &str) -> String {
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
