//! The parts of a schema that are visible on the wire, in JSON and to the relay, for
//! comparing schemas and computing revisions. Excludes comments, the order of files and
//! declarations, and messages that no envelope can contain.
//!
//! A revision is the hash of an outline's JSON, so two releases of the relay show the same
//! revision only if the names and the order of the fields here stay unchanged. A test pins
//! it.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    ops::Range,
};

use prost_reflect::{EnumDescriptor, Kind, MessageDescriptor, Value};
use serde::Serialize;

use super::annotations::{Annotations, DeclaredField};

/// All messages and enums that an envelope can contain, by full name.
#[derive(Debug, Serialize)]
pub(super) struct SchemaOutline {
    pub(super) envelope: String,
    pub(super) messages: BTreeMap<String, MessageOutline>,
    pub(super) enums: BTreeMap<String, EnumOutline>,
}

#[derive(Debug, Serialize)]
pub(super) struct MessageOutline {
    pub(super) fields: BTreeMap<u32, FieldOutline>,
    /// True if the message itself has the option; `presence` implies it.
    pub(super) client_publish: bool,
    pub(super) presence: bool,
    pub(super) reserved: ReservedFields,
}

/// The numbers and names that no field may have.
#[derive(Debug, Serialize)]
pub(super) struct ReservedFields {
    numbers: Vec<Range<u32>>,
    names: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct FieldOutline {
    pub(super) name: String,
    pub(super) json_name: String,
    pub(super) label: FieldLabel,
    pub(super) value: ValueType,
    /// True if a message distinguishes the default value from an unset field.
    pub(super) has_presence: bool,
    /// The default value; `None` for messages and repeated fields.
    pub(super) default: Option<String>,
    pub(super) oneof: Option<String>,
    /// The kind, or `*`.
    pub(super) topic: Option<String>,
    pub(super) sender: bool,
    pub(super) absent: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum FieldLabel {
    Singular,
    Required,
    Repeated,
    Map,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) enum ValueType {
    Scalar(String),
    Message(String),
    Enum(String),
    Map { key: Box<Self>, value: Box<Self> },
}

#[derive(Debug, Serialize)]
pub(super) struct EnumOutline {
    /// The number of each name.
    pub(super) numbers: BTreeMap<String, i32>,
    /// The name that JSON uses for each number.
    pub(super) names: BTreeMap<i32, String>,
}

impl SchemaOutline {
    /// Builds the outline of everything that the envelope can contain.
    pub(super) fn of_envelope(envelope: &MessageDescriptor, annotations: &Annotations) -> Self {
        let mut outline = Self {
            envelope: envelope.full_name().to_owned(),
            messages: BTreeMap::new(),
            enums: BTreeMap::new(),
        };
        let mut waiting = VecDeque::from([envelope.clone()]);
        while let Some(message) = waiting.pop_front() {
            if outline.messages.contains_key(message.full_name()) {
                continue;
            }
            let mut fields = BTreeMap::new();
            for field in annotations.annotated_fields(&message) {
                outline.note_type(&field.kind, &mut waiting);
                fields.insert(field.number, FieldOutline::of(field));
            }
            outline.messages.insert(
                message.full_name().to_owned(),
                MessageOutline {
                    fields,
                    client_publish: annotations.has_client_publish(&message),
                    presence: annotations.is_presence(&message),
                    reserved: ReservedFields::in_message(&message),
                },
            );
        }
        outline
    }

    /// Records the message or enum type of a field.
    fn note_type(&mut self, kind: &Kind, waiting: &mut VecDeque<MessageDescriptor>) {
        match kind {
            Kind::Message(entry) if entry.is_map_entry() => {
                self.note_type(&entry.map_entry_value_field().kind(), waiting);
            }
            Kind::Message(message) => waiting.push_back(message.clone()),
            Kind::Enum(values) => {
                let name = values.full_name().to_owned();
                self.enums
                    .entry(name)
                    .or_insert_with(|| EnumOutline::of(values));
            }
            _ => {}
        }
    }
}

impl MessageOutline {
    /// Returns the number of the field with this name.
    pub(super) fn number_of(&self, name: &str) -> Option<u32> {
        let mut fields = self.fields.iter();
        fields
            .find(|(_, field)| field.name == name)
            .map(|(number, _)| *number)
    }

    /// Returns true if both the number and the name are reserved.
    pub(super) fn has_reserved(&self, number: u32, name: &str) -> bool {
        let ReservedFields { numbers, names } = &self.reserved;
        numbers.iter().any(|range| range.contains(&number))
            && names.iter().any(|reserved| reserved == name)
    }
}

impl ReservedFields {
    /// Returns the reservations that `other` lacks, in .proto syntax. Ignores the numbers
    /// in `free`.
    pub(super) fn missing_in(&self, other: &Self, free: &[Range<u32>]) -> Vec<String> {
        let mut missing = Vec::new();
        for range in &self.numbers {
            let mut rest = vec![range.clone()];
            for covered in other.numbers.iter().chain(free) {
                rest = rest
                    .into_iter()
                    .flat_map(|it| {
                        let below = it.start..it.end.min(covered.start);
                        let above = it.start.max(covered.end)..it.end;
                        [below, above]
                    })
                    .filter(|it| !it.is_empty())
                    .collect();
            }
            missing.extend(rest.into_iter().map(|it| match it.end - it.start {
                1 => it.start.to_string(),
                _ => format!("{} to {}", it.start, it.end - 1),
            }));
        }
        let names = self.names.iter().filter(|name| !other.names.contains(name));
        missing.extend(names.map(|name| format!("`{name}`")));
        missing
    }

    fn in_message(message: &MessageDescriptor) -> Self {
        let mut numbers: Vec<_> = message.reserved_ranges().collect();
        numbers.sort_unstable_by_key(|range| (range.start, range.end));
        let mut names: Vec<_> = message.reserved_names().map(str::to_owned).collect();
        names.sort_unstable();
        Self { numbers, names }
    }
}

impl FieldOutline {
    fn of(field: DeclaredField) -> Self {
        Self {
            default: default_text(&field),
            topic: field
                .topic
                .map(|source| source.kind().unwrap_or("*").to_owned()),
            sender: field.is_sender,
            absent: field.absent,
            label: match () {
                () if field.is_map => FieldLabel::Map,
                () if field.is_repeated => FieldLabel::Repeated,
                () if field.is_required => FieldLabel::Required,
                () => FieldLabel::Singular,
            },
            value: ValueType::of_kind(&field.kind),
            has_presence: field.has_presence,
            name: field.name,
            json_name: field.json_name,
            oneof: field.oneof,
        }
    }

    /// Returns the declaration in .proto syntax, without the number.
    pub(super) fn declaration(&self) -> String {
        format!("{}{} {}", self.label, self.value, self.name)
    }
}

fn default_text(field: &DeclaredField) -> Option<String> {
    if field.is_repeated {
        return None;
    }
    Some(match &field.default {
        Value::Message(_) | Value::List(_) | Value::Map(_) => return None,
        Value::EnumNumber(number) => {
            let value = field.kind.as_enum()?.get_value(*number)?;
            value.name().to_owned()
        }
        Value::String(text) => text.clone(),
        Value::Bytes(bytes) => format!("{bytes:?}"),
        Value::Bool(flag) => flag.to_string(),
        Value::I32(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        Value::U32(number) => number.to_string(),
        Value::U64(number) => number.to_string(),
        Value::F32(number) => number.to_string(),
        Value::F64(number) => number.to_string(),
    })
}

impl ValueType {
    fn of_kind(kind: &Kind) -> Self {
        match kind {
            Kind::Message(entry) if entry.is_map_entry() => Self::Map {
                key: Box::new(Self::of_kind(&entry.map_entry_key_field().kind())),
                value: Box::new(Self::of_kind(&entry.map_entry_value_field().kind())),
            },
            Kind::Message(message) => Self::Message(message.full_name().to_owned()),
            Kind::Enum(values) => Self::Enum(values.full_name().to_owned()),
            scalar => Self::Scalar(format!("{scalar:?}")),
        }
    }
}

impl EnumOutline {
    fn of(values: &EnumDescriptor) -> Self {
        let shown = |number| Some((number, values.get_value(number)?.name().to_owned()));
        Self {
            numbers: values
                .values()
                .map(|value| (value.name().to_owned(), value.number()))
                .collect(),
            names: values
                .values()
                .filter_map(|value| shown(value.number()))
                .collect(),
        }
    }
}

impl fmt::Display for FieldLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            // The type already identifies a map.
            Self::Singular | Self::Map => "",
            Self::Required => "required ",
            Self::Repeated => "repeated ",
        })
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(name) | Self::Message(name) | Self::Enum(name) => f.write_str(name),
            Self::Map { key, value } => write!(f, "map<{key}, {value}>"),
        }
    }
}
