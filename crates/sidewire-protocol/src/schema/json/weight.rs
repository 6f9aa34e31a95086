//! Estimates the work and memory that parsing a JSON text takes, in one pass before it is
//! parsed.
//!
//! The cost depends on the number of values, not on the number of bytes. Measured with a
//! release build on prost-reflect 0.16, parsing the text into a message and encoding it:
//!
//! | JSON | bytes per value | peak memory per value | time per value |
//! |---|---|---|---|
//! | `[1,1,…]` in a google.protobuf.Value | 2.0 | 798 bytes | 0.94 µs |
//! | `[[[[]]],…]` in the same type | 1.8 | 1,048 bytes | 1.7 µs |
//! | `[{"a":1},…]` in the same type | 2.7 | 1,044 bytes | 1.5 µs |
//! | orders of the generic schema | 6.2 | 498 bytes | 0.8 µs |
//! | ordinary events of the bundled schema | 12 | 92 bytes | 0.35 µs |
//!
//! Each comma, colon and opening bracket outside of strings counts as one value, so a
//! member of an object counts twice. The pass takes 1 to 2 ns per byte.

/// The weight of a value, in bytes: a long string takes a few nanoseconds per byte, a value
/// up to 1.5 µs.
const VALUE_WEIGHT: usize = 64;

/// Maximum number of values in one envelope. Whatever the size of the body, the envelope
/// being parsed then takes at most 100 MiB (1,048 bytes per value). 1 MiB of ordinary
/// events has 90,000 values.
pub(super) const VALUES_MAX: usize = 100_000;

/// Maximum nesting that the parser (serde_json) accepts.
const DEPTH_MAX: usize = 127;

/// Returns the work of parsing the text: its length plus [`VALUE_WEIGHT`] for each value.
/// Stops once the weight exceeds `max`.
pub(in crate::schema) fn text_weight(json: &[u8], max: usize) -> usize {
    let mut weight = json.len();
    let mut marks = StructuralMarks::of(json);
    while weight <= max
        && let Some(mark) = marks.next()
    {
        if mark.is_value() {
            weight = weight.saturating_add(VALUE_WEIGHT);
        }
    }
    weight
}

/// Memory of a value while its envelope is parsed, in bytes: the maximum in the table,
/// rounded up.
const VALUE_MEMORY: usize = 1100;

/// Size of an encoded value, in bytes: a number in a google.protobuf.Value has 11.
const ENCODED_VALUE_BYTES: usize = 12;

/// Returns the maximum memory that parsing the text takes, in bytes, without the text
/// itself. Envelopes are `level` brackets deep and may have `bytes_max` bytes in total.
/// Only one at a time is held as a message. The encoded bytes of each are kept, in buffers
/// that may be twice as large, while the next one is encoded, which takes the same again,
/// and while all of them are joined to one batch.
pub(in crate::schema) fn memory_max(json: &[u8], level: usize, bytes_max: usize) -> usize {
    let (mut heaviest, mut all) = (0, 0_usize);
    for value in envelope_values(json, level) {
        if value.count > VALUES_MAX {
            // Such a text is refused before it is parsed.
            return 0;
        }
        if value.depth > DEPTH_MAX {
            // The parser stops here.
            break;
        }
        heaviest = value.count.max(heaviest);
        all += 1;
    }
    let encoded = |values: usize| json.len() + ENCODED_VALUE_BYTES * values;
    let (all, last) = (encoded(all).min(bytes_max), encoded(heaviest));
    VALUE_MEMORY * heaviest + 2 * all + all.max(2 * last)
}

/// Returns the index of the first envelope that has more than `max` values. Envelopes are
/// `level` brackets deep: 0 if the text is a single envelope, 2 in a batch.
pub(super) fn heavy_envelope(json: &[u8], level: usize, max: usize) -> Option<usize> {
    let heavy = envelope_values(json, level).find(|value| value.count > max)?;
    Some(heavy.envelope)
}

/// A value in an envelope.
struct CountedValue {
    /// The index of the envelope.
    envelope: usize,
    /// Number of values in the envelope up to and including this one.
    count: usize,
    /// Number of brackets around the value, including its own.
    depth: usize,
}

/// Iterates over the values in all envelopes.
fn envelope_values(json: &[u8], level: usize) -> impl Iterator<Item = CountedValue> {
    let (mut depth, mut envelope, mut count) = (0_usize, 0, 0);
    StructuralMarks::of(json).filter_map(move |mark| {
        match mark {
            StructuralMark::Open => depth = depth.saturating_add(1),
            StructuralMark::Close => depth = depth.saturating_sub(1),
            StructuralMark::Comma if depth == level => {
                envelope += 1;
                count = 0;
            }
            StructuralMark::Comma | StructuralMark::Colon => {}
        }
        let is_within = depth > level && mark.is_value();
        count += usize::from(is_within);
        is_within.then_some(CountedValue {
            envelope,
            count,
            depth,
        })
    })
}

/// A structural character of JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StructuralMark {
    Open,
    Close,
    Comma,
    Colon,
}

impl StructuralMark {
    fn is_value(self) -> bool {
        self != Self::Close
    }
}

/// Iterates over the structural characters outside of strings.
struct StructuralMarks<'a> {
    bytes: std::slice::Iter<'a, u8>,
    in_string: bool,
}

impl<'a> StructuralMarks<'a> {
    fn of(json: &'a [u8]) -> Self {
        Self {
            bytes: json.iter(),
            in_string: false,
        }
    }
}

impl Iterator for StructuralMarks<'_> {
    type Item = StructuralMark;

    fn next(&mut self) -> Option<StructuralMark> {
        while let Some(byte) = self.bytes.next() {
            match byte {
                b'"' => self.in_string = !self.in_string,
                b'\\' if self.in_string => {
                    self.bytes.next();
                }
                _ if self.in_string => {}
                b'[' | b'{' => return Some(StructuralMark::Open),
                b']' | b'}' => return Some(StructuralMark::Close),
                b',' => return Some(StructuralMark::Comma),
                b':' => return Some(StructuralMark::Colon),
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings_and_only_up_to_the_limit() {
        let weigh = |json: &str| text_weight(json.as_bytes(), usize::MAX);
        assert_eq!(weigh(""), 0);
        assert_eq!(weigh("[1,1]"), 5 + 2 * VALUE_WEIGHT);
        assert_eq!(weigh(r#"{"a,[{:\"\\":1}"#), 15 + 2 * VALUE_WEIGHT);
        assert_eq!(weigh(r#"{"a":"\",[","b":1}"#), 18 + 4 * VALUE_WEIGHT);
        let many = "[".repeat(1000);
        assert_eq!(text_weight(many.as_bytes(), 1100), 1000 + 2 * VALUE_WEIGHT);
    }

    #[test]
    fn the_values_of_each_envelope_of_a_batch_are_counted_separately() {
        let heavy = |json: &str, level, max| heavy_envelope(json.as_bytes(), level, max);
        let event = r#"{"event":{"data":[1,2,3]}}"#;
        assert_eq!(heavy(event, 0, 7), None);
        assert_eq!(heavy(event, 0, 6), Some(0));
        let batch = format!(r#"{{"messages":[{},{event},{event},{{}}]}}"#, "{}");
        assert_eq!(heavy(&batch, 2, 7), None);
        assert_eq!(heavy(&batch, 2, 6), Some(1));
        // Invalid JSON must not break the count.
        assert_eq!(heavy("]]]]", 2, 0), None);
        let memory = |json: &str, level| memory_max(json.as_bytes(), level, usize::MAX);
        assert_eq!(memory(event, 0), 7 * VALUE_MEMORY + 4 * (26 + 7 * 12));
        let heaviest = memory(&batch, 2);
        let encoded = 2 * (batch.len() + (7 + 7 + 2) * 12) + 2 * (batch.len() + 7 * 12);
        assert_eq!(heaviest, 7 * VALUE_MEMORY + encoded);
    }

    #[test]
    fn values_deeper_than_the_parser_reads_take_no_memory() {
        let deep = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
        let parses = |json: &str| serde_json::from_str::<serde_json::Value>(json).is_ok();
        assert!(parses(&deep(DEPTH_MAX)) && !parses(&deep(DEPTH_MAX + 1)));
        let of_values = |json: &str| memory_max(json.as_bytes(), 0, usize::MAX) - 4 * json.len();
        assert_eq!(of_values(&deep(DEPTH_MAX)), of_values(&deep(50_000)));
    }
}
