//! Checks if a new schema can replace another while clients are connected and events are in
//! the log. Compares what is visible on the wire, in JSON and to the relay; knows nothing
//! about files.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::Range,
    slice,
};

use super::{
    breaking_change::{BreakingChange, SchemaChange},
    outline::{EnumOutline, FieldLabel, FieldOutline, MessageOutline, SchemaOutline, ValueType},
    relay_fields::{PAYLOAD, number},
};

/// Returns every change from the old schema to the new one that breaks clients or the log:
/// those of the envelope first, then those of the messages within it.
pub(super) fn breaking_changes(old: &SchemaOutline, new: &SchemaOutline) -> Vec<BreakingChange> {
    let envelope = &old.envelope;
    if *envelope != new.envelope {
        return vec![BreakingChange {
            message: envelope.clone(),
            field: None,
            change: SchemaChange::Envelope {
                new: new.envelope.clone(),
            },
        }];
    }
    let mut comparison = SchemaComparison::new(old, new, RenamedTypePolicy::Judge);
    comparison.enqueue(envelope, envelope);
    comparison.finish()
}

/// The name of a message or enum in the old schema, and of its counterpart in the new one.
type TypePair<'a> = (&'a str, &'a str);

/// The handling of a field with a type of a different name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RenamedTypePolicy {
    /// Check if both types have the same layout, and report one change if not.
    Judge,
    /// Compare them as if they had the same name. Only the first finding matters.
    Follow,
}

struct SchemaComparison<'a> {
    old: &'a SchemaOutline,
    new: &'a SchemaOutline,
    other_names: RenamedTypePolicy,
    /// Pairs that were compared or are waiting, because messages may contain each other.
    seen: HashSet<TypePair<'a>>,
    waiting: VecDeque<TypePair<'a>>,
    verdicts: HashMap<TypePair<'a>, bool>,
    found: Vec<BreakingChange>,
}

impl<'a> SchemaComparison<'a> {
    fn new(old: &'a SchemaOutline, new: &'a SchemaOutline, other_names: RenamedTypePolicy) -> Self {
        Self {
            old,
            new,
            other_names,
            seen: HashSet::new(),
            waiting: VecDeque::new(),
            verdicts: HashMap::new(),
            found: Vec::new(),
        }
    }

    /// Queues the two types for comparison, unless they already were.
    fn enqueue(&mut self, old: &'a str, new: &'a str) {
        if self.seen.insert((old, new)) {
            self.waiting.push_back((old, new));
        }
    }

    fn finish(mut self) -> Vec<BreakingChange> {
        while let Some((old, new)) = self.waiting.pop_front() {
            self.compare_types(old, new);
        }
        self.found
    }

    /// Returns true if nothing breaks. Stops at the first breaking change.
    fn finds_no_change(mut self) -> bool {
        while let Some((old, new)) = self.waiting.pop_front() {
            self.compare_types(old, new);
            if !self.found.is_empty() {
                return false;
            }
        }
        true
    }

    fn compare_types(&mut self, name: &'a str, new_name: &'a str) {
        let (old, new) = (self.old, self.new);
        match (old.messages.get(name), new.messages.get(new_name)) {
            (Some(old), Some(new)) => self.compare_messages(name, old, new),
            _ => {
                let enums = (old.enums.get(name), new.enums.get(new_name));
                if let (Some(old), Some(new)) = enums {
                    self.compare_enums(name, old, new);
                }
            }
        }
    }

    fn compare_messages(
        &mut self,
        message: &'a str,
        old: &'a MessageOutline,
        new: &'a MessageOutline,
    ) {
        if old.presence && !new.presence {
            self.report_change(message, None, option_removed("presence", "true"));
        }
        if old.client_publish && !new.client_publish && !new.presence {
            self.report_change(message, None, option_removed("client_publish", "true"));
        }
        for (number, field) in &new.fields {
            if field.label == FieldLabel::Required && !old.fields.contains_key(number) {
                self.report_change(message, Some(&field.name), SchemaChange::RequiredAdded);
            }
        }
        let free = self.relay_numbers(message);
        for reserved in old.reserved.missing_in(&new.reserved, free) {
            self.report_change(message, None, SchemaChange::ReservationRemoved { reserved });
        }
        let (old_oneofs, new_oneofs) = (shared_oneofs(old, new), shared_oneofs(new, old));
        for (number, field) in &old.fields {
            let here = OldField {
                message,
                number: *number,
                field,
            };
            let Some(new_field) = new.fields.get(number) else {
                self.report_missing(&here, new);
                continue;
            };
            if field.name == new_field.name || self.report_renamed(&here, new, new_field) {
                self.compare_fields(&here, new_field);
                if old_oneofs.get(number) != new_oneofs.get(number) {
                    self.report_field(&here, SchemaChange::Oneof);
                }
            }
        }
    }

    /// Returns the field numbers of the message that belong to the relay. No application
    /// ever had a field there, so it does not matter whether they are reserved.
    fn relay_numbers(&self, message: &str) -> &'static [Range<u32>] {
        const OF_ENVELOPE: [Range<u32>; 2] = [1..2, 8..32];
        const OF_SUBSCRIPTIONS: Range<u32> = 16..32;
        const ALL: Range<u32> = 0..u32::MAX;
        let Some(envelope) = self.old.messages.get(&self.old.envelope) else {
            return &[];
        };
        if message == self.old.envelope {
            return &OF_ENVELOPE;
        }
        // The relay's own messages reserve the numbers that a schema's lists may use.
        if message.starts_with(RELAYS) {
            return slice::from_ref(&ALL);
        }
        let mut subscriptions = (number::SUBSCRIBE..=number::UNSUBSCRIBE_CONFIRMED)
            .filter_map(|number| envelope.fields.get(&number));
        let is_here = |field: &FieldOutline| field.value == ValueType::Message(message.to_owned());
        match subscriptions.any(is_here) {
            true => slice::from_ref(&OF_SUBSCRIPTIONS),
            false => &[],
        }
    }

    /// Reports that the new schema has no field with this number.
    fn report_missing(&mut self, here: &OldField<'a>, new: &MessageOutline) {
        let OldField { number, field, .. } = *here;
        let is_payload =
            here.message == self.old.envelope && field.oneof.as_deref() == Some(PAYLOAD);
        let change = if let Some(renumbered) = new.number_of(&field.name) {
            SchemaChange::FieldRenumbered {
                old: number,
                new: renumbered,
            }
        } else if is_payload {
            SchemaChange::PayloadRemoved
        } else if let Some(option) = field_options(field)
            .into_iter()
            .find_map(|(_, option)| option)
        {
            SchemaChange::AnnotatedFieldRemoved { option }
        } else if new.has_reserved(number, &field.name) {
            return;
        } else {
            SchemaChange::FieldRemoved { number }
        };
        self.report_field(here, change);
    }

    /// Reports that the field with this number has a different name. Returns true if it was
    /// only renamed.
    fn report_renamed(
        &mut self,
        here: &OldField<'a>,
        new: &MessageOutline,
        new_field: &FieldOutline,
    ) -> bool {
        let OldField { number, field, .. } = *here;
        let same_type = field.label == new_field.label && field.value == new_field.value;
        let (change, is_renamed) = if let Some(renumbered) = new.number_of(&field.name) {
            let change = SchemaChange::FieldRenumbered {
                old: number,
                new: renumbered,
            };
            (change, false)
        } else if same_type {
            let change = SchemaChange::FieldRenamed {
                number,
                new: new_field.name.clone(),
            };
            (change, true)
        } else {
            let change = SchemaChange::NumberReused {
                number,
                old: field.declaration(),
                new: new_field.declaration(),
            };
            (change, false)
        };
        self.report_field(here, change);
        is_renamed
    }

    fn compare_fields(&mut self, here: &OldField<'a>, new: &'a FieldOutline) {
        let old = here.field;
        if old.label != new.label || !self.is_same_type(&old.value, &new.value) {
            let change = SchemaChange::Retyped {
                old: format!("{}{}", old.label, old.value),
                new: format!("{}{}", new.label, new.value),
            };
            self.report_field(here, change);
        } else if let (Some(old), Some(new)) = (&old.default, &new.default)
            && old != new
        {
            let change = SchemaChange::Default {
                old: old.clone(),
                new: new.clone(),
            };
            self.report_field(here, change);
        }
        if old.name == new.name && old.json_name != new.json_name {
            let change = SchemaChange::JsonName {
                old: old.json_name.clone(),
                new: new.json_name.clone(),
            };
            self.report_field(here, change);
        }
        self.compare_options(here, new);
    }

    fn compare_options(&mut self, here: &OldField<'a>, new: &FieldOutline) {
        let old = here.field;
        let new_options = field_options(new).into_iter().map(|(_, option)| option);
        for ((name, old_option), new_option) in field_options(old).into_iter().zip(new_options) {
            let change = match (old_option, new_option) {
                (Some(old), Some(new)) if old != new => SchemaChange::OptionChanged { old, new },
                (Some(option), None) => SchemaChange::OptionRemoved { option },
                // Presence decides if an unset field means that the user is absent.
                (Some(_), Some(_)) if name == ABSENT && old.has_presence != new.has_presence => {
                    SchemaChange::Retyped {
                        old: with_presence(old),
                        new: with_presence(new),
                    }
                }
                _ => continue,
            };
            self.report_field(here, change);
        }
    }

    fn is_same_type(&mut self, old: &'a ValueType, new: &'a ValueType) -> bool {
        match (old, new) {
            (ValueType::Scalar(old), ValueType::Scalar(new)) => old == new,
            (ValueType::Message(old), ValueType::Message(new))
            | (ValueType::Enum(old), ValueType::Enum(new)) => self.is_same_layout(old, new),
            (
                ValueType::Map { key, value },
                ValueType::Map {
                    key: new_key,
                    value: new_value,
                },
            ) => key == new_key && self.is_same_type(value, new_value),
            _ => false,
        }
    }

    /// Returns true if the types are interchangeable. Changes of types with the same name
    /// are reported separately, later.
    fn is_same_layout(&mut self, old: &'a str, new: &'a str) -> bool {
        if old == new {
            self.enqueue(old, new);
            return true;
        }
        // Types with these names have a JSON form that differs from that of other messages.
        if [old, new].iter().any(|name| name.starts_with(GOOGLES)) {
            return false;
        }
        if self.other_names == RenamedTypePolicy::Follow {
            self.enqueue(old, new);
            return true;
        }
        let (old_outline, new_outline) = (self.old, self.new);
        *self.verdicts.entry((old, new)).or_insert_with(|| {
            let mut inner =
                SchemaComparison::new(old_outline, new_outline, RenamedTypePolicy::Follow);
            inner.enqueue(old, new);
            inner.finds_no_change()
        })
    }

    fn compare_enums(&mut self, name: &'a str, old: &EnumOutline, new: &EnumOutline) {
        for (value, number) in &old.numbers {
            let is_shown = old.names.get(number) == Some(value);
            let shown = new.names.get(number);
            let change = match (new.numbers.get(value), shown) {
                (Some(renumbered), _) if renumbered != number => SchemaChange::ValueRenumbered {
                    old: *number,
                    new: *renumbered,
                },
                (_, Some(new)) if is_shown && new != value => SchemaChange::ValueRenamed {
                    number: *number,
                    new: new.clone(),
                },
                (Some(_), _) => continue,
                (None, Some(_)) => SchemaChange::AliasRemoved { number: *number },
                (None, None) => SchemaChange::ValueRemoved { number: *number },
            };
            self.report_change(name, Some(value), change);
        }
    }

    fn report_field(&mut self, field: &OldField<'_>, found: SchemaChange) {
        self.report_change(field.message, Some(&field.field.name), found);
    }

    fn report_change(&mut self, message: &str, field: Option<&str>, change: SchemaChange) {
        self.found.push(BreakingChange {
            message: message.to_owned(),
            field: field.map(str::to_owned),
            change,
        });
    }
}

/// Prefix of the names of the relay's own messages.
const RELAYS: &str = "sidewire.v1.";

/// Prefix of the names of Google's types.
const GOOGLES: &str = "google.protobuf.";

/// A field of the old schema.
struct OldField<'a> {
    message: &'a str,
    number: u32,
    field: &'a FieldOutline,
}

const ABSENT: &str = "absent";

/// Returns the options that a field can have, each in .proto syntax if the field has it.
fn field_options(field: &FieldOutline) -> [(&'static str, Option<String>); 3] {
    let text = |name: &str, value: &Option<String>| {
        let value = value.as_ref()?;
        Some(option_text(name, &format!("{value:?}")))
    };
    [
        ("topic", text("topic", &field.topic)),
        (
            "sender",
            field.sender.then(|| option_text("sender", "true")),
        ),
        (ABSENT, text(ABSENT, &field.absent)),
    ]
}

fn option_text(name: &str, value: &str) -> String {
    format!("(sidewire.v1.{name}) = {value}")
}

fn option_removed(name: &str, value: &str) -> SchemaChange {
    SchemaChange::OptionRemoved {
        option: option_text(name, value),
    }
}

fn with_presence(field: &FieldOutline) -> String {
    let optional = match field.label {
        FieldLabel::Singular if field.has_presence => "optional ",
        _ => "",
    };
    format!("{optional}{}", field.value)
}

/// Returns, for each number, the numbers that share its oneof, including itself. Counts
/// only fields that both schemas have, so a new member of a oneof changes nothing. A field
/// alone in its oneof is treated as if it were in none.
fn shared_oneofs(message: &MessageOutline, other: &MessageOutline) -> BTreeMap<u32, Vec<u32>> {
    let mut members: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (number, field) in &message.fields {
        if let Some(oneof) = &field.oneof
            && other.fields.contains_key(number)
        {
            members.entry(oneof).or_default().push(*number);
        }
    }
    let mut peers = BTreeMap::new();
    for numbers in members.into_values().filter(|numbers| numbers.len() > 1) {
        for number in &numbers {
            peers.insert(*number, numbers.clone());
        }
    }
    peers
}
