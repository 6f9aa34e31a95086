//! The schema as the walk needs it: for each message a few dense arrays, so that
//! nothing is hashed or allocated where an event is read.

use std::collections::HashMap;

use prost_reflect::{Kind, MessageDescriptor};

use super::{
    annotations::{Annotations, Declared, TopicSource},
    relay_fields::{PAYLOAD, is_relays},
    report::Report,
};

/// Field numbers below this are looked up by index, others by search.
const LOW_NUMBERS: u32 = 64;

/// The number of the value in the entry of a map.
pub(super) const MAP_VALUE: u32 = 2;

/// Where a message stands in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TypeIndex(usize);

/// All messages that can lie in the envelope, itself first.
#[derive(Debug)]
pub(super) struct Table(Vec<MessageType>);

/// What the walk must know of a message.
#[derive(Debug)]
pub(super) struct MessageType {
    /// The fields, by number.
    fields: Vec<Field>,
    /// For each low number one more than the field's index, or 0.
    low: Vec<usize>,
    pub(super) is_map_entry: bool,
}

/// What the walk must know of a field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) is_repeated: bool,
    /// How its values give topics, where they do.
    pub(super) topic: Option<TopicSource>,
    /// Whether it or something below it is annotated.
    pub(super) is_routing: bool,
    /// A bit that the field shares with those by which its value can be replaced
    /// or merged, and that are routing or replace one that is. Where a bit comes
    /// twice in one message, order and merging decide what the topics are.
    pub(super) watch: u64,
    oneof: Option<String>,
    /// In the envelope: whether it is a member of the oneof `payload`.
    pub(super) is_payload: bool,
    /// Whether what lies below it says nothing of what an event relates to.
    is_relays: bool,
}

/// How a field's value is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Varint,
    Fixed32,
    Fixed64,
    String,
    Bytes,
    Message(TypeIndex),
    /// An entry of a map, which is a message with a key and a value.
    MapEntry(TypeIndex),
}

impl Table {
    /// The table of the messages that can lie in the envelope, and the messages by their
    /// indexes. What the relay could not look into is reported.
    pub(super) fn of(
        envelope: &MessageDescriptor,
        annotations: &Annotations,
        report: &mut Report,
    ) -> (Self, Vec<MessageDescriptor>) {
        let mut found = Found::default();
        found.index(envelope);
        let mut types = Vec::new();
        while let Some(message) = found.messages.get(types.len()).cloned() {
            types.push(message_type(&message, annotations, &mut found, report));
        }
        if let Some(envelope) = types.first_mut() {
            envelope.fields.iter_mut().for_each(Field::of_envelope);
        }
        mark_routing(&mut types);
        types.iter_mut().for_each(watch);
        (Self(types), found.messages)
    }

    pub(super) const ENVELOPE: TypeIndex = TypeIndex(0);

    pub(super) fn get(&self, index: TypeIndex) -> Option<&MessageType> {
        self.0.get(index.0)
    }

    /// The field for the values of a map, by the type of its entries.
    pub(super) fn map_value(&self, entry: TypeIndex) -> Option<&Field> {
        self.get(entry)?.field(MAP_VALUE)
    }

    /// The message at this place.
    pub(super) fn at(&self, index: usize) -> Option<&MessageType> {
        self.0.get(index)
    }

    /// Whether there is a map anywhere.
    pub(super) fn has_maps(&self) -> bool {
        self.0.iter().any(|message| message.is_map_entry)
    }
}

impl MessageType {
    pub(super) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter()
    }

    pub(super) fn field(&self, number: u32) -> Option<&Field> {
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

impl Field {
    /// Sets what is only asked of the envelope's fields.
    fn of_envelope(&mut self) {
        self.is_relays = is_relays(self.number);
        self.is_payload = self.oneof.as_deref() == Some(PAYLOAD);
    }

    /// Whether a message may have several values of it.
    pub(super) fn is_list(&self) -> bool {
        self.is_repeated && !self.is_map_entry()
    }

    /// Whether another field can replace it.
    pub(super) fn is_in_oneof(&self) -> bool {
        self.oneof.is_some()
    }

    fn is_map_entry(&self) -> bool {
        matches!(self.shape, Shape::MapEntry(_))
    }

    /// The message that lies in it.
    fn below(&self) -> Option<TypeIndex> {
        match self.shape {
            Shape::Message(index) | Shape::MapEntry(index) => Some(index),
            _ => None,
        }
    }
}

/// The messages met so far, which get their indexes in that order.
#[derive(Default)]
struct Found {
    messages: Vec<MessageDescriptor>,
    indexes: HashMap<String, TypeIndex>,
}

impl Found {
    fn index(&mut self, message: &MessageDescriptor) -> TypeIndex {
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
    found: &mut Found,
    report: &mut Report,
) -> MessageType {
    let mut fields = Vec::new();
    for field in annotations.fields(message) {
        fields.push(Field {
            number: field.number,
            shape: shape(&field, found, report),
            is_repeated: field.is_repeated,
            topic: field.topic,
            is_routing: false,
            watch: 0,
            name: field.name,
            oneof: field.oneof,
            is_payload: false,
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

fn shape(field: &Declared, found: &mut Found, report: &mut Report) -> Shape {
    let name = &field.full_name;
    if field.is_group {
        report.error(
            field,
            format!("{name} is a group, and the relay takes no groups"),
            "declare a message and a field of that type",
        );
        return Shape::Bytes;
    }
    match &field.kind {
        Kind::Bool | Kind::Enum(_) => Shape::Varint,
        Kind::Int32 | Kind::Uint32 | Kind::Sint32 => Shape::Varint,
        Kind::Int64 | Kind::Uint64 | Kind::Sint64 => Shape::Varint,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Shape::Fixed32,
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Shape::Fixed64,
        Kind::String => Shape::String,
        Kind::Bytes => Shape::Bytes,
        Kind::Message(message) if is_any(message) => {
            report.error(
                field,
                format!("{name} holds google.protobuf.Any, and the relay cannot see which topics are in it"),
                "declare a oneof of the messages that it may hold",
            );
            Shape::Bytes
        }
        Kind::Message(message) if field.is_map => Shape::MapEntry(found.index(message)),
        Kind::Message(message) => Shape::Message(found.index(message)),
    }
}

/// Whether the message is an `Any`, or the entry of a map with such values: an entry has
/// no line of its own.
fn is_any(message: &MessageDescriptor) -> bool {
    const ANY: &str = "google.protobuf.Any";
    let holds_any = || {
        let value = message.map_entry_value_field().kind();
        value.as_message().is_some_and(|it| it.full_name() == ANY)
    };
    message.full_name() == ANY || message.is_map_entry() && holds_any()
}

fn low_numbers(fields: &[Field]) -> Vec<usize> {
    let position = |number| fields.iter().position(|field| field.number == number);
    (0..LOW_NUMBERS)
        .map(|number| position(number).map_or(0, |index| index + 1))
        .collect()
}

/// Marks what is annotated, then what has a marked field below it, until nothing
/// more is found: messages may contain each other.
fn mark_routing(types: &mut [MessageType]) {
    loop {
        let routing: Vec<bool> = types
            .iter()
            .map(|message| message.fields.iter().any(|field| field.is_routing))
            .collect();
        let below = |field: &Field| {
            let index = field.below();
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

/// Hands out the bits of [`Field::watch`]. Where a message needs more than 64,
/// the rest share the last: then some are decoded that need not be.
fn watch(message: &mut MessageType) {
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
