//! Protobuf's wire format, written by hand so that it can also be wrong, and a reader for
//! the relay's envelopes.

use prost::Message;
use sidewire_protocol::wire::{
    ErrorResponse, Pong, Position, SubscriptionConfirmed, UnsubscribeConfirmed,
};

/// Wire types.
pub(crate) const VARINT: u32 = 0;
pub(crate) const FIXED64: u32 = 1;
pub(crate) const DELIMITED: u32 = 2;
pub(crate) const GROUP: u32 = 3;
pub(crate) const GROUP_END: u32 = 4;
pub(crate) const FIXED32: u32 = 5;

pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}

pub(crate) fn key(number: u32, wire_type: u32) -> Vec<u8> {
    varint(u64::from(number) << 3 | u64::from(wire_type))
}

pub(crate) fn number(number: u32, value: u64) -> Vec<u8> {
    [key(number, VARINT), varint(value)].concat()
}

pub(crate) fn bytes(number: u32, value: &[u8]) -> Vec<u8> {
    [
        &key(number, DELIMITED)[..],
        &varint(value.len() as u64),
        value,
    ]
    .concat()
}

pub(crate) fn text(number: u32, value: &str) -> Vec<u8> {
    bytes(number, value.as_bytes())
}

/// Returns field `number` nested in itself, this many levels deep.
pub(crate) fn nested(number: u32, levels: usize) -> Vec<u8> {
    let mut inner = Vec::new();
    for _ in 0..levels {
        inner = bytes(number, &inner);
    }
    inner
}

/// An envelope from the relay.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    #[prost(string, tag = "1")]
    pub(crate) message_id: String,
    #[prost(int64, tag = "8")]
    pub(crate) timestamp: i64,
    #[prost(message, optional, tag = "9")]
    pub(crate) position: Option<Position>,
    #[prost(message, optional, tag = "11")]
    pub(crate) subscribed: Option<SubscriptionConfirmed>,
    #[prost(message, optional, tag = "13")]
    pub(crate) unsubscribed: Option<UnsubscribeConfirmed>,
    #[prost(message, optional, tag = "15")]
    pub(crate) pong: Option<Pong>,
    #[prost(message, optional, tag = "16")]
    pub(crate) error: Option<ErrorResponse>,
}
