//! Reads one level of Protobuf's wire format: the raw fields of a message, without regard
//! to the schema (<https://protobuf.dev/programming-guides/encoding/>).

use std::ops::Range;

use super::error::{WireError, WireFault};

/// The highest possible field number.
const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;

/// The wire type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireType {
    Varint,
    Fixed64,
    /// A length, followed by that many bytes.
    Delimited,
    Fixed32,
}

/// A raw field.
#[derive(Debug, Clone)]
pub(super) struct RawField {
    pub(super) number: u32,
    pub(super) wire_type: WireType,
    /// The range from the first byte of the tag to the end of the value.
    pub(super) whole: Range<usize>,
    /// The range of the value, without its length prefix.
    pub(super) value: Range<usize>,
}

/// Iterates over the fields in one range of the bytes.
#[derive(Debug, Clone)]
pub(super) struct WireFields<'a> {
    /// All bytes up to the end of the range, so that offsets are absolute.
    bytes: &'a [u8],
    at: usize,
}

impl<'a> WireFields<'a> {
    /// Iterates over the fields of the message that is `bytes[range]`.
    pub(super) fn new(bytes: &'a [u8], range: &Range<usize>) -> Self {
        Self {
            bytes: bytes.get(..range.end).unwrap_or(bytes),
            at: range.start,
        }
    }

    fn read_field(&mut self) -> Result<RawField, WireError> {
        let start = self.at;
        let (number, wire_type) = self.read_tag()?;
        let value = match wire_type {
            WireType::Varint => self.varint_range()?,
            WireType::Fixed64 => self.take_bytes(8, start)?,
            WireType::Fixed32 => self.take_bytes(4, start)?,
            WireType::Delimited => {
                let length = self.read_varint()?;
                self.take_bytes(length, start)?
            }
        };
        Ok(RawField {
            number,
            wire_type,
            whole: start..value.end,
            value,
        })
    }

    fn read_tag(&mut self) -> Result<(u32, WireType), WireError> {
        let start = self.at;
        let key = self.read_varint()?;
        let number = u32::try_from(key >> 3)
            .ok()
            .filter(|number| (1..=FIELD_NUMBER_MAX).contains(&u64::from(*number)))
            .ok_or_else(|| WireError::new(WireFault::FieldNumber, start))?;
        let wire_type = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Delimited,
            5 => WireType::Fixed32,
            3 | 4 => return Err(WireError::new(WireFault::Group, start)),
            _ => return Err(WireError::new(WireFault::WireType, start)),
        };
        Ok((number, wire_type))
    }

    /// Consumes the next `length` bytes, which belong to the field at `start`, and returns
    /// their range.
    fn take_bytes(&mut self, length: u64, start: usize) -> Result<Range<usize>, WireError> {
        let rest = self.bytes.len().saturating_sub(self.at);
        match usize::try_from(length) {
            Ok(length) if length <= rest => {
                let range = self.at..self.at + length;
                self.at = range.end;
                Ok(range)
            }
            _ => Err(WireError::new(WireFault::Truncated, start)),
        }
    }

    fn varint_range(&mut self) -> Result<Range<usize>, WireError> {
        let start = self.at;
        self.read_varint()?;
        Ok(start..self.at)
    }

    fn read_varint(&mut self) -> Result<u64, WireError> {
        let (value, end) = varint_at(self.bytes, self.at)?;
        self.at = end;
        Ok(value)
    }
}

impl Iterator for WireFields<'_> {
    type Item = Result<RawField, WireError>;

    /// Returns the next field. An error is the last item.
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.read_field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

/// Returns the varint at `at`, and the offset of its end.
pub(super) fn varint_at(bytes: &[u8], at: usize) -> Result<(u64, usize), WireError> {
    let rest = bytes.get(at..).unwrap_or_default();
    let mut value = 0;
    for (index, byte) in rest.iter().take(10).enumerate() {
        // The tenth byte holds only the 64th bit.
        if index == 9 && *byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            return Ok((value, at + index + 1));
        }
    }
    let fault = if rest.len() < 10 {
        WireFault::Truncated
    } else {
        WireFault::Varint
    };
    Err(WireError::new(fault, at))
}

/// Checks that the range holds only varints.
pub(super) fn check_varints(bytes: &[u8], range: &Range<usize>) -> Result<(), WireError> {
    let bytes = bytes.get(..range.end).unwrap_or(bytes);
    let mut at = range.start;
    while at < bytes.len() {
        (_, at) = varint_at(bytes, at)?;
    }
    Ok(())
}

/// Returns the UTF-8 text in the range.
pub(super) fn utf8_text<'a>(bytes: &'a [u8], range: &Range<usize>) -> Result<&'a str, WireError> {
    let bytes = bytes.get(range.clone()).unwrap_or_default();
    str::from_utf8(bytes)
        .map_err(|error| WireError::new(WireFault::Utf8, range.start + error.valid_up_to()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<RawField>, WireFault> {
        WireFields::new(bytes, &(0..bytes.len()))
            .collect::<Result<_, _>>()
            .map_err(|error| error.fault())
    }

    #[test]
    fn a_field_is_found_with_its_value() {
        // Field 1, varint 150; field 2, "hi"; field 3, 4 bytes; field 4, 8 bytes.
        let bytes = b"\x08\x96\x01\x12\x02hi\x1d\0\0\0\0\x21\0\0\0\0\0\0\0\0";
        let fields = read(bytes).unwrap();
        let values: Vec<_> = fields.iter().map(|field| field.value.clone()).collect();
        assert_eq!(values, [1..3, 5..7, 8..12, 13..21]);
        assert_eq!(fields[1].whole, 3..7);
        assert_eq!(fields[3].number, 4);
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let faults: [(&[u8], WireFault); 14] = [
            (b"\x08", WireFault::Truncated),
            (b"\x08\x80", WireFault::Truncated),
            (b"\x12\x05hi", WireFault::Truncated),
            (
                b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                WireFault::Truncated,
            ),
            (b"\x1d\0\0\0", WireFault::Truncated),
            (b"\x21\0\0\0\0\0\0\0", WireFault::Truncated),
            (
                b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
                WireFault::Varint,
            ),
            (
                b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\0",
                WireFault::Varint,
            ),
            (b"\x00\x01", WireFault::FieldNumber),
            (b"\x80\x80\x80\x80\x10\x01", WireFault::FieldNumber),
            (b"\x0b\x0c", WireFault::Group),
            (b"\x0c", WireFault::Group),
            (b"\x0e", WireFault::WireType),
            (b"\x0f", WireFault::WireType),
        ];
        for (bytes, fault) in faults {
            assert_eq!(read(bytes).unwrap_err(), fault, "{bytes:x?}");
        }
    }

    #[test]
    fn the_widest_varint_and_the_highest_number_are_accepted() {
        let fields = read(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").unwrap();
        assert_eq!(fields[0].value, 1..11);
        let fields = read(b"\xf8\xff\xff\xff\x0f\x01").unwrap();
        assert_eq!(u64::from(fields[0].number), FIELD_NUMBER_MAX);
    }

    #[test]
    fn a_varint_may_be_longer_than_necessary() {
        assert_eq!(varint_at(b"\x81\x80\x00", 0), Ok((1, 3)));
    }
}
