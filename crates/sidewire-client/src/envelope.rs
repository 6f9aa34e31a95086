//! The relay's fields of an envelope, with their fixed numbers. All other fields
//! belong to the application, and decoding skips them.

use sidewire_protocol::wire;

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
    #[prost(oneof = "ControlMessage", tags = "10, 11, 12, 13, 14, 15, 16")]
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
