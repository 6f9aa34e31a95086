//! Protobuf's wire format, written by hand so that it can also be wrong, and the fields of the
//! relay in an envelope.

use prost::Message;
use sidewire_protocol::wire::{
    Authenticate, Authenticated, ErrorResponse, Ping, Pong, Position, Subscribe,
    SubscriptionConfirmed, Unsubscribe, UnsubscribeConfirmed,
};

/// The wire type of a varint.
pub const VARINT: u32 = 0;
/// The wire type of 8 bytes.
pub const FIXED64: u32 = 1;
/// The wire type of bytes with a length.
pub const DELIMITED: u32 = 2;
/// The wire type that begins a group.
pub const GROUP: u32 = 3;
/// The wire type that ends a group.
pub const GROUP_END: u32 = 4;
/// The wire type of 4 bytes.
pub const FIXED32: u32 = 5;

/// Encodes a number.
#[must_use]
pub fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}

/// Returns the key of a field.
#[must_use]
pub fn key(number: u32, wire_type: u32) -> Vec<u8> {
    varint(u64::from(number) << 3 | u64::from(wire_type))
}

/// Returns a field with a number.
#[must_use]
pub fn number(number: u32, value: u64) -> Vec<u8> {
    [key(number, VARINT), varint(value)].concat()
}

/// Returns a field with bytes, or with a message.
#[must_use]
pub fn bytes(number: u32, value: &[u8]) -> Vec<u8> {
    [
        &key(number, DELIMITED)[..],
        &varint(value.len() as u64),
        value,
    ]
    .concat()
}

/// Returns a field with text.
#[must_use]
pub fn text(number: u32, value: &str) -> Vec<u8> {
    bytes(number, value.as_bytes())
}

/// Returns field `number` nested in itself, this many levels deep.
#[must_use]
pub fn nested(number: u32, levels: usize) -> Vec<u8> {
    let mut inner = Vec::new();
    for _ in 0..levels {
        inner = bytes(number, &inner);
    }
    inner
}

/// An envelope with the fields of the relay's protocol.
#[derive(Clone, PartialEq, Message)]
pub struct Envelope {
    /// The message id.
    #[prost(string, tag = "1")]
    pub message_id: String,
    /// Unix seconds.
    #[prost(int64, tag = "8")]
    pub timestamp: i64,
    /// The position of an event.
    #[prost(message, optional, tag = "9")]
    pub position: Option<Position>,
    /// A control message.
    #[prost(message, optional, tag = "10")]
    pub subscribe: Option<Subscribe>,
    /// Its answer.
    #[prost(message, optional, tag = "11")]
    pub subscribed: Option<SubscriptionConfirmed>,
    /// A control message.
    #[prost(message, optional, tag = "12")]
    pub unsubscribe: Option<Unsubscribe>,
    /// Its answer.
    #[prost(message, optional, tag = "13")]
    pub unsubscribed: Option<UnsubscribeConfirmed>,
    /// A control message.
    #[prost(message, optional, tag = "14")]
    pub ping: Option<Ping>,
    /// Its answer.
    #[prost(message, optional, tag = "15")]
    pub pong: Option<Pong>,
    /// A refusal.
    #[prost(message, optional, tag = "16")]
    pub error: Option<ErrorResponse>,
    /// A control message.
    #[prost(message, optional, tag = "19")]
    pub authenticate: Option<Authenticate>,
    /// Its answer.
    #[prost(message, optional, tag = "20")]
    pub authenticated: Option<Authenticated>,
    /// Bytes of an application, which no schema knows.
    #[prost(bytes = "vec", tag = "100")]
    pub filler: Vec<u8>,
}
