//! Deserializes a batch in JSON, one envelope at a time.

use std::{borrow::Cow, cell::Cell, fmt};

use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::MessageSeed;

/// The name of the batch's member that holds the envelopes.
pub(super) const MESSAGES: &str = "messages";

/// Number of brackets around an envelope of a batch.
pub(in crate::schema) const ENVELOPE_LEVEL: usize = 2;

/// Deserializes a batch to the bytes of its envelopes. Skips other members; the check of
/// the names refuses those that are unknown.
pub(super) struct BatchSeed<'a, F> {
    pub(super) envelope: &'a MessageDescriptor,
    pub(super) encode: &'a F,
    /// Number of bytes that the remaining envelopes may have; `None` once the limit was
    /// exceeded.
    pub(super) bytes_left: &'a Cell<Option<usize>>,
}

/// Deserializes the list of envelopes of a batch.
struct EnvelopeListSeed<'a, F>(BatchSeed<'a, F>);

impl<'de, F: Fn(&DynamicMessage) -> Vec<u8>> DeserializeSeed<'de> for BatchSeed<'_, F> {
    type Value = Vec<Vec<u8>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: Fn(&DynamicMessage) -> Vec<u8>> Visitor<'de> for BatchSeed<'_, F> {
    type Value = Vec<Vec<u8>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut envelopes = Vec::new();
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            if name == MESSAGES {
                envelopes = members.next_value_seed(EnvelopeListSeed(BatchSeed { ..self }))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(envelopes)
    }
}

impl<'de, F: Fn(&DynamicMessage) -> Vec<u8>> DeserializeSeed<'de> for EnvelopeListSeed<'_, F> {
    type Value = Vec<Vec<u8>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // `null` means an empty list.
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: Fn(&DynamicMessage) -> Vec<u8>> Visitor<'de> for EnvelopeListSeed<'_, F> {
    type Value = Vec<Vec<u8>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut envelopes = Vec::new();
        while let Some(message) = items.next_element_seed(MessageSeed(self.0.envelope))? {
            let bytes = (self.0.encode)(&message);
            let left = self.0.bytes_left.get();
            let left = left.and_then(|left| left.checked_sub(bytes.len()));
            self.0.bytes_left.set(left);
            if left.is_none() {
                return Err(A::Error::custom("the batch is too large"));
            }
            envelopes.push(bytes);
        }
        Ok(envelopes)
    }
}
