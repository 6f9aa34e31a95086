//! Looks through JSON for names that stand in an object twice. prost-reflect
//! takes the last of them, and what the others said would be gone without a word.

use std::{collections::HashSet, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Fails where an object has a name twice, at any depth. With `both_styles`,
/// `message_id` and `messageId` are the same name; not to be asked for where the
/// schema has maps, whose keys are the application's own.
pub(super) fn check(json: &[u8], both_styles: bool) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    UniqueNames { both_styles }.deserialize(&mut deserializer)
}

#[derive(Clone, Copy)]
struct UniqueNames {
    both_styles: bool,
}

impl UniqueNames {
    /// The name by which fields are told apart.
    fn canonical(self, name: String) -> String {
        if self.both_styles {
            lower_camel(&name)
        } else {
            name
        }
    }
}

/// As protoc makes a field's JSON name from the one in the .proto.
fn lower_camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut raise = false;
    for character in name.chars() {
        if character == '_' {
            raise = true;
        } else {
            camel.push(if raise {
                character.to_ascii_uppercase()
            } else {
                character
            });
            raise = false;
        }
    }
    camel
}

impl<'de> DeserializeSeed<'de> for UniqueNames {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueNames {
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
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            if seen.contains(&self.canonical(name.clone())) {
                entries.next_value::<IgnoredAny>()?;
                return Err(A::Error::custom(format_args!(
                    "`{name}` stands there twice"
                )));
            }
            seen.insert(self.canonical(name));
            entries.next_value_seed(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_is_found_at_any_depth_and_in_either_style() {
        for (json, both_styles, is_unique) in [
            (r#"{"a":1,"b":[{"a":1},{"a":2}],"c":null}"#, true, true),
            (r#"{"a":1,"a":1}"#, false, false),
            (r#"{"a":[true,{"b":{"c":1.5,"c":"x"}}]}"#, false, false),
            (r#"{"a":1,"\u0061":2}"#, false, false),
            (r#"{"work_item":{},"workItem":{}}"#, true, false),
            (r#"{"work_item":{},"workItem":{}}"#, false, true),
            (r#"{"workItem":{},"work_items":{}}"#, true, true),
        ] {
            assert_eq!(
                check(json.as_bytes(), both_styles).is_ok(),
                is_unique,
                "{json}"
            );
        }
    }
}
