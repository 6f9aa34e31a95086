//! Finds the position at the end of an event's JSON, where the relay has appended it. No other field
//! of an envelope can look like it: the two braces at the end close the field and the envelope.

use sidewire_protocol::position::EPOCH_CHARS;

use super::json::{BETWEEN, END, OFFSET_DIGITS_MAX};

/// Text between the name of the field and the epoch.
const BEGIN: &[u8] = br#"":{"epoch":""#;

/// Most bytes of the name of the field.
const NAME_MAX: usize = 64;

/// Number of bytes at the end of the JSON in which the position is.
pub(crate) const BYTES_MAX: usize =
    1 + NAME_MAX + BEGIN.len() + EPOCH_CHARS + BETWEEN.len() + OFFSET_DIGITS_MAX + END.len();

/// Returns the epoch and the offset of the position in the field `name` at the end of an envelope's
/// JSON, of which at least the last [`BYTES_MAX`] bytes are given; `None` if it has none.
pub(crate) fn find<'a>(json: &'a [u8], name: &str) -> Option<(&'a [u8], &'a [u8])> {
    let rest = json.strip_suffix(END)?;
    let digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit());
    let (rest, offset) = rest.split_at_checked(rest.len() - digits.count())?;
    let rest = rest.strip_suffix(BETWEEN)?;
    let (rest, epoch) = rest.split_at_checked(rest.len().checked_sub(EPOCH_CHARS)?)?;
    let rest = rest.strip_suffix(BEGIN)?.strip_suffix(name.as_bytes())?;
    let is_position = rest.ends_with(b"\"") && !offset.is_empty();
    is_position.then_some((epoch, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "0123456789abcdef0123456789abcdef";

    fn found(json: &str) -> Option<String> {
        let (epoch, offset) = find(json.as_bytes(), "position")?;
        String::from_utf8([epoch, b":", offset].concat()).ok()
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
