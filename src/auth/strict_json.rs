//! JSON and base64url of tokens, parsed strictly, so that no other parser can read the same
//! token differently.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

/// Decodes base64url without padding (RFC 7515, 2). Returns `None` for padding, another
/// alphabet, white space, or non-zero trailing bits.
pub(super) fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Parses a JSON object. Returns `None` if it is malformed or has a name twice, since parsers
/// disagree on which of the two counts (RFC 7519, 4). Nested objects are not checked, since
/// no claim is read from them.
pub(super) fn parse_object(bytes: &[u8]) -> Option<Map<String, Value>> {
    let UniqueNames(map) = serde_json::from_slice(bytes).ok()?;
    Some(map)
}

struct UniqueNames(Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor).map(Self)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, value)) = entries.next_entry()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate name"));
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_must_be_the_whole_text_and_have_unique_members() {
        assert_eq!(parse_object(b" {} ").map(|map| map.len()), Some(0));
        assert_eq!(
            parse_object(br#"{"a":1,"b":{"c":1,"c":2}}"#).map(|map| map.len()),
            Some(2)
        );
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":1}{}"#,
            r#"{"a":1,}"#,
            "[]",
            "null",
            "",
            "\u{feff}{}",
        ] {
            assert!(parse_object(text.as_bytes()).is_none(), "{text}");
        }
        assert!(parse_object(b"{\"a\":\"\xff\"}").is_none());
    }

    #[test]
    fn base64url_is_accepted_only_in_canonical_form() {
        assert_eq!(decode_base64url("-_8"), Some(vec![0xfb, 0xff]));
        for text in ["-_9", "-_8=", "+/8", "-_8\n", " -_8", "-_8-_"] {
            assert_eq!(decode_base64url(text), None, "{text:?}");
        }
    }
}
