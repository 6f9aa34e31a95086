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
    scalars::{Said, changed, expected, google_mismatch, key_mismatch, mismatch},
    suggest::{NAME_BYTES_MAX, Suggest},
    well_known::WellKnown,
};
use crate::shorten::shortened;

/// Checks JSON that prost-reflect has accepted. Fails if the object of a message has a
/// field twice, in either style of name, or an unknown field, if any other object has a
/// name twice, or if the value of a number would change.
pub(super) fn check(
    descriptor: &MessageDescriptor,
    json: &[u8],
    suggest: &Suggest<'_>,
) -> Result<(), JsonError> {
    walk(descriptor, json, suggest, false)
}

/// Searches JSON that prost-reflect has refused for a reason in terms of the schema.
/// Returns `Ok` if it finds none, for example for an invalid time.
pub(super) fn explain(
    descriptor: &MessageDescriptor,
    json: &[u8],
    suggest: &Suggest<'_>,
) -> Result<(), JsonError> {
    walk(descriptor, json, suggest, true)
}

fn walk(
    descriptor: &MessageDescriptor,
    json: &[u8],
    suggest: &Suggest<'_>,
    is_refused: bool,
) -> Result<(), JsonError> {
    let found = RefCell::new(None);
    let names = Names {
        place: Place::Message(Cow::Borrowed(descriptor)),
        form: Form::Field,
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
enum Place<'a> {
    /// The names in the object are fields.
    Message(Cow<'a, MessageDescriptor>),
    /// The names in the object are keys of a map.
    Map { key: Kind, value: Kind },
    /// A value without names.
    Scalar(Kind),
    /// One of Google's types. Names in it are defined by the application.
    Google(WellKnown),
}

impl Place<'_> {
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
        match (WellKnown::of(&message), message.get_field(1)) {
            (None, _) => Self::Message(Cow::Owned(message)),
            // A wrapper has the JSON form of the wrapped value.
            (Some(WellKnown::Wrapper), Some(wrapped)) => Self::Scalar(wrapped.kind()),
            (Some(kind), _) => Self::Google(kind),
        }
    }

    /// Returns an error text that says what the schema expects instead of the value; `None`
    /// if it may be valid.
    fn mismatch(&self, said: Said<'_>) -> Option<String> {
        match self {
            Self::Message(_) | Self::Map { .. } if matches!(said, Said::Object) => None,
            Self::Message(_) | Self::Map { .. } => Some(expected("an object", said)),
            Self::Scalar(kind) => mismatch(kind, said),
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
enum Form {
    /// The value of a field, which may be `null`.
    Field,
    /// The value of a repeated field, which must be a list.
    List,
    /// An element of a list or a map.
    Element,
}

/// A field or an extension, found by one of its names.
struct Named {
    number: u32,
    kind: Kind,
    form: Form,
    /// The oneof that contains it.
    oneof: Option<OneofDescriptor>,
}

impl Named {
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

impl From<FieldDescriptor> for Named {
    fn from(field: FieldDescriptor) -> Self {
        Self {
            number: field.number(),
            kind: field.kind(),
            form: form(field.is_list()),
            oneof: field.containing_oneof(),
        }
    }
}

impl From<ExtensionDescriptor> for Named {
    fn from(field: ExtensionDescriptor) -> Self {
        Self {
            number: field.number(),
            kind: field.kind(),
            form: form(field.is_list()),
            oneof: None,
        }
    }
}

fn form(is_list: bool) -> Form {
    match is_list {
        true => Form::List,
        false => Form::Field,
    }
}

/// Checks one value and everything in it.
#[derive(Clone)]
struct Names<'a> {
    place: Place<'a>,
    form: Form,
    /// True if prost-reflect has refused the text.
    is_refused: bool,
    found: &'a RefCell<Option<JsonError>>,
    suggest: &'a Suggest<'a>,
}

impl<'a> Names<'a> {
    fn at(&self, place: Place<'a>, form: Form) -> Self {
        Self {
            place,
            form,
            ..*self
        }
    }

    /// Checks a value without its contents. Returns true if it sets its field.
    fn look<E: Error>(&self, said: Said<'_>) -> Result<bool, E> {
        match self.refusal(said) {
            Some(refusal) => Err(self.fail(JsonError::new(None, refusal))),
            None => Ok(!matches!(said, Said::Null) || self.place.has_null()),
        }
    }

    fn refusal(&self, said: Said<'_>) -> Option<String> {
        match (self.form, said) {
            (Form::Field | Form::List, Said::Null) => None,
            (Form::Element, Said::Null) if self.place.has_null() || !self.is_refused => None,
            (Form::Element, Said::Null) => Some("null cannot stand in a list or a map".to_owned()),
            (Form::List, Said::List) => None,
            (Form::List, _) => self.is_refused.then(|| expected("a list", said)),
            _ if self.is_refused => self.place.mismatch(said).or_else(|| self.changed(said)),
            _ => self.changed(said),
        }
    }

    fn changed(&self, said: Said<'_>) -> Option<String> {
        match &self.place {
            Place::Scalar(kind) => changed(kind, said),
            _ => None,
        }
    }

    /// Stores the error and returns one that ends the walk.
    fn fail<E: Error>(&self, error: JsonError) -> E {
        let failed = E::custom(&error);
        self.found.replace(Some(error));
        failed
    }

    /// Passes a value's result through, and prefixes the path of the error with the value's
    /// position.
    fn within<T, E>(&self, place: &str, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() {
            let found = self.found.take().map(|error| error.within(place));
            self.found.replace(found);
        }
        result
    }

    fn message<'de, A: MapAccess<'de>>(
        &self,
        message: &MessageDescriptor,
        mut members: A,
    ) -> Result<(), A::Error> {
        let (mut seen, mut oneofs) = (HashSet::new(), HashSet::new());
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            let Some(field) = Named::find(message, &name) else {
                return Err(self.fail(self.suggest.unknown(message, &name)));
            };
            if !seen.insert(field.number) {
                return Err(self.fail(twice(&name)));
            }
            let value = members.next_value_seed(self.at(Place::of_kind(field.kind), field.form));
            let is_set = self.within(&name, value)?;
            // prost-reflect refuses such a text, so there is no need to check others.
            if let Some(oneof) = field.oneof.filter(|_| self.is_refused && is_set)
                && !oneofs.insert(oneof.name().to_owned())
            {
                let oneof = oneof.name();
                let message = format!("more than one field of the oneof `{oneof}` is set");
                return Err(self.fail(JsonError::new(None, message).within(&name)));
            }
        }
        Ok(())
    }

    fn map<'de, A: MapAccess<'de>>(
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
                return Err(self.fail(JsonError::new(None, refusal).within(&name)));
            }
            if !seen.insert(map_key(key, &name)) {
                return Err(self.fail(twice(&name)));
            }
            let value =
                entries.next_value_seed(self.at(Place::of_kind(value.clone()), Form::Element));
            self.within(&name, value)?;
        }
        Ok(())
    }

    fn free<'de, A: MapAccess<'de>>(&self, mut members: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if seen.contains(&name) {
                return Err(self.fail(twice(&name)));
            }
            let value =
                members.next_value_seed(self.at(Place::Google(WellKnown::Value), Form::Field));
            self.within(&name, value)?;
            seen.insert(name);
        }
        Ok(())
    }
}

fn twice(name: &str) -> JsonError {
    let shown = shortened(name, NAME_BYTES_MAX);
    JsonError::new(None, format_args!("`{shown}` is set twice")).within(name)
}

/// Returns the normalized key, because numbers can be written in several ways.
fn map_key(kind: &Kind, text: &str) -> String {
    match text.parse::<i128>() {
        Ok(number) if *kind != Kind::String => number.to_string(),
        _ => text.to_owned(),
    }
}

impl<'de> DeserializeSeed<'de> for Names<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Names<'_> {
    /// True if the value sets its field.
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<bool, E> {
        self.look(Said::Bool)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<bool, E> {
        self.look(Said::Integer(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<bool, E> {
        self.look(Said::Integer(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<bool, E> {
        self.look(Said::Fraction(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        self.look(Said::Text(text))
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        self.look(Said::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        self.look(Said::List)?;
        let place = match self.place {
            Place::Google(_) => Place::Google(WellKnown::Value),
            _ => self.place.clone(),
        };
        let item = self.at(place, Form::Element);
        for index in 0_usize.. {
            match items.next_element_seed(item.clone()) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return self.within(&format!("[{index}]"), Err(error)),
            }
        }
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<bool, A::Error> {
        self.look(Said::Object)?;
        match &self.place {
            Place::Message(message) => self.message(message, members),
            Place::Map { key, value } => self.map(key, value, members),
            Place::Scalar(_) | Place::Google(_) => self.free(members),
        }?;
        Ok(true)
    }
}
