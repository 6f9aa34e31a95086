//! Checks which JSON values a field of a given kind accepts: finds values that would
//! silently change, and explains values that prost-reflect refuses.

use prost_reflect::{EnumDescriptor, Kind};

use super::{suggest::NAME_BYTES_MAX, well_known::WellKnown};
use crate::{shorten::truncate_text, suggest::nearest_name};

/// Maximum number of enum values that an error lists.
const LISTED_MAX: usize = 20;

/// A JSON value, without its contents.
#[derive(Debug, Clone, Copy)]
pub(super) enum JsonValueKind<'a> {
    Null,
    Bool,
    Integer(i128),
    Fraction(f64),
    Text(&'a str),
    List,
    Object,
}

impl JsonValueKind<'_> {
    /// Describes the value for an error.
    fn shown(self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Fraction(number) => number.to_string(),
            Self::Text(text) => format!("the string `{}`", truncate_text(text, NAME_BYTES_MAX)),
            Self::List => "a list".to_owned(),
            Self::Object => "an object".to_owned(),
        }
    }
}

pub(super) fn expected_message(what: &str, said: JsonValueKind<'_>) -> String {
    format!("expected {what}, got {}", said.shown())
}

/// Returns an error text if prost-reflect would change the value of the number.
pub(super) fn changed_number(kind: &Kind, said: JsonValueKind<'_>) -> Option<String> {
    let is_changed = match (kind, said) {
        (Kind::Double, JsonValueKind::Text(text)) => {
            text.parse::<f64>().is_ok_and(|it| !it.is_finite()) && !is_named(text)
        }
        (Kind::Float, JsonValueKind::Text(text)) => {
            text.parse::<f32>().is_ok_and(|it| !it.is_finite()) && !is_named(text)
        }
        // Just beyond the range, a double would be clamped to the last integer.
        (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64, JsonValueKind::Fraction(number)) => {
            number >= 9_223_372_036_854_775_808.0
        }
        (Kind::Uint64 | Kind::Fixed64, JsonValueKind::Fraction(number)) => {
            number >= 18_446_744_073_709_551_616.0
        }
        _ => false,
    };
    is_changed.then(|| expected_message(&describe_kind(kind), said))
}

/// Returns true if the text is one of the names of proto3 JSON for non-finite numbers.
fn is_named(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity")
}

/// Returns an error text that says what a field of this kind accepts; `None` if it accepts
/// the value.
pub(super) fn scalar_mismatch(kind: &Kind, said: JsonValueKind<'_>) -> Option<String> {
    let is_fit = match (kind, said) {
        (Kind::Bool, JsonValueKind::Bool)
        | (Kind::String | Kind::Bytes, JsonValueKind::Text(_))
        | (Kind::Double | Kind::Float, JsonValueKind::Integer(_))
        | (Kind::Double, JsonValueKind::Fraction(_)) => true,
        (Kind::Float, JsonValueKind::Fraction(number)) => number.abs() <= f64::from(f32::MAX),
        (Kind::Double | Kind::Float, JsonValueKind::Text(text)) => text.parse::<f64>().is_ok(),
        (Kind::Enum(_), JsonValueKind::Integer(number)) => i32::try_from(number).is_ok(),
        (Kind::Enum(values), JsonValueKind::Text(name)) => {
            return (values.get_value_by_name(name).is_none()).then(|| unknown_value(values, name));
        }
        (_, JsonValueKind::Integer(number)) => is_in_range(kind, number),
        (_, JsonValueKind::Fraction(number)) => {
            whole_number(number).is_some_and(|it| is_in_range(kind, it))
        }
        (_, JsonValueKind::Text(text)) => text.parse().is_ok_and(|it| is_in_range(kind, it)),
        _ => false,
    };
    (!is_fit).then(|| expected_message(&describe_kind(kind), said))
}

/// Returns an error text that says which keys the map accepts; `None` if it accepts this
/// one.
pub(super) fn key_mismatch(kind: &Kind, key: &str) -> Option<String> {
    let is_fit = match kind {
        Kind::String => true,
        Kind::Bool => matches!(key, "true" | "false"),
        _ => key.parse().is_ok_and(|it| is_in_range(kind, it)),
    };
    let wanted = format!("a key that is {}", describe_kind(kind));
    (!is_fit).then(|| expected_message(&wanted, JsonValueKind::Text(key)))
}

/// Returns an error text that says what the Google type accepts; `None` if it may accept
/// the value.
pub(super) fn google_mismatch(kind: WellKnown, said: JsonValueKind<'_>) -> Option<String> {
    let (is_fit, wanted) = match kind {
        WellKnown::Timestamp => (
            matches!(said, JsonValueKind::Text(_)),
            "a time such as \"2024-02-29T12:00:00Z\"",
        ),
        WellKnown::Duration => (
            matches!(said, JsonValueKind::Text(_)),
            "a duration such as \"1.5s\"",
        ),
        WellKnown::FieldMask => (
            matches!(said, JsonValueKind::Text(_)),
            "the paths of fields in a string, such as \"title,dueDate\"",
        ),
        WellKnown::Struct | WellKnown::Empty => {
            (matches!(said, JsonValueKind::Object), "an object")
        }
        WellKnown::ListValue => (matches!(said, JsonValueKind::List), "a list"),
        WellKnown::Value | WellKnown::Wrapper => (true, ""),
    };
    (!is_fit).then(|| expected_message(wanted, said))
}

/// Returns the first and the last integer of a kind; `None` if it is not an integer kind.
fn integer_range(kind: &Kind) -> Option<(i128, i128)> {
    Some(match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => (i32::MIN.into(), i32::MAX.into()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => (i64::MIN.into(), i64::MAX.into()),
        Kind::Uint32 | Kind::Fixed32 => (0, u32::MAX.into()),
        Kind::Uint64 | Kind::Fixed64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

/// Converts a double to an integer, if it is one.
#[expect(
    clippy::cast_possible_truncation,
    reason = "no kind has the integers at which the cast saturates"
)]
fn whole_number(number: f64) -> Option<i128> {
    (number.fract() == 0.0).then_some(number as i128)
}

fn is_in_range(kind: &Kind, number: i128) -> bool {
    integer_range(kind).is_some_and(|(first, last)| (first..=last).contains(&number))
}

fn describe_kind(kind: &Kind) -> String {
    if let Some((first, last)) = integer_range(kind) {
        return format!("an integer from {first} to {last}");
    }
    match kind {
        Kind::Double => "a number in the range of a double, \"Infinity\", \"-Infinity\" or \"NaN\"",
        Kind::Float => "a number in the range of a float, \"Infinity\", \"-Infinity\" or \"NaN\"",
        Kind::Bool => "true or false",
        Kind::Bytes => "base64 in a string",
        Kind::Enum(_) => "the name of an enum value",
        Kind::Message(_) => "an object",
        _ => "a string",
    }
    .to_owned()
}

fn unknown_value(kind: &EnumDescriptor, name: &str) -> String {
    let shown = truncate_text(name, NAME_BYTES_MAX);
    let names: Vec<_> = kind.values().map(|it| it.name().to_owned()).collect();
    if let Some(near) = nearest_name(name, names.iter().map(String::as_str)) {
        return format!("unknown value `{shown}`; did you mean `{near}`?");
    }
    let listed: Vec<_> = names.iter().take(LISTED_MAX).map(String::as_str).collect();
    let more = match names.len().saturating_sub(LISTED_MAX) {
        0 => String::new(),
        left => format!(" and {left} more"),
    };
    let listed = listed.join(", ");
    format!(
        "unknown value `{shown}`; {} has {listed}{more}",
        kind.name()
    )
}
