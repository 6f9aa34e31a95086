//! Checks the names and numbers in JSON. Finds fields that are set twice, of which
//! prost-reflect would silently use the last, unknown fields, and numbers that would change
//! in value. If prost-reflect refuses a text, the same walk finds the reason.

use std::{borrow::Cow, cell::RefCell, collections::HashSet, fmt};

use prost_reflect::{
    ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor,
};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

use super::{
    super::error::JsonError,
    scalars::{
        JsonValueKind, changed_number, expected_message, google_mismatch, key_mismatch,
        scalar_mismatch,
    },
    suggest::{NAME_BYTES_MAX, NameSuggester},
    well_known::WellKnown,
};
use crate::shorten::truncate_text;

/// Checks JSON that prost-reflect has accepted. Fails if the object of a message has a
/// field twice, in either style of name, or an unknown field, if any other object has a
/// name twice, or if the value of a number would change.
pub(super) fn check_names(
    descriptor: &MessageDescriptor,
    json: &[u8],
    suggest: &NameSuggester<'_>,
) -> Result<(), JsonError> {
    walk_json(descriptor, json, suggest, false)
}

/// Searches JSON that prost-reflect has refused for a reason in terms of the schema.
/// Returns `Ok` if it finds none, for example for an invalid time.
pub(super) fn explain_refusal(
    descriptor: &MessageDescriptor,
    json: &[u8],
    suggest: &NameSuggester<'_>,
) -> Result<(), JsonError> {
    walk_json(descriptor, json, suggest, true)
}

fn walk_json(
    descriptor: &MessageDescriptor,
    json: &[u8],
    suggest: &NameSuggester<'_>,
    is_refused: bool,
) -> Result<(), JsonError> {
    let found = RefCell::new(None);
    let names = JsonChecker {
        place: ExpectedType::Message(Cow::Borrowed(descriptor)),
        form: ValueContext::Field,
        is_refused,
        found: &found,
        suggest,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let walked = names.deserialize(&mut deserializer);
    match found.into_inner() {
        Some(error) if walked.is_err() => Err(error),
        _ => Ok(()),
    }
}

/// The type of a value according to the schema.
#[derive(Clone)]
enum ExpectedType<'a> {
    /// The names in the object are fields.
    Message(Cow<'a, MessageDescriptor>),
    /// The names in the object are keys of a map.
    Map { key: Kind, value: Kind },
    /// A value without names.
    Scalar(Kind),
    /// One of Google's types. Names in it are defined by the application.
    Google(WellKnown),
}

impl ExpectedType<'_> {
    fn of_kind(kind: Kind) -> Self {
        let Kind::Message(message) = kind else {
            return Self::Scalar(kind);
        };
        if message.is_map_entry() {
            return Self::Map {
                key: message.map_entry_key_field().kind(),
                value: message.map_entry_value_field().kind(),
            };
        }
        match (WellKnown::of_message(&message), message.get_field(1)) {
            (None, _) => Self::Message(Cow::Owned(message)),
            // A wrapper has the JSON form of the wrapped value.
            (Some(WellKnown::Wrapper), Some(wrapped)) => Self::Scalar(wrapped.kind()),
            (Some(kind), _) => Self::Google(kind),
        }
    }

    /// Returns an error text that says what the schema expects instead of the value; `None`
    /// if it may be valid.
    fn describe_mismatch(&self, said: JsonValueKind<'_>) -> Option<String> {
        match self {
            Self::Message(_) | Self::Map { .. } if matches!(said, JsonValueKind::Object) => None,
            Self::Message(_) | Self::Map { .. } => Some(expected_message("an object", said)),
            Self::Scalar(kind) => scalar_mismatch(kind, said),
            Self::Google(kind) => google_mismatch(*kind, said),
        }
    }

    /// Returns true if `null` is a value of the type, and does not mean an unset field.
    fn has_null(&self) -> bool {
        match self {
            Self::Google(kind) => *kind == WellKnown::Value,
            Self::Scalar(Kind::Enum(kind)) => kind.full_name() == "google.protobuf.NullValue",
            _ => false,
        }
    }
}

/// The context of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueContext {
    /// The value of a field, which may be `null`.
    Field,
    /// The value of a repeated field, which must be a list.
    List,
    /// An element of a list or a map.
    Element,
}

/// A field or an extension, found by one of its names.
struct NamedField {
    number: u32,
    kind: Kind,
    form: ValueContext,
    /// The oneof that contains it.
    oneof: Option<OneofDescriptor>,
}

impl NamedField {
    fn find(message: &MessageDescriptor, name: &str) -> Option<Self> {
        let field = message
            .get_field_by_json_name(name)
            .or_else(|| message.get_field_by_name(name));
        let extension = || message.get_extension_by_json_name(name);
        field
            .map(Self::from)
            .or_else(|| extension().map(Self::from))
    }
}

impl From<FieldDescriptor> for NamedField {
    fn from(field: FieldDescriptor) -> Self {
        Self {
            number: field.number(),
            kind: field.kind(),
            form: context_of(field.is_list()),
            oneof: field.containing_oneof(),
        }
    }
}

impl From<ExtensionDescriptor> for NamedField {
    fn from(field: ExtensionDescriptor) -> Self {
        Self {
            number: field.number(),
            kind: field.kind(),
            form: context_of(field.is_list()),
            oneof: None,
        }
    }
}

fn context_of(is_list: bool) -> ValueContext {
    match is_list {
        true => ValueContext::List,
        false => ValueContext::Field,
    }
}

/// Checks one value and everything in it.
#[derive(Clone)]
struct JsonChecker<'a> {
    place: ExpectedType<'a>,
    form: ValueContext,
    /// True if prost-reflect has refused the text.
    is_refused: bool,
    found: &'a RefCell<Option<JsonError>>,
    suggest: &'a NameSuggester<'a>,
}

impl<'a> JsonChecker<'a> {
    fn for_value(&self, place: ExpectedType<'a>, form: ValueContext) -> Self {
        Self {
            place,
            form,
            ..*self
        }
    }

    /// Checks a value without its contents. Returns true if it sets its field.
    fn check_value<E: Error>(&self, said: JsonValueKind<'_>) -> Result<bool, E> {
        match self.refusal_reason(said) {
            Some(refusal) => Err(self.fail_with(JsonError::new(None, refusal))),
            None => Ok(!matches!(said, JsonValueKind::Null) || self.place.has_null()),
        }
    }

    fn refusal_reason(&self, said: JsonValueKind<'_>) -> Option<String> {
        match (self.form, said) {
            (ValueContext::Field | ValueContext::List, JsonValueKind::Null) => None,
            (ValueContext::Element, JsonValueKind::Null)
                if self.place.has_null() || !self.is_refused =>
            {
                None
            }
            (ValueContext::Element, JsonValueKind::Null) => {
                Some("null is not allowed in a list or a map".to_owned())
            }
            (ValueContext::List, JsonValueKind::List) => None,
            (ValueContext::List, _) => self.is_refused.then(|| expected_message("a list", said)),
            _ if self.is_refused => self
                .place
                .describe_mismatch(said)
                .or_else(|| self.changed_number(said)),
            _ => self.changed_number(said),
        }
    }

    fn changed_number(&self, said: JsonValueKind<'_>) -> Option<String> {
        match &self.place {
            ExpectedType::Scalar(kind) => changed_number(kind, said),
            _ => None,
        }
    }

    /// Stores the error and returns one that ends the walk.
    fn fail_with<E: Error>(&self, error: JsonError) -> E {
        let failed = E::custom(&error);
        self.found.replace(Some(error));
        failed
    }

    /// Passes a value's result through, and prefixes the path of the error with the value's
    /// position.
    fn prefix_path<T, E>(&self, place: &str, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() {
            let found = self.found.take().map(|error| error.in_field(place));
            self.found.replace(found);
        }
        result
    }

    fn check_message<'de, A: MapAccess<'de>>(
        &self,
        message: &MessageDescriptor,
        mut members: A,
    ) -> Result<(), A::Error> {
        let (mut seen, mut oneofs) = (HashSet::new(), HashSet::new());
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            let Some(field) = NamedField::find(message, &name) else {
                return Err(self.fail_with(self.suggest.unknown_name(message, &name)));
            };
            if !seen.insert(field.number) {
                return Err(self.fail_with(set_twice(&name)));
            }
            let value = members
                .next_value_seed(self.for_value(ExpectedType::of_kind(field.kind), field.form));
            let is_set = self.prefix_path(&name, value)?;
            // prost-reflect refuses such a text, so there is no need to check others.
            if let Some(oneof) = field.oneof.filter(|_| self.is_refused && is_set)
                && !oneofs.insert(oneof.name().to_owned())
            {
                let oneof = oneof.name();
                let message = format!("more than one field of the oneof `{oneof}` is set");
                return Err(self.fail_with(JsonError::new(None, message).in_field(&name)));
            }
        }
        Ok(())
    }

    fn check_map<'de, A: MapAccess<'de>>(
        &self,
        key: &Kind,
        value: &Kind,
        mut entries: A,
    ) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            if self.is_refused
                && let Some(refusal) = key_mismatch(key, &name)
            {
                return Err(self.fail_with(JsonError::new(None, refusal).in_field(&name)));
            }
            if !seen.insert(map_key(key, &name)) {
                return Err(self.fail_with(set_twice(&name)));
            }
            let value = entries.next_value_seed(
                self.for_value(ExpectedType::of_kind(value.clone()), ValueContext::Element),
            );
            self.prefix_path(&name, value)?;
        }
        Ok(())
    }

    fn check_free_object<'de, A: MapAccess<'de>>(&self, mut members: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if seen.contains(&name) {
                return Err(self.fail_with(set_twice(&name)));
            }
            let value = members.next_value_seed(
                self.for_value(ExpectedType::Google(WellKnown::Value), ValueContext::Field),
            );
            self.prefix_path(&name, value)?;
            seen.insert(name);
        }
        Ok(())
    }
}

fn set_twice(name: &str) -> JsonError {
    let shown = truncate_text(name, NAME_BYTES_MAX);
    JsonError::new(None, format_args!("`{shown}` is set twice")).in_field(name)
}

/// Returns the normalized key, because numbers can be written in several ways.
fn map_key(kind: &Kind, text: &str) -> String {
    match text.parse::<i128>() {
        Ok(number) if *kind != Kind::String => number.to_string(),
        _ => text.to_owned(),
    }
}

impl<'de> DeserializeSeed<'de> for JsonChecker<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonChecker<'_> {
    /// True if the value sets its field.
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<bool, E> {
        self.check_value(JsonValueKind::Bool)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<bool, E> {
        self.check_value(JsonValueKind::Integer(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<bool, E> {
        self.check_value(JsonValueKind::Integer(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<bool, E> {
        self.check_value(JsonValueKind::Fraction(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        self.check_value(JsonValueKind::Text(text))
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        self.check_value(JsonValueKind::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        self.check_value(JsonValueKind::List)?;
        let place = match self.place {
            ExpectedType::Google(_) => ExpectedType::Google(WellKnown::Value),
            _ => self.place.clone(),
        };
        let item = self.for_value(place, ValueContext::Element);
        for index in 0_usize.. {
            match items.next_element_seed(item.clone()) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return self.prefix_path(&format!("[{index}]"), Err(error)),
            }
        }
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<bool, A::Error> {
        self.check_value(JsonValueKind::Object)?;
        match &self.place {
            ExpectedType::Message(message) => self.check_message(message, members),
            ExpectedType::Map { key, value } => self.check_map(key, value, members),
            ExpectedType::Scalar(_) | ExpectedType::Google(_) => self.check_free_object(members),
        }?;
        Ok(true)
    }
}
