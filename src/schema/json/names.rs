//! Looks at the names of JSON's objects: a field that is set twice, of which
//! prost-reflect would take the last without a word, and a field that does not exist.

use std::{borrow::Cow, cell::RefCell, collections::HashSet, fmt};

use prost_reflect::{ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

use super::{super::error::JsonError, suggest::Suggest, well_known::WellKnown};

/// Fails where an object of a message has a field twice, in whichever style of name, or
/// one that the message does not have, and where another object has a name twice. What
/// else is wrong with the JSON is not said.
pub(super) fn check(
    descriptor: &MessageDescriptor,
    json: &[u8],
    suggest: &Suggest<'_>,
) -> Result<(), JsonError> {
    let found = RefCell::new(None);
    let names = Names {
        place: Place::Message(Cow::Borrowed(descriptor)),
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

/// What the names of an object mean.
#[derive(Clone)]
enum Place<'a> {
    /// They are fields.
    Message(Cow<'a, MessageDescriptor>),
    /// They are keys of a map, whose values are of this kind.
    Map { key: Kind, value: Kind },
    /// They are the application's own.
    Free,
}

impl Place<'_> {
    fn of_kind(kind: Kind) -> Self {
        match kind {
            Kind::Message(message) if message.is_map_entry() => Self::Map {
                key: message.map_entry_key_field().kind(),
                value: message.map_entry_value_field().kind(),
            },
            Kind::Message(message) if WellKnown::of(&message).is_none() => {
                Self::Message(Cow::Owned(message))
            }
            _ => Self::Free,
        }
    }
}

/// A field or an extension, by one of its names.
struct Named {
    number: u32,
    kind: Kind,
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
        }
    }
}

impl From<ExtensionDescriptor> for Named {
    fn from(field: ExtensionDescriptor) -> Self {
        Self {
            number: field.number(),
            kind: field.kind(),
        }
    }
}

/// Looks through one value.
#[derive(Clone)]
struct Names<'a> {
    place: Place<'a>,
    found: &'a RefCell<Option<JsonError>>,
    suggest: &'a Suggest<'a>,
}

impl<'a> Names<'a> {
    fn at(&self, place: Place<'a>) -> Self {
        let (found, suggest) = (self.found, self.suggest);
        Self {
            place,
            found,
            suggest,
        }
    }

    /// Ends the search.
    fn fail<E: Error>(&self, error: JsonError) -> E {
        let failed = E::custom(&error);
        self.found.replace(Some(error));
        failed
    }

    /// Passes a value's result on, and prefixes the path of an error with where it was.
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
        let mut seen = HashSet::new();
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            let Some(field) = Named::find(message, &name) else {
                return Err(self.fail(self.suggest.unknown(message, &name)));
            };
            if !seen.insert(field.number) {
                return Err(self.fail(twice(&name)));
            }
            let value = members.next_value_seed(self.at(Place::of_kind(field.kind)));
            self.within(&name, value)?;
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
            if !seen.insert(map_key(key, &name)) {
                return Err(self.fail(twice(&name)));
            }
            let value = entries.next_value_seed(self.at(Place::of_kind(value.clone())));
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
            let value = members.next_value_seed(self.at(Place::Free));
            self.within(&name, value)?;
            seen.insert(name);
        }
        Ok(())
    }
}

fn twice(name: &str) -> JsonError {
    JsonError::new(None, format_args!("`{name}` is set twice")).within(name)
}

/// The key that the text says: numbers can be written in several ways.
fn map_key(kind: &Kind, text: &str) -> String {
    match text.parse::<i128>() {
        Ok(number) if *kind != Kind::String => number.to_string(),
        _ => text.to_owned(),
    }
}

impl<'de> DeserializeSeed<'de> for Names<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Names<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            match items.next_element_seed(self.clone()) {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(error) => return self.within(&format!("[{index}]"), Err(error)),
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        match &self.place {
            Place::Message(message) => self.message(message, members),
            Place::Map { key, value } => self.map(key, value, members),
            Place::Free => self.free(members),
        }
    }
}
