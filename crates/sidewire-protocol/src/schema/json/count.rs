//! Counts the envelopes of a batch in JSON without parsing them.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer as _,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::batch::MESSAGES;

/// Returns true if the batch has more than `max` envelopes, and stops there. Returns false
/// if the JSON is not a batch.
pub(in crate::schema) fn has_more_than(json: &[u8], max: usize) -> bool {
    let mut is_over = false;
    let batch = BatchCounter {
        max,
        is_over: &mut is_over,
    };
    // Parsing the batch reports its errors.
    drop(serde_json::Deserializer::from_slice(json).deserialize_map(batch));
    is_over
}

struct BatchCounter<'a> {
    max: usize,
    is_over: &'a mut bool,
}

impl<'de> Visitor<'de> for BatchCounter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            if name == MESSAGES {
                let (max, is_over) = (self.max, &mut *self.is_over);
                members.next_value_seed(EnvelopeCounter { max, is_over })?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct EnvelopeCounter<'a> {
    max: usize,
    is_over: &'a mut bool,
}

impl<'de> DeserializeSeed<'de> for EnvelopeCounter<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeCounter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of envelopes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut count = 0_usize;
        while items.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
            if count > self.max {
                *self.is_over = true;
                return Err(A::Error::custom("too many"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_counted_up_to_its_limit_and_other_json_is_not_counted() {
        for (json, expected) in [
            (r#"{"messages": [{}, {}]}"#, false),
            (r#"{"messages": [{}, {}, {}]}"#, true),
            (
                r#"{"other": [[[]]], "messages": [{}, {"a": [1]}, {}]}"#,
                true,
            ),
            // The rest is not read.
            (r#"{"messages": [{}, {}, {}, what"#, true),
            (r#"{"messages": [{}, what"#, false),
            (r#"{"messages": {}}"#, false),
            (r#"{"messages": null}"#, false),
            ("[]", false),
            ("", false),
        ] {
            assert_eq!(has_more_than(json.as_bytes(), 2), expected, "{json}");
        }
    }
}
