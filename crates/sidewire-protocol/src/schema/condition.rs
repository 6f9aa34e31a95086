//! A condition on an event: a path to a field and the value that it must have, as typed by
//! a user. It is checked against the schema once, then evaluated on the JSON of events.

use std::str::FromStr;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

use super::Schema;
use crate::suggest::nearest_name;

/// `path.to.field=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventCondition {
    /// The keys of the path through the event's JSON.
    keys: Vec<String>,
    value: String,
    /// True for a `float`. Its JSON has only as many digits as distinguish it from other
    /// floats.
    is_float: bool,
    /// True if `value` is the field's default, which JSON omits.
    is_default: bool,
}

/// The reason why a text is not a valid condition for the events of a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// There is no `=`.
    #[error("has no `=` between a field and a value")]
    NoValue,
    /// A message does not have the field.
    #[error("{message} has no field `{name}`{}", suggestion_text(.nearest.as_deref(), .known))]
    UnknownField {
        /// The message's full name.
        message: String,
        /// The unknown field.
        name: String,
        /// The name that was probably meant.
        nearest: Option<String>,
        /// The names of the message's fields.
        known: Vec<String>,
    },
    /// The path continues below a field that has no fields.
    #[error("`{name}` has no fields")]
    NoFields {
        /// The field.
        name: String,
    },
    /// The path ends at something that is not a single value.
    #[error("`{name}` is {what}; name one of its {parts}")]
    NoSingleValue {
        /// The field.
        name: String,
        /// A description of it, with an article.
        what: &'static str,
        /// The name of its parts.
        parts: &'static str,
    },
    /// The field cannot have the value.
    #[error("`{name}` cannot be `{value}`: it is {wanted}")]
    Impossible {
        /// The field.
        name: String,
        /// The value.
        value: String,
        /// A description of the values that it can have.
        wanted: String,
    },
}

fn suggestion_text(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; it has {}", known.join(", ")),
    }
}

/// The position that a path has reached.
enum PathPosition {
    Message(MessageDescriptor),
    /// A map, with the kind of its values. The next part of the path is a key.
    Map(Kind),
    /// A value without fields.
    Leaf(Kind),
    /// Free-form JSON of the application.
    Json,
    /// A value that JSON represents as a string.
    Text,
}

impl EventCondition {
    /// Parses `path.to.field=value`. Fields are named as in the .proto or as in JSON. The
    /// path begins at the envelope and passes through lists implicitly. Below a map, and in
    /// a google.protobuf.Struct or Value, it continues with keys.
    ///
    /// # Errors
    ///
    /// Fails if the schema has no such field, or if the field cannot have the value.
    pub fn parse(schema: &Schema, text: &str) -> Result<Self, ConditionError> {
        let (path, value) = text.split_once('=').ok_or(ConditionError::NoValue)?;
        let mut place = PathPosition::Message(schema.envelope.clone());
        let mut keys = Vec::new();
        let mut last = None;
        for part in path.split('.') {
            let name = part.trim_end_matches("[]").trim_end_matches("{}");
            let (key, next, field) = place.next_step(name)?;
            keys.push(key);
            last = field;
            place = next;
        }
        let is_float = matches!(place, PathPosition::Leaf(Kind::Float));
        let value = place.json_value(path, value)?;
        let default = last.filter(|field: &FieldDescriptor| {
            !field.supports_presence() && !field.is_list() && !field.is_map()
        });
        let mut condition = Self {
            keys,
            value,
            is_float,
            is_default: false,
        };
        condition.is_default =
            default.is_some_and(|field| condition.is_value(&default_value(&field)));
        Ok(condition)
    }

    /// Returns true if the event, given as canonical JSON, has the value at the path. In a
    /// list, one matching element is enough.
    #[must_use]
    pub fn is_met_by(&self, event: &Value) -> bool {
        self.is_met_at(event, &self.keys)
    }

    fn is_met_at(&self, value: &Value, keys: &[String]) -> bool {
        if let Value::Array(values) = value {
            return values.iter().any(|value| self.is_met_at(value, keys));
        }
        let Some((key, rest)) = keys.split_first() else {
            return self.is_value(value);
        };
        match value.get(key) {
            Some(value) => self.is_met_at(value, rest),
            None => rest.is_empty() && self.is_default && value.is_object(),
        }
    }

    fn is_value(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => *text == self.value,
            Value::Number(number) => {
                let text = number.to_string();
                text == self.value
                    || match self.is_float {
                        // Two representations of the same float may be different doubles.
                        true => is_same::<f32>(&text, &self.value),
                        false => is_same::<f64>(&text, &self.value),
                    }
            }
            Value::Bool(flag) => flag.to_string() == self.value,
            Value::Null => self.value == "null",
            Value::Array(_) | Value::Object(_) => false,
        }
    }
}

fn is_same<T: FromStr + PartialEq>(one: &str, other: &str) -> bool {
    let (one, other) = (one.parse::<T>(), other.parse::<T>());
    matches!((one, other), (Ok(one), Ok(other)) if one == other)
}

impl PathPosition {
    /// Follows one part of the path. Returns its key in JSON, the position after it, and the
    /// field if it is one.
    fn next_step(
        self,
        name: &str,
    ) -> Result<(String, Self, Option<FieldDescriptor>), ConditionError> {
        match self {
            Self::Message(message) => {
                let mut fields = message.fields();
                let field = fields.find(|it| it.name() == name || it.json_name() == name);
                let field = field.ok_or_else(|| unknown_field(&message, name))?;
                let place = Self::of_field(&field);
                Ok((field.json_name().to_owned(), place, Some(field)))
            }
            Self::Map(kind) => Ok((name.to_owned(), Self::of_kind(kind), None)),
            Self::Json => Ok((name.to_owned(), Self::Json, None)),
            Self::Leaf(_) | Self::Text => Err(ConditionError::NoFields {
                name: name.to_owned(),
            }),
        }
    }

    fn of_field(field: &FieldDescriptor) -> Self {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                Self::Map(entry.map_entry_value_field().kind())
            }
            kind => Self::of_kind(kind),
        }
    }

    fn of_kind(kind: Kind) -> Self {
        let Kind::Message(message) = kind else {
            return Self::Leaf(kind);
        };
        match message.full_name() {
            "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => {
                Self::Json
            }
            "google.protobuf.Empty" => Self::Message(message),
            name if name.starts_with("google.protobuf.") => Self::Text,
            _ => Self::Message(message),
        }
    }

    /// Returns the value in its JSON form. Must be called at the end of the path.
    fn json_value(self, path: &str, value: &str) -> Result<String, ConditionError> {
        let not_single = |what, parts| ConditionError::NoSingleValue {
            name: path.to_owned(),
            what,
            parts,
        };
        match self {
            Self::Message(_) => Err(not_single("a message", "fields")),
            Self::Map(_) => Err(not_single("a map", "keys")),
            Self::Json | Self::Text => Ok(value.to_owned()),
            Self::Leaf(kind) => {
                leaf_value(&kind, value).map_err(|wanted| ConditionError::Impossible {
                    name: path.to_owned(),
                    value: value.to_owned(),
                    wanted,
                })
            }
        }
    }
}

/// Returns the JSON form of a scalar, or, as an error, a description of the valid values.
fn leaf_value(kind: &Kind, value: &str) -> Result<String, String> {
    let is_fit = match kind {
        Kind::Enum(kind) => {
            let mut values = kind.values();
            let known = values.find(|it| it.name() == value || it.number().to_string() == value);
            // If a number has several names, JSON uses one of them.
            let shown = known.and_then(|known| kind.get_value(known.number()));
            let names: Vec<_> = kind.values().map(|it| it.name().to_owned()).collect();
            // JSON writes a number that has no name as a number.
            return match shown {
                Some(shown) => Ok(shown.name().to_owned()),
                None if value.parse::<i32>().is_ok() => Ok(value.to_owned()),
                None => Err(format!("one of {}", names.join(", "))),
            };
        }
        Kind::Bool => matches!(value, "true" | "false"),
        Kind::String | Kind::Bytes => true,
        Kind::Double | Kind::Float => value.parse::<f64>().is_ok(),
        _ => {
            let number = value.parse::<i128>().map_err(|_| "a number".to_owned());
            return number.map(|number| number.to_string());
        }
    };
    let wanted = if *kind == Kind::Bool {
        "true or false"
    } else {
        "a number"
    };
    match is_fit {
        true => Ok(value.to_owned()),
        false => Err(wanted.to_owned()),
    }
}

/// Returns the value that JSON would contain if it included defaults.
fn default_value(field: &FieldDescriptor) -> Value {
    match field.kind() {
        Kind::Enum(kind) => kind
            .get_value(kind.default_value().number())
            .map_or(Value::Null, |shown| shown.name().into()),
        Kind::Bool => false.into(),
        Kind::String | Kind::Bytes => "".into(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => "0".into(),
        _ => 0.into(),
    }
}

fn unknown_field(message: &MessageDescriptor, name: &str) -> ConditionError {
    let known: Vec<_> = message.fields().map(|it| it.name().to_owned()).collect();
    let near = nearest_name(name, known.iter().map(String::as_str));
    ConditionError::UnknownField {
        message: message.full_name().to_owned(),
        name: name.to_owned(),
        nearest: near.map(str::to_owned),
        known,
    }
}
