//! The schema in the form that the walk needs: a few dense arrays for each message, so that
//! reading an event requires no hashing and no allocation.

use std::collections::HashMap;

use prost_reflect::{Kind, MessageDescriptor};

use super::{
    annotations::{Annotations, DeclaredField, TopicSource},
    relay_fields::{PAYLOAD, is_relay_number},
    report::SchemaReport,
};

/// Field numbers below this limit are looked up by index, others by binary search.
const LOW_NUMBERS: u32 = 64;

/// The field number of the value in a map entry.
pub(super) const MAP_VALUE: u32 = 2;

/// The index of a message in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TypeIndex(usize);

/// All messages that an envelope can contain, the envelope first.
#[derive(Debug)]
pub(super) struct RoutingTable(Vec<MessageType>);

/// A message, as the walk needs it.
#[derive(Debug)]
pub(super) struct MessageType {
    /// The fields, sorted by number.
    fields: Vec<TableField>,
    /// For each low number, the field's index plus one, or 0.
    low: Vec<usize>,
    pub(super) is_map_entry: bool,
}

/// A field, as the walk needs it.
#[derive(Debug)]
pub(super) struct TableField {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) shape: ValueShape,
    pub(super) is_repeated: bool,
    /// The source of topics, if the field is annotated with one.
    pub(super) topic: Option<TopicSource>,
    /// True if the field or one below it is annotated.
    pub(super) is_routing: bool,
    /// A bit shared by a routing field and the fields that can replace or merge its value;
    /// 0 for other fields. If a bit occurs twice in one message, the topics depend on order
    /// and merging.
    pub(super) watch: u64,
    oneof: Option<String>,
    /// True for a field of the envelope that is a member of the oneof `payload`.
    pub(super) is_payload: bool,
    /// True for a payload of the application that clients may send.
    pub(super) is_client_event: bool,
    /// True if the relay writes the sender of a client event into this field.
    pub(super) is_sender: bool,
    /// True for one of the relay's fields in the envelope, below which annotations are
    /// ignored.
    is_relays: bool,
}

/// The layout of a field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueShape {
    Varint,
    Fixed32,
    Fixed64,
    String,
    Bytes,
    Message(TypeIndex),
    /// An entry of a map, which is a message with a key and a value.
    MapEntry(TypeIndex),
}

impl RoutingTable {
    /// Builds the table. Also returns the messages, sorted by their indexes. Reports fields
    /// that the relay could not inspect.
    pub(super) fn from_envelope(
        envelope: &MessageDescriptor,
        annotations: &Annotations,
        report: &mut SchemaReport,
    ) -> (Self, Vec<MessageDescriptor>) {
        let client_publish = annotations.client_publish_numbers(envelope);
        let mut found = MessageIndex::default();
        found.index_of(envelope);
        let mut types = Vec::new();
        while let Some(message) = found.messages.get(types.len()).cloned() {
            types.push(message_type(&message, annotations, &mut found, report));
        }
        if let Some(envelope) = types.first_mut() {
            for field in &mut envelope.fields {
                field.mark_envelope_field(&client_publish);
            }
        }
        mark_routing(&mut types);
        types.iter_mut().for_each(assign_watch_bits);
        (Self(types), found.messages)
    }

    pub(super) const ENVELOPE: TypeIndex = TypeIndex(0);

    pub(super) fn get(&self, index: TypeIndex) -> Option<&MessageType> {
        self.0.get(index.0)
    }

    /// Returns the message of the payload with this number.
    pub(super) fn payload_type(&self, number: u32) -> Option<TypeIndex> {
        self.get(Self::ENVELOPE)?.field(number)?.nested_type()
    }

    /// Returns the field that holds the values of a map, given the type of its entries.
    pub(super) fn map_value(&self, entry: TypeIndex) -> Option<&TableField> {
        self.get(entry)?.field(MAP_VALUE)
    }

    /// Returns the message at this index.
    pub(super) fn message_at(&self, index: usize) -> Option<&MessageType> {
        self.0.get(index)
    }

    /// Returns true if any message has a map.
    pub(super) fn has_maps(&self) -> bool {
        self.0.iter().any(|message| message.is_map_entry)
    }
}

impl MessageType {
    pub(super) fn fields(&self) -> impl Iterator<Item = &TableField> {
        self.fields.iter()
    }

    pub(super) fn field(&self, number: u32) -> Option<&TableField> {
        if number < LOW_NUMBERS {
            let slot = *self.low.get(usize::try_from(number).ok()?)?;
            return self.fields.get(slot.checked_sub(1)?);
        }
        let found = self
            .fields
            .binary_search_by_key(&number, |field| field.number);
        self.fields.get(found.ok()?)
    }
}

impl TableField {
    /// Sets the properties that only the envelope's fields have. `client_publish` are the
    /// numbers of those that hold messages that clients may send.
    fn mark_envelope_field(&mut self, client_publish: &[u32]) {
        self.is_relays = is_relay_number(self.number);
        self.is_payload = self.oneof.as_deref() == Some(PAYLOAD);
        self.is_client_event =
            self.is_payload && !self.is_relays && client_publish.contains(&self.number);
    }

    /// Returns true if a message may have several values of the field.
    pub(super) fn is_list(&self) -> bool {
        self.is_repeated && !self.is_map_entry()
    }

    /// Returns true if another field can replace it.
    pub(super) fn is_in_oneof(&self) -> bool {
        self.oneof.is_some()
    }

    fn is_map_entry(&self) -> bool {
        matches!(self.shape, ValueShape::MapEntry(_))
    }

    /// Returns the message type of its value, if it is a message.
    fn nested_type(&self) -> Option<TypeIndex> {
        match self.shape {
            ValueShape::Message(index) | ValueShape::MapEntry(index) => Some(index),
            _ => None,
        }
    }
}

/// The messages found so far, which are indexed in this order.
#[derive(Default)]
struct MessageIndex {
    messages: Vec<MessageDescriptor>,
    indexes: HashMap<String, TypeIndex>,
}

impl MessageIndex {
    fn index_of(&mut self, message: &MessageDescriptor) -> TypeIndex {
        let next = TypeIndex(self.messages.len());
        let name = message.full_name().to_owned();
        let messages = &mut self.messages;
        *self.indexes.entry(name).or_insert_with(|| {
            messages.push(message.clone());
            next
        })
    }
}

fn message_type(
    message: &MessageDescriptor,
    annotations: &Annotations,
    found: &mut MessageIndex,
    report: &mut SchemaReport,
) -> MessageType {
    let mut fields = Vec::new();
    for field in annotations.annotated_fields(message) {
        fields.push(TableField {
            number: field.number,
            shape: shape_of(&field, found, report),
            is_repeated: field.is_repeated,
            topic: field.topic,
            is_routing: false,
            watch: 0,
            name: field.name,
            oneof: field.oneof,
            is_payload: false,
            is_client_event: false,
            is_sender: field.is_sender,
            is_relays: false,
        });
    }
    fields.sort_by_key(|field| field.number);
    MessageType {
        low: low_numbers(&fields),
        fields,
        is_map_entry: message.is_map_entry(),
    }
}

fn shape_of(
    field: &DeclaredField,
    found: &mut MessageIndex,
    report: &mut SchemaReport,
) -> ValueShape {
    let name = &field.full_name;
    if field.is_group {
        report.error(
            field,
            format!("{name} is a group, which the relay does not support"),
            "declare a message and a field of that type",
        );
        return ValueShape::Bytes;
    }
    match &field.kind {
        Kind::Bool | Kind::Enum(_) => ValueShape::Varint,
        Kind::Int32 | Kind::Uint32 | Kind::Sint32 => ValueShape::Varint,
        Kind::Int64 | Kind::Uint64 | Kind::Sint64 => ValueShape::Varint,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => ValueShape::Fixed32,
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => ValueShape::Fixed64,
        Kind::String => ValueShape::String,
        Kind::Bytes => ValueShape::Bytes,
        Kind::Message(message) if is_any(message) => {
            report.error(
                field,
                format!("{name} holds google.protobuf.Any, and the relay cannot see which topics are in it"),
                "declare a oneof of the messages that it may hold",
            );
            ValueShape::Bytes
        }
        Kind::Message(message) if field.is_map => ValueShape::MapEntry(found.index_of(message)),
        Kind::Message(message) => ValueShape::Message(found.index_of(message)),
    }
}

/// Returns true if the message is an `Any`, or the entry of a map with such values. A map
/// entry has no line of its own.
fn is_any(message: &MessageDescriptor) -> bool {
    const ANY: &str = "google.protobuf.Any";
    let holds_any = || {
        let value = message.map_entry_value_field().kind();
        value.as_message().is_some_and(|it| it.full_name() == ANY)
    };
    message.full_name() == ANY || message.is_map_entry() && holds_any()
}

fn low_numbers(fields: &[TableField]) -> Vec<usize> {
    let position = |number| fields.iter().position(|field| field.number == number);
    (0..LOW_NUMBERS)
        .map(|number| position(number).map_or(0, |index| index + 1))
        .collect()
}

/// Marks annotated fields, then fields with a marked field below them, until nothing
/// changes. Messages may contain each other.
fn mark_routing(types: &mut [MessageType]) {
    loop {
        let routing: Vec<bool> = types
            .iter()
            .map(|message| message.fields.iter().any(|field| field.is_routing))
            .collect();
        let below = |field: &TableField| {
            let index = field.nested_type();
            index.is_some_and(|index| routing.get(index.0) == Some(&true))
        };
        let mut found = false;
        for field in types.iter_mut().flat_map(|message| &mut message.fields) {
            let is_routing = !field.is_relays && (field.topic.is_some() || below(field));
            found |= is_routing != field.is_routing;
            field.is_routing = is_routing;
        }
        if !found {
            return;
        }
    }
}

/// Assigns the bits of [`TableField::watch`]. If a message needs more than 64, the rest share
/// the last bit, so some messages are decoded unnecessarily.
fn assign_watch_bits(message: &mut MessageType) {
    let routing: Vec<(u32, Option<String>)> = message
        .fields
        .iter()
        .filter(|field| field.is_routing && !field.is_list())
        .map(|field| (field.number, field.oneof.clone()))
        .collect();
    for field in &mut message.fields {
        let group = routing.iter().position(|(number, oneof)| {
            *number == field.number || (oneof.is_some() && *oneof == field.oneof)
        });
        field.watch = group.map_or(0, |group| 1 << group.min(63));
    }
}
