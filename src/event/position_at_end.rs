//! Finds the position at the end of an event's JSON, where the relay has appended it. No other field
//! of an envelope can look like it: the two braces at the end close the field and the envelope.

use sidewire_protocol::position::EPOCH_CHARS;
use smallvec::SmallVec;

use super::json::{BETWEEN, END, OFFSET_DIGITS_MAX};

/// The text before the epoch: the name of the field, as the envelope's JSON has it.
#[derive(Debug)]
pub(crate) struct PositionFinder(Box<[u8]>);

impl PositionFinder {
    /// Finds positions in a field of this name.
    pub(crate) fn new(name: &str) -> Self {
        let name = serde_json::Value::from(name);
        Self(format!("{name}:{{\"epoch\":\"").into_bytes().into())
    }

    /// Returns the maximum number of bytes at the end of the JSON that the field takes.
    pub(crate) fn bytes_max(&self) -> usize {
        self.0.len() + EPOCH_CHARS + BETWEEN.len() + OFFSET_DIGITS_MAX + END.len()
    }

    /// Returns the position at the end of an envelope's JSON, as `<epoch>:<offset>`; `None` if it has
    /// none. At least the last [`Self::bytes_max`] bytes are given.
    pub(crate) fn find(&self, json: &[u8]) -> Option<SmallVec<[u8; 64]>> {
        let rest = json.strip_suffix(END)?;
        let digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit());
        let (rest, offset) = rest.split_at_checked(rest.len() - digits.count())?;
        let rest = rest.strip_suffix(BETWEEN)?;
        let (rest, epoch) = rest.split_at_checked(rest.len().checked_sub(EPOCH_CHARS)?)?;
        if !rest.ends_with(&self.0) || offset.is_empty() {
            return None;
        }
        let mut position = SmallVec::from_slice(epoch);
        position.push(b':');
        position.extend_from_slice(offset);
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "0123456789abcdef0123456789abcdef";

    fn found(json: &str) -> Option<String> {
        let found = PositionFinder::new("position").find(json.as_bytes())?;
        String::from_utf8(found.to_vec()).ok()
    }

    #[test]
    fn the_position_of_an_envelope_is_found() {
        let position = format!(r#""position":{{"epoch":"{EPOCH}","offset":"42"}}"#);
        let expected = Some(format!("{EPOCH}:42"));
        assert_eq!(found(&format!(r#"{{"a":1,{position}}}"#)), expected);
        assert_eq!(found(&format!("{{{position}}}")), expected);
    }

    #[test]
    fn a_position_within_a_payload_is_not_that_of_the_envelope() {
        let position = format!(r#""position":{{"epoch":"{EPOCH}","offset":"42"}}"#);
        for json in [
            format!(r#"{{"pong":{{{position}}}}}"#),
            format!(r#"{{{position},"a":1}}"#),
            format!(r#"{{"my_{position}}}"#).replace("my_\"", "my_"),
            format!(r#"{{"position":{{"epoch":"{EPOCH}","offset":""}}}}"#),
            format!(
                r#"{{"position":{{"epoch":"{}","offset":"1"}}}}"#,
                EPOCH.replacen('0', "", 1)
            ),
            r#"{"messageId":"\"position\":{\"epoch\""}"#.to_owned(),
            "}}".to_owned(),
            String::new(),
        ] {
            assert_eq!(found(&json), None, "{json}");
        }
    }
}
