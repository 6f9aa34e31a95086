//! Extracts the payload's type and the message id from a client's JSON before it is parsed.
//! The content is skipped.

use std::{borrow::Cow, fmt};

use prost_reflect::MessageDescriptor;
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};

use super::super::relay_fields::number;

/// The facts in the outermost members of an envelope. Empty if the text is not JSON.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::schema) struct PeekedEnvelope {
    /// The message id; `None` if there is none, or more than one.
    pub(in crate::schema) message_id: Option<String>,
    /// The field number of the payload; `None` if there is none, or more than one.
    pub(in crate::schema) payload: Option<u32>,
}

/// Extracts the facts from the text. `is_payload` returns true for field numbers of
/// payloads.
pub(in crate::schema) fn peek_envelope(
    envelope: &MessageDescriptor,
    json: &[u8],
    is_payload: impl Fn(u32) -> bool,
) -> PeekedEnvelope {
    let members = EnvelopeVisitor {
        envelope,
        is_payload,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let peeked = deserializer.deserialize_map(members);
    peeked
        .and_then(|peeked| deserializer.end().map(|()| peeked))
        .unwrap_or_default()
}

struct EnvelopeVisitor<'a, F> {
    envelope: &'a MessageDescriptor,
    is_payload: F,
}

impl<'de, F: Fn(u32) -> bool> Visitor<'de> for EnvelopeVisitor<'_, F> {
    type Value = PeekedEnvelope;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<PeekedEnvelope, A::Error> {
        let (mut ids, mut payloads) = (Vec::new(), Vec::new());
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            let field = self
                .envelope
                .get_field_by_json_name(&name)
                .or_else(|| self.envelope.get_field_by_name(&name));
            match field.map(|field| field.number()) {
                Some(number::MESSAGE_ID) => ids.push(members.next_value_seed(TextSeed)?),
                Some(number) if (self.is_payload)(number) => {
                    if members.next_value::<Option<IgnoredAny>>()?.is_some() {
                        payloads.push(number);
                    }
                }
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(PeekedEnvelope {
            message_id: single_value(ids).flatten(),
            payload: single_value(payloads),
        })
    }
}

fn single_value<T>(mut values: Vec<T>) -> Option<T> {
    values.pop().filter(|_| values.is_empty())
}

/// Deserializes a string; gives `None` for any other value.
struct TextSeed;

impl<'de> DeserializeSeed<'de> for TextSeed {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextSeed {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message id")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(items).map(|_| None)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_map(members).map(|_| None)
    }
}
