//! What the other clients receive, split into fields by hand: exactly a message id, a timestamp
//! and the payload.

use sidewire_protocol::clock::Clock;
use sidewire_testing::{
    protobuf::{self, DELIMITED, FIXED32, FIXED64, VARINT},
    websocket::{BINARY, Frame},
};

use super::{ATTACKER, PayloadType};

/// The relay's time is at most this many seconds from the test's.
const CLOCK_SECONDS: u64 = 60;

/// A field of a message: its number, and its bytes with the key.
type Field = (u32, Vec<u8>);

/// An event as another client receives it.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) id: String,
    /// The number of the payload's field, and its fields.
    number: u32,
    payload: Vec<Field>,
}

impl Heard {
    /// Reads an event, which must have nothing but an id, the time and a payload, each once.
    pub(crate) fn from_frame(frame: &Frame) -> Result<Self, String> {
        let told = || format!("received {frame:x?}");
        if frame.opcode != BINARY {
            return Err(told());
        }
        let mut id = None;
        let mut time = None;
        let mut payload = None;
        for (number, bytes) in fields(&frame.payload)? {
            let (wire_type, value) = value_of(&bytes).ok_or_else(told)?;
            let is_again = match (number, wire_type) {
                (1, DELIMITED) => id.replace(String::from_utf8(value).ok()).is_some(),
                (8, VARINT) => time.replace(varint(&mut &value[..])).is_some(),
                (_, DELIMITED) => payload.replace((number, value)).is_some(),
                _ => true,
            };
            if is_again {
                return Err(told());
            }
        }
        let (Some(Some(id)), Some(Some(time)), Some((number, payload))) = (id, time, payload)
        else {
            return Err(told());
        };
        let now = u64::try_from(Clock::system().unix_seconds()).unwrap();
        if time.abs_diff(now) > CLOCK_SECONDS {
            return Err(format!("a timestamp of {time} at {now}"));
        }
        Ok(Self {
            id,
            number,
            payload: fields(&payload)?,
        })
    }

    /// Checks that the payload has these fields, and the sender's name once.
    pub(crate) fn check(&self, payload: &PayloadType, kept: &[u8]) -> Result<(), String> {
        self.check_sender(payload)?;
        let others = |fields: &[Field]| {
            let kept = fields.iter().filter(|field| field.0 != payload.sender);
            by_number(kept.cloned().collect())
        };
        let heard = others(&self.payload);
        let wanted = others(&fields(kept)?);
        if heard == wanted {
            Ok(())
        } else {
            Err(format!("received the fields {heard:x?}, not {wanted:x?}"))
        }
    }

    /// Checks that it is this payload, with the name of its sender, and no other's.
    pub(crate) fn check_sender(&self, payload: &PayloadType) -> Result<(), String> {
        let sender = (payload.sender, protobuf::text(payload.sender, ATTACKER));
        let senders = self.payload.iter().filter(|field| field.0 == sender.0);
        if self.number == payload.number && senders.eq([&sender]) {
            Ok(())
        } else {
            Err(format!("received {self:x?}, not {}", payload.name))
        }
    }
}

/// Returns a presence payload with the value that says that its user is absent.
pub(crate) fn absent(payload: &PayloadType, kept: &[u8]) -> Result<Vec<u8>, String> {
    let is_kept = |field: &Field| payload.presence.is_none_or(|it| it.number != field.0);
    let others = fields(kept)?.into_iter().filter(is_kept);
    let others: Vec<_> = others.map(|(_, bytes)| bytes).collect();
    Ok([others.concat(), payload.absent()].concat())
}

/// Sorts fields by their number; those of one number keep their order.
fn by_number(mut fields: Vec<Field>) -> Vec<Field> {
    fields.sort_by_key(|(number, _)| *number);
    fields
}

/// Splits a message into its fields.
fn fields(mut bytes: &[u8]) -> Result<Vec<Field>, String> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let before = bytes;
        let number = skip_field(&mut bytes).ok_or_else(|| format!("no message: {before:x?}"))?;
        fields.push((number, before[..before.len() - bytes.len()].to_vec()));
    }
    Ok(fields)
}

/// Removes a field, and returns its number.
fn skip_field(bytes: &mut &[u8]) -> Option<u32> {
    let key = varint(bytes)?;
    match u32::try_from(key & 7).ok()? {
        VARINT => drop(varint(bytes)?),
        FIXED64 => *bytes = bytes.get(8..)?,
        FIXED32 => *bytes = bytes.get(4..)?,
        DELIMITED => {
            let len = varint(bytes)?;
            *bytes = bytes.get(usize::try_from(len).ok()?..)?;
        }
        _ => return None,
    }
    u32::try_from(key >> 3).ok()
}

/// Returns a field's wire type and its value, without the length.
fn value_of(mut field: &[u8]) -> Option<(u32, Vec<u8>)> {
    let wire_type = u32::try_from(varint(&mut field)? & 7).ok()?;
    if wire_type == DELIMITED {
        varint(&mut field)?;
    }
    Some((wire_type, field.to_vec()))
}

/// Removes a varint, and returns it.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
