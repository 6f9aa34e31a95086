//! The position of an event in its tenant's order.

use std::{fmt, str::FromStr};

use super::wire;

/// Identifies one life of a tenant's log: 128 random bits, written as 32 lower-case hexadecimal
/// digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u128);

/// Number of characters of a written epoch.
pub const EPOCH_CHARS: usize = 32;

impl Epoch {
    /// Creates the epoch with these bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Returns the written form, in ASCII. (Formatting a `u128` took a fifth of the time to make
    /// a frame.)
    #[must_use]
    pub fn to_ascii(self) -> [u8; EPOCH_CHARS] {
        let mut text = [0; EPOCH_CHARS];
        for (place, digits) in text.chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            place.copy_from_slice(&[hex_digit(digits >> 4), hex_digit(digits & 0xf)]);
        }
        text
    }
}

const fn hex_digit(value: u8) -> u8 {
    match value {
        0..=9 => b'0' + value,
        _ => b'a' + value - 10,
    }
}

/// Error for a text that is not 32 lower-case hexadecimal digits, so that no log ever had it as
/// its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an epoch of this relay")]
pub struct EpochError;

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, EpochError> {
        let well_formed = text.len() == EPOCH_CHARS
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !well_formed {
            return Err(EpochError);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| EpochError)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.to_ascii()).unwrap_or_default())
    }
}

/// An epoch and an offset in it, which is 0 before the first event and then grows from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The offset in the epoch.
    pub offset: u64,
}

impl From<Position> for wire::Position {
    fn from(position: Position) -> Self {
        Self {
            epoch: position.epoch.to_string(),
            offset: position.offset,
        }
    }
}

impl TryFrom<&wire::Position> for Position {
    type Error = EpochError;

    fn try_from(position: &wire::Position) -> Result<Self, EpochError> {
        Ok(Self {
            epoch: position.epoch.parse()?,
            offset: position.offset,
        })
    }
}

/// Parses `<epoch>:<offset>`, the form in which a position is displayed.
impl FromStr for Position {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, EpochError> {
        let (epoch, offset) = text.split_once(':').ok_or(EpochError)?;
        // `parse` alone would accept a plus sign.
        let is_number = offset.bytes().all(|byte| byte.is_ascii_digit());
        let offset = offset.parse().ok().filter(|_| is_number);
        Ok(Self {
            epoch: epoch.parse()?,
            offset: offset.ok_or(EpochError)?,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_can_be_parsed_from_its_own_text() {
        for bits in [0, 1, u128::MAX, 0x1234] {
            let epoch = Epoch::from_bits(bits);
            assert_eq!(epoch.to_string().parse(), Ok(epoch));
            assert_eq!(epoch.to_string(), format!("{:032x}", epoch.0));
        }
    }

    #[test]
    fn a_text_that_the_relay_never_writes_is_not_an_epoch() {
        for text in [
            "",
            "0",
            "+0000000000000000000000000000000",
            &"A".repeat(32),
            &"0".repeat(33),
        ] {
            assert_eq!(text.parse::<Epoch>(), Err(EpochError), "{text:?}");
        }
    }
}
