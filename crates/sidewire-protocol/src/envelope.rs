//! The relay's fields of an envelope: their numbers, which are the same in every schema, and
//! types to decode them with. All other fields belong to the application, and decoding skips them.

use crate::wire;

/// The numbers of the relay's fields.
pub mod number {
    /// The message id.
    pub const MESSAGE_ID: u32 = 1;
    /// The time in Unix seconds.
    pub const TIMESTAMP: u32 = 8;
    /// The position of an event.
    pub const POSITION: u32 = 9;
    /// The payload Subscribe.
    pub const SUBSCRIBE: u32 = 10;
    /// The payload SubscriptionConfirmed.
    pub const SUBSCRIPTION_CONFIRMED: u32 = 11;
    /// The payload Unsubscribe.
    pub const UNSUBSCRIBE: u32 = 12;
    /// The payload UnsubscribeConfirmed.
    pub const UNSUBSCRIBE_CONFIRMED: u32 = 13;
    /// The payload Ping.
    pub const PING: u32 = 14;
    /// The payload Pong.
    pub const PONG: u32 = 15;
    /// The payload ErrorResponse.
    pub const ERROR: u32 = 16;
    /// A batch of envelopes.
    pub const BATCH: u32 = 17;
    /// Further topics of an event, in what a backend posts.
    pub const TOPICS: u32 = 18;
    /// The payload Authenticate.
    pub const AUTHENTICATE: u32 = 19;
    /// The payload Authenticated.
    pub const AUTHENTICATED: u32 = 20;
}

/// The numbers of the fields of a position.
pub mod position_number {
    /// The epoch.
    pub const EPOCH: u32 = 1;
    /// The offset.
    pub const OFFSET: u32 = 2;
}

/// The keys of the fields that are written without a library: each is one byte, the field's
/// number and the wire type.
pub mod key {
    use prost::encoding::WireType;

    use super::{number, position_number};

    /// The message id.
    pub const MESSAGE_ID: u8 = one_byte(number::MESSAGE_ID, WireType::LengthDelimited);
    /// The time in Unix seconds.
    pub const TIMESTAMP: u8 = one_byte(number::TIMESTAMP, WireType::Varint);
    /// The position of an event.
    pub const POSITION: u8 = one_byte(number::POSITION, WireType::LengthDelimited);
    /// The field `epoch` of a position.
    pub const EPOCH: u8 = one_byte(position_number::EPOCH, WireType::LengthDelimited);
    /// The field `offset` of a position.
    pub const OFFSET: u8 = one_byte(position_number::OFFSET, WireType::Varint);

    #[expect(
        clippy::cast_possible_truncation,
        reason = "keys of numbers below 16 have one byte"
    )]
    const fn one_byte(number: u32, wire_type: WireType) -> u8 {
        assert!(number < 16);
        (number << 3) as u8 | wire_type as u8
    }
}

/// The relay's fields of an envelope.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    /// The message id, chosen by the sender.
    #[prost(string, tag = "1")]
    pub message_id: String,
    /// Unix seconds.
    #[prost(int64, tag = "8")]
    pub timestamp: i64,
    /// The event's position in its tenant's log; only stored events have one.
    #[prost(message, optional, tag = "9")]
    pub position: Option<wire::Position>,
    /// The control message; `None` if the envelope holds an event.
    #[prost(oneof = "ControlMessage", tags = "10, 11, 12, 13, 14, 15, 16, 19, 20")]
    pub control: Option<ControlMessage>,
}

/// A control message, with the relay's fields only.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ControlMessage {
    /// Client to relay.
    #[prost(message, tag = "10")]
    Subscribe(wire::Subscribe),
    /// Relay to client.
    #[prost(message, tag = "11")]
    SubscriptionConfirmed(wire::SubscriptionConfirmed),
    /// Client to relay.
    #[prost(message, tag = "12")]
    Unsubscribe(wire::Unsubscribe),
    /// Relay to client.
    #[prost(message, tag = "13")]
    UnsubscribeConfirmed(wire::UnsubscribeConfirmed),
    /// Client to relay.
    #[prost(message, tag = "14")]
    Ping(wire::Ping),
    /// Relay to client.
    #[prost(message, tag = "15")]
    Pong(wire::Pong),
    /// Relay to client.
    #[prost(message, tag = "16")]
    Error(wire::ErrorResponse),
    /// Client to relay.
    #[prost(message, tag = "19")]
    Authenticate(wire::Authenticate),
    /// Relay to client.
    #[prost(message, tag = "20")]
    Authenticated(wire::Authenticated),
}

/// An envelope that is decoded only for its message id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OnlyMessageId {
    /// The message id.
    #[prost(string, tag = "1")]
    pub message_id: String,
}

/// A Subscribe that is decoded only for the position to resume from.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OnlyResumeFrom {
    /// The position, if the client resumes.
    #[prost(message, optional, tag = "17")]
    pub resume_from: Option<wire::Position>,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_ping_is_encoded_byte_for_byte() {
        let ping = Envelope {
            message_id: "m1".to_owned(),
            timestamp: 5,
            position: None,
            control: Some(ControlMessage::Ping(wire::Ping { timestamp: 7 })),
        };
        let bytes = [
            0x0a, 2, b'm', b'1', // 1: message_id
            0x40, 5, // 8: timestamp
            0x72, 2, 0x08, 7, // 14: ping { 1: timestamp }
        ];
        assert_eq!(ping.encode_to_vec(), bytes);
    }

    #[test]
    fn a_token_is_not_shown_in_debug_output() {
        let token = "canary".to_owned();
        let control = ControlMessage::Authenticate(wire::Authenticate { token });
        assert_eq!(format!("{control:?}"), "Authenticate(Authenticate(…))");
    }

    #[test]
    fn an_events_payload_is_skipped() {
        let bytes = [
            0x12, 3, 1, 2, 3, // 2: a payload that is not looked into
            0x0a, 1, b'e', // 1: message_id
            0x4a, 5, 0x0a, 1, b'x', 0x10, 9, // 9: position
        ];
        let event = Envelope::decode(&bytes[..]).unwrap();
        let position = wire::Position {
            epoch: "x".to_owned(),
            offset: 9,
        };
        assert_eq!(
            (event.message_id.as_str(), event.position, event.control),
            ("e", Some(position), None)
        );
    }

    #[test]
    fn a_schemas_own_lists_are_skipped() {
        let bytes = [
            0x5a, 10, // 11: subscription_confirmed
            0x0a, 1, b'p', // 1: the schema's
            0x9a, 1, 1, b'r', // 19: request_message_id
            0xa0, 1, 0, // 20: replayed
        ];
        let Some(ControlMessage::SubscriptionConfirmed(confirmed)) =
            Envelope::decode(&bytes[..]).unwrap().control
        else {
            panic!("no confirmation");
        };
        assert_eq!(confirmed.request_message_id, "r");
    }
}
