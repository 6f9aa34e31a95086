//! The control messages that the relay sends, and their encoding.

use std::time::Duration;

use bytes::BufMut;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};

use super::{ErrorCode, wire};
use crate::{
    envelope::number,
    shorten::{ANSWER_BYTES_MAX, truncate_text},
};

/// The ids in one of the schema's own lists, in a Subscribe or Unsubscribe and in its
/// confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedIds {
    /// The list's field number, 1 to 15.
    pub number: u32,
    /// The ids, in order, without duplicates.
    pub ids: Vec<String>,
}

/// A control message from the relay.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The answer to Subscribe.
    SubscriptionConfirmed {
        /// The schema's lists.
        lists: Vec<ListedIds>,
        /// The relay's fields.
        fields: wire::SubscriptionConfirmed,
    },
    /// The answer to Unsubscribe.
    UnsubscribeConfirmed {
        /// The schema's lists.
        lists: Vec<ListedIds>,
        /// The relay's fields.
        fields: wire::UnsubscribeConfirmed,
    },
    /// The answer to Ping.
    Pong(wire::Pong),
    /// The answer to Authenticate.
    Authenticated(wire::Authenticated),
    /// The answer to a message that was refused.
    Error(MessageRefusal),
}

/// The refusal of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRefusal {
    /// The error code.
    pub code: ErrorCode,
    /// The description for people.
    pub message: String,
    /// The id of the refused message; empty if it is not known.
    pub request_message_id: String,
    /// The path of the field at fault, if there is one.
    pub field: Option<String>,
    /// Delay after which to retry, if a retry can succeed.
    pub retry_after: Option<Duration>,
}

impl MessageRefusal {
    /// Creates a refusal with nothing but a code and a description.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            request_message_id: String::new(),
            field: None,
            retry_after: None,
        }
    }

    /// Creates the refusal of a malformed field.
    #[must_use]
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.to_owned()),
            ..Self::new(ErrorCode::ValidationError, message)
        }
    }

    /// Sets the id of the refused message.
    #[must_use]
    pub fn for_message(mut self, message_id: &str) -> Self {
        message_id.clone_into(&mut self.request_message_id);
        self
    }
}

impl From<&MessageRefusal> for wire::ErrorResponse {
    fn from(refusal: &MessageRefusal) -> Self {
        Self {
            error_code: refusal.code.to_string(),
            error_message: truncate_text(refusal.message.as_str(), ANSWER_BYTES_MAX),
            request_message_id: refusal.request_message_id.clone(),
            field_name: refusal
                .field
                .as_deref()
                .map(|field| truncate_text(field, ANSWER_BYTES_MAX)),
            retry_after_ms: refusal
                .retry_after
                .map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl Reply {
    /// Returns the encoded envelope, with a `timestamp` in Unix seconds.
    #[must_use]
    pub fn to_envelope(&self, message_id: &str, timestamp: i64) -> Vec<u8> {
        let mut envelope = Vec::new();
        put_bytes(number::MESSAGE_ID, message_id.as_bytes(), &mut envelope);
        encode_key(number::TIMESTAMP, WireType::Varint, &mut envelope);
        encode_varint(timestamp.cast_unsigned(), &mut envelope);
        let (number, payload) = self.encode_payload();
        put_bytes(number, &payload, &mut envelope);
        envelope
    }

    fn encode_payload(&self) -> (u32, Vec<u8>) {
        match self {
            Self::SubscriptionConfirmed { lists, fields } => (
                number::SUBSCRIPTION_CONFIRMED,
                with_lists(lists, &fields.encode_to_vec()),
            ),
            Self::UnsubscribeConfirmed { lists, fields } => (
                number::UNSUBSCRIBE_CONFIRMED,
                with_lists(lists, &fields.encode_to_vec()),
            ),
            Self::Pong(pong) => (number::PONG, pong.encode_to_vec()),
            Self::Authenticated(fields) => (number::AUTHENTICATED, fields.encode_to_vec()),
            Self::Error(refusal) => (
                number::ERROR,
                wire::ErrorResponse::from(refusal).encode_to_vec(),
            ),
        }
    }
}

/// Returns a confirmation: the schema's fields, which have the lower numbers, then the relay's.
fn with_lists(lists: &[ListedIds], relay_fields: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    for list in lists {
        for id in &list.ids {
            put_bytes(list.number, id.as_bytes(), &mut payload);
        }
    }
    payload.extend_from_slice(relay_fields);
    payload
}

fn put_bytes(number: u32, bytes: &[u8], buffer: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, buffer);
    encode_varint(bytes.len() as u64, buffer);
    buffer.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Golden bytes: the id `m`, the timestamp 1, then the payload.
    fn assert_golden(reply: &Reply, payload: &str) {
        let expected = format!("0a016d4001{}", payload.replace([' ', '\n'], ""));
        assert_eq!(hex(&reply.to_envelope("m", 1)), expected);
    }

    #[test]
    fn subscription_confirmed_has_the_schema_lists_and_the_relay_fields() {
        let reply = Reply::SubscriptionConfirmed {
            lists: vec![
                ListedIds {
                    number: 1,
                    ids: vec!["p".into(), "q".into()],
                },
                ListedIds {
                    number: 3,
                    ids: vec!["w".into()],
                },
            ],
            fields: wire::SubscriptionConfirmed {
                topics: vec!["a:1".into()],
                position: Some(wire::Position {
                    epoch: "e".into(),
                    offset: 300,
                }),
                recovered: true,
                request_message_id: "r".into(),
                replayed: 2,
            },
        };
        assert_golden(
            &reply,
            "5a 22 \
             0a 01 70 0a 01 71 1a 01 77 \
             82 01 03 61 3a 31 \
             8a 01 06 0a 01 65 10 ac 02 \
             90 01 01 \
             9a 01 01 72 \
             a0 01 02",
        );
    }

    #[test]
    fn the_confirmation_of_an_empty_subscription_has_a_position() {
        let reply = Reply::SubscriptionConfirmed {
            lists: Vec::new(),
            fields: wire::SubscriptionConfirmed {
                position: Some(wire::Position {
                    epoch: "e".into(),
                    offset: 0,
                }),
                ..Default::default()
            },
        };
        assert_golden(&reply, "5a 06 8a 01 03 0a 01 65");
    }

    #[test]
    fn unsubscribe_confirmed_has_lists_topics_and_the_request() {
        let reply = Reply::UnsubscribeConfirmed {
            lists: vec![ListedIds {
                number: 2,
                ids: vec!["s".into()],
            }],
            fields: wire::UnsubscribeConfirmed {
                topics: vec!["a:1".into()],
                request_message_id: "r".into(),
            },
        };
        assert_golden(&reply, "6a 0d 12 01 73 82 01 03 61 3a 31 9a 01 01 72");
    }

    #[test]
    fn pong_has_the_times_of_the_relay_and_of_the_client() {
        let reply = Reply::Pong(wire::Pong {
            timestamp: 5,
            client_timestamp: -1,
            position: None,
        });
        assert_golden(&reply, "7a 0d 08 05 10 ff ff ff ff ff ff ff ff ff 01");
    }

    #[test]
    fn authenticated_has_the_expiry_the_revoked_topics_and_the_request() {
        let reply = Reply::Authenticated(wire::Authenticated {
            expires_at: 300,
            revoked_topics: vec!["a:1".into(), "b:*".into()],
            request_message_id: "r".into(),
        });
        assert_golden(
            &reply,
            "a2 01 10 08 ac 02 12 03 61 3a 31 12 03 62 3a 2a 1a 01 72",
        );
    }

    #[test]
    fn authenticated_has_no_expiry_if_the_token_has_no_end() {
        let reply = Reply::Authenticated(wire::Authenticated {
            request_message_id: "r".into(),
            ..Default::default()
        });
        assert_golden(&reply, "a2 01 03 1a 01 72");
    }

    #[test]
    fn an_error_does_not_repeat_more_than_a_kilobyte_of_what_the_client_sent() {
        let long = "x".repeat(30_000);
        let error = wire::ErrorResponse::from(&MessageRefusal::invalid(&long, long.as_str()));
        assert!(error.error_message.len() <= 1000, "{error:?}");
        assert!(error.field_name.unwrap().len() <= 1000);
    }

    #[test]
    fn an_error_has_its_optional_fields_if_they_are_known() {
        let bare = MessageRefusal::new(ErrorCode::Conflict, "m");
        assert_golden(
            &Reply::Error(bare.clone()),
            "82 01 0d 0a 08 43 4f 4e 46 4c 49 43 54 12 01 6d",
        );
        let full = MessageRefusal {
            field: Some("f".into()),
            retry_after: Some(Duration::ZERO),
            ..bare.for_message("r")
        };
        assert_golden(
            &Reply::Error(full),
            "82 01 15 0a 08 43 4f 4e 46 4c 49 43 54 12 01 6d 1a 01 72 22 01 66 28 00",
        );
    }
}
