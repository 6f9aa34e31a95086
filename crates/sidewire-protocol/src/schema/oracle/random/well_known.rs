//! Random values of Google's types, mostly with content that has a JSON form, which purely
//! random bytes rarely have.

use prost_reflect::MessageDescriptor;

use super::{Member, Tape, encoded, field, map_entry, varint_field};

/// The seconds of the years 1 to 9999.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const DURATION_SECONDS_MAX: i64 = 315_576_000_000;
const NANOS: [i64; 8] = [
    0,
    0,
    1,
    1_000,
    120_000_000,
    500_000_000,
    123_456_789,
    999_999_999,
];

/// Writes the message; `None` if it is not a type with a special JSON form.
pub(super) fn message(
    tape: &mut Tape<'_>,
    descriptor: &MessageDescriptor,
    depth: usize,
) -> Option<Vec<u8>> {
    Some(match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            let seconds = within(tape, *TIMESTAMP_SECONDS.start(), *TIMESTAMP_SECONDS.end());
            let nanos = *tape.pick(&NANOS);
            time(tape, seconds, nanos)
        }
        "google.protobuf.Duration" => {
            let seconds = within(tape, -DURATION_SECONDS_MAX, DURATION_SECONDS_MAX);
            let nanos = *tape.pick(&NANOS);
            time(tape, seconds, if seconds < 0 { -nanos } else { nanos })
        }
        "google.protobuf.FieldMask" => {
            let paths = ["a", "foo_bar", "a.b_c", "some_long.path_of.names", "x"];
            let paths = (0..tape.below(4)).map(|_| *tape.pick(&paths));
            let paths: Vec<_> = paths.collect();
            paths
                .iter()
                .flat_map(|path| field(tape, 1, path.as_bytes()))
                .collect()
        }
        "google.protobuf.Value" => value(tape, descriptor, depth),
        "google.protobuf.Struct" if depth < 5 => {
            let fields = Member::from(&descriptor.get_field(1)?);
            let entry = fields.kind.as_message()?;
            let entries: Vec<_> = (0..tape.below(4))
                .map(|_| map_entry(tape, entry, depth))
                .collect();
            entries
                .iter()
                .flat_map(|entry| field(tape, 1, entry))
                .collect()
        }
        _ => return None,
    })
}

/// Writes a Value of one kind, never a number without a JSON form.
fn value(tape: &mut Tape<'_>, descriptor: &MessageDescriptor, depth: usize) -> Vec<u8> {
    // Null, number, string, bool, Struct, ListValue.
    match tape.below(if depth < 5 { 6 } else { 4 }) {
        0 => varint_field(tape, 1, 0),
        1 => {
            let number = *tape.pick(&[
                0.0,
                -0.0,
                1.0,
                0.1,
                -1.5e300,
                9_007_199_254_740_993.0,
                5e-324,
            ]);
            let mut out = vec![2 << 3 | 1];
            out.extend(f64::to_le_bytes(number));
            out
        }
        3 => varint_field(tape, 4, 1),
        member => {
            let number = [1, 2, 3, 4, 5, 6][member];
            let Some(member) = descriptor.get_field(number) else {
                return Vec::new();
            };
            encoded(tape, &Member::from(&member), depth)
        }
    }
}

fn time(tape: &mut Tape<'_>, seconds: i64, nanos: i64) -> Vec<u8> {
    let mut out = varint_field(tape, 1, seconds.cast_unsigned());
    out.extend(varint_field(tape, 2, nanos.cast_unsigned()));
    out
}

/// Returns a number in the range, often one of its ends.
fn within(tape: &mut Tape<'_>, min: i64, max: i64) -> i64 {
    match tape.below(6) {
        0 => min,
        1 => max,
        2 => 0,
        _ => {
            let span = (max - min).cast_unsigned() + 1;
            min.wrapping_add_unsigned(tape.number() % span)
        }
    }
}
